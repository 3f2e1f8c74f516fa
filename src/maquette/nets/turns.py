"""Ways to turn a grid and to tell them apart (Gidaris 2018, arXiv:1803.07728): quarter turns of squares, mirrored axes of all else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

Way = tuple[tuple[int, ...], bool]  # axes to mirror, and whether the last two then change places


def turns(axes: Sequence[int]) -> list[Way]:
    """The ways to turn a grid: (axes to mirror, whether the last two then change places).

    >>> len(turns((8, 8))), len(turns((8, 9))), len(turns((8,))), len(turns((8, 8, 8)))
    (4, 4, 2, 8)
    """
    if len(axes) == 2 and axes[0] == axes[1]:
        return [((), False), ((1,), True), ((0, 1), False), ((0,), True)]  # quarter turns
    ways = product(*[(False, True) if n > 1 else (False,) for n in axes])  # along an axis of 1 nothing is mirrored
    return [(tuple(i for i, flip in enumerate(way) if flip), False) for way in ways]


def turned(x: Tensor, target: Tensor) -> Tensor:
    """x (B, C, *axes), the number of a way (B,) -> each row turned in its way."""
    made = x.clone()
    for answer, (flips, quarter) in enumerate(turns(x.shape[2:])):
        rows = (target == answer).nonzero().flatten()
        one = x[rows].flip([2 + a for a in flips]) if flips else x[rows]
        made[rows] = one.transpose(-1, -2) if quarter else one
    return made


def drawn_turns(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, C, *axes) -> (x, each row turned at random; the numbers of the ways (B,)); chance from torch's global generator."""
    target = torch.randint(len(turns(x.shape[2:])), (len(x),), device=x.device)
    return turned(x, target), target
