"""Bach's chorales, exact nats on the test split by two protocols, each for `--minutes` of process time on one thread.

    python benchmarks/chorales.py                          # both, writes benchmarks/results/chorales.json
    python benchmarks/chorales.py --only quarter --against validation --minutes 3      # how settings are tuned: the test split is not read

quarter    the official split of 229 / 76 / 77 pieces in frames of a quarter note: nats a frame, the chain rule over its notes from high to low and
           then its end, each distribution normalised over what may follow (strictly lower pitches or the end); the end of the piece is not counted.
           Means over all frames of all 77 pieces (official77) and of the 49 whose tune is not in training (clean49).
sixteenth  the same pieces as four voices in steps of a 16th, soprano first, -1 as a rest: nats a note (a voice-step) and a step, chronological.

The model is told by how many semitones a training piece was moved; at the test this is 0. Each piece is read in windows that slide by half.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from results import data, update

from maquette import catalog
from maquette.condition import Condition
from maquette.corpus import Corpus
from maquette.loop import loop, make_plan, seed_everything
from maquette.modalities.music import Music
from maquette.recipe import make_recipe, settle
from maquette.scores import layout
from maquette.space import Batch, DataSpec, Model
from maquette.verbs.drive import Budget
from maquette.writing import RaggedWriter

SEED = 0
PROTOCOLS = {
    "quarter": ("jsb-chorales-quarter.json", {"grid": 1, "voices": 0, "holds": False, "context": 320}),
    "sixteenth": ("Jsb16thSeparated.json", {"grid": 4, "voices": 4, "holds": False, "context": 256}),
}
NAMES = {"train": "train", "valid": "validation", "test": "test"}


def chorales(protocol: str, folder: Path, **changes: object) -> tuple[Corpus, Music]:
    """The official split as a corpus; the only condition is `shift`."""
    name, settings = PROTOCOLS[protocol]
    music = Music(**{**settings, **changes})
    with data("jsb_chorales", name).open() as stream:
        rolls = json.load(stream)
    writer, splits = RaggedWriter(folder, np.uint8), {}
    for split in NAMES:
        splits[NAMES[split]] = len(writer) + np.arange(len(rolls[split]))
        for roll in rolls[split]:
            writer.add(frames(roll) if protocol == "quarter" else steps(roll), b'{"shift": "0"}\n')
    music.restore({"voices": settings["voices"], "context": music.context, "polyphony": 4, "numbers": {}, "fields": []})
    writer.tokens(writer.close(), lambda x: x, music.space)
    told = [f for f in music.fields() if f.name == "shift"]
    condition = Condition(told) if told else None
    spec = DataSpec(music.space, condition, "categorical", writer.count(splits["train"]))
    counts = {split: len(numbers) for split, numbers in splits.items()}
    zero = None if condition is None else np.tile(condition.encode({"shift": "0"}), (len(writer), 1))
    writer.finish(splits, zero, {"spec": spec.to_json(), "counts": counts, "fingerprint": "-", "modality": {}})
    return Corpus.open(folder), music


def frames(roll: list[list[int]]) -> np.ndarray:
    """Each frame's pitches from high to low, then its end."""
    rows = [[*sorted({int(p) for p in frame}, reverse=True), layout.FRAME] for frame in roll]
    return np.array([token for row in rows for token in row], np.uint8)


def steps(roll: list[list[int]]) -> np.ndarray:
    """Four tokens a step, soprano first."""
    table = np.array(roll)
    return np.where(table < 0, layout.REST, table).astype(np.uint8).reshape(-1)


def trained(corpus: Corpus, music: Music, seconds: float, settings: dict, train: dict) -> tuple[Model, float, int]:
    seed_everything(SEED, -1, 0)
    recipe = settle(
        make_recipe({"model": "transformer", "seed": SEED, "models": {"transformer": settings}, "train": train})
    )
    model = catalog.find("models", "transformer")(corpus.spec, **recipe.models["transformer"])
    plan = make_plan(model, {**recipe.train, "seed": SEED, "threads": 1, "device": "cpu"})
    augment = partial(music.augment, condition=corpus.spec.condition)
    budget, start = Budget(seconds / 60, clock=time.process_time), time.process_time()
    for now in loop(model, partial(corpus.batches, plan.batch_size, SEED, augment=augment), plan):
        budget.freeze(now)
    return now.averaged, time.process_time() - start, now.step


@torch.inference_mode()
def judged(model: Model, corpus: Corpus, split: str, chained: bool) -> tuple[np.ndarray, np.ndarray]:
    """(nats, tokens that end a frame) of each piece of a split; the end of the piece is left out. chained: only strictly lower pitches may follow."""
    size = corpus.size(split)
    first = int(corpus.numbers(split)[0])
    nats, ends = np.zeros(size), np.zeros(size)
    for batch, counted in corpus.sliding(split):
        logits = model.head(model.hidden(batch)).float()
        logits[..., [layout.HOLD, layout.END, layout.END + 1]] = -torch.inf
        if chained:
            logits = logits.masked_fill(forbidden(batch), -torch.inf)
        asked = counted & (batch.x != layout.END)
        lost = -logits.log_softmax(-1).gather(-1, batch.x.clamp(max=layout.FRAME).unsqueeze(-1)).squeeze(-1)
        rows = batch.index.numpy() - first
        np.add.at(nats, rows, torch.where(asked, lost, 0.0).sum(1).double().numpy())
        np.add.at(ends, rows, ((batch.x == layout.FRAME) & asked).sum(1).double().numpy())
    return nats, ends


def forbidden(batch: Batch) -> torch.Tensor:
    """(B, n, V) bool: pitches that are not strictly below the one before in the same frame."""
    before = torch.cat([batch.before.unsqueeze(1), batch.x[:, :-1]], 1)
    ceiling = torch.where((before >= 0) & (before < layout.FRAME), before, layout.FRAME)
    pitch = torch.arange(layout.VOCABULARY)
    return (pitch >= ceiling.unsqueeze(-1)) & (pitch < layout.FRAME)


def quarter(model: Model, corpus: Corpus, split: str) -> dict[str, float]:
    nats, count = judged(model, corpus, split, chained=True)
    if split != "test":
        return {split: float(nats.sum() / count.sum())}
    clean = json.loads(data("jsb_chorales", "jsb_clean49.json").read_text())["clean49_quarter"]
    return {"official77": float(nats.sum() / count.sum()), "clean49": float(nats[clean].sum() / count[clean].sum())}


def sixteenth(model: Model, corpus: Corpus, split: str) -> dict[str, float]:
    nats, _ = judged(model, corpus, split, chained=False)
    notes = corpus.tokens_of(split) - corpus.size(split)
    return {"per_note": float(nats.sum() / notes), "per_step": float(4 * nats.sum() / notes)}


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    figures: dict[str, dict] = {}
    for protocol in args.only:
        with tempfile.TemporaryDirectory() as folder:
            changes, settings = json.loads(args.prepare), json.loads(args.model)
            corpus, music = chorales(protocol, Path(folder), **changes)
            model, seconds, count = trained(corpus, music, args.minutes * 60, settings, json.loads(args.train))
            judge = quarter if protocol == "quarter" else sixteenth
            found = judge(model, corpus, "validation")
            found = {"validation": next(iter(found.values()))}
            print(protocol, found, flush=True)
            found |= judge(model, corpus, "test") if args.against == "test" else {}
        size = sum(p.numel() for p in model.parameters())
        figures[protocol] = {k: round(v, 4) for k, v in found.items()} | {"seconds": round(seconds), "parameters": size}
        print(protocol, figures[protocol], f"{count} steps", flush=True)
    if args.against == "test":
        update("chorales", figures, SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--against", choices=["test", "validation"], default="test")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--model", default="{}", help="settings of the transformer as JSON")
    parser.add_argument("--train", default="{}", help="settings of the loop as JSON")
    parser.add_argument("--prepare", default="{}", help="settings of the modality as JSON")
    main(parser.parse_args())
