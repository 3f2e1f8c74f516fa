"""gating: the gates of a policy judged on the findings of an audit, said aloud and written into its audit.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from maquette import files
from maquette.finding import Finding
from maquette.guard.policy import Policy


def gated(policy: Policy, findings: Iterable[Finding], folder: Path, say: Callable[[str], object] = print) -> bool:
    """Whether every gate holds. Raises UnknownName where a gate names no finding of this audit."""
    findings = list(findings)
    judged = [gate.judge(findings) for gate in policy.gates]
    path = folder / "audit.json"
    files.write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"gates": judged})
    for one in judged:
        say(f"gate: {one['finding']} ({one['space']}) is {one['value']:.4g}: {'holds' if one['passed'] else 'FAILS'}")
    return all(one["passed"] for one in judged)
