"""How new the pieces are: distances to the nearest training piece, calibrated on held-out pieces (Meehan 2020, arXiv:2004.05675,
compares the same two distances)."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.copying import c_t
from maquette.finding import Finding, Material, interval, resamples, wilson

RARE = (
    0.01  # a piece is a near copy when it lies nearer to the train split than all but this share of the held-out ones
)


def threshold(test_to_train: Tensor) -> float:
    """(M,) -> the distance that a share `RARE` of the held-out pieces stays below."""
    return float(torch.quantile(test_to_train.double(), RARE))


def near_copies(generated_to_train: Tensor, test_to_train: Tensor) -> Tensor:
    """(N,), (M,) -> (N,) bool. With M < 100 nothing held out is that rare: then the nearest held-out piece is the measure."""
    return generated_to_train.double() < threshold(test_to_train)


def copies_interval(generated_to_train: Tensor, test_to_train: Tensor, seed: int) -> tuple[float, float]:
    """The interval of the share of near copies; the threshold, too, is drawn anew from the held-out pieces."""
    ordered = test_to_train.double().sort().values
    heard = resamples(len(ordered), seed + 1).cumsum(1)
    place = (heard < RARE * len(ordered)).sum(1).clamp_max(len(ordered) - 1)
    below = (generated_to_train.double() < ordered[place][:, None]).double()
    low, high = interval((below * resamples(len(generated_to_train), seed)).mean(1))
    least, most = wilson(0.0, len(generated_to_train))[1], wilson(1.0, len(generated_to_train))[0]
    return (0.0 if low == high == 0 else min(low, most)), max(high, least)


def measure(m: Material) -> list[Finding]:
    return [_copies(m), _distance(m), _c_t(m)]


def _copies(m: Material) -> Finding:
    share = float(near_copies(m.generated_to_train, m.test_to_train).double().mean())
    low, high = copies_interval(m.generated_to_train, m.test_to_train, m.seed)
    sentence = (
        f"{round(share * len(m.generated))} of {len(m.generated):,} {m.noun} lie nearer to a training one than {1 - RARE:.0%} "
        f"of the held-out {m.noun} do; {RARE * len(m.generated):.0f} would be usual."
    )
    return Finding("near copies", m.space, share, low, high, RARE, len(m.generated), "lower", sentence, "share")


def _distance(m: Material) -> Finding:
    """The median distance to the train split over that of held-out pieces."""
    made, held = (d.double() for d in (m.generated_to_train, m.test_to_train))
    value = float(made.median() / held.median().clamp_min(1e-12))
    draws = [_weighted_median(d, resamples(len(d), m.seed + i)) for i, d in enumerate((made, held))]
    low, high = interval(draws[0] / draws[1].clamp_min(1e-12))
    side = "nearer to" if value < 1 else "farther from"
    sentence = f"The typical piece lies {abs(value - 1):.0%} {side} its nearest training one than a held-out one does."
    return Finding(
        "distance to training", m.space, value, low, high, 1.0, len(made), "near", sentence, "times the usual"
    )


def _weighted_median(x: Tensor, weights: Tensor) -> Tensor:
    """x (N,), weights (R, N) -> (R,)"""
    ordered, order = x.sort()
    place = (weights[:, order].cumsum(1) < weights.sum(1, keepdim=True) / 2).sum(1)
    return ordered[place]


def _c_t(m: Material) -> Finding:
    """The rank statistic of Meehan 2020 over all pieces at once; its interval is that of a z."""
    value = c_t(m.generated_to_train.numpy(), m.test_to_train.numpy())
    side = (
        "nearer to the train split than" if value < -2 else "farther from it than" if value > 2 else "as near to it as"
    )
    sentence = f"As a whole the {m.noun} lie {side} held-out ones (beyond -2 or 2 is more than chance); a few copies among many do not show."
    return Finding(
        "C_T", m.space, value, value - 1.96, value + 1.96, 0.0, len(m.generated), "near", sentence, "deviations"
    )
