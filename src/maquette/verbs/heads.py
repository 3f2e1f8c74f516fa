"""The recipe of a task head on a run: the network it stands on as that run's recipe built it, and what of it may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from maquette import catalog
from maquette.adapting import facts_of, parse_adapter
from maquette.corpus import Corpus
from maquette.errors import SettingError, SpaceError, UsageError
from maquette.loop import plan
from maquette.recipe import Recipe, make_recipe
from maquette.run import Run
from maquette.space import Model
from maquette.starting import warm

FEWEST = 4  # training pieces of which the answer is known


def is_task(name: str) -> bool:
    """Whether a model is a task head."""
    return name in catalog.names("tasks")


def answers(run: Run, adapters: Sequence[str] = ()) -> bool:
    """Whether a run says something about pieces: by itself, or by an adapter that holds a task."""
    return is_task(run.stage) or any(facts_of(parse_adapter(a)[0]).get("task") for a in adapters)


def laid(base: Run, adapters: Sequence[str] = ()) -> tuple[Run, Model]:
    """A run that answers and its model: a run of a task, or a run of another kind with the adapter of a task on it, as `adapt --task` made
    it by LoRA. Raises UsageError for several tasks, RunError for another base."""
    run, model, more = base, None, list(adapters)
    if not is_task(base.stage):
        tasks = [a for a in adapters if facts_of(parse_adapter(a)[0]).get("task")]
        if len(tasks) != 1 or len(adapters) > 1:
            raise UsageError(f"one adapter with a task answers, and no other beside it; {', '.join(adapters)} came")
        told = facts_of(parse_adapter(tasks[0])[0])["task"]
        run = Run(
            (base.codec or base).path, make_recipe(told["recipe"]), {"spec": told["spec"], "corpus": told["corpus"]}
        )
        model = run.plain()
        warm(model, run.stage, base.codec or base)
    model = model or run.load_model()
    for adapter in more:
        run.lay_on(model, adapter)
    return run, model.eval().requires_grad_(False)


def head_recipe(
    run: Run, corpus: Corpus, task: str, method: str = "head", given: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of `task` on the network of a run, for a corpus that was fitted to it. given: settings of the task, of training and of the
    method, by their names.

    Raises UnknownName for a task, SettingError where there is nothing to learn, SpaceError where the corpus is not as the run's.
    """
    kind = catalog.find("tasks", task)
    source = run.codec or run
    _same_space(source, corpus)
    own, training, adapter = _sorted(kind, given or {})
    if "prior" in adapter:
        raise SettingError("prior keeps what a model makes; a task makes nothing, drop it")
    recipe = make_recipe(
        {
            "model": task,
            "size": source.recipe.size,
            "seed": source.recipe.seed,
            "start": str(source.path),
            "models": {task: {**stand_of(source, task), **own}},
            "adapter": {"method": method, **adapter},
            "train": training,
        }
    )
    check(corpus, kind(corpus.spec, **catalog.check(kind, recipe.settings_of(task), task)))
    return recipe


def stand_of(run: Run, task: str) -> dict[str, Any]:
    """How the network of a run is rebuilt within a task head."""
    settings = run.recipe.settings_of(run.stage)
    if run.stage == task:  # a head goes on as it is
        return settings
    bare = {k: v for k, v in settings.items() if v is not None and k not in ("perceptual", "column")}
    return {"built": {"model": run.stage, "told": run.spec.condition is not None, "settings": bare}}


def _same_space(run: Run, corpus: Corpus) -> None:
    theirs, ours = run.spec.space, corpus.spec.space
    known = run.facts["corpus"]["modality"]
    kind = corpus.facts["modality"]
    if theirs != ours or known["name"] != kind["name"] or (ours.ragged and known["fitted"] != kind["fitted"]):
        raise SpaceError(
            f"{run.path} knows {known['name']} pieces, {theirs.kind} of shape {theirs.shape}; {corpus.path} holds {kind['name']}, {ours.kind} "
            f"of shape {ours.shape}{' in another vocabulary' if theirs == ours else ''}; `maquette adapt` fits a corpus of the same kind to the run"
        )


def _sorted(kind: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of the task, of training, and those left for the method."""
    own, training = set(catalog.settings(kind).model_fields), set(catalog.settings(plan).model_fields) - {"seed"}
    plain = {
        k.split(".")[-1] if k.split(".")[0] in ("train", kind.__name__.lower()) else k: v for k, v in given.items()
    }
    return (
        {k: v for k, v in plain.items() if k in own},
        {k: v for k, v in plain.items() if k in training - own},
        {k: v for k, v in plain.items() if k not in training | own},
    )


def check(corpus: Corpus, head: Any) -> None:
    """Raise SettingError where the training pieces cannot teach this head anything."""
    if not head.needs:
        if corpus.size("train") < FEWEST:
            raise SettingError(
                f"{head.task} learns from {FEWEST} training pieces or more; {corpus.path} has {corpus.size('train')}"
            )
        return
    asked = corpus.conditions("train")[:, head.columns]  # type: ignore[index]
    asked = asked[~asked.isnan().all(1)]
    if len(asked) < FEWEST:
        raise SettingError(
            f"{head.task} learns from {FEWEST} training pieces or more of which `{head.field.name}` is known; {corpus.path} has {len(asked)}"
        )
    if head.field.kind == "label":
        _labels(corpus, head.field.values, head.field.name, asked[:, 0].long())
    elif len(asked.nan_to_num(nan=-1.0).unique(dim=0)) < 2:
        raise SettingError(
            f"`{head.field.name}` is the same for every training piece of {corpus.path}; there is nothing to tell apart"
        )


def _labels(corpus: Corpus, names: tuple[str, ...], column: str, asked: torch.Tensor) -> None:
    counts = asked.bincount(minlength=len(names))
    there = [names[i] for i in counts.nonzero().flatten().tolist()]
    if len(there) < 2:
        raise SettingError(
            f"every training piece of {corpus.path} has the {column} {there[0]!r}; there is nothing to tell apart, at least two are needed"
        )
    if single := [names[i] for i in (counts == 1).nonzero().flatten().tolist()]:
        some = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
        raise SettingError(
            f"one training piece alone has the {column} {some}; nothing can be learnt from one: add pieces, or leave out or rename that {column}"
        )
