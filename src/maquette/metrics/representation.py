"""Whom the pieces show: how often each label is told of generated pieces, beside how often training pieces have it; intervals by Wilson 1927."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.finding import Finding, Labels, Material, interval, resamples, wilson

MOST = 20  # labels that get a figure of their own: the most frequent ones


def shares(told: Tensor, labels: int) -> Tensor:
    """(N,) -> (labels,) float64"""
    return told.bincount(minlength=labels).double() / max(1, len(told))


def apart(p: Tensor, q: Tensor) -> Tensor:
    """(..., k), (k,) -> (...): total variation, the share that would have to change its label.

    >>> float(apart(torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])))
    0.25
    """
    return (p - q).abs().sum(-1) / 2


def apart_interval(told: Tensor, real: Tensor, seed: int) -> tuple[float, float]:
    """Pieces are redrawn, and the bias that redrawing adds is taken off."""
    one_hot = torch.nn.functional.one_hot(told, len(real)).double()
    drawn = apart(resamples(len(told), seed) @ one_hot / len(told), real)
    low, high = interval(drawn - drawn.mean() + apart(shares(told, len(real)), real))
    return max(0.0, low), min(1.0, high)


def measure(m: Material) -> list[Finding]:
    return [] if m.labels is None else [_whole(m, m.labels), *_each(m, m.labels)]


def _whole(m: Material, known: Labels) -> Finding:
    made = shares(known.told, len(known.names))
    value, floor = (
        float(apart(made, known.shares)),
        float(apart(shares(known.held_told, len(known.names)), known.shares)),
    )
    more = int((made - known.shares).argmax())
    sentence = (
        f"{value:.0%} of the {m.noun} would need another label for labels to occur as often as in training (held-out ones: {floor:.0%}); furthest "
        f"above is {known.names[more]}, {made[more]:.0%} instead of {known.shares[more]:.0%}. Labels are told by the judge."
    )
    low, high = apart_interval(known.told, known.shares, m.seed)
    return Finding("representation", m.space, value, low, high, floor, len(known.told), "lower", sentence, "share")


def _each(m: Material, known: Labels) -> list[Finding]:
    made, found = shares(known.told, len(known.names)), []
    for k in known.shares.argsort(descending=True)[:MOST].tolist():
        value, real, n = float(made[k]), float(known.shares[k]), len(known.told)
        low, high = wilson(value, n)
        side = "more than chance" if low > real else "less than chance" if high < real else "within chance"
        sentence = (
            f"{value:.1%} of the {m.noun} are told to be {known.names[k]}; of the training ones {real:.1%} are: {side}."
        )
        found.append(
            Finding(f"share of {known.names[k]}", m.space, value, low, high, real, n, "near", sentence, "share")
        )
    return found
