"""From vectors to codes and back: finite scalars (Mentzer 2023, arXiv:2309.15505) or a learnt codebook (van den Oord 2017, arXiv:1711.00937)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class Quantised(NamedTuple):
    """vectors (..., D), straight-through; codes (...) int64; commitment, a scalar that pulls the encoder to its codes."""

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


class FSQ(nn.Module):
    """z (..., len(levels)): each number is bounded and rounded to one of its levels; nothing is learnt.

    >>> q = FSQ([3, 2])
    >>> found = q(torch.randn(4, 2))
    >>> torch.equal(q.lookup(found.codes), found.vectors)
    True
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.size, self.features = prod(levels), len(levels)
        places = [prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        height = self.levels * torch.sigmoid(1.6 * z.float()) - 0.5  # 1.6: a normal z fills the levels evenly
        whole = torch.minimum(height.detach().round().clamp(min=0), self.levels - 1)
        vectors = self._centred(height + (whole - height).detach())
        return Quantised(vectors, (whole.long() * self.places).sum(-1), z.new_zeros(()))

    def lookup(self, codes: Tensor) -> Tensor:
        """codes (...) -> vectors (..., D)"""
        return self._centred(codes.unsqueeze(-1) // self.places % self.levels)

    def _centred(self, whole: Tensor) -> Tensor:
        """Levels 0 .. n - 1 -> [-1, 1]."""
        return 2 * whole / (self.levels - 1) - 1

    def settle(self) -> None:
        """A grid has nothing to learn."""


class Codebook(nn.Module):
    """z (..., features), read by its direction (Yu 2022, arXiv:2110.04627), becomes the nearest of `size` unit vectors.

    The vectors are running means of what chose them; `settle` moves them after each step and gives a code that hardly
    anything chooses a new place amid the data. All of it is kept in buffers, so stopping and resuming loses nothing.
    """

    def __init__(self, size: int, features: int = 8, decay: float = 0.99):
        super().__init__()
        self.size, self.features, self.decay = size, features, decay
        self.register_buffer("vectors", F.normalize(torch.randn(size, features), dim=-1))
        self.register_buffer("counts", torch.zeros(size))  # running number of choices per step
        self.register_buffer("sums", torch.zeros(size, features))
        self.register_buffer("new_counts", torch.zeros(size))  # of this step
        self.register_buffer("new_sums", torch.zeros(size, features))
        self.register_buffer("places", torch.zeros(size, features))  # vectors of this step, for restarts

    def forward(self, z: Tensor) -> Quantised:
        z = F.normalize(z.float(), dim=-1)
        codes = (z.detach() @ self.vectors.T).argmax(-1)
        nearest = self.lookup(codes)
        if self.training and torch.is_grad_enabled():
            self._note(z.detach().flatten(0, -2), codes.flatten())
        commitment = (z - nearest).square().sum(-1).mean()
        return Quantised(z + (nearest - z).detach(), codes, commitment)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes (...) -> vectors (..., features)"""
        return F.embedding(codes, self.vectors)

    def _note(self, rows: Tensor, codes: Tensor) -> None:
        """rows (N, features), codes (N,): remember who chose what until `settle`."""
        self.new_counts.index_add_(0, codes, torch.ones_like(codes, dtype=self.new_counts.dtype))
        self.new_sums.index_add_(0, codes, rows)
        self.places.copy_(rows[torch.randint(len(rows), (self.size,), device=rows.device)])

    @torch.no_grad()
    def settle(self) -> None:
        """One step of the running means; the same on every process."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self.new_counts)
            dist.all_reduce(self.new_sums)
            dist.broadcast(self.places, 0)
        self.counts.lerp_(self.new_counts, 1 - self.decay)
        self.sums.lerp_(self.new_sums, 1 - self.decay)
        share = self.new_counts.sum() / self.size
        dead = (self.counts < share.mul(0.2).clamp(max=2)).unsqueeze(1)
        self.sums.copy_(torch.where(dead, self.places * share, self.sums))
        self.counts.copy_(torch.where(dead.squeeze(1), share, self.counts))
        self.vectors.copy_(F.normalize(self.sums, dim=-1))
        self.new_counts.zero_()
        self.new_sums.zero_()


def perplexity(codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(share of the codes that occur, e^entropy of their frequencies): how much of a codebook a batch uses.

    >>> [round(float(n), 3) for n in perplexity(torch.tensor([0, 0, 3, 3]), 8)]
    [0.25, 2.0]
    """
    counts = torch.bincount(codes.flatten(), minlength=size).float()
    p = counts / counts.sum()
    return (counts > 0).float().mean(), torch.special.entr(p).sum().exp()
