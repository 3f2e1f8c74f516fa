"""Learning without labels and adapting: what pretext features, starts, LoRA and feedback are worth. One part of the table each.

    python benchmarks/adapt.py                          # all parts, three seeds, writes benchmarks/results/adapt.json
    python benchmarks/adapt.py --only starts --seeds 0  # one part; parts measured before stay as they are

Each part is a file in benchmarks/adapting/ with `measure(seeds) -> figures`; figures over seeds are {"mean", "low", "high", "by_seed"}.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from parts import main

if __name__ == "__main__":
    main("adapt", "adapting", __doc__.splitlines()[0])
