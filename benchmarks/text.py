"""tinyshakespeare, nats per character: ours against nanoGPT's CPU configuration, for the same process time on one thread.

    python benchmarks/text.py                      # all rows, writes benchmarks/results/text.json
    python benchmarks/text.py --nanogpt PATH       # besides, the original from a checkout

nanoGPT's split (first 90 % train, the rest validation). Each model is judged on the whole validation split in windows that slide by half of its own
context, every character once. Seconds are process time of one thread, training alone. The blend's gate and nothing else is learnt on the first half of
the validation split; `blend` is then the mean over both halves, each judged by the gate of the other.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from results import data, update

from maquette import catalog
from maquette.corpus import Corpus, RaggedWriter, Ragged
from maquette.likelihood import piece_nats
from maquette.loop import loop, make_plan, seed_everything
from maquette.recipe import make_recipe, settle
from maquette.space import DataSpec, Model, Space
from maquette.verbs.drive import Budget

SEED = 0


def shakespeare(folder: Path, context: int) -> Corpus:
    """One piece for training, one for validation; characters as tokens 1 ..., the end 0 (asked for once a piece)."""
    text = data("tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    known = {c: i + 1 for i, c in enumerate(sorted(set(text)))}
    ids = np.array([known[c] for c in text], np.uint16)
    cut = int(0.9 * len(ids))
    folder.mkdir(parents=True)
    writer = RaggedWriter(folder, np.uint16)
    for part in (ids[:cut], ids[cut:], ids[cut:]):
        writer.add(part, b"{}\n")
    space = Space("tokens", (context,), len(known) + 1, end=0)
    stored: Ragged = writer.close()
    writer.tokens(stored, lambda x: x, space)
    splits = {name: np.array([i]) for i, name in enumerate(("train", "validation", "test"))}
    spec = DataSpec(space, None, "categorical", cut + 1)
    counts = {name: 1 for name in splits}
    writer.finish(splits, None, {"spec": spec.to_json(), "counts": counts, "fingerprint": "-", "modality": {}})
    return Corpus.open(folder)


def trained(corpus: Corpus, seconds: float, settings: dict, train: dict) -> tuple[Model, float]:
    """Our loop and defaults for some seconds of process time."""
    recipe = settle(
        make_recipe({"model": "transformer", "seed": SEED, "models": {"transformer": settings}, "train": train})
    )
    seed_everything(SEED, -1, 0)
    model = catalog.find("models", "transformer")(corpus.spec, **recipe.models["transformer"])
    plan = make_plan(model, {**recipe.train, "seed": SEED, "threads": 1, "device": "cpu"})
    budget = Budget(seconds / 60, clock=time.process_time)
    start = time.process_time()
    for now in loop(model, partial(corpus.batches, plan.batch_size, SEED), plan):
        budget.freeze(now)
    return now.averaged, time.process_time() - start


def nats(model: Model, corpus: Corpus) -> float:
    """Per character of the validation split (its end left out)."""
    _, found = piece_nats(model, corpus, "validation")
    return float(found.sum()) / (corpus.tokens_of("validation") - 1)
