"""The audit and the papers of a piece: what is found, what is missed, how long it takes. One part of the table each.

    python benchmarks/audit.py                          # all parts, three seeds, writes benchmarks/results/audit.json
    python benchmarks/audit.py --only provenance --seeds 0  # one part; parts measured before stay as they are

Each part is a file in benchmarks/auditing/ with `measure(seeds) -> figures`; figures over seeds are {"mean", "low", "high", "by_seed"}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from parts import main

CORPORA = ("mnist", "crawl_tiles", "poems", "chorales")


def worst(figures: Mapping[str, Any]) -> dict[str, float]:
    """Of planted copies over the corpora, once all of them are measured; the tiles with whole series held out."""
    found = figures.get("copying", {})
    if not all(name in found for name in CORPORA):
        return {}
    rows = [found[name] for name in CORPORA]
    return {
        "copies_exact_recall": min(row["exact_recall"] for row in rows),
        "copies_altered_recall": min(row["altered_recall"] for row in rows),
        "false_alarms": max(row["false_alarms"] for row in rows),
    }


if __name__ == "__main__":
    main("audit", "auditing", __doc__.splitlines()[0], worst)
