"""What features know that were learnt without labels: MNIST and the crawl tiles, a linear probe and nearest neighbours.

    python benchmarks/adapting/features.py --seconds 90 --against validation     # a trial
    python benchmarks/adapting/features.py                                   # digits 2 CPU-minutes, tiles 10; three seeds, test data

MNIST: pretraining on the train split (42,000 pictures) without labels; the probes learn from the train split's labels, choose on the
validation split and are judged by MNIST's own test file. Tiles: labels are the top folders of the archive (those with 20 members in the
train split), judged by the test split, beside the same encoder with the weights it began with, for which everything else is the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from results import data

from maquette.catalog import trainable
from maquette.corpus import Corpus
from maquette.features import Task, labels_of
from maquette.loop import loop, make_plan, seed_everything
from maquette.probing import Labelled, Probed, compare, gather
from maquette.recipe import make_recipe, settle
from maquette.space import Model
from maquette.verbs.drive import Budget
from maquette.verbs.prepare import prepare

TASKS: dict[
    str, tuple[str, dict[str, Any]]
] = {  # tiles lie upright, so how one was turned tells what it shows; digits say enough by views
    "mnist": ("contrast", {}),
    "tiles": (
        "joint",
        {"tasks": ["rotation", "contrast"], "size": "tiny"},
    ),  # which gains more over untrained than small, and sooner
}
MEMBERS = 20
MINUTES = {
    "mnist": 2.0,
    "tiles": 10.0,
}  # of CPU time for pretraining


def measure(
    seeds: Sequence[int] = (0, 1, 2),
    minutes: float | None = None,
    against: str = "test",
    parts: Sequence[str] = ("mnist", "tiles"),
    task: str | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Figures in per cent by the keys of the issue; each the mean over the seeds, with `<key>_by_seed` beside it.

    against "validation" is for trials; task and settings are those of TASKS where none are given.
    """
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            corpus, judged = PARTS[part](Path(folder), against)
            name, usual = TASKS[part] if task is None else (task, {})
            for seed in seeds:
                for key, value in MEASURES[part](
                    corpus, judged, seed, minutes or MINUTES[part], name, usual | (settings or {})
                ).items():
                    found.setdefault(key, []).append(value)
    means = {key: round(statistics.mean(values), 4) for key, values in found.items()}
    return means | {f"{key}_by_seed": [round(v, 4) for v in values] for key, values in found.items()}


def mnist(folder: Path, against: str) -> tuple[Corpus, tuple[Corpus, str]]:
    corpus = labelled(folder / "mnist", "train")
    return corpus, ((corpus, "validation") if against == "validation" else (labelled(folder / "t10k", "t10k"), "all"))


def labelled(folder: Path, which: str) -> Corpus:
    """One of MNIST's two files with its labels."""
    folder.mkdir(parents=True)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(data("mnist") / f"{which}-{kind}-ubyte.gz", folder)
    return prepare(folder, folder.with_name(f"{folder.name}-corpus"), settings={})


def tiles(folder: Path, against: str) -> tuple[Corpus, tuple[Corpus, str]]:
    corpus = prepare(data("crawl_tiles"), folder / "tiles", settings={})
    return corpus, (corpus, against)


def on_mnist(corpus: Corpus, judged: tuple[Corpus, str], seed: int, minutes: float, task: str, settings: dict) -> dict:
    probed = figures(pretrained(corpus, seed, 60 * minutes, task, settings)[1], corpus, judged)
    return {"mnist_linear_probe": 100 * probed.linear, "mnist_knn": 100 * probed.knn}


def on_tiles(corpus: Corpus, judged: tuple[Corpus, str], seed: int, minutes: float, task: str, settings: dict) -> dict:
    before, after = pretrained(corpus, seed, 60 * minutes, task, settings)
    then, now = figures(before, corpus, judged), figures(after, corpus, judged)
    return {
        "tiles_linear_probe": 100 * now.linear,
        "tiles_untrained": 100 * then.linear,
        "tiles_knn": 100 * now.knn,
        "tiles_knn_untrained": 100 * then.knn,
    }


PARTS = {"mnist": mnist, "tiles": tiles}
MEASURES = {"mnist": on_mnist, "tiles": on_tiles}


def pretrained(corpus: Corpus, seed: int, seconds: float, task: str, settings: dict) -> tuple[Model, Model]:
    """The model as it begins and its averaged weights after some CPU seconds on one thread; labels are out of its reach."""
    corpus = corpus.unconditioned()
    recipe = settle(make_recipe({"model": task, "seed": seed, "models": {task: settings}}))
    seed_everything(seed, -1, 0)
    model = trainable(task)(corpus.spec, **recipe.models[task])
    seed_everything(seed, -1, 0)
    before = trainable(task)(corpus.spec, **recipe.models[task]).eval()
    plan = make_plan(model, {**recipe.train, "seed": seed, "threads": 1, "device": "cpu"})
    budget, start = Budget(seconds / 60, clock=time.process_time), time.process_time()
    for now in loop(model, partial(corpus.batches, plan.batch_size, seed), plan):
        budget.freeze(now)
    print(f"{task}, seed {seed}: {now.step} steps in {time.process_time() - start:.0f} CPU-seconds", flush=True)
    return before, now.averaged


def figures(model: Model, corpus: Corpus, judged: tuple[Corpus, str]) -> Probed:
    question = labels_of(corpus, MEMBERS)
    assert question is not None
    train, validation = (gather(model, corpus, split, question) for split in ("train", "validation"))
    found = compare(
        train, validation, validation if judged == (corpus, "validation") else everything(model, *judged, question)
    )
    print(found, flush=True)
    return found


def everything(model: Model, corpus: Corpus, split: str, question: Task) -> Labelled:
    """A split, or all pieces of a corpus that is test data as a whole; the labels of both corpora stand in the same order."""
    splits = ("train", "validation", "test") if split == "all" else (split,)
    parts = [gather(model, corpus, s, question) for s in splits]
    return Labelled(torch.cat([p.features for p in parts]), torch.cat([p.labels for p in parts]))


if __name__ == "__main__":
    from maquette.recipe import parse_assignment

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="of CPU time for pretraining; none: see MINUTES")
    parser.add_argument("--against", choices=["test", "validation"], default="test", help="what judges")
    parser.add_argument("--parts", nargs="+", default=["mnist", "tiles"])
    parser.add_argument("--task", help="none: contrast for mnist, rotation and contrast together for tiles")
    parser.add_argument("--set", nargs="+", default=[], help="key=value of the task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = dict(parse_assignment(a) for a in args.set)
    print(measure(args.seeds, args.seconds and args.seconds / 60, args.against, args.parts, args.task, settings))
