"""Starting points: the weights of another run are laid into a new model, matched by name and shape; what was not is listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maquette.errors import SettingError
from maquette.run import Run
from maquette.space import Model


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
    found = source_of(start, stage)
    given = found.load_model().state_dict()
    own = model.state_dict()
    used: dict[str, str] = {}
    for name, tensor in own.items():
        other = next((n for n in _names(name, model) if n in given and given[n].shape == tensor.shape), None)
        if other is not None and given[other].dtype == tensor.dtype:
            tensor.copy_(given[other])
            used[name] = other
    new, left = own.keys() - used.keys(), given.keys() - set(used.values())
    return Started(
        str(start.path),
        tuple(used),
        tuple(n for n in own if n in new),
        tuple(n for n in given if n in left),
        _count(own[n] for n in used),
        _count(own.values()),
    )


def nothing_fits(model: str, start: Run) -> SettingError:
    spec = start.spec.space
    return SettingError(
        f"no weight of {start.path}, a run of {start.recipe.model} on {spec.kind} of shape {spec.shape}, fits {model} by name and shape; "
        f"start from a run of {model} itself, or pretrain with --set body={model.split('+')[0]} and the same --size"
    )


def _names(name: str, model: Model) -> Iterable[str]:
    """What the tensor may be called in the start: the same, or under the part that this model enters by."""
    yield name
    for mine, theirs in model.enters.items():
        if name.startswith(f"{mine}."):
            yield f"{theirs}.{name.removeprefix(f'{mine}.')}"


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _parts(names: Iterable[str], most: int = 6) -> str:
    """The first two levels of names, each once.

    >>> _parts(["encoder.stem.weight", "encoder.stem.bias", "head"])
    'encoder.stem, head'
    """
    parts = list(dict.fromkeys(".".join(n.split(".")[:2]) for n in names))
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")
