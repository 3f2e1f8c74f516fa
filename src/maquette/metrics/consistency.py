"""Whether a piece shows the label that was asked for, as told by a judge of real pieces (GAN-test of Shmelkov 2018, arXiv:1807.09499), beside
how often that judge is right of held-out ones."""

from __future__ import annotations

from maquette.finding import Finding, Material, share_interval


def measure(m: Material) -> list[Finding]:
    """Nothing where no label was asked for. Of sequences the modality's own rules tell this."""
    if m.labels is None or m.labels.asked is None or not bool((asked := m.labels.asked >= 0).any()):
        return []
    right = (m.labels.told == m.labels.asked)[asked].double()
    value, n = float(right.mean()), len(right)
    floor = float((m.labels.held_told == m.labels.held).double().mean())
    sentence = (
        f"In {value:.0%} of {n:,} {m.noun} the judge finds the label that was asked for; in held-out ones it finds the right one in {floor:.0%}, "
        "so more cannot be told."
    )
    return [
        Finding("consistency", m.space, value, *share_interval(right, m.seed), floor, n, "higher", sentence, "share")
    ]
