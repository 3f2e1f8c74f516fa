"""The audit and the papers of a piece: what is found, what is missed, how long it takes. One part of the table each.

    python benchmarks/audit.py                          # all parts, three seeds, writes benchmarks/results/audit.json
    python benchmarks/audit.py --only provenance --seeds 0  # one part; parts measured before stay as they are

Each part is a file in benchmarks/auditing/ with `measure(seeds) -> figures`; figures over seeds are {"mean", "low", "high", "by_seed"}.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import importlib
from pathlib import Path

from results import update

PARTS = sorted(p.stem for p in (Path(__file__).parent / "auditing").glob("[a-z]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dry", action="store_true", help="print and do not write")
    args = parser.parse_args()
    for part in args.only:
        figures = importlib.import_module(f"auditing.{part}").measure(args.seeds)
        if args.dry:
            print(figures)
        else:
            update("audit", {**figures, "seeds": args.seeds}, args.seeds[0])


if __name__ == "__main__":
    main()
