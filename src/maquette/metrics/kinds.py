"""Which kinds were lost: clusters of real pieces that too few generated ones fall into (Richardson & Weiss 2018, arXiv:1805.12462)."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.finding import Finding, Material, fewer, interval, resamples
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


def lost(counts: Tensor, real: Tensor) -> Tensor:
    """(k,) generated and (k,) real pieces by kind -> (k,) bool: under half its share, and too few for chance (Fisher's exact test, divided
    by the number of kinds after Bonferroni). Real pieces are a sample, too: a binomial test that takes their shares for the truth calls a
    kind lost for 2 to 8 of 100 perfect generators instead of 1."""
    n, m = int(counts.sum()), int(real.sum())
    few = counts * m < FEW * n * real
    pairs = zip(few.tolist(), counts.tolist(), real.tolist(), strict=True)
    return torch.tensor([f and fewer(int(c), int(r), n, m) < SURE / len(counts) for f, c, r in pairs])


def measure(m: Material) -> list[Finding]:
    k = min(MOST, len(m.train) // MEMBERS)
    if k < 2:
        return []
    middle = centres(m.train.double(), k, m.seed)
    real, made, test = (assigned(x.double(), middle).bincount(minlength=k) for x in (m.train, m.generated, m.test))
    shares = real.double() / real.sum()
    gone, floor = lost(made, real), float(lost(test, real).sum())
    value = float(gone.sum())
    low, high = lost_interval(assigned(m.generated.double(), middle), real, m.seed)
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


def lost_interval(kinds: Tensor, real: Tensor, seed: int) -> tuple[float, float]:
    """Generated pieces are redrawn; the kinds and the real pieces stay."""
    one_hot = torch.nn.functional.one_hot(kinds, len(real)).double()
    counts = resamples(len(kinds), seed, 100) @ one_hot
    return interval(torch.stack([lost(c.long(), real).sum() for c in counts]))
