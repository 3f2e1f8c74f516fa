"""Series: of small models of MNIST, how often a variation lies nearer to its own first piece than to 39 others, and how varied series are, by how
much of a variation is new. By the first seed; a minute of one core for each model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditing.measures import HELD, TRAIN, corpus_of, mnist

from maquette import catalog
from maquette.corpus import Corpus
from maquette.features import Pixels, judge_of
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.audit import as_written, draw
from maquette.verbs.train import train
from maquette.verbs.variations import FIRSTS, made_of, told

STEPS = {"vae": 1_500, "gan": 600, "flow": 500}
VARY = (0.1, 0.3, 0.6, 1.0)


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        pictures, _ = mnist(seeds[0])
        corpus = corpus_of(Path(place) / "mnist", pictures[: TRAIN + HELD])
        return {"series": {name: varied(made(name, corpus, Path(place) / name, seeds[0]), corpus) for name in STEPS}}


def made(name: str, corpus: Corpus, place: Path, seed: int) -> Run:
    plan = {"steps": STEPS[name], "threads": 1}
    return train(corpus, make_recipe({"model": name, "seed": seed, "train": plan}), place)


def varied(run: Run, corpus: Corpus) -> dict[str, Any]:
    """By vary: both findings in both spaces, with their intervals."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    spaces = {"judge": judge_of(corpus).judge, "pixels": Pixels(corpus.spec.space)}
    first = as_written(draw(run, FIRSTS, 0, "cpu"), modality)
    found: dict[str, Any] = {}
    for vary in VARY:
        several = made_of(run, FIRSTS, modality, 0, "cpu", vary)
        for space, embedder in spaces.items():
            kept, variety = told(space, embedder, first, several, "pictures", 0, vary)
            found[f"{vary:g}.{space}"] = {
                "identity_kept": [round(x, 3) for x in (kept.value, kept.low, kept.high)],
                "variety": [round(x, 3) for x in (variety.value, variety.low, variety.high)],
            }
    return found
