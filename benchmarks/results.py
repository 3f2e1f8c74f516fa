"""Figures of a benchmark as benchmarks/results/<name>.json: command, seed, machine, date, figures."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maquette import files

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from data import data  # where real data lies: one function for tests and benchmarks

__all__ = ["command", "data", "machine", "spread", "today", "update"]
FOLDER = Path(__file__).parent / "results"


def update(
    name: str,
    figures: Mapping[str, Any],
    seed: int,
    summary: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda figures: {},
) -> Path:
    """Write the figures, and what follows from all of them; keys that an earlier run measured and this one did not are kept."""
    path = FOLDER / f"{name}.json"
    merged = _merged(files.read_json(path)["figures"] if path.is_file() else {}, figures)
    found = {
        "command": command(),
        "seed": seed,
        "machine": machine(),
        "date": today(),
        "figures": {**merged, **summary(merged)},
    }
    print(f"{path.name}: {dict(figures)}")
    return files.write_json(path, found)


def command() -> str:
    """What was typed."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(without_machine, sys.argv[1:])])


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def without_machine(word: str) -> str:
    """A word of a command with the folders of this machine left out.

    >>> without_machine("/somewhere/kept"), without_machine("--minutes")
    ('kept', '--minutes')
    """
    return Path(word).name if word.startswith("/") else word


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        k: _merged(old[k], v) for k, v in new.items() if isinstance(v, Mapping) and isinstance(old.get(k), Mapping)
    }
    return {**old, **new, **nested}


def machine() -> dict[str, Any]:
    """What decides how fast a figure comes; no names of hosts."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # above `cores`, clocks run slow
        "system": platform.system(),
        "python": platform.python_version(),
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Mean over seeds with a 95 % interval by Student's t."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return {"mean": round(mean, 4), "by_seed": [round(v, 4) for v in values]}
    deviation = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}.get(n, 1.96)
    reach = t * deviation / n**0.5
    return {
        "mean": round(mean, 4),
        "low": round(mean - reach, 4),
        "high": round(mean + reach, 4),
        "by_seed": [round(v, 4) for v in values],
    }
