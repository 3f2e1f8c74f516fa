"""Starting points: the weights of another run are laid into a new model, matched by name and shape; what was not is listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maquette.errors import SettingError
from maquette.run import Run
from maquette.space import Model

WHOLE = 0.5  # share of a part that has to fit for it to be taken from a model of another class


@dataclass(frozen=True)
class Started:
    """taken: names of the new model's tensors that came from the start; new: those that stay fresh; left: of the start, not used."""

    run: str
    taken: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    numbers: int  # that were taken
    of: int  # that the new model has

    @property
    def words(self) -> str:
        share = f"{self.numbers / max(1, self.of):.0%}"
        return "; ".join(
            [
                f"start: {share} of the weights come from {self.run}: {_parts(self.taken)}",
                *([f"new: {_parts(self.new)}"] if self.new else []),
                *([f"left there: {_parts(self.left)}"] if self.left else []),
            ]
        )

    def to_json(self) -> dict[str, Any]:
        return {"run": self.run, "taken": list(self.taken), "new": list(self.new), "left": list(self.left)}


def source_of(start: Run, stage: str) -> Run:
    """The run, among a start and its codec and partner, whose model is `stage`; the start itself where none is."""
    family = [r for r in (start, start.codec, start.partner) if r is not None]
    return next((r for r in family if r.stage == stage), start)


@torch.no_grad()
def warm(model: Model, stage: str, start: Run) -> Started:
    """Lay the averaged weights of `start` (or of the part of it that is `stage`) into `model`. Raises RunError for a start that is damaged
    or not trained yet. Nothing that fits is no error here: of a pair one half may have no start.
    """
    source = source_of(start, stage).load_model()
    given, own = source.state_dict(), model.state_dict()
    used = _fitting({n: n for n in own}, own, given) if type(source) is type(model) else {}
    for mine, theirs in model.enters.items():
        part = {n: f"{theirs}.{n.removeprefix(f'{mine}.')}" for n in own if n.startswith(f"{mine}.") and n not in used}
        found = _fitting(part, own, given)
        if _count(own[n] for n in found) >= WHOLE * _count(own[n] for n in part):  # else a likeness by chance
            used |= found
    for name, other in used.items():
        own[name].copy_(given[other])
    return Started(
        str(start.path),
        tuple(used),
        tuple(n for n in own if n not in used),
        tuple(n for n in given if n not in used.values()),
        _count(own[n] for n in used),
        _count(own.values()),
    )


def nothing_fits(model: str, start: Run) -> SettingError:
    spec = start.spec.space
    return SettingError(
        f"no weight of {start.path}, a run of {start.recipe.model} on {spec.kind} of shape {spec.shape}, fits {model} by name and shape; "
        f"start from a run of {model} itself, or pretrain with --set body={model.split('+')[0]} and the same --size"
    )


def _fitting(names: Mapping[str, str], own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str]:
    """Own name -> name in the start, of those that are there in the same shape and kind."""
    return {
        n: other
        for n, other in names.items()
        if other in given and given[other].shape == own[n].shape and given[other].dtype == own[n].dtype
    }


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _parts(names: Iterable[str], most: int = 6) -> str:
    """The first two levels of names, each once.

    >>> _parts(["encoder.stem.weight", "encoder.stem.bias", "head"])
    'encoder.stem, head'
    """
    parts = list(dict.fromkeys(".".join(n.split(".")[:2]) for n in names))
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")
