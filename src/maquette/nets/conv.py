"""Lean convolutional encoder and decoder for grids of 1, 2 or 3 axes: a patch of 2 becomes channels at the first layer
and convolutions halve from there; residual blocks stand only at the coarsest grid.

The interface other models lean on:

    levels = depth(axes)                                  how often to halve so that no axis stays above 8
    Encoder(channels, axes, out, width=32, levels=levels, blocks=1, context=0)
        .grid                                             the axes of what comes out
        (x (B, channels, *axes), context (B, context) or None) -> (B, out, *grid)
    Decoder(channels, out, axes, width=32, levels=levels, blocks=1, context=0)
        (h (B, channels, *grid), context or None) -> (B, out, *axes), without a bound on its values

`context` is the width of what steers (a ConditionEmbedding); with 0 the argument is ignored. Any extents work: an odd
axis halves upwards (7 to 4) and comes back exactly, an axis of extent 1 is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PATCH = {  # rank of a batch -> grid of patches <-> channels
    3: "b c (l p) -> b (c p) l",
    4: "b c (h p) (w q) -> b (c p q) h w",
    5: "b c (t p) (h q) (w r) -> b (c p q r) t h w",
}


def depth(axes: Sequence[int], coarsest: int = 8) -> int:
    """How often to halve until no axis is longer than `coarsest`.

    >>> depth((28, 28)), depth((64, 64)), depth((8, 8), 4)
    (2, 3, 1)
    """
    levels = 0
    while max(axes) > coarsest * 2**levels:
        levels += 1
    return levels


def pyramid(axes: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """The extents at every level, finest first.

    >>> pyramid((28, 1), 2)
    [(28, 1), (14, 1), (7, 1)]
    """
    return [tuple(-(-n // 2**level) for n in axes) for level in range(levels + 1)]


def widths(width: int, levels: int) -> list[int]:
    """Channels after each halving: doubling, at most four-fold."""
    return [width * min(2**level, 4) for level in range(max(1, levels))]


def same(axes: Sequence[int], channels: int, out: int) -> nn.Module:
    """A convolution that keeps the axes: extent 3, and 1 along an axis of 1, where neighbours are only padding."""
    kernel = tuple(3 if n > 1 else 1 for n in axes)
    return CONV[len(axes) - 1](channels, out, kernel, padding=tuple(k // 2 for k in kernel))


def halve(axes: Sequence[int], channels: int, out: int) -> nn.Module:
    """A strided convolution that halves every axis longer than 1, odd ones upwards."""
    kernel = tuple(3 if n > 1 else 1 for n in axes)
    stride, pad = tuple(1 + (n > 1) for n in axes), tuple(k // 2 for k in kernel)
    return CONV[len(axes) - 1](channels, out, kernel, stride, pad)


class Patches(nn.Module):
    """x (B, C, *axes) -> (B, out, *axes / patch, rounded up): each patch becomes channels of one 3-wide convolution.

    Twice as fast on a CPU as a strided convolution on one channel.
    """

    def __init__(self, axes: Sequence[int], channels: int, out: int, patch: int = 2):
        super().__init__()
        self.sides = _sides(axes, patch)
        self.pad = [p for n, side in zip(reversed(axes), reversed(self.sides), strict=True) for p in (0, -n % side)]
        coarse = tuple(-(-n // side) for n, side in zip(axes, self.sides, strict=True))
        self.conv = same(coarse, channels * prod(self.sides), out)

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pad):
            x = nn.functional.pad(x, self.pad)
        return self.conv(rearrange(x, PATCH[x.ndim], **dict(zip("pqr", self.sides, strict=False))))


class Unpatch(nn.Module):
    """h (B, C, *axes / patch) -> (B, out, *axes): the mirror of Patches."""

    def __init__(self, axes: Sequence[int], channels: int, out: int, patch: int = 2):
        super().__init__()
        self.axes, self.sides = tuple(axes), _sides(axes, patch)
        coarse = tuple(-(-n // side) for n, side in zip(axes, self.sides, strict=True))
        self.conv = same(coarse, channels, out * prod(self.sides))

    def forward(self, h: Tensor) -> Tensor:
        inside, outside = PATCH[h.ndim].split(" -> ")
        sides = dict(zip("pqr", self.sides, strict=False))
        return crop(rearrange(self.conv(h), f"{outside} -> {inside}", **sides), self.axes)


def _sides(axes: Sequence[int], patch: int) -> tuple[int, ...]:
    """The patch along each axis: an axis is never cut below one place (of 3: a patch of 4, of 1: of 1).

    >>> _sides((28, 3, 1), 4)
    (4, 4, 1)
    """
    return tuple(min(patch, 2 ** (n - 1).bit_length()) for n in axes)


class Double(nn.Module):
    """h (B, C, *halved) -> (B, out, *axes): the mirror of `halve`."""

    def __init__(self, axes: Sequence[int], channels: int, out: int):
        super().__init__()
        self.axes = tuple(axes)
        kernel, stride = tuple(4 if n > 1 else 1 for n in axes), tuple(1 + (n > 1) for n in axes)
        pad = tuple(k // 4 for k in kernel)
        self.conv = TRANSPOSED[len(axes) - 1](channels, out, kernel, stride, pad)

    def forward(self, h: Tensor) -> Tensor:
        return crop(self.conv(h), self.axes)


def crop(x: Tensor, axes: Sequence[int]) -> Tensor:
    """x (B, C, ...) cut to `axes` at the far end of each axis."""
    for i, n in enumerate(axes, start=2):
        x = x.narrow(i, 0, n)
    return x


def norm(channels: int, axes: Sequence[int] = (0,)) -> nn.GroupNorm:
    """GroupNorm of at least 8 channels a group; one group where there is one place, or the amplitude of everything would be lost."""
    fits = (g for g in (8, 4, 2, 1) if channels % g == 0 and (channels // g >= 8 or g == 1))
    return nn.GroupNorm(1 if prod(axes) == 1 else next(fits), channels)


class FiLM(nn.Module):
    """h (B, C, ...) scaled and shifted per channel by context (B, F) (Perez 2018, arXiv:1709.07871); starts as identity."""

    def __init__(self, features: int, channels: int):
        super().__init__()
        self.project = nn.Linear(features, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.project(context).unflatten(1, (2, -1) + (1,) * (h.ndim - 2)).unbind(1)
        return torch.addcmul(shift, h, 1 + scale)


class Residual(nn.Module):
    """h (B, C, *axes), context (B, F) or None -> the same shape (He 2016 with norms first and FiLM between)."""

    def __init__(self, axes: Sequence[int], channels: int, context: int = 0, out: int | None = None):
        super().__init__()
        out = out or channels
        self.first = nn.Sequential(norm(channels, axes), nn.GELU(), same(axes, channels, out))
        self.norm = norm(out, axes)
        self.film = FiLM(context, out) if context else None
        self.second = nn.Sequential(nn.GELU(), same(axes, out, out))
        self.skip = CONV[len(axes) - 1](channels, out, 1) if out != channels else nn.Identity()
        nn.init.zeros_(self.second[1].weight)
        nn.init.zeros_(self.second[1].bias)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        g = self.norm(self.first(h))
        if self.film is not None:
            g = self.film(g, context)
        return self.skip(h) + self.second(g)


class Encoder(nn.Module):
    """x (B, channels, *axes), context (B, F) or None -> (B, out, *grid)"""

    def __init__(
        self,
        channels: int,
        axes: Sequence[int],
        out: int,
        *,
        width: int,
        levels: int,
        blocks: int = 1,
        context: int = 0,
    ):
        super().__init__()
        finest = pyramid(axes, levels)
        self.grid = finest[-1]
        wide = widths(width, levels)
        stem = Patches(axes, channels, width) if levels else same(axes, channels, width)
        down = [halve(extents, a, b) for extents, (a, b) in zip(finest[1:], pairwise(wide), strict=False)]
        self.down = nn.ModuleList([stem, *down])
        self.blocks = nn.ModuleList([Residual(finest[-1], wide[-1], context) for _ in range(blocks)])
        self.head = nn.Sequential(norm(wide[-1], self.grid), nn.GELU(), CONV[len(axes) - 1](wide[-1], out, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.down[0](x)
        for layer in self.down[1:]:
            h = layer(nn.functional.gelu(h))
        for block in self.blocks:
            h = block(h, context)
        return self.head(h)


class Decoder(nn.Module):
    """h (B, channels, *grid), context (B, F) or None -> (B, out, *axes)"""

    def __init__(
        self,
        channels: int,
        out: int,
        axes: Sequence[int],
        *,
        width: int,
        levels: int,
        blocks: int = 1,
        context: int = 0,
    ):
        super().__init__()
        finest = pyramid(axes, levels)
        wide = widths(width, levels)
        self.stem = same(finest[-1], channels, wide[-1])
        self.blocks = nn.ModuleList([Residual(finest[-1], wide[-1], context) for _ in range(blocks)])
        up = [Double(extents, b, a) for extents, (a, b) in zip(finest[1:], pairwise(wide), strict=False)]
        head = Unpatch(axes, width, out) if levels else same(axes, width, out)
        self.up = nn.ModuleList([*reversed(up), head])

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.stem(h)
        for block in self.blocks:
            h = block(h, context)
        for layer in self.up:
            h = layer(nn.functional.gelu(h))
        return h
