"""What is done to pieces so that a network learns to undo it, and what can be done against it without learning; grids of 1 to 3 axes."""

from __future__ import annotations

from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
LINEAR = ("linear", "bicubic", "trilinear")
CELLS = 8  # parts of each axis that are missing or there as one
ROUNDS = 64  # in which holes are filled from their rims


def noisy(x: Tensor, most: float) -> Tensor:
    """x (B, C, *axes) and normal noise of a deviation of each piece's own, from a fifth of `most` on; within [-1, 1], as in a file."""
    deviation = most * (0.2 + 0.8 * torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device))
    return (x + deviation * torch.randn_like(x)).clamp(-1, 1)


def holes(x: Tensor, share: float) -> Tensor:
    """x (B, C, *axes) -> bool (B, 1, *axes): what is missing; of half of the pieces one box, of the others scattered cells; about `share`, and
    one cell at least."""
    axes = x.shape[2:]
    cells = [min(n, CELLS) for n in axes]
    scattered = torch.rand(len(x), prod(cells), device=x.device)
    scattered = ((scattered < share) | (scattered == scattered.amin(1, keepdim=True))).view(len(x), *cells)
    chosen = torch.where(
        torch.rand(len(x), *[1] * len(cells), device=x.device) < 0.5, _boxes(len(x), cells, share, x), scattered
    )
    return F.interpolate(chosen.unsqueeze(1).float(), size=axes) > 0.5


def _boxes(count: int, cells: list[int], share: float, like: Tensor) -> Tensor:
    """(count, *cells) bool: one box each"""
    found = torch.ones(count, *cells, dtype=torch.bool, device=like.device)
    for axis, n in enumerate(cells):
        size = max(1, round(n * share ** (1 / len(cells))))
        first = torch.randint(n - size + 1, (count, 1), device=like.device)
        place = torch.arange(n, device=like.device)
        inside = (place >= first) & (place < first + size)
        found &= inside.view(count, *(n if a == axis else 1 for a in range(len(cells))))
    return found


def coarse(x: Tensor, factor: int) -> Tensor:
    """x (B, C, *axes) -> the averages over blocks of `factor` places, (B, C, *axes / factor rounded up); an axis of one place stays."""
    sides = [min(factor, n) for n in x.shape[2:]]
    return POOL[len(sides) - 1](x, sides, sides, ceil_mode=True, count_include_pad=False)


def blocks(x: Tensor, factor: int) -> Tensor:
    """The same at full size: each block of one value."""
    return F.interpolate(coarse(x, factor), size=x.shape[2:])


# ---- without learning


def median(x: Tensor) -> Tensor:
    """The median of each place and its neighbours, edges repeated."""
    axes = x.shape[2:]
    padded = F.pad(x, [1, 1] * len(axes), mode="replicate")
    shifts = product(range(3), repeat=len(axes))
    views = [padded[(..., *(slice(s, s + n) for s, n in zip(shift, axes, strict=True)))] for shift in shifts]
    return torch.stack(views).median(0).values


def smooth(x: Tensor, factor: int) -> Tensor:
    """What `blocks` left, enlarged bicubically (linearly along 1 and 3 axes)."""
    small = coarse(x, factor)
    return F.interpolate(small, size=x.shape[2:], mode=LINEAR[x.ndim - 3], align_corners=False).clamp(-1, 1)


def grown(x: Tensor, hidden: Tensor) -> Tensor:
    """Holes filled from their rims: again and again the mean of the neighbours, as heat would spread."""
    there = (~hidden).to(x).expand_as(x)
    mean = (x * there).flatten(1).sum(1) / there.flatten(1).sum(1).clamp_min(1)
    found = torch.where(hidden, mean.view(-1, *[1] * (x.ndim - 1)), x)
    axes = x.ndim - 2
    for _ in range(ROUNDS):
        padded = F.pad(found, [1, 1] * axes, mode="replicate")
        found = torch.where(hidden, POOL[axes - 1](padded, 3, 1), found)
    return found


# ---- how near


def squared(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """(B, C, *axes) twice -> (B,) mean squared difference, over `where` (B, 1, *axes) alone if given"""
    error = (a - b).square()
    if where is None:
        return error.flatten(1).mean(1)
    counted = where.to(error).expand_as(error)
    return (error * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)


def decibels(error: Tensor) -> Tensor:
    """Mean squared error in [-1, 1] -> peak signal to noise ratio in dB, at most 60

    >>> decibels(torch.tensor([0.04])).item()
    20.0
    """
    return 10 * torch.log10(4 / error.clamp_min(4e-6))


def likeness(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """SSIM (Wang 2004) of (B, C, H, W) in [-1, 1], with square windows -> (B,)"""
    side = min(window, *a.shape[2:])

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, side, 1)

    one, two = mean(a), mean(b)
    spread, other, both = mean(a * a) - one * one, mean(b * b) - two * two, mean(a * b) - one * two
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = (2 * one * two + c1) * (2 * both + c2) / ((one * one + two * two + c1) * (spread + other + c2))
    return found.flatten(1).mean(1)
