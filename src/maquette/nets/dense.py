"""A grid to one vector and back: patches, residual convolutions at the coarse grid, then dense layers over all of it.

Dense layers see the whole grid at once and run at a CPU's full speed: a VAE of them takes twice the steps of a convolutional
one in the same time, and is better after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from maquette.nets.conv import FiLM, Patches, Residual, Unpatch, depth, pyramid
from maquette.nets.waves import Waves


class ToVector(nn.Module):
    """x (B, channels, *axes), context (B, F) or None -> (B, out)"""

    def __init__(
        self, channels: int, axes: Sequence[int], out: int, *, width: int, blocks: int, dense: int, context: int = 0
    ):
        super().__init__()
        levels = depth(axes)
        grid = pyramid(axes, levels)[-1]
        self.stem = Patches(axes, channels, width, 2**levels)
        self.blocks = nn.Sequential(*[Residual(grid, width) for _ in range(blocks)])
        self.mix = nn.Linear(width * prod(grid) + context, dense)
        self.head = nn.Sequential(nn.GELU(), Perceptron(dense), nn.LayerNorm(dense), nn.GELU(), nn.Linear(dense, out))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.mix(beside(self.blocks(self.stem(x)).flatten(1), context)))


class FromVector(nn.Module):
    """z (B, features), context (B, F) or None -> (B, channels, *axes): the mirror of ToVector."""

    def __init__(
        self,
        features: int,
        channels: int,
        axes: Sequence[int],
        *,
        width: int,
        blocks: int,
        dense: int,
        context: int = 0,
    ):
        super().__init__()
        levels = depth(axes)
        self.grid = (width, *pyramid(axes, levels)[-1])
        self.mix = nn.Linear(features + context, dense)
        self.body = nn.Sequential(Perceptron(dense), nn.LayerNorm(dense), nn.GELU(), nn.Linear(dense, prod(self.grid)))
        self.blocks = nn.Sequential(*[Residual(self.grid[1:], width) for _ in range(blocks)])
        self.head = Unpatch(axes, width, channels, 2**levels)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.head(self.blocks(self.body(self.mix(beside(z, context))).unflatten(1, self.grid)))


class VectorField(nn.Module):
    """x (B, D, 1, ...), t (B,) in [0, 1], context (B, F) or 0.0 -> the same shape; starts at zero. For latents that are one vector."""

    def __init__(self, channels: int, *, dense: int, blocks: int, features: int):
        super().__init__()
        self.time = nn.Sequential(Waves(64), nn.Linear(64, features), nn.GELU(), nn.Linear(features, features))
        self.stem = nn.Linear(channels, dense)
        self.blocks = nn.ModuleList([Steered(dense, features) for _ in range(blocks)])
        self.norm, self.head = nn.LayerNorm(dense), nn.Linear(dense, channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | float = 0.0) -> Tensor:
        context = nn.functional.gelu(self.time(t) + context)
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, context)
        return self.head(nn.functional.gelu(self.norm(h))).view_as(x)


class Steered(nn.Module):
    """h (B, D) + two dense layers of its norm, scaled and shifted by context (B, F) between them."""

    def __init__(self, features: int, context: int):
        super().__init__()
        self.norm, self.film = nn.LayerNorm(features), FiLM(context, features)
        self.first, self.last = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        return h + self.last(nn.functional.gelu(self.film(self.first(self.norm(h)), context)))


class Perceptron(nn.Module):
    """h (B, D) + two dense layers of its norm; starts as identity."""

    def __init__(self, features: int):
        super().__init__()
        last = nn.Linear(features, features)
        nn.init.zeros_(last.weight)
        self.change = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, features), nn.GELU(), last)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.change(h)


def beside(h: Tensor, context: Tensor | None) -> Tensor:
    """h (B, D) and context (B, F) -> (B, D + F)"""
    return h if context is None else torch.cat([h, context], 1)
