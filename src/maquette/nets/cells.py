"""Grids to a coarse grid of cells and back, lean enough for a CPU: patches, strided convolutions, residual blocks at the cells alone.

Patches of four take the place of two fine levels: of all bodies that were tried it learns most in a minute on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import gelu

from maquette.nets.conv import CONV, Double, Patches, Residual, Unpatch, halve, norm, pyramid, same


def steps(axes: Sequence[int], halvings: int) -> tuple[int, list[tuple[int, ...]]]:
    """The side of a patch, and the grids from the patches to the cells.

    >>> steps((28, 28), 3)
    (4, [(7, 7), (4, 4)])
    >>> steps((32, 32), 2)
    (2, [(16, 16), (8, 8)])
    """
    first = max(min(halvings, 1), min(2, halvings - 1))
    return 2**first, pyramid(axes, halvings)[first:]


class ToCells(nn.Module):
    """x (B, channels, *axes) -> (B, out, *grid); `width` channels of the patches, doubled at each coarser grid up to four-fold."""

    def __init__(self, channels: int, axes: Sequence[int], out: int, *, width: int, halvings: int, blocks: int):
        super().__init__()
        patch, grids = steps(axes, halvings)
        wide = [width * min(2**i, 4) for i in range(len(grids))]
        self.grid = grids[-1]
        self.stem = Patches(axes, channels, width, patch)
        self.falls = nn.ModuleList([halve(g, a, b) for g, (a, b) in zip(grids, pairwise(wide), strict=False)])
        self.blocks = nn.Sequential(*[Residual(self.grid, wide[-1]) for _ in range(blocks)])
        self.norm = norm(wide[-1], self.grid)
        self.head = CONV[len(axes) - 1](wide[-1], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for fall in self.falls:
            h = fall(gelu(h))
        return self.head(gelu(self.norm(self.blocks(h))))


class FromCells(nn.Module):
    """h (B, channels, *grid) -> (B, out, *axes): the mirror of ToCells."""

    def __init__(self, channels: int, axes: Sequence[int], out: int, *, width: int, halvings: int, blocks: int):
        super().__init__()
        patch, grids = steps(axes, halvings)
        wide = [width * min(2**i, 4) for i in range(len(grids))]
        self.stem = same(grids[-1], channels, wide[-1])
        self.blocks = nn.Sequential(*[Residual(grids[-1], wide[-1]) for _ in range(blocks)])
        rises = [Double(g, b, a) for g, (a, b) in zip(grids, pairwise(wide), strict=False)]
        self.rises = nn.ModuleList(reversed(rises))
        self.head = Unpatch(axes, width, out, patch)

    def forward(self, h: Tensor) -> Tensor:
        h = self.blocks(self.stem(h))
        for rise in self.rises:
            h = rise(gelu(h))
        return self.head(gelu(h))
