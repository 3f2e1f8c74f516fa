"""adapt: a run and new content in, another run out, which begins from the first one's weights (fine-tuning, LoRA, a new head)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import SettingError
from maquette.loop import only_here, plan
from maquette.recipe import Recipe, rebased
from maquette.run import Run
from maquette.verbs.drive import Progress
from maquette.verbs.fitting import fitted_to
from maquette.verbs.heads import head_recipe
from maquette.verbs.train import training

FEWEST = 4  # training pieces that a model may be adapted to


def adapt(run: Run, corpus: Corpus, out: Path, **options: Any) -> Run:
    """`adapting` without anybody watching."""
    for _ in adapting(run, corpus, out, **options):
        pass
    return Run.open(out)


def adapting(
    run: Run,
    corpus: Corpus,
    out: Path,
    *,
    task: str | None = None,
    method: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    given: Mapping[str, Any] | None = None,
    loggers: tuple[str, ...] = (),
) -> Iterator[Progress]:
    """Fit a run to other content, or put a task head on it; the same line goes on.

    task    classify, regress, caption or restore; none: the run's own model learns the new content
    method  full, head or lora; none: full, and head for a task
    given   settings of the method, of training or of the task by their names, and `prior`, a share of each batch (see prior.py)

    Raises UnknownName, SettingError, SpaceError, RunError, CorpusError.
    """
    fitted = fitted_to(run, corpus, own_conditions=task is not None)
    if fitted.size("train") < FEWEST:
        raise SettingError(
            f"{corpus.path} has {fitted.size('train')} training pieces; a model is adapted to {FEWEST} or more"
        )
    recipe = (
        head_recipe(run, fitted, task, method or "head", given) if task else adapted(run, method or "full", given or {})
    )
    chosen = {"minutes": minutes, "seed": seed, "train": steps and {**recipe.train, "steps": steps}}
    recipe = recipe.model_copy(update={k: v for k, v in chosen.items() if v is not None})
    yield from training(fitted, recipe, out, loggers=loggers)
    only_here(Run.open(out).keep_adapter)


def adapted(run: Run, method: str, given: Mapping[str, Any]) -> Recipe:
    """The recipe of the adapted run: the base's, from its weights, by `method`; the minutes and steps are its own."""
    own = {"prior", *catalog.settings(catalog.find("adapters", method)).model_fields}
    training = {
        k.removeprefix("train."): v
        for k, v in given.items()
        if k not in own and k.removeprefix("train.") in catalog.settings(plan).model_fields
    }
    changes = {
        "start": str(run.path),
        "adapter": {"method": method, **{k: v for k, v in given.items() if k.removeprefix("train.") not in training}},
        "minutes": None,
        "train": {**run.recipe.train, "steps": None, **training},
    }
    return rebased(run.recipe, run.path, Path()).model_copy(update=changes)
