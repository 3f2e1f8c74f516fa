"""A benchmark in parts: each is a file of a folder with `measure(seeds) -> figures`; it keeps which command measured which part."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from results import command, today, update

Summary = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def main(name: str, folder: str, words: str, summary: Summary = lambda figures: {}) -> None:
    """Parse the command line, run the parts of benchmarks/<folder>/ that were asked for, and write benchmarks/results/<name>.json.

    summary: figures of all parts -> what follows from several of them.
    """
    parts = sorted(p.stem for p in (Path(__file__).parent / folder).glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dry", action="store_true", help="print and do not write")
    args = parser.parse_args()
    for part in args.only:
        figures = importlib.import_module(f"{folder}.{part}").measure(args.seeds)
        if args.dry:
            print(figures)
        else:
            run = {"command": command(), "seeds": args.seeds, "date": today()}
            update(name, {**figures, "runs": {part: run}}, args.seeds[0], summary)
