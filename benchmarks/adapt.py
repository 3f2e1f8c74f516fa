"""Learning without labels and adapting: what pretext features, starts, LoRA and feedback are worth. One part of the table each.

    python benchmarks/adapt.py                          # all parts, three seeds, writes benchmarks/results/adapt.json
    python benchmarks/adapt.py --only starts --seeds 0  # one part; parts measured before stay as they are

Each part is a file in benchmarks/adapting/ with `measure(seeds) -> figures`; figures over seeds are {"mean", "low", "high", "by_seed"}.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import importlib
from pathlib import Path

from results import update

PARTS = sorted(p.stem for p in (Path(__file__).parent / "adapting").glob("[a-z]*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dry", action="store_true", help="print and do not write")
    args = parser.parse_args()
    for part in args.only:
        figures = importlib.import_module(f"adapting.{part}").measure(args.seeds)
        if args.dry:
            print(figures)
        else:
            update("adapt", {**figures, "seeds": args.seeds}, args.seeds[0])


if __name__ == "__main__":
    main()
