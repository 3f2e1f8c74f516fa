"""measuring: every file of metrics/ on what was embedded, and three sentences from what they found; the same for grids and sequences."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor

from maquette import catalog
from maquette.finding import Finding, Material
from maquette.neighbours import distinct
from maquette.page import Section, histogram

FEWEST = 10  # held-out pieces below which nothing can be measured against them
ORDER = ("fidelity", "diversity", "copying")  # of the files of metrics/ on the page; others follow by name


def measure(material: Material) -> list[Finding]:
    """The findings of every file of metrics/ in one space."""
    found = []
    names = catalog.names("metrics")
    for name in sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        found += importlib.import_module(f"maquette.metrics.{name}").measure(material)
    return found


def repeats(made: Tensor, test: Tensor, kept: Tensor, space: str, noun: str) -> list[str]:
    """What is to be said of pieces that are the same in a space; kept: numbers of the held-out ones that repeat none."""
    told, again = [], len(made) - len(distinct(made))
    if again:
        told.append(f"{again} of {len(made)} generated {noun} repeat another in {space}")
    if len(kept) < len(test):
        told.append(
            f"{len(test) - len(kept)} of {len(test)} held-out {noun} repeat another in {space} and were left out"
        )
        if len(kept) < FEWEST:
            told.append(f"only {len(kept)} different ones are left, so nothing was measured in {space}")
    return told


# ---- in words


def verdict(found: Sequence[Finding], made: int, noun: str, held: int) -> tuple[str, str, str]:
    """Three sentences: how good, how varied, how new."""
    if not found:
        return (
            f"How good the {noun} are cannot be measured: {made} were generated and {held} held out, and at least {FEWEST} "
            "different ones of each are needed.",
            f"How varied they are cannot be measured either; a corpus of {round(FEWEST / 0.15)} or more holds enough out.",
            "What can be seen is how near each lies to its nearest training one: look at the closest pairs.",
        )
    return _good(found, noun), varied(found, noun), _new(found, noun)


def _worst(found: Sequence[Finding], name: str) -> Finding:
    """The finding of this name in the space where it falls furthest below its floor: a judge of labels is deaf to noise, pixels to
    little else, so neither alone may acquit."""
    return min((f for f in found if f.name == name), key=_beside_floor)


def _beside_floor(f: Finding) -> float:
    return f.value / max(f.reference or 0.0, 1e-9)


def _good(found: Sequence[Finding], noun: str) -> str:
    precision = _worst(found, "precision")
    distance = next(f for f in found if (f.name, f.space) == ("Frechet distance", precision.space))
    beside = f"at a Frechet distance of {distance.value:.3g} where real ones score {distance.reference:.3g}"
    return f"{alike(found, noun)}, {beside}."


def alike(found: Sequence[Finding], noun: str) -> str:
    """Half a sentence, by precision; where KID finds a difference in any space they are at best mostly like real ones."""
    precision = _worst(found, "precision")
    words = ("hard to tell from real ones", "mostly like real ones", "only partly like real ones", "unlike real ones")
    if any(f.low > max(f.reference or 0.0, 0.0) for f in found if f.name == "KID"):
        words = (words[1], *words[1:])
    grade = _grade(precision, words)
    real = f"(real ones {precision.reference:.0%}, {_seen(precision)})"
    return f"The {precision.n:,} {noun} are {grade}: {precision.value:.0%} look like some held-out one {real}"


def varied(found: Sequence[Finding], noun: str) -> str:
    coverage = _worst(found, "coverage")
    words = (
        "as varied as real ones",
        "a little less varied than real ones",
        "clearly less varied than real ones",
        "of few kinds only",
    )
    return (
        f"They are {_grade(coverage, words)}: {coverage.value:.0%} of the held-out {noun} have one of them in their neighbourhood "
        f"(with real ones in their place {coverage.reference:.0%}, {_seen(coverage)})."
    )


def _seen(f: Finding) -> str:
    return "seen by the judge" if f.space == "judge" else f"seen in {f.space}"


def _grade(f: Finding, words: Sequence[str]) -> str:
    """Four words for a share beside its floor: from 95%, 80% and 50% of the floor on, and below."""
    ratio = _beside_floor(f)
    return words[0 if ratio >= 0.95 else 1 if ratio >= 0.8 else 2 if ratio >= 0.5 else 3]


def _new(found: Sequence[Finding], noun: str) -> str:
    """By the space in which most near copies were found."""
    worst = max((f for f in found if f.name == "near copies"), key=lambda f: f.value)
    more = worst.low > (worst.reference or 0.0)
    count = round(worst.value * worst.n)
    end = (
        "that is more than chance, so look at the closest pairs"
        if more
        else f"about {worst.n / 100:.0f} would be usual"
    )
    return f"Of {worst.n:,} {noun} {count:,} {'lies' if count == 1 else 'lie'} nearer to a training one than 99% of the held-out {noun} do; {end}."


# ---- on the page


def novelty(distances: tuple[Tensor, Tensor], noun: str) -> Section:
    """distances to the nearest training piece of generated and of held-out ones, as two histograms"""
    made, test = distances
    mark = float(torch.quantile(test.double(), 0.01))
    lead = (
        "Distance to the nearest training piece, by the judge. The dashed line is where 1% of the held-out lie nearer: a heap of "
        "generated ones to its left would be copies."
    )
    return Section("How new", lead, histogram(made, test, mark, noun))
