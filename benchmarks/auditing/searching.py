"""The search for nearest training pieces among 10,000, 100,000 and 1,000,000 vectors: time, how it grows, whether it is exact.

200 queries of 128 numbers; the vectors come in blocks, as a corpus streams, and only the search is timed. Growth: the slope of the line through log
time over log number, where 1 is proportional; n log n is about 1.1 over this range.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor

from maquette.neighbours import Several

SIZES, WIDTH, QUERIES, NEAREST, BLOCK = (10_000, 100_000, 1_000_000), 128, 200, 10, 2_000
CHECKED = 10  # queries beside a search in double precision


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    queries = block(seeds[0], -1)[:QUERIES]
    spent, recall = {}, {}
    for size in SIZES:
        several, seconds = Several(queries, NEAREST), 0.0
        exact = torch.full((CHECKED, 0), 0.0, dtype=torch.float64)
        for k in range(size // BLOCK):
            rows, numbers = block(seeds[0], k), torch.arange(k * BLOCK, (k + 1) * BLOCK)
            started = time.process_time()
            several.see(rows, numbers)
            seconds += time.process_time() - started
            both = torch.cat([exact, torch.cdist(queries[:CHECKED].double(), rows.double())], 1)
            exact = both.topk(NEAREST, largest=False).values
        spent[str(size)] = round(seconds, 3)
        right = several.distance[:CHECKED].double() <= exact[:, -1:] * (1 + 1e-6)
        recall[str(size)] = round(float(right.double().mean()), 4)
    exponent = np.polyfit(np.log(SIZES), np.log(list(spent.values())), 1)[0]
    return {
        "search_exponent": round(float(exponent), 3),
        "search_recall": min(recall.values()),
        "search_cpu_seconds": spent,
        "search_queries": QUERIES,
    }


def block(seed: int, k: int) -> Tensor:
    return torch.randn(BLOCK, WIDTH, generator=torch.Generator().manual_seed(seed * 1_000_003 + k + 1))
