"""How many different pieces a batch is worth: the Vendi score (Friedman & Dieng 2023, arXiv:2210.02410) under cosine similarity, seen from the
middle of the training pieces.

A cosine depends on where 0 lies. Far from all pieces (pictures that share a background) any two are nearly alike, and the score mostly says how
far from their mean the pieces lie: it *rises* when kinds near the mean are dropped. From the middle it counts directions in which pieces differ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from maquette.finding import Finding, Material, interval, resamples

REDRAWN = 100  # resamples behind the interval


def vendi(x: Tensor, weights: Tensor | None = None) -> float:
    """(N, D) -> exp of the entropy of the eigenvalues of the similarities over N: 1 for equals, N where all are orthogonal.

    >>> round(vendi(torch.eye(4)), 6)
    4.0
    """
    rows = directions(x)
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    values = torch.linalg.eigvalsh((rows * weights[:, None]).T @ rows / weights.sum()).clamp_min(0)
    return float(torch.special.entr(values).sum().exp())


def directions(x: Tensor) -> Tensor:
    """(N, D) -> (N, D + 1) rows of length 1; rows of zeros share a direction of their own, so they are one more kind and none is lost."""
    return normalize(torch.cat([x, (x == 0).all(1, keepdim=True)], 1).double(), dim=1)


def vendi_interval(x: Tensor, seed: int) -> tuple[float, float]:
    """Pieces are redrawn, and what repeats take off the score on average is put back."""
    drawn = torch.tensor([vendi(x, w) for w in resamples(len(x), seed, REDRAWN)])
    value = vendi(x)
    low, high = interval(drawn - drawn.mean() + value)
    return max(1.0, min(low, value)), max(high, value)


def measure(m: Material) -> list[Finding]:
    """Of as many generated as real ones, since the score grows with their number."""
    n, middle = min(len(m.train), len(m.generated)), m.train.mean(0)
    made, real = m.generated[:n] - middle, m.train[:n] - middle
    value, floor = vendi(made), vendi(real)
    low, high = vendi_interval(made, m.seed)
    sentence = f"{n:,} {m.noun} are worth {value:.3g} wholly different ones; as many real ones are worth {floor:.3g}. Noise can raise it."
    return [Finding("Vendi score", m.space, value, low, high, floor, n, "near", sentence, "pieces")]
