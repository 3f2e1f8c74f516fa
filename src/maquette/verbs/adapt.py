"""adapt: a run and new content in, another run out, which begins from the first one's weights (fine-tuning, LoRA, a new head)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maquette.corpus import Corpus
from maquette.errors import SettingError
from maquette.loop import only_here
from maquette.recipe import Recipe
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
    method: str | None = None,
    task: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    given: Mapping[str, Any] | None = None,
    loggers: tuple[str, ...] = (),
) -> Iterator[Progress]:
    """Fit a generative run to other content, or any run to a task; the same line goes on. given: settings of the method, and `prior` (see
    prior.py); with a task its own too. method: none is full, and head for a task.

    Raises SettingError, SpaceError, RunError, CorpusError.
    """
    if task is not None:
        fitted = fitted_to(run, corpus, own_conditions=True)
        recipe = head_recipe(run, fitted, task, method or "head", given)
        yield from training(fitted, timed(recipe, minutes, steps, seed), out, loggers=loggers)
        return
    recipe = adapted(run, method or "full", given or {}, minutes=minutes, steps=steps, seed=seed)
    fitted = fitted_to(run, corpus)
    if fitted.size("train") < FEWEST:
        raise SettingError(
            f"{corpus.path} has {fitted.size('train')} training pieces; a model is adapted to {FEWEST} or more"
        )
    yield from training(fitted, recipe, out, loggers=loggers)
    only_here(Run.open(out).keep_adapter)


def timed(recipe: Recipe, minutes: float | None, steps: int | None, seed: int | None) -> Recipe:
    train = recipe.train if steps is None else {**recipe.train, "steps": steps}
    return recipe.model_copy(update={"minutes": minutes, "seed": recipe.seed if seed is None else seed, "train": train})


def adapted(
    run: Run,
    method: str,
    given: Mapping[str, Any],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """The recipe of the adapted run: the base's, from its weights, by `method`."""
    train = {**run.recipe.train, "steps": steps}
    return run.recipe.model_copy(
        update={
            "start": str(run.path),
            "adapter": {"method": method, **given},
            "minutes": minutes,
            "seed": run.recipe.seed if seed is None else seed,
            "train": train,
        }
    )
