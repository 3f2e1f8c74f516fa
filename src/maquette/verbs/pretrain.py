"""pretrain: train without labels, on a pretext task; what comes out is a run like any other, for others to start from and to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import UnknownName
from maquette.recipe import Recipe, make_recipe
from maquette.run import Run
from maquette.verbs.train import train

JOINED = "joint"


def recipe_for(task: str, corpus: Corpus, choices: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a task, or of several joined by +; auto: contrast for grids, masked for sequences. choices: size, minutes, seed.

    Raises UnknownName with the nearest task.
    """
    if task == "auto":
        task = "masked" if corpus.spec.space.kind == "tokens" else "contrast"
    names = [name.strip() for name in task.split("+")]
    known = catalog.names("pretext")
    for name in names:
        if name not in known:
            raise UnknownName("pretext task", name, known)
    chosen = {k: v for k, v in (choices or {}).items() if v is not None}
    if len(names) == 1:
        return make_recipe({"model": names[0], **chosen})
    return make_recipe({"model": JOINED, "models": {JOINED: {"tasks": names}}, **chosen})


def pretrain(corpus: Corpus, task: str, out: Path, *, loggers: tuple[str, ...] = (), **choices: Any) -> Run:
    """Train on `task` and return the run; choices: size, minutes, seed. Settings go with `recipe_for` and `train`."""
    return train(corpus, recipe_for(task, corpus, choices), out, loggers=loggers)
