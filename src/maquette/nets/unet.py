"""A lean U-Net (Ronneberger 2015, arXiv:1505.04597) for velocities on grids of 1, 2 or 3 axes: patches at the door, one
convolution a level, residual blocks and one dense layer over the whole grid at the coarsest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from maquette.nets.conv import CONV, Double, FiLM, Patches, Residual, Unpatch, depth, halve, norm, pyramid, same, widths
from maquette.nets.waves import Waves


class UNet(nn.Module):
    """x (B, C, *axes), t (B,) in [0, 1], context (B, F) or 0.0 -> (B, C, *axes); starts at zero."""

    def __init__(
        self, channels: int, axes: Sequence[int], *, width: int, blocks: int, dense: int, features: int, patch: int
    ):
        super().__init__()
        patch = min(patch, 2 ** depth(axes))
        coarse = -(-max(axes) // patch)
        extents = pyramid([-(-n // patch) for n in axes], depth([coarse]))
        wide = widths(width, len(extents))
        steps = [*zip(extents, pairwise(wide), strict=False)]
        self.time = nn.Sequential(Waves(64), nn.Linear(64, features), nn.GELU(), nn.Linear(features, features))
        self.stem = Patches(axes, channels, width, patch)
        self.before = nn.ModuleList([Layer(e, a, features) for e, (a, _) in steps])
        self.down = nn.ModuleList([halve(e, a, b) for e, (a, b) in steps])
        self.blocks = nn.ModuleList([Residual(extents[-1], wide[-1], features) for _ in range(blocks)])
        self.whole = Whole(extents[-1], wide[-1], dense, features)
        self.up = nn.ModuleList([Double(e, b, a) for e, (a, b) in reversed(steps)])
        self.after = nn.ModuleList([Layer(e, a, features) for e, (a, _) in reversed(steps)])
        self.norm = nn.Sequential(norm(width, axes), nn.GELU())
        self.head = Unpatch(axes, width, channels, patch)
        nn.init.zeros_(self.head.conv.weight)
        nn.init.zeros_(self.head.conv.bias)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | float = 0.0) -> Tensor:
        context = nn.functional.gelu(self.time(t) + context)
        h, kept = self.stem(x), []
        for layer, down in zip(self.before, self.down, strict=True):
            h = layer(h, context)
            kept.append(h)
            h = down(h)
        h = self.whole(h, context)
        for block in self.blocks:
            h = block(h, context)
        for up, layer in zip(self.up, self.after, strict=True):
            h = layer(up(h) + kept.pop(), context)
        return self.head(self.norm(h))


class Layer(nn.Module):
    """h (B, C, *axes) + one steered convolution of it: half a residual block, for the fine levels."""

    def __init__(self, axes: Sequence[int], channels: int, features: int):
        super().__init__()
        self.norm, self.film = norm(channels, axes), FiLM(features, channels)
        self.conv = same(axes, channels, channels)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        return h + self.conv(nn.functional.gelu(self.film(self.norm(h), context)))


class Whole(nn.Module):
    """h (B, C, *axes) + a layer in which each place sees every other: dense over a grid of a quarter of the channels.

    It does what attention would at a coarse grid of fixed extents, for a tenth of the time on a CPU.
    """

    def __init__(self, axes: Sequence[int], channels: int, dense: int, features: int):
        super().__init__()
        one, few = CONV[len(axes) - 1], max(1, channels // 4)
        self.axes = (few, *axes)
        self.norm, self.film = norm(channels, axes), FiLM(features, dense)
        self.inwards, self.outwards = one(channels, few, 1), one(few, channels, 1)
        self.mix, self.back = nn.Linear(few * prod(axes), dense), nn.Linear(dense, few * prod(axes))

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        seen = self.mix(self.inwards(self.norm(h)).flatten(1))
        told = self.back(nn.functional.gelu(self.film(seen, context)))
        return h + self.outwards(told.unflatten(1, self.axes))
