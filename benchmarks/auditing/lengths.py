"""What `--new` makes of texts and tunes that are shorter or longer than those it was calibrated on, and of what goes on from something given.

The corpora of passages.py. Training pieces stand for copies: whole, and of at most a half, a quarter and a tenth of the tokens of a usual
one; before one and before three test pieces; as what follows when their first half is given. Test pieces stand for what is new: the same parts;
two and four in a row; as what follows when the first half of a training piece is given. Parts are judged beside whole held-out pieces, and
(`asked_...`) beside such of their own length, as where `--length` or `--bars` asks for them. `..._copy` is the share that is called a copy and
drawn again, `..._told` copy or close. `calibrate_seconds` and `piece_seconds` are of the processor.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from auditing.passages import KINDS, PLANTED, shares
from results import spread

from maquette import catalog
from maquette.verbs import passages

PARTS = {"half": 0.5, "quarter": 0.25, "tenth": 0.1}
TESTED = 200


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, _) in KINDS.items():
            rows = [one(make(Path(folder) / f"{name}-{seed}", seed)) for seed in seeds]
            found[name] = {key: spread([row[key] for row in rows]) for key in rows[0]}
    return {"lengths": found}


def one(corpus: Any) -> dict[str, float]:
    modality = catalog.modality(corpus.facts["modality"])
    known, test = (cut_to_size(corpus, split, most) for split, most in (("train", PLANTED), ("test", TESTED)))
    voices = getattr(modality, "voices", 0) or 1
    begun = time.process_time()
    beside = passages.calibrate(corpus, modality)
    ready = time.process_time()

    def first(rows: list[np.ndarray], n: int) -> list[np.ndarray]:
        return [row[:n] for row in rows]

    def told(rows: list[np.ndarray], given: list[np.ndarray] | None = None, beside: Any = beside) -> list[Any]:
        traces, apart = traced(rows), traced(given) if given else [None] * len(rows)
        return [beside.verdicts(beside.near([t], g))[0] for t, g in zip(traces, apart, strict=True)]

    def traced(rows: list[np.ndarray]) -> list[Any]:
        return [modality.traces(modality.to_piece(torch.from_numpy(row))) for row in rows]

    usual = np.median([len(row) for row in known])
    sizes = {word: int(usual * part) // voices * voices for word, part in PARTS.items()}
    asked = {word: passages.calibrate(corpus, modality, n) for word, n in sizes.items()}
    halves = [row[: len(row) // 2 // voices * voices] for row in known]
    others = [np.concatenate([a, b[len(b) // 2 // voices * voices :]]) for a, b in zip(halves, test, strict=False)]
    kinds = {
        "two_tests": told([np.concatenate(test[k : k + 2]) for k in range(0, len(test) - 1, 2)]),
        "four_tests": told([np.concatenate(test[k : k + 4]) for k in range(0, len(test) - 3, 4)]),
        "train_and_test": told([np.concatenate(both) for both in zip(known, test, strict=False)]),
        "train_and_three_tests": told([np.concatenate([row, *test[k : k + 3]]) for k, row in enumerate(known)]),
        "given_half_then_train": told(known, halves),
        "given_half_then_test": told(others, halves[: len(others)]),
    }
    for split, rows in (("train", known), ("test", test)):
        kinds[split] = told(rows)
        for word, n in sizes.items():
            kinds[f"{split}_{word}"] = told(first(rows, n))
            kinds[f"asked_{split}_{word}"] = told(first(rows, n), beside=asked[word])
    judged = sum(map(len, kinds.values()))
    seconds = {"calibrate_seconds": ready - begun, "piece_seconds": (time.process_time() - ready) / judged}
    found = [shares(kind, verdicts) for kind, verdicts in kinds.items()]
    return {"train_pieces": float(corpus.size("train")), **seconds, **{k: v for row in found for k, v in row.items()}}


def cut_to_size(corpus: Any, split: str, most: int) -> list[np.ndarray]:
    """The tokens (n,) of pieces without their end, of no more than a model writes at once."""
    length = corpus.spec.space.shape[0]
    rows = [corpus.take(np.array([i])).x[0].numpy() for i in passages.spread(corpus.numbers(split), most)]
    return [row[row != corpus.spec.space.end][:length] for row in rows]


if __name__ == "__main__":
    print(measure([0]))
