"""How varied the pieces are: recall (Kynkaanniemi 2019, arXiv:1904.06991) and coverage (Naeem 2020, arXiv:2002.09797)."""

from __future__ import annotations

from torch import Tensor

from maquette.finding import Finding, Material, share_interval
from maquette.neighbours import Several, balls_around, radii

K = 5  # neighbours that span the ball around a piece


def recalled(generated: Tensor, real: Tensor, k: int = K) -> Tensor:
    """(M,) 1.0 where a real piece lies within the ball of some generated piece; the mean is recall."""
    return (balls_around(real, generated, radii(generated, k)) > 0).double()


def covered(generated: Tensor, real: Tensor, k: int = K) -> Tensor:
    """(M,) 1.0 where the ball of a real piece holds a generated one; the mean is coverage. Real twins must be taken out before."""
    nearest = Several(real)
    nearest.see(generated, generated.new_zeros(len(generated)).long())
    return (nearest.distance[:, 0] < radii(real, k)).double()


def measure(m: Material) -> list[Finding]:
    if min(len(m.test), len(m.generated)) <= K:
        return []
    found = []
    for name, rows, words in (
        ("recall", recalled, "of the held-out {noun} lie within the reach of the generated ones"),
        (
            "coverage",
            covered,
            "of the held-out {noun} have a generated one in their neighbourhood: the best alarm for lost kinds",
        ),
    ):
        scores, floor = rows(m.generated, m.test), float(rows(m.train, m.test).mean())
        value = float(scores.mean())
        sentence = f"{value:.0%} {words.format(noun=m.noun)}; with real ones in their place {floor:.0%}."
        found.append(
            Finding(
                name,
                m.space,
                value,
                *share_interval(scores, m.seed),
                floor,
                len(m.generated),
                "higher",
                sentence,
                "share",
            )
        )
    return found
