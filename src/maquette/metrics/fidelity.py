"""How real the pieces look: Frechet distance (Heusel 2017, arXiv:1706.08500), KID (Binkowski 2018, arXiv:1801.01401),
precision (Kynkaanniemi 2019, arXiv:1904.06991), density (Naeem 2020, arXiv:2002.09797) and the Frechet distance extrapolated to endless
samples (Chong & Forsyth 2020, arXiv:1911.07023).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maquette.finding import Finding, Material, interval, mean_interval, resamples, share_interval
from maquette.neighbours import balls_around, radii

K = 5  # neighbours that span the ball around a piece
SIZES = 8  # sizes through which the line to endless samples is laid
EXTRAPOLATED = 40  # resamples behind its interval, each some twenty Frechet distances
WIDEST = 64  # features beyond which it is too dear
REDRAWN = 100  # resamples behind the interval of a Frechet distance, the one figure that is dear


class Gaussian(NamedTuple):
    """mean (D,), covariance (D, D), float64"""

    mean: Tensor
    covariance: Tensor


def gaussian(x: Tensor, weights: Tensor | None = None) -> Gaussian:
    """The moments of rows (N, D), each counted `weights` (N,) times; the covariance is the unbiased one."""
    x = x.double()
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    mean = weights @ x / weights.sum()
    centred = x - mean
    return Gaussian(mean, (centred * weights[:, None]).T @ centred / (weights.sum() - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)

    >>> one = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    >>> frechet(one, Gaussian(torch.tensor([3.0, 0.0]).double(), 4 * torch.eye(2).double()))
    11.0
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return float((a.mean - b.mean).square().sum() + traces - 2 * cross)


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """(N, D), (M, D) -> the distance of the Gaussians that fit them; biased upward in small samples, see `small`."""
    return frechet(gaussian(generated), gaussian(real))


def frechet_interval(generated: Tensor, real: Tensor, seed: int, draws: int = REDRAWN) -> tuple[float, float]:
    """The interval of the distance *at these numbers of pieces*: both samples are redrawn, and the bias that redrawing adds is
    taken off. The floor has the same number of pieces and so the same bias."""
    pairs = zip(resamples(len(generated), seed, draws), resamples(len(real), seed + 1, draws), strict=True)
    drawn = torch.tensor([frechet(gaussian(generated, u), gaussian(real, v)) for u, v in pairs])
    shift = drawn.mean() - frechet_distance(generated, real)
    low, high = interval(drawn - shift)
    return max(0.0, low), high


def small(n: int, features: int) -> bool:
    """Whether n pieces are too few for a Frechet distance in that many features."""
    return n < 2 * features


def sizes(n: int, features: int) -> list[int]:
    """n, n / 2, n / 3 ... while each is large enough, at most `SIZES`; fewer than three are too few for a line."""
    return [n // k for k in range(1, SIZES + 1) if not small(n // k, features)]


def extrapolated(generated: Tensor, real: Tensor) -> float:
    """The intercept of the line through the distances over 1 / N, N pieces of either; at each N the mean over disjoint parts.

    Rows should be in no order. Needs three sizes.
    """
    counts = sizes(min(len(generated), len(real)), real.shape[1])
    means = [_in_parts(generated, real, n) for n in counts]
    rows = torch.tensor([[1.0, 1 / n] for n in counts], dtype=torch.float64)
    return float(torch.linalg.lstsq(rows, torch.tensor(means, dtype=torch.float64)[:, None]).solution[0, 0])


def _in_parts(generated: Tensor, real: Tensor, n: int) -> float:
    parts = min(len(generated), len(real)) // n
    pairs = ((generated[i * n : (i + 1) * n], real[i * n : (i + 1) * n]) for i in range(parts))
    return sum(frechet_distance(a, b) for a, b in pairs) / parts


def extrapolated_interval(generated: Tensor, real: Tensor, seed: int, draws: int = EXTRAPOLATED) -> tuple[float, float]:
    """Both samples are redrawn as one would draw them anew, and the bias that redrawing adds is taken off."""
    chance = torch.Generator().manual_seed(seed)

    def again(x: Tensor) -> Tensor:
        return x[torch.randint(len(x), (len(x),), generator=chance)]

    drawn = torch.tensor([extrapolated(again(generated), again(real)) for _ in range(draws)])
    return interval(drawn - drawn.mean() + extrapolated(generated, real))


def kid(generated: Tensor, real: Tensor) -> float:
    """(N, D), (M, D) -> squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased: about 0 for equals."""
    return float(discrepancy(*kernels(generated, real), *(torch.ones(1, len(x)).double() for x in (generated, real))))


def kid_interval(generated: Tensor, real: Tensor, seed: int) -> tuple[float, float]:
    """Pieces are redrawn as weights, so that no kernel is computed twice."""
    weights = resamples(len(generated), seed), resamples(len(real), seed + 1)
    return interval(discrepancy(*kernels(generated, real), *weights))


def kernels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Kernels (N, N), (M, M) without their diagonals, and (N, M)."""
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        base = a @ b.T / a.shape[1] + 1
        return base * base * base

    return kernel(x, x).fill_diagonal_(0), kernel(y, y).fill_diagonal_(0), kernel(x, y)


def discrepancy(xx: Tensor, yy: Tensor, xy: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Kernels and the weights u (R, N), v (R, M) of R resamples -> (R,); a piece is never compared with itself."""

    def within(kernel: Tensor, w: Tensor) -> Tensor:
        return (w @ kernel * w).sum(1) / (w.sum(1).square() - w.square().sum(1))

    return within(xx, u) + within(yy, v) - 2 * (u @ xy * v).sum(1) / (u.sum(1) * v.sum(1))


def crowd(generated: Tensor, real: Tensor, k: int = K) -> Tensor:
    """(N, D), (M, D) -> (N,): around how many real pieces the ball to their k-th neighbour holds each generated one."""
    return balls_around(generated, real, radii(real, k))


def precision(generated: Tensor, real: Tensor, k: int = K) -> float:
    """The share of generated pieces within the ball of some real piece."""
    return float((crowd(generated, real, k) > 0).double().mean())


def density(generated: Tensor, real: Tensor, k: int = K) -> float:
    """Balls of real pieces around a generated one, over k: about 1 for equals. It rewards blur."""
    return float(crowd(generated, real, k).double().mean() / k)


def measure(m: Material) -> list[Finding]:
    return [_kid(m), _frechet(m), *_extrapolated(m), *(_balls(m) if len(m.test) > K else [])]


def _kid(m: Material) -> Finding:
    value, floor = kid(m.generated, m.test), kid(m.train, m.test)
    low, high = kid_interval(m.generated, m.test, m.seed)
    same = "no difference from real ones is found" if low <= max(floor, 0) else "they differ from real ones as a whole"
    sentence = f"Over all {m.noun} together, {same}; 0 means none, and a small number of {m.noun} does not inflate it."
    return Finding("KID", m.space, value, low, high, floor, len(m.generated), "lower", sentence, "squared discrepancy")


def _frechet(m: Material) -> Finding:
    value, floor = frechet_distance(m.generated, m.test), frechet_distance(m.train, m.test)
    low, high = frechet_interval(m.generated, m.test, m.seed)
    n = min(len(m.generated), len(m.test))
    sentence = f"The usual distance to real {m.noun}; at this number real ones score {floor:.3g} themselves."
    if small(n, m.test.shape[1]):
        sentence = (
            f"Inflated: {n} {m.noun} are too few for {m.test.shape[1]} features (at least {2 * m.test.shape[1]}); "
            "trust KID, or read it beside its floor only."
        )
    return Finding(
        "Frechet distance", m.space, value, low, high, floor, len(m.generated), "lower", sentence, "squared distance"
    )


def _extrapolated(m: Material) -> list[Finding]:
    """Nothing where pieces are too few for three sizes or features too many."""
    n, features = min(len(m.generated), len(m.test), len(m.train)), m.test.shape[1]
    if features > WIDEST or len(sizes(n, features)) < 3:
        return []
    made, real, test = _shuffled(m.generated, m.seed), _shuffled(m.train, m.seed), _shuffled(m.test, m.seed + 1)
    value, floor = extrapolated(made, test), extrapolated(real, test)
    low, high = extrapolated_interval(made, test, m.seed)
    sentence = f"The Frechet distance as it would be with {m.noun} without end: about 0 for equals, and a little below 0 by chance."
    name = "Frechet distance, extrapolated"
    return [Finding(name, m.space, value, low, high, floor, len(m.generated), "lower", sentence, "squared distance")]


def _shuffled(x: Tensor, seed: int) -> Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


def _balls(m: Material) -> list[Finding]:
    around, real = crowd(m.generated, m.test), crowd(m.train, m.test)
    inside, share = (around > 0).double(), float((real > 0).double().mean())
    value, n = float(inside.mean()), len(around)
    words = f"{value:.0%} of the {m.noun} look like some held-out one; of real ones {share:.0%} do."
    thick = f"How thickly real {m.noun} lie around generated ones; far above its floor it means blurred or too typical."
    about, floor = around / K, float(real.double().mean() / K)
    return [
        Finding("precision", m.space, value, *share_interval(inside, m.seed), share, n, "higher", words, "share"),
        Finding("density", m.space, float(about.mean()), *mean_interval(about, m.seed), floor, n, "near", thick),
    ]
