"""Distance between pieces as a frozen network sees them (LPIPS, Zhang 2018, arXiv:1801.03924, with features learnt from one's own pieces)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.errors import SettingError

Perceive = Callable[[Tensor, Tensor], Tensor]  # two batches (B, *shape) -> 0-d, in [0, 4]
LEAST = 1e-3  # below this a distance is not worth a nat


def perception(layers: Callable[[Tensor], list[Tensor]]) -> Perceive:
    """The mean over layers of the squared distance of vectors of length 1, one a place; gradients reach the first batch alone.

    >>> perception(lambda x: [x])(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])).item()
    2.0
    """

    def distance(made: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            aims = [F.normalize(h.float(), dim=1) for h in layers(real)]
        found = [F.normalize(h.float(), dim=1) for h in layers(made)]
        return torch.stack([(a - b).square().sum(1).mean() for a, b in zip(found, aims, strict=True)]).mean()

    return distance


def nats(distance: Tensor, elements: int) -> Tensor:
    """A perceptual distance in the coin of the pixels' one: 0.5 * elements * log, as of a Gaussian whose variance is learnt, so that
    neither drowns the other whatever their scales are."""
    return 0.5 * elements * (distance + LEAST).log()


def seen(model: nn.Module, made: Tensor, real: Tensor) -> Tensor:
    """How far `made` is from `real` in nats a piece, through the eyes that `lend_eyes` gave `model`. Raises SettingError where it has none."""
    perceive: Perceive | None = model.__dict__.get("perceive")
    if perceive is None:
        raise SettingError(
            "a perceptual distance needs the run it looks through; `maquette train` gives it to the model"
        )
    return nats(perceive(made, real), real[0].numel())


def lend_eyes(model: nn.Module, layers: Callable[[Tensor], list[Tensor]]) -> None:
    """Give `model` a sense that is no part of it: a function, so that no checkpoint holds its weights and no phase moves them."""
    model.__dict__["perceive"] = perception(layers)
