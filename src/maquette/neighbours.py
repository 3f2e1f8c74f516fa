"""Nearest neighbours by brute force, a block at a time: exact, and fast enough for some ten thousand pieces on two cores."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1024  # rows at once: a block of distances against 10,000 rows is 80 MB


def squared(x: Tensor, y: Tensor) -> Tensor:
    """(N, D), (M, D) -> squared Euclidean distances (N, M), in the precision of x."""
    return (x.square().sum(1, keepdim=True) + y.square().sum(1)).addmm_(x, y.T, alpha=-2).clamp_min_(0)


def radii(x: Tensor, k: int) -> Tensor:
    """(N, D) -> (N,): the distance of each row to its k-th nearest other row. Needs N > k."""
    x = x.double()
    found = []
    for start in range(0, len(x), BLOCK):
        block = squared(x[start : start + BLOCK], x)
        rows = torch.arange(len(block))
        block[rows, start + rows] = torch.inf
        place = block.kthvalue(k, dim=1).indices
        found.append((x[start : start + BLOCK] - x[place]).norm(dim=1))  # exact: the radius of a twin is 0
    return torch.cat(found)


def balls_around(points: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """(N, D), (M, D), (M,) -> (N,): in how many of the balls each point lies."""
    points, centres = points.double(), centres.double()
    return torch.cat([(squared(block, centres) < radius.square()).sum(1) for block in points.split(BLOCK)])


class Several:
    """The `k` nearest rows of a stream of blocks for each query (N, D): distance, index (N, k), the nearest first.

    index is the number given to a row, -1 where fewer than k came. Of rows equally far the one that came first stands first.

    >>> several = Several(torch.tensor([[0.0], [9.0]]), 2)
    >>> several.see(torch.tensor([[1.0], [7.0], [-2.0]]), torch.tensor([40, 41, 42]))
    >>> several.distance.tolist(), several.index.tolist()
    ([[1.0, 2.0], [2.0, 8.0]], [[40, 42], [41, 40]])
    """

    def __init__(self, queries: Tensor, k: int = 1):
        self.queries = queries.float()
        self.distance = torch.full((len(queries), k), torch.inf)
        self.index = torch.full((len(queries), k), -1)

    def see(self, rows: Tensor, numbers: Tensor) -> None:
        """rows (M, D), their numbers (M,)."""
        rows, k = rows.float(), self.distance.shape[1]
        for start in range(0, len(self.queries), BLOCK):
            part = slice(start, start + BLOCK)
            queries = self.queries[part]
            place = _least(squared(queries, rows), min(k, len(rows)))
            exact = (queries[:, None] - rows[place]).norm(
                dim=2
            )  # the product form loses the digits that matter for a copy
            distance, order = torch.cat([self.distance[part], exact], 1).sort(dim=1, stable=True)
            self.distance[part] = distance[:, :k]
            self.index[part] = torch.cat([self.index[part], numbers[place]], 1).gather(1, order[:, :k])


def _least(x: Tensor, k: int) -> Tensor:
    """(N, M) -> (N, k): where the k least stand, ascending; argmin promises the first of several, topk does not."""
    if k == 1:
        return x.argmin(1, keepdim=True)
    return x.topk(k, largest=False, sorted=False).indices.sort(1).values


def distinct(x: Tensor) -> Tensor:
    """(N, D) -> numbers of the rows that repeat no earlier one, ascending. Twins have radius 0 and can never be covered."""
    step = x.std().clamp_min(1e-12) * 1e-4
    _, group = torch.unique((x / step).round(), dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), len(x)) if len(x) else torch.zeros(0, dtype=torch.long)
    return first.scatter_reduce(0, group, torch.arange(len(x)), "amin").sort().values
