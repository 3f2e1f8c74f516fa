"""Which kinds were lost: clusters of real pieces that too few generated ones fall into (Richardson & Weiss 2018, arXiv:1805.12462)."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.finding import Finding, Material, at_most, interval, resamples
from maquette.neighbours import squared
from maquette.nets.density import lloyd

MOST = 20  # kinds
MEMBERS = 25  # real pieces to a kind, on average, at least
ROUNDS = 20  # of k-means
SURE = 0.01  # the chance of calling any kind lost where none is
FEW = 0.5  # a lost kind has less than this part of its share


def centres(x: Tensor, k: int, seed: int) -> Tensor:
    """(N, D) -> (k, D): k-means (Lloyd 1957) from k-means++ seeds (Arthur & Vassilvitskii 2007)."""
    chance = torch.Generator().manual_seed(seed)
    found = x[torch.randint(len(x), (1,), generator=chance)]
    while len(found) < k:
        away = squared(x, found).min(1).values + 1e-12
        found = torch.cat([found, x[torch.multinomial(away, 1, generator=chance)]])
    return lloyd(x, found, ROUNDS)[0]


def assigned(x: Tensor, middle: Tensor) -> Tensor:
    """(N, D), (k, D) -> (N,): the nearest centre of each row."""
    return torch.cat([squared(block, middle).argmin(1) for block in x.split(4096)])


def lost(counts: Tensor, shares: Tensor) -> Tensor:
    """(k,) pieces by kind, (k,) shares among real ones -> (k,) bool: under half its share, and too few for chance (binomial test,
    divided by the number of kinds after Bonferroni)."""
    n = int(counts.sum())
    rare = [at_most(int(c), n, float(s)) < SURE / len(counts) for c, s in zip(counts, shares, strict=True)]
    return torch.tensor(rare) & (counts < FEW * n * shares)


def measure(m: Material) -> list[Finding]:
    k = min(MOST, len(m.train) // MEMBERS)
    if k < 2:
        return []
    middle = centres(m.train.double(), k, m.seed)
    real, made, test = (assigned(x.double(), middle).bincount(minlength=k) for x in (m.train, m.generated, m.test))
    shares = real.double() / real.sum()
    gone, floor = lost(made, shares), float(lost(test, shares).sum())
    value = float(gone.sum())
    low, high = lost_interval(assigned(m.generated.double(), middle), shares, m.seed)
    sentence = (
        f"Of {k} kinds that training {m.noun} fall into, {value:.0f} hold too few of the generated ones for chance "
        f"({float(shares[gone].sum()):.0%} of all real ones are of these); of the held-out ones {floor:.0f} do."
    )
    return [
        Finding(
            "lost kinds",
            m.space,
            value,
            min(low, value),
            max(high, value),
            floor,
            len(m.generated),
            "lower",
            sentence,
            "kinds",
        )
    ]


def lost_interval(kinds: Tensor, shares: Tensor, seed: int) -> tuple[float, float]:
    """Pieces are redrawn; the kinds and their shares stay."""
    one_hot = torch.nn.functional.one_hot(kinds, len(shares)).double()
    counts = resamples(len(kinds), seed, 100) @ one_hot
    return interval(torch.stack([lost(c.long(), shares).sum() for c in counts]))
