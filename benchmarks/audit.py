"""The audit and the papers of a piece: what is found, what is missed, how long it takes. One part of the table each.

    python benchmarks/audit.py                          # all parts, three seeds, writes benchmarks/results/audit.json
    python benchmarks/audit.py --only provenance --seeds 0  # one part; parts measured before stay as they are

Each part is a file in benchmarks/auditing/ with `measure(seeds) -> figures`; figures over seeds are {"mean", "low", "high", "by_seed"}.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from parts import main

if __name__ == "__main__":
    main("audit", "auditing", __doc__.splitlines()[0])
