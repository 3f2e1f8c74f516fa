"""How long `prepare` takes: MNIST, the crawl tiles, and a million generated pictures and one long text in bounded memory.

python benchmarks/prepare.py [--only mnist,tiles,million,text]
Each corpus is made in a process of its own; seconds are of the clock, with imports; the ratio is
of CPU seconds, which other work on the machine disturbs less; memory is the highest resident set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import data, update

SEED = 0
TEXT = 200_000_000  # bytes of the long text
ONE = """
import json, resource, sys, time
from maquette.verbs.prepare import prepare
start, cpu = time.perf_counter(), time.process_time()
made = prepare(sys.argv[1], sys.argv[2], settings=json.loads(sys.argv[3]))
print(json.dumps({"pieces": len(made),
    "seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "cpu_with_imports": time.process_time(),
    "rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "duplicates": made.facts["duplicates"]}))
"""


def measure(source: Path, folder: Path, **settings: str) -> dict:
    """pieces, seconds, rss_gb of one prepare in a process of its own."""
    start = time.perf_counter()
    out = folder / f"corpus-{source.name}"
    command = [sys.executable, "-c", ONE, source, out, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {**json.loads(done.stdout), "with_imports": time.perf_counter() - start}
    print(source.name, found, flush=True)
    return found


def generate(path: Path, count: int) -> Path:
    """An idx file of 28x28 pictures: random cells of 4x4, all different, with labels beside."""
    chance = np.random.default_rng(SEED)
    with path.open("wb") as stream:
        stream.write(b"\0\0\x08\x03" + np.array([count, 28, 28], ">u4").tobytes())
        for start in range(0, count, 10_000):
            coarse = chance.integers(0, 256, (min(10_000, count - start), 7, 7), np.uint8)
            stream.write(coarse.repeat(4, 1).repeat(4, 2).tobytes())
    labels = chance.integers(0, 10, count, np.uint8).tobytes()
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    beside.write_bytes(b"\0\0\x08\x01" + np.array([count], ">u4").tobytes() + labels)
    return path


def clock(name: str, found: dict) -> dict:
    """Of the whole command: the clock, and the CPU, which tells how much of it other work on the machine took."""
    return {
        f"{name}_seconds": round(found["with_imports"], 2),
        f"{name}_cpu_seconds": round(found["cpu_with_imports"], 2),
    }


def million(folder: Path) -> dict:
    few = measure(generate(folder / "few-images-idx3-ubyte", 10_000), folder)
    many = measure(generate(folder / "many-images-idx3-ubyte", 1_000_000), folder)
    per_piece = [m["cpu"] / m["pieces"] for m in (few, many)]
    return {
        "million_rss_gb": round(many["rss_gb"], 3),
        "million_time_ratio": round(per_piece[1] / per_piece[0], 3),
        "million_seconds": round(many["seconds"], 1),
    }


def long_text(path: Path, size: int) -> Path:
    """The lines of tinyshakespeare in one order after the other, so that no passage comes twice."""
    lines = np.array((data("tinyshakespeare") / "input.txt").read_bytes().splitlines(keepends=True), object)
    chance = np.random.default_rng(SEED)
    with path.open("wb") as stream:
        while stream.tell() < size:
            stream.writelines(lines[chance.permutation(len(lines))])
        stream.truncate(size)
    return path


def text(folder: Path) -> dict:
    """A file of 200 MB, as bytes: of the whole command the clock, and the CPU."""
    source = long_text(folder / "long.txt", TEXT)
    found = measure(source, folder, tokens="bytes")
    return {
        "text_mb_per_second": round(TEXT / 1e6 / found["with_imports"], 2),
        "text_mb_per_cpu_second": round(TEXT / 1e6 / found["cpu_with_imports"], 2),
        "text_rss_gb": round(found["rss_gb"], 3),
        "text_near_twins": found["duplicates"]["near"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="mnist,tiles,million,text")
    chosen = parser.parse_args().only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder, figures = Path(name), {}
        if "mnist" in chosen:
            figures |= clock("mnist", measure(data("mnist") / "train-images-idx3-ubyte.gz", folder))
        if "tiles" in chosen:
            figures |= clock("tiles", measure(data("crawl_tiles"), folder))
        if "million" in chosen:
            figures |= million(folder)
        if "text" in chosen:
            figures |= text(folder)
        update("prepare", figures, SEED)


if __name__ == "__main__":
    main()
