"""A start pays: 200 pieces after a run on everything else there is, against the same model from scratch, for equal total time.

same   the 200 are drawn from MNIST's train file, everything else is the rest of it: a small share of one kind of content
other  the 200 are 3s, 5s and 8s and everything else is all ten digits without them: content of another mix, with the first seed alone
No labels. The started model has most of the time for everything else and the rest for the 200; the codec of a pair stays as everything made
it. Judged by the Frechet distance to the same digits of MNIST's own test file, in the features of a classifier trained on all of the train file.
Text: 20 kB of Python's reference manual after the docstrings of its library (both come with Python, and share no 50 characters), in nats a
character of other chapters.
"""

from __future__ import annotations

import ast
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from results import data, spread

from maquette.corpus import Corpus
from maquette.features import Judge, train_judge
from maquette.likelihood import piece_nats
from maquette.metrics.fidelity import frechet_distance
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.space import SampleRequest
from maquette.verbs.adapt import adapt
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

MINUTES = 2.0  # in all, for either arm
BEFORE = 0.8  # of them for everything else, where there is a start
PIECES, SAMPLES = 200, 2000
DIGITS = (3, 5, 8)
MODELS = ("vqvae+transformer", "gan", "flow")
TARGET_BYTES = 20_000
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Arms = dict[str, list[float]]


def measure(seeds: list[int], models: tuple[str, ...] = MODELS, text: bool = True) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judge = train_judge(labelled(folder), seed=1234)
        same = pictures("same", folder, judge, seeds, models)
        rows = same | ({"text": written(folder, seeds)} if text else {})
        other = pictures("other", folder, judge, seeds[:1], models)
    ratio, ratio_other = ({name: compared(r) for name, r in found.items()} for found in (rows, other))
    return {
        "start_ratio": {name: found["mean"] for name, found in ratio.items()},
        "start_ratio_other": {name: found["mean"] for name, found in ratio_other.items()},
        "start": {
            "minutes": MINUTES,
            "before": BEFORE,
            "ratio": ratio,
            "rows": {n: {k: spread(v) for k, v in r.items()} for n, r in rows.items()},
            "rows_other": {n: {k: spread(v) for k, v in r.items()} for n, r in other.items()},
        },
    }


def compared(arms: Arms) -> dict:
    return spread([started / scratch for scratch, started in zip(arms["scratch"], arms["started"], strict=True)])


def pictures(kind: str, folder: Path, judge: Judge, seeds: list[int], models: tuple[str, ...]) -> dict[str, Arms]:
    """Model -> Frechet distances of both arms, one a seed."""
    few, others, held = digits(folder / kind, DIGITS if kind == "other" else range(10))
    real = embed(judge, held)
    rows: dict[str, Arms] = {model: {"scratch": [], "started": []} for model in models}
    for seed in seeds:
        for model in models:
            for arm, run in arms(model, few, others, folder / f"{kind}-{model}-{seed}", seed).items():
                rows[model][arm].append(frechet_distance(embed(judge, samples(run)), real))
            print(kind, model, seed, {k: round(v[-1], 3) for k, v in rows[model].items()}, flush=True)
    return rows


def written(folder: Path, seeds: list[int]) -> Arms:
    """The same of a writer, in nats a character."""
    rows: Arms = {"scratch": [], "started": []}
    target, before = texts(folder)
    for seed in seeds:
        for arm, run in arms("transformer", target, before, folder / f"text-{seed}", seed).items():
            rows[arm].append(nats(run, target))
        print("text", seed, {k: round(v[-1], 4) for k, v in rows.items()}, flush=True)
    return rows


def arms(model: str, few: Corpus, others: Corpus, out: Path, seed: int) -> dict[str, Run]:
    """The same model and total time: all on the few pieces, or most of it on everything else first."""
    settings = {"transformer": {"dropout": 0.1}} if model == "transformer" else {}

    def recipe(minutes: float):
        chosen = {"model": model, "minutes": minutes, "seed": seed, "models": settings}
        return make_recipe({**chosen, "train": {"threads": 1}})

    scratch = train(few, recipe(MINUTES), out / "scratch")
    sibling = train(others, recipe(MINUTES * BEFORE), out / "sibling")
    return {"scratch": scratch, "started": adapt(sibling, few, out / "started", minutes=MINUTES * (1 - BEFORE))}


def digits(folder: Path, wanted: Iterable[int]) -> tuple[Corpus, Corpus, torch.Tensor]:
    """(corpus with 200 training pieces of the wanted digits, corpus of everything else, those digits of t10k (N, 1, 28, 28))"""
    folder.mkdir()
    x, y = idx("train")
    enough = np.flatnonzero(np.isin(y, list(wanted)))[: round(PIECES / 0.7)]
    np.savez(folder / "few.npz", x=x[enough])
    np.savez(folder / "others.npz", x=np.delete(x, enough, 0))
    test, labels = idx("t10k")
    held = torch.from_numpy(test[np.isin(labels, list(wanted))]).float().div(127.5).sub(1).unsqueeze(1)
    return (*(prepare(folder / f"{n}.npz", folder / n, settings={}) for n in ("few", "others")), held)


def idx(name: str) -> tuple[np.ndarray, np.ndarray]:
    import gzip

    def read(kind: str, skip: int) -> np.ndarray:
        return np.frombuffer(gzip.open(data("mnist") / f"{name}-{kind}-ubyte.gz").read(), np.uint8, offset=skip)

    return read("images-idx3", 16).reshape(-1, 28, 28), read("labels-idx1", 8)


def labelled(folder: Path) -> Corpus:
    x, y = idx("train")
    np.savez(folder / "all.npz", x=x, label=y)
    return prepare(folder / "all.npz", folder / "all", settings={})


@torch.no_grad()
def embed(judge: Judge, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([judge.embed(part) for part in x.split(500)])


def samples(run: Run) -> torch.Tensor:
    sampler = run.sampler()
    with torch.inference_mode():
        made = torch.cat([sampler.sample(SampleRequest(tuple(range(k, k + 250)))) for k in range(0, SAMPLES, 250)])
    return made.add(1).mul(127.5).round().clamp(0, 255).div(127.5).sub(1)


def texts(folder: Path) -> tuple[Corpus, Corpus]:
    """(20 kB of the reference manual with as much again held out, the docstrings of the library), both as bytes"""
    topics = import_module("pydoc_data.topics").topics
    manual = " ".join(" ".join(topics[k] for k in sorted(topics)).split())
    (folder / "manual.txt").write_text(manual[: round(TARGET_BYTES / 0.5)], encoding="utf-8")
    (folder / "library.txt").write_text("\n".join(docstrings()), encoding="utf-8")
    settings = {"tokens": "bytes", "context": 128, "passage": 1000}
    target = prepare(folder / "manual.txt", folder / "manual", settings=settings, split=(0.5, 0.1, 0.4))
    return target, prepare(folder / "library.txt", folder / "library", settings=settings)


def docstrings() -> Iterator[str]:
    """Of Python's library, those of 200 characters and more; tests and installed packages are none of it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "pydoc_data", "idle_test"} & set(file.parts):
            continue
        with suppress(SyntaxError, ValueError):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                words = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
                if words and len(words) > 200:
                    yield " ".join(words.split())


def nats(run: Run, corpus: Corpus) -> float:
    _, found = piece_nats(run.load_model(), corpus, "test")  # type: ignore[arg-type]
    return float(found.sum()) / corpus.tokens_in(corpus.numbers("test"))
