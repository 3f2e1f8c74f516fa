"""Do pieces lie nearer to training pieces than those lie to each other (Alaa et al. 2022, arXiv:2102.08921), and nearer to training than to
held-out ones (Platzer & Reutterer 2021, arXiv:2104.00635)? Each beside what real pieces score, for a perfect generator is not at 1."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.finding import Finding, Material, share_interval
from maquette.neighbours import Several


def authentic(to_train: Tensor, gap: Tensor) -> Tensor:
    """(N,), (N,) -> bool: the nearest training piece has another training piece nearer than this piece.

    to_train: distance to the nearest training piece; gap: from that training piece to its nearest other one, not from this piece's row.
    """
    return gap < to_train


def measure(m: Material) -> list[Finding]:
    return [*_authenticity(m), *_closer(m)]


def _authenticity(m: Material) -> list[Finding]:
    if m.gaps is None:
        return []
    made, held = (
        authentic(d, g).double() for d, g in zip((m.generated_to_train, m.test_to_train), m.gaps, strict=True)
    )
    value, floor = float(made.mean()), float(held.mean())
    sentence = (
        f"{value:.0%} of the {m.noun} lie farther from their nearest training one than that lies from its own nearest ({floor:.0%} of the "
        "held-out ones do); copies lower it, and so does a good model."
    )
    return [
        Finding(
            "authenticity", m.space, value, *share_interval(made, m.seed), floor, len(made), "near", sentence, "share"
        )
    ]


def _closer(m: Material) -> list[Finding]:
    """Against as many training pieces as there are held-out ones; ties count half."""
    n = min(len(m.train), len(m.test))
    to = [_distances(m.generated, _spread(real, n)) for real in (m.train, m.test)]
    closer = (to[0] < to[1]).double() + (to[0] == to[1]).double() / 2
    value = float(closer.mean())
    sentence = (
        f"{value:.0%} of the {m.noun} lie closer to a training than to a held-out one, of {n:,} of each; half would say that none was "
        "learnt by heart."
    )
    return [
        Finding(
            "closer to training",
            m.space,
            value,
            *share_interval(closer, m.seed),
            0.5,
            len(closer),
            "near",
            sentence,
            "share",
        )
    ]


def _distances(x: Tensor, real: Tensor) -> Tensor:
    nearest = Several(x)
    nearest.see(real, torch.arange(len(real)))
    return nearest.distance[:, 0]


def _spread(x: Tensor, n: int) -> Tensor:
    return x[torch.arange(n) * len(x) // n]
