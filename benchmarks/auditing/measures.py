"""The figures of the audit on content whose answer is known: their time, how often intervals hold the truth, and how far they
are from those of torchmetrics, prdc and vendi-score on the same features.

MNIST, without labels for the judge: a corpus of 10,000 training pictures and 2,000 held out.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from results import data
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import Untrained, judge_of
from maquette.metrics.fidelity import (
    extrapolated,
    extrapolated_interval,
    frechet_distance,
    frechet_interval,
    kid,
    kid_interval,
)
from maquette.space import DataSpec, Space
from maquette.verbs.audit import assess, embed
from maquette.writing import CorpusWriter

TRAIN, HELD, MADE = 10_000, 2_000, 2_000
SHOWN = 1_000  # pictures in which figures are compared
REPEATS = int(os.environ.get("REPEATS", 200))
FEATURES, PIECES = 8, 200  # of the Gaussians


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    with tempfile.TemporaryDirectory() as place:
        pictures, _ = mnist(seeds[0])
        corpus = corpus_of(Path(place) / "mnist", pictures[: TRAIN + HELD])
        pool = tensor(pictures[TRAIN + HELD : TRAIN + HELD + 8_000])
        found = seconds(corpus, pool[:MADE]) | agreement(corpus, pool)
    return found | {"interval_coverage": coverage(seeds[0])}


def mnist(seed: int) -> tuple[np.ndarray, Tensor]:
    """(N, 1, 28, 28) uint8 and (N,) of the train file, shuffled: there the digits of one writer follow each other."""

    def read(name: str, head: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((data("mnist") / name).read_bytes())[head:], np.uint8)

    pictures = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    order = np.random.default_rng(seed).permutation(len(pictures))
    return pictures[order], torch.from_numpy(read("train-labels-idx1-ubyte.gz", 8)[order])


def tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures.copy()).float() / 127.5 - 1


def corpus_of(folder: Path, pictures: np.ndarray) -> Corpus:
    """All but the last `HELD` to learn from, those held out."""
    folder.mkdir()
    space = Space("grid", (1, 28, 28))
    writer = CorpusWriter(folder, space, np.uint8)
    for i, row in enumerate(pictures):
        writer.add(row, json.dumps({"source": f"{i}.png"}).encode() + b"\n")
    writer.close()
    n = len(pictures)
    splits = {"train": np.arange(n - HELD), "validation": np.arange(0), "test": np.arange(n - HELD, n)}
    modality = {"name": "image", "settings": {}, "fitted": {"channels": 1, "height": 28, "width": 28}}
    counts = {k: len(v) for k, v in splits.items()}
    facts = {"name": "mnist", "fingerprint": "mnist", "spec": DataSpec(space).to_json(), "counts": counts}
    writer.finish(splits, None, {**facts, "modality": modality})
    return Corpus.open(folder)


def seconds(corpus: Corpus, made: Tensor) -> dict[str, Any]:
    """assess() of 2,000 pictures; the judge's training apart, since it is kept. The pages are not written."""
    started = time.perf_counter()
    judge = judge_of(corpus)
    judged = time.perf_counter()
    spent = time.process_time()
    assess(made, corpus, judge=judge, noun="pictures")
    return {
        "audit_seconds": round(time.perf_counter() - started, 1),
        "audit_seconds_of_judge": round(judged - started, 1),
        "audit_cpu_seconds_without_judge": round(time.process_time() - spent, 1),
    }


def agreement(corpus: Corpus, pool: Tensor) -> dict[str, Any]:
    """The largest relative difference between our figures and the libraries', in both spaces, of slightly blurred pictures."""
    from references import differences  # of tests/, as data.py is

    spaces = {"judge": judge_of(corpus).judge, "pixels": Untrained(corpus.spec.space)}
    made = embed(spaces, iter([blurred(pool[:SHOWN], 0.8)]))
    test = embed(spaces, iter([corpus.tensor("test", SHOWN).x]))
    apart = {f"{name} in {s}": d for s in spaces for name, d in differences(made[s].double(), test[s].double()).items()}
    return {"agreement": max(apart.values()), "agreement_by_figure": apart}


def blurred(x: Tensor, width: float) -> Tensor:
    """By a Gaussian of this many pixels."""
    if not width:
        return x
    kernel = torch.exp(-((torch.arange(15.0) - 7) ** 2) / (2 * width**2))
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(x, (7, 7, 7, 7), value=-1.0)
    rows = torch.nn.functional.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    return torch.nn.functional.conv2d(rows, kernel.reshape(1, 1, -1, 1))


def coverage(seed: int) -> dict[str, Any]:
    """How often 95% intervals hold the truth for Gaussians whose means lie 1 apart. KID and the extrapolated distance: the truth of endless
    samples (KID: the mean of the unbiased values). The plain Frechet distance: the mean at this number of pieces, all that is promised."""
    chance = torch.Generator().manual_seed(seed)
    pairs = [[torch.randn(PIECES, FEATURES, generator=chance).double() for _ in range(2)] for _ in range(REPEATS)]
    for a, _ in pairs:
        a[:, 0] += 1
    found: dict[str, Any] = {"repeats": REPEATS}
    kinds: dict[str, tuple[Callable, Callable, float | None]] = {
        "KID": (kid, kid_interval, None),
        "FD": (frechet_distance, frechet_interval, None),
        "FD, extrapolated": (extrapolated, extrapolated_interval, 1.0),
    }
    for name, (value, between, known) in kinds.items():
        truth = float(np.mean([value(a, b) for a, b in pairs])) if known is None else known
        held = [low <= truth <= high for low, high in (between(a, b, i) for i, (a, b) in enumerate(pairs))]
        found[name] = round(float(np.mean(held)), 4)
    return found
