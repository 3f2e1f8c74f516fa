"""tinyshakespeare, nats per character: ours against nanoGPT's CPU configuration, for the same process time on one thread.

    python benchmarks/text.py                      # all rows, writes benchmarks/results/text.json
    python benchmarks/text.py --nanogpt PATH       # besides, the original from a checkout

nanoGPT's split (first 90 % train, the rest validation). Each model is judged on the whole validation split in windows that slide by half of its own
context, every character once. Seconds are process time of one thread, training alone. The gate of the blend is learnt on one half of the
validation split and judged on the other, and the other way round; the figure is the mean.
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
from peers import nanogpt
from results import data, update

from maquette import catalog
from maquette.corpus import Corpus
from maquette.likelihood import piece_nats
from maquette.loop import loop, make_plan, seed_everything
from maquette.nets.blend import mixed
from maquette.partners import Partners
from maquette.ragged import Ragged
from maquette.recipe import make_recipe, settle
from maquette.space import DataSpec, Model, Space
from maquette.verbs.drive import Budget
from maquette.writing import RaggedWriter

SEED = 0
QUICK = {
    "context": 64,
    "model": {"layers": 3},
    "train": {"batch_size": 8},
}  # where there are seconds only: many small steps


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
    counts = dict.fromkeys(splits, 1)
    writer.finish(splits, None, {"spec": spec.to_json(), "counts": counts, "fingerprint": "-", "modality": {}})
    return Corpus.open(folder)


def trained(
    corpus: Corpus, seconds: float, settings: dict | None = None, train: dict | None = None
) -> tuple[Model, float]:
    """Our loop and defaults for some seconds of process time."""
    recipe = settle(
        make_recipe(
            {"model": "transformer", "seed": SEED, "models": {"transformer": settings or {}}, "train": train or {}}
        )
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


def blended(model: Model, corpus: Corpus) -> float:
    """Nats a character of the model with an n-gram beside it: the gate learns on one half of the validation split, the other is judged."""
    ngram = catalog.find("models", "ngram")(corpus.spec)
    ngram.conclude(lambda: corpus.once("train"))
    told, asked = [], []
    both = Partners(model, ngram)
    for batch, counted in corpus.sliding("validation"):
        told.append([part[counted] for part in both._told(batch)])
    features, log_p, log_q = (torch.cat(column) for column in zip(*told, strict=True))
    half = len(log_p) // 2
    for learn, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        both.gate.fit(features[learn], log_p[learn], log_q[learn])
        asked.append(-mixed(log_p[judge], log_q[judge], both.gate(features[judge])))
    return float(torch.cat(asked)[:-1].mean())


def ngram_alone(corpus: Corpus) -> float:
    model = catalog.find("models", "ngram")(corpus.spec)
    model.conclude(lambda: corpus.once("train"))
    return nats(model, corpus)  # type: ignore[arg-type]


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    learn, held = nanogpt.characters(data("tinyshakespeare", "input.txt"))
    peer, spent = nanogpt.train(learn)
    rows = {"nanoGPT's CPU configuration": (float(nanogpt.nats(peer, held).mean()), spent)}
    goal = rows["nanoGPT's CPU configuration"][0]
    print(f"nanoGPT: {goal:.4f} nats in {spent:.0f} s", flush=True)
    if args.nanogpt:
        rows["the original, by its own estimate"] = nanogpt.original(args.nanogpt, data("tinyshakespeare", "input.txt"))
    with tempfile.TemporaryDirectory() as folder:
        corpus = shakespeare(Path(folder) / "corpus", args.context)
        rows["n-gram (modified Kneser-Ney)"] = (ngram_alone(corpus), 0.0)
        share = None
        short = shakespeare(Path(folder) / "short", QUICK["context"])
        for part in args.parts:
            model, seconds = trained(short, spent / part, QUICK["model"], QUICK["train"])
            rows[f"ours, 1/{part} of the time"] = (nats(model, short), seconds)
            print(rows, flush=True)
            if rows[f"ours, 1/{part} of the time"][0] <= goal:
                share = seconds / spent
                break
        equal, seconds = trained(corpus, spent)
        rows["ours, equal time"] = (nats(equal, corpus), seconds)
        rows["ours with the n-gram, equal time"] = (blended(equal, corpus), seconds)
        print(rows, flush=True)
        longer, seconds = trained(corpus, 360.0)
        rows["ours, six minutes"] = (nats(longer, corpus), seconds)
        rows["ours with the n-gram, six minutes"] = (blended(longer, corpus), seconds)
    figures = {
        "time_share_to_nanogpt": None if share is None else round(share, 4),
        "val_at_equal_time": round(rows["ours, equal time"][0], 4),
        "blend_at_equal_time": round(rows["ours with the n-gram, equal time"][0], 4),
        "parameters": sum(p.numel() for p in equal.parameters()),
        "rows": {name: {"nats": round(v, 4), "seconds": round(s, 1)} for name, (v, s) in rows.items()},
    }
    update("text", figures, SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT, to run the original too")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument(
        "--parts", type=int, nargs="+", default=[16, 12, 10, 8, 6, 4], help="of nanoGPT's time, tried in turn"
    )
    main(parser.parse_args())
