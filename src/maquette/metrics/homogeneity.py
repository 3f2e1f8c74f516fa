"""How alike the pieces of one batch are: the mean cosine of all its pairs (one less the internal diversity of Benhenda 2017, arXiv:1708.08227),
beside batches of real pieces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from maquette.finding import Finding, Material, mean_interval

BATCH = 8  # pieces that a person looks at together
FEWEST = 3  # batches


def alike(x: Tensor, middle: Tensor, size: int = BATCH) -> Tensor:
    """(N, D), (D,) -> (N // size,): of each batch of rows that follow each other the mean cosine of its pairs, seen from `middle`: 1 where all
    are the same, about 0 where they are no more alike than any.

    >>> alike(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), torch.zeros(2), 2).tolist()
    [1.0, -1.0]
    """
    rows = normalize((x - middle).double(), dim=1)
    batches = rows[: len(rows) // size * size].reshape(-1, size, x.shape[1])
    pairs = batches.sum(1).square().sum(1) - batches.square().sum((1, 2))
    return pairs / (size * (size - 1))


def measure(m: Material) -> list[Finding]:
    """Generated pieces stay in the order of their seeds, as `generate` makes them; real ones are shuffled, for folders are sorted by kind."""
    if min(len(m.generated), len(m.train)) < FEWEST * BATCH:
        return []
    middle = m.train.mean(0)
    order = torch.randperm(len(m.train), generator=torch.Generator().manual_seed(m.seed))
    made, real = alike(m.generated, middle), alike(m.train[order], middle)
    value, floor = float(made.mean()), float(real.mean())
    told, usual = (round(x, 2) + 0.0 for x in (value, floor))  # never -0
    sentence = (
        f"Of {BATCH} {m.noun} made together any two are alike by {told:.2f}, of {BATCH} real ones by {usual:.2f} (1: all the same, 0: no more "
        "alike than any)."
    )
    return [
        Finding("homogeneity", m.space, value, *mean_interval(made, m.seed), floor, len(m.generated), "near", sentence)
    ]
