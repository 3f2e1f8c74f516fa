"""Two views of a piece are known to be one, without comparing it with others (VICReg, Bardes 2022, arXiv:2105.04906): the vectors of the
views agree, every number of them varies over the batch, and no two numbers say the same."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.nets.trunk import GridBody, Size, layers, pooled
from maquette.nets.views import view
from maquette.pretext._practice import Exercise, Practice, read, usual_body, width
from maquette.space import DataSpec, Losses

PROJECTED = 256  # numbers in which views are compared
WEIGHTS = {"agreement": 25.0, "spread": 25.0, "redundancy": 1.0}  # of the paper
HIDDEN = 0.3  # share of tokens that a view of a sequence does not show


class Views(Exercise):
    usual = "gan"
    pieces = 256

    def __init__(
        self,
        spec: DataSpec,
        body: str,
        size: Size,
        warp: float | None = None,
        erase: float | None = None,
        light: float | None = None,
        noise: float = 0.05,
        mirror: bool | None = None,
    ):
        super().__init__()
        self.spec, self.body = spec, body
        coloured = spec.space.kind == "grid" and spec.space.shape[0] >= 3
        self.chance = {
            "warp": (0.1 if coloured else 0.2) if warp is None else warp,
            "erase": (0.4 if coloured else 0.25) if erase is None else erase,
            "light": (0.6 if coloured else 0.1) if light is None else light,
            "noise": noise,
            "mirror": coloured if mirror is None else mirror,
        }
        self.project = projector(width(spec, body, size))

    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        h = torch.cat([self.seen(encoder, x), self.seen(encoder, x)])
        return Losses(vicreg(*self.project(h).float().chunk(2)))

    def seen(self, encoder: nn.Module, x: Tensor) -> Tensor:
        if self.spec.space.kind == "tokens":
            return read(encoder, x, self.spec, torch.rand(x.shape, device=x.device) < HIDDEN)
        return pooled(layers(self.body, encoder, view(x, **self.chance))[-1])


def projector(features: int) -> nn.Sequential:
    """Thrown away after training: what views agree on is less than what is worth knowing."""
    hidden = 2 * PROJECTED
    norm = nn.BatchNorm1d(hidden, track_running_stats=False)
    return nn.Sequential(nn.Linear(features, hidden), norm, nn.ReLU(), nn.Linear(hidden, PROJECTED))


def vicreg(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """a, b (B, D) of two views -> the three terms, weighted.

    >>> same = torch.eye(4)[[0, 1, 2, 3] * 2] * 4
    >>> vicreg(same, same)["agreement"].item()
    0.0
    """
    terms = {"agreement": F.mse_loss(a, b), "spread": torch.zeros(()), "redundancy": torch.zeros(())}
    for z in (a, b):
        z = z - z.mean(0)
        terms["spread"] = terms["spread"] + F.relu(1 - (z.var(0, correction=0) + 1e-4).sqrt()).mean() / 2
        shared = (z.T @ z / max(1, len(z) - 1)).fill_diagonal_(0)
        terms["redundancy"] = terms["redundancy"] + shared.square().sum() / z.shape[1]
    return {name: WEIGHTS[name] * value for name, value in terms.items()}


class Contrast(Practice):
    """Two changed views of each piece are to be known as one. What the changes leave out, the features forget: they should be such that a
    person would still say "the same"."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        body: Annotated[
            GridBody | None, Field(description="the model that starts from it: vqvae, vae, gan, flow; none: gan")
        ] = None,
        size: Annotated[Size, Field(description="of that model on the dial")] = "small",
        warp: Annotated[
            float | None,
            Field(ge=0, lt=1, description="how far pieces are turned, stretched and moved; none: 0.2, of colours 0.1"),
        ] = None,
        erase: Annotated[
            float | None,
            Field(ge=0, lt=1, description="share of each axis of a box that is emptied; none: 0.25, of colours 0.4"),
        ] = None,
        light: Annotated[
            float | None, Field(ge=0, lt=1, description="change of brightness; none: 0.1, of colours 0.6")
        ] = None,
        noise: Annotated[float, Field(ge=0, description="standard deviation, in [-1, 1]")] = 0.05,
        mirror: Annotated[bool | None, Field(description="left and right are one; none: of colours only")] = None,
    ):
        body = usual_body(spec, body, [Views], "contrast")
        views = Views(spec, body, size, warp, erase, light, noise, mirror)
        super().__init__(spec, body, size, {"contrast": views})
