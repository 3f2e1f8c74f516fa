"""Whether the pieces of a series keep their identity: how often a variation lies nearer to its own first piece than to that of any other series
(retrieval at rank 1, as faces are told apart; Huang 2007, Labeled Faces in the Wild), beside how much the pieces of a series differ at all."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.finding import Finding, Material, interval, mean_interval, resamples, wilson

FEWEST = 10  # series below which nothing is told


def own(first: Tensor, series: Tensor) -> Tensor:
    """first (k, D), series (k, m, D) -> (k, m) 1.0 where a variation is nearest to its own first piece; a tie counts against it.

    >>> first = torch.tensor([[0.0], [10.0]])
    >>> own(first, torch.tensor([[[1.0], [9.0]], [[9.0], [5.0]]])).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    far = torch.cdist(series.flatten(0, 1).double(), first.double()).view(*series.shape[:2], -1)
    mine = far.diagonal(dim1=0, dim2=2).T  # (k, m)
    return ((far <= mine[..., None]).sum(2) == 1).double()


def within(first: Tensor, series: Tensor) -> Tensor:
    """(k, D), (k, m, D) -> (k,): the mean distance of two pieces of a series."""
    x = torch.cat([first[:, None], series], 1).double()
    return torch.cdist(x, x).sum((1, 2)) / (x.shape[1] * (x.shape[1] - 1))


def between(first: Tensor, weights: Tensor) -> Tensor:
    """(k, D), weights (draws, k) -> (draws,): the mean distance of two first pieces, each as often there as its weight says."""
    x = first.double()
    pairs = weights.sum(1).square() - weights.square().sum(1)
    return (weights @ torch.cdist(x, x) * weights).sum(1) / pairs


def measure(m: Material) -> list[Finding]:
    """Of the first pieces of series, which lead `generated`, and their variations; nothing where no series were made."""
    if m.series is None or len(m.series) < FEWEST:
        return []
    k, n = len(m.series), m.series.shape[0] * m.series.shape[1]
    first = m.generated[:k]
    found, spread, weights = own(first, m.series).mean(1), within(first, m.series), resamples(k, m.seed)
    value = float(found.mean())
    variety = float(spread.mean() / between(first, torch.ones(1, k).double()).clamp_min(1e-12))
    # variations of one piece are no independent draws: whole series are redrawn, and where all agree Wilson's interval is that of k series
    reach = mean_interval(found, m.seed) if 0 < value < 1 else wilson(value, k)
    ratio = interval(weights @ spread / k / between(first, weights).clamp_min(1e-12))
    sentence = (
        f"{value:.0%} of {n} variations of {k} {m.noun}, {m.vary:.0%} of each new, lie nearer to the piece they vary than to any other of these "
        f"(by chance {1 / k:.0%}); {_said(variety)}."
    )
    other = (
        f"Two {m.noun} of a series are {variety:.2f} times as far apart as two unrelated ones (0: all the same, which keeps every identity; 1: "
        "nothing in common)."
    )
    return [
        Finding("identity kept", m.space, value, *reach, 1 / k, n, "higher", sentence, "share"),
        Finding("variety of a series", m.space, variety, *ratio, 1.0, n, "higher", other),
    ]


def _said(variety: float) -> str:
    if variety < 0.05:
        return "but that says little, for the pieces of a series are all but the same"
    return f"two of a series are {variety:.2f} times as far apart as two unrelated ones"
