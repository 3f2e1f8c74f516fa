"""Two players on grids of 1, 2 or 3 axes, sized by one number: DCGAN (Radford 2016, arXiv:1511.06434) made lean enough for a CPU.

The finest level is never convolved: the generator ends and the discriminator begins in patches of two (sub-pixel convolution,
Shi 2016, arXiv:1609.05158), for at 28 pixels a layer at full resolution costs as much as all others together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
COARSEST = 8  # an axis is halved while it is longer than this
MOST = 8  # channels are doubled with every halving, up to this multiple of the width


class Generator(nn.Module):
    """latent (B, latent), condition embedding (B, features) or 0.0 -> (B, *shape) in [-1, 1]; `width` channels at half resolution.

    BatchNorm pays at this size; `settle` fits its statistics, so that a piece depends on its own latent alone.
    """

    def __init__(self, shape: Sequence[int], latent: int, width: int, features: int = 0):
        super().__init__()
        channels, *axes = shape
        levels, widths = ladder(axes, width)
        self.features, self.coarsest = features, levels[-1]
        self.stem = nn.Linear(latent + features, widths[-1] * prod(levels[-1]), bias=False)
        self.norm = NORM[len(axes) - 1](widths[-1])
        steps = zip(pairwise(levels[:0:-1]), pairwise(widths[:0:-1]), strict=True)
        self.rises = nn.Sequential(*[Rise(*widths, *grids) for grids, widths in steps])
        self.head = FromPatches(widths[min(1, len(widths) - 1)], channels, levels[min(1, len(levels) - 1)], levels[0])

    def forward(self, z: Tensor, condition: Tensor | float = 0.0) -> Tensor:
        z = with_condition(z, condition, self.features)
        h = self.stem(z).unflatten(1, (self.norm.num_features, *self.coarsest))
        h = F.relu(self.norm(channels_last(h)))
        return self.head(self.rises(h)).tanh()


class Discriminator(nn.Module):
    """(B, *shape) -> features (B, self.features); without a norm, for a gradient penalty looks at each piece alone.

    A linear layer sees the whole coarsest grid: on a CPU cheaper than one more convolution, and a better judge.
    """

    def __init__(self, shape: Sequence[int], width: int):
        super().__init__()
        channels, *axes = shape
        levels, widths = ladder(axes, width)
        first = min(1, len(levels) - 1)
        self.stem = ToPatches(channels, widths[first], levels[0], levels[first])
        falls = [Fall(*pair, *grids) for grids, pair in zip(pairwise(levels[1:]), pairwise(widths[1:]), strict=True)]
        self.falls = nn.Sequential(*falls)
        self.features = 8 * width
        self.whole = scaled(nn.Linear(widths[-1] * prod(levels[-1]), self.features))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.whole(self.falls(self.stem(x)).flatten(1)), 0.2)


class ClassicGenerator(nn.Module):
    """The well-known first GAN of the tutorials: a linear layer to 4 * width channels on a quarter of the grid (256 x 7 x 7 at 28 pixels
    and width 64), then two transposed convolutions with BatchNorm between."""

    def __init__(self, shape: Sequence[int], latent: int, width: int, features: int = 0):
        super().__init__()
        channels, *axes = shape
        half = halves(axes)
        quarter = halves(half)
        self.features, self.coarsest = features, quarter
        self.stem = nn.Linear(latent + features, 4 * width * prod(quarter), bias=False)
        self.norm = NORM[len(axes) - 1](4 * width)
        self.rise = Rise(4 * width, 2 * width, quarter, half)
        self.head = transposed(2 * width, channels, half, axes)
        self.axes = tuple(axes)
        self.apply(small)

    def forward(self, z: Tensor, condition: Tensor | float = 0.0) -> Tensor:
        z = with_condition(z, condition, self.features)
        h = self.stem(z).unflatten(1, (self.norm.num_features, *self.coarsest))
        h = self.rise(F.relu(self.norm(channels_last(h))))
        return crop(self.head(h), self.axes).tanh()


class ClassicDiscriminator(nn.Module):
    """Two strided convolutions with dropout: (B, *shape) -> features (B, self.features)."""

    def __init__(self, shape: Sequence[int], width: int):
        super().__init__()
        channels, *axes = shape
        half = halves(axes)
        quarter = halves(half)
        self.falls = nn.Sequential(
            ClassicFall(channels, width, axes, half), ClassicFall(width, 2 * width, half, quarter), nn.Flatten()
        )
        self.features = 2 * width * prod(quarter)
        self.apply(small)

    def forward(self, x: Tensor) -> Tensor:
        return self.falls(channels_last(x))


class ClassicFall(nn.Module):
    """(B, a, *fine) -> (B, b, *coarse): kernel 4 and stride 2, for at full resolution an uneven overlap draws a grid; leaky ReLU, dropout."""

    def __init__(self, a: int, b: int, fine: Sequence[int], coarse: Sequence[int]):
        super().__init__()
        stride = strides(coarse, fine)
        self.pad = missing(stride, coarse, fine)
        self.conv = CONV[len(stride) - 1](a, b, [2 + s for s in stride], stride=stride, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.conv(F.pad(h, self.pad) if any(self.pad) else h)
        return F.dropout(F.leaky_relu(h, 0.2), 0.3, self.training)


class Rise(nn.Module):
    """(B, a, *coarse) -> (B, b, *fine): transposed convolution, BatchNorm, ReLU."""

    def __init__(self, a: int, b: int, coarse: Sequence[int], fine: Sequence[int]):
        super().__init__()
        self.fine = tuple(fine)
        self.conv = transposed(a, b, coarse, fine, bias=False)
        self.norm = NORM[len(self.fine) - 1](b)

    def forward(self, h: Tensor) -> Tensor:
        return F.relu(self.norm(crop(self.conv(h), self.fine)))


class Fall(nn.Module):
    """(B, a, *fine) -> (B, b, *coarse): strided convolution, leaky ReLU."""

    def __init__(self, a: int, b: int, fine: Sequence[int], coarse: Sequence[int]):
        super().__init__()
        self.conv = scaled(CONV[len(fine) - 1](a, b, 3, stride=strides(coarse, fine), padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(h), 0.2)


class FromPatches(nn.Module):
    """(B, a, *coarse) -> (B, channels, *fine): a convolution draws all values of a patch at once."""

    def __init__(self, a: int, channels: int, coarse: Sequence[int], fine: Sequence[int]):
        super().__init__()
        self.fine, self.patch = tuple(fine), strides(coarse, fine)
        self.conv = CONV[len(self.fine) - 1](a, channels * prod(self.patch), 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.conv(h)
        names = "xyz"[: len(self.patch)]
        parts, grid = " ".join(f"p{n}" for n in names), " ".join(names)
        spread = " ".join(f"({n} p{n})" for n in names)
        sizes = {f"p{n}": p for n, p in zip(names, self.patch, strict=True)}
        return crop(rearrange(h, f"b (c {parts}) {grid} -> b c {spread}", **sizes), self.fine)


class ToPatches(nn.Module):
    """(B, channels, *fine) -> (B, b, *coarse): the values of a patch become channels, then a convolution."""

    def __init__(self, channels: int, b: int, fine: Sequence[int], coarse: Sequence[int]):
        super().__init__()
        self.patch = strides(coarse, fine)
        self.pad = missing(self.patch, coarse, fine)
        self.conv = scaled(CONV[len(self.patch) - 1](channels * prod(self.patch), b, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pad):
            x = F.pad(x, self.pad, mode="replicate")
        names = "xyz"[: len(self.patch)]
        parts, grid = " ".join(f"p{n}" for n in names), " ".join(names)
        spread = " ".join(f"({n} p{n})" for n in names)
        sizes = {f"p{n}": p for n, p in zip(names, self.patch, strict=True)}
        x = rearrange(x, f"b c {spread} -> b (c {parts}) {grid}", **sizes)
        return F.leaky_relu(self.conv(channels_last(x)), 0.2)


def ladder(axes: Sequence[int], width: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """The grids from fine to coarse (an axis longer than 8 is halved, rounded up) and the channels of each.

    >>> ladder((30, 6), 32)
    ([(30, 6), (15, 6), (8, 6)], [32, 32, 64])
    """
    levels = [tuple(axes)]
    while max(levels[-1]) > COARSEST:
        levels.append(tuple(-(-n // 2) if n > COARSEST else n for n in levels[-1]))
    return levels, [width * min(MOST, 2 ** max(0, i - 1)) for i in range(len(levels))]


def halves(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-n // 2) for n in axes)


def strides(coarse: Sequence[int], fine: Sequence[int]) -> tuple[int, ...]:
    """2 for every axis that is halved, 1 for the others."""
    return tuple(1 if c == f else 2 for c, f in zip(coarse, fine, strict=True))


def missing(stride: Sequence[int], coarse: Sequence[int], fine: Sequence[int]) -> list[int]:
    """The padding, as F.pad wants it, that brings every odd axis to a whole number of steps."""
    more = [s * c - n for s, c, n in zip(stride, coarse, fine, strict=True)]
    return [side for n in reversed(more) for side in (0, n)]


def transposed(a: int, b: int, coarse: Sequence[int], fine: Sequence[int], bias: bool = True) -> nn.Module:
    """Doubles every axis that grows: kernel 4 with stride 2 touches each place equally often, so it leaves no chequered traces."""
    stride = strides(coarse, fine)
    return TRANSPOSED[len(stride) - 1](a, b, [2 + s for s in stride], stride=stride, padding=1, bias=bias)


def crop(h: Tensor, axes: Sequence[int]) -> Tensor:
    """The first `axes` places: doubling an odd half gives one too many."""
    for dim, n in enumerate(axes, start=2):
        h = h.narrow(dim, 0, n)
    return h


def scaled(layer: nn.Module) -> nn.Module:
    """He's weights (2015, arXiv:1502.01852): without a norm, torch's default lets the signal fade by a third each layer."""
    nn.init.kaiming_normal_(layer.weight, 0.2)
    nn.init.zeros_(layer.bias)
    return layer


def small(layer: nn.Module) -> None:
    """Weights from N(0, 0.02), as DCGAN begins: neither player is sure of anything."""
    if isinstance(layer, CONV + TRANSPOSED):
        nn.init.normal_(layer.weight, 0.0, 0.02)


def channels_last(h: Tensor) -> Tensor:
    """The memory layout in which convolutions are fastest: a third on CPU."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return h.contiguous(memory_format=formats[h.dim()]) if h.dim() in formats else h


def with_condition(z: Tensor, condition: Tensor | float, features: int) -> Tensor:
    return torch.cat([z, condition], 1) if features else z  # type: ignore[list-item]


@torch.no_grad()
def settle(generator: nn.Module, parts: Iterable[tuple]) -> None:
    """Fit the statistics of every BatchNorm to what `generator(*part)` passes through: their plain mean over all parts."""
    norms = [m for m in generator.modules() if isinstance(m, NORM)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain mean
        norm.train()
    for part in parts:
        generator(*part)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()
