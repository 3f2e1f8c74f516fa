"""A Finding is one figure of an audit with all that is needed to judge it; beside it the bootstrap (Efron 1979) for its interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, exp, lgamma, log
from typing import Literal

import numpy as np
import torch
from torch import Tensor

DRAWS = 200  # resamples behind an interval
LEVEL = 0.95


@dataclass(frozen=True)
class Finding:
    """One measured figure.

    space      the features it was measured in: "judge" or "pixels"
    low, high  a bootstrap interval of 95 %
    reference  the floor: the same figure for real pieces in the place of generated ones; None where there is none
    n          generated pieces behind it
    direction  what is better: higher, lower, or near the reference
    unit       of value, low, high and reference: "share", "nats", "pieces"; "" is a pure number
    sentence   what it says, in plain words
    """

    name: str
    space: str
    value: float
    low: float
    high: float
    reference: float | None
    n: int
    direction: Literal["higher", "lower", "near"]
    sentence: str
    unit: str = ""


@dataclass(frozen=True)
class Labels:
    """What a judge that learnt labels says of pieces.

    names      of the k labels that it tells apart; all else are places among them
    told       (n,) of generated pieces
    asked      (n,) what was asked for, -1 where nothing it knows was; None: the model is not asked for labels
    held_told, held  (m,) of the held-out pieces that have one of these labels, and which they have
    shares     (k,) float64: how often each is among the training pieces that have one
    """

    names: tuple[str, ...]
    told: Tensor
    asked: Tensor | None
    held_told: Tensor
    held: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Material:
    """What a metric may look at, in one space of features.

    generated (n, D), test (m, D) without twins, train (t, D): as many real pieces of the train split as were generated;
    generated_to_train (n,), test_to_train (m,): distance to the nearest piece of the whole train split
    noun       "pictures", for sentences
    labels     in the space of the judge, where it learnt labels
    gaps       (n,), (m,) of generated and test pieces: how far their nearest training piece lies from its own nearest other one
    """

    space: str
    noun: str
    generated: Tensor
    test: Tensor
    train: Tensor
    generated_to_train: Tensor
    test_to_train: Tensor
    seed: int = 0
    labels: Labels | None = None
    gaps: tuple[Tensor, Tensor] | None = None


def resamples(n: int, seed: int, draws: int = DRAWS) -> Tensor:
    """(draws, n) float64: how often each of n rows is drawn in each resample with replacement."""
    counts = np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), draws)
    return torch.from_numpy(counts).double()


def interval(draws: Tensor) -> tuple[float, float]:
    """The middle 95 % of resampled values (draws,)."""
    low, high = torch.quantile(draws.double(), torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64))
    return float(low), float(high)


def mean_interval(scores: Tensor, seed: int) -> tuple[float, float]:
    """The interval of the mean of one score a row (n,)."""
    return interval(resamples(len(scores), seed) @ scores.double() / len(scores))


def share_interval(claims: Tensor, seed: int) -> tuple[float, float]:
    """The interval of a share: claims (n,) of 0 and 1. Where all rows agree redrawing says nothing, and Wilson's interval is taken."""
    share = float(claims.double().mean())
    return wilson(share, len(claims)) if share in (0.0, 1.0) else mean_interval(claims, seed)


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of a share of n.

    >>> tuple(round(x, 3) for x in wilson(0.0, 100))
    (0.0, 0.037)
    """
    middle, reach = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (middle - reach) / (1 + z * z / n)), min(1.0, (middle + reach) / (1 + z * z / n))


def at_most(count: int, n: int, share: float) -> float:
    """The chance of `count` or fewer of n, each with probability `share`.

    >>> round(at_most(1, 4, 0.5), 4)
    0.3125
    """
    if not 0 < share < 1:
        return 1.0 if share <= 0 or count >= n else 0.0
    whole = lgamma(n + 1)
    terms = (
        whole - lgamma(i + 1) - lgamma(n - i + 1) + i * log(share) + (n - i) * log(1 - share) for i in range(count + 1)
    )
    return min(1.0, sum(exp(t) for t in terms))


def fewer(count: int, other: int, n: int, m: int) -> float:
    """The chance of `count` or fewer in a sample of n, where both samples, this one and another of m, hold count + other of one kind
    (Fisher's exact test, 1922).

    >>> round(fewer(0, 5, 10, 10), 4)
    0.0163
    """
    total = count + other
    ways = sum(comb(n, i) * comb(m, total - i) for i in range(count + 1))
    return ways / comb(n + m, total)
