"""What a study may try: around the sizes a model declares, its own `search`, and the loop's rate and batch.

A search is a dict from a dotted setting, as --set takes it, to a list (one of these) or a pair (between these two).
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import SettingError
from maquette.recipe import Recipe, settle
from maquette.verbs.train import has_partner

RATES = (0.25, 4.0)  # times the model's own learning rate
DROPOUTS = [0.0, 0.1, 0.2, 0.3]


def search_of(recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """Everything worth trying that the recipe does not fix itself. Raises SpaceError, SettingError, UnknownName."""
    settled, found = settle(recipe), {}
    for name in recipe.stages:
        kind, given = catalog.trainable(name), recipe.settings_of(name)
        own = search_in(kind, settled.settings_of(name))
        found |= {f"{Path(name).stem}.{key}": values for key, values in own.items() if key not in given}
    found |= {f"train.{key}": values for key, values in _of_training(recipe, settled, corpus).items()}
    if not found:
        raise SettingError(f"every setting of {recipe.model} that could be tried is fixed by --set; leave one free")
    return found


def search_in(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The search of one model around its settled settings.

    >>> class Toy:
    ...     sizes = {"small": {"width": 32, "depth": 2}}
    ...     search = {"depth": None, "beta": (0.1, 10.0)}
    ...     def __init__(self, *, width: int = 32, depth: int = 2, beta: float = 1.0): ...
    >>> search_in(Toy, {"width": 32, "depth": 2, "beta": 1.0})
    {'width': [16, 32, 64], 'beta': (0.1, 10.0)}
    """
    sizes = {key for size in kind.sizes.values() for key in size}  # type: ignore[attr-defined]
    found: dict[str, Any] = {k: around(v) for k, v in settings.items() if k in sizes and _is_count(v)}
    if "dropout" in settings:
        found["dropout"] = DROPOUTS
    if "loss" in settings:
        found["loss"] = list(typing.get_args(catalog.settings(kind).model_fields["loss"].annotation))
    found |= getattr(kind, "search", {})
    whole = {k: _with_usual(kind, settings, k, v) for k, v in found.items() if v is not None}
    return {k: v for k, v in whole.items() if not isinstance(v, list) or len(v) > 1}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def around(count: int) -> list[int]:
    """
    >>> around(32), around(2)
    ([16, 32, 64], [1, 2, 3])
    """
    return [count // 2, count, 2 * count] if count >= 8 else [count - 1, count, count + 1]


def _with_usual(kind: type, settings: Mapping[str, Any], key: str, values: Any) -> Any:
    """A list with the usual value in it and without what the model would refuse; a pair that reaches as far as the usual value."""
    usual = settings[key]
    if isinstance(values, tuple):
        return (min(values[0], usual), max(values[1], usual))
    others = [
        v for v in dict.fromkeys([*values, usual]) if v is not None
    ]  # None is the usual, or the dial would decide again
    return ([None] if usual is None else []) + [
        v for v in others if v == usual or _allowed(kind, {**settings, key: v}, key)
    ]


def _allowed(kind: type, settings: Mapping[str, Any], key: str) -> bool:
    try:
        catalog.check(kind, settings, key)
    except SettingError:
        return False
    return True


def _of_training(recipe: Recipe, settled: Recipe, corpus: Corpus) -> dict[str, Any]:
    """The rate, and the batch where one model learns from the corpus: the two of a pair have batches of their own."""
    codec = len(recipe.stages) == 2 and not has_partner(recipe)
    name = recipe.stages[0]
    spec = corpus.unconditioned().spec if codec else corpus.spec
    model = catalog.trainable(name)(spec, **settled.settings_of(name))
    if not model.phases:
        return {}
    fixed = recipe.train.keys() | {key for settings in recipe.models.values() for key in settings}
    found: dict[str, Any] = {} if fixed & {"lr", "lr_scale"} else {"lr_scale": RATES}
    if not codec and "batch_size" not in recipe.train:
        own = model.batch_size
        found["batch_size"] = [None, *(n for n in (own // 2, 2 * own) if 1 <= n <= corpus.size("train"))]
    return found


def usual_of(search: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The parameters that change nothing."""
    settled = settle(recipe)
    own = {f"{stem}.{k}": v for stem, settings in settled.models.items() for k, v in settings.items()}
    own |= {"train.lr_scale": 1.0, "train.batch_size": None}
    return {key: own[key] for key in search}


def tried(recipe: Recipe, params: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings. None is the model's own choice and is not written down."""
    models = {stem: dict(settings) for stem, settings in recipe.models.items()}
    train = dict(recipe.train)
    for key, value in params.items():
        head, _, name = key.rpartition(".")
        if value is not None:
            (train if head == "train" else models.setdefault(head, {}))[name] = value
    return recipe.model_copy(update={"models": models, "train": train})


def rounded(params: Mapping[str, Any]) -> dict[str, Any]:
    """Three digits are enough of a number that was drawn.

    >>> rounded({"train.lr_scale": 1.23456, "gan.loss": "hinge"})
    {'train.lr_scale': 1.23, 'gan.loss': 'hinge'}
    """
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in params.items()}
