"""sensing: sequences as rows of features, by a judge and untrained, beside held-out ones; then every figure of metrics/ as for grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.corpus import WIDTHS, Corpus
from maquette.features import Known, Lent
from maquette.finding import Finding, Labels, Material
from maquette.grams import Grams
from maquette.neighbours import Several, distinct
from maquette.piece import Modality, Piece
from maquette.reader import reader_of, usual
from maquette.verbs.measuring import FEWEST, measure, repeats
from maquette.verbs.onepass import finite
from maquette.verbs.passages import spread, taken
from maquette.verbs.telling import labels_probed

MOST = 2_000  # pieces a side
KNOWN = 10_000  # training pieces among which the nearest is looked for, at most
TOKENS = 1_000_000  # of these, and of the held-out ones, at most
ROWS = 128  # pieces at once


@dataclass(frozen=True)
class Sensed:
    """What was measured in both spaces, and by whom; by nobody where there were too few pieces. As `Evidence` of grids:
    features: space -> (generated, held-out without twins); distances: space -> (generated_to_train, test_to_train)."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    spaces: Spaces | None = None
    features: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    distances: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Judge and untrained space as audit.json names them."""
        return {"notes": list(self.notes)} | (self.spaces.to_json() if self.spaces else {})

    @property
    def words(self) -> str:
        """For the head of the page; "" where nothing was measured."""
        told = self.spaces.to_json() if self.spaces else {}
        return " ".join(f"{name.capitalize()}: {by['words']}, {by['hash']}." for name, by in told.items())


@dataclass(frozen=True)
class Spaces:
    """Both spaces of a corpus of sequences: pieces -> rows."""

    judge: Known | Lent
    grams: Grams
    modality: Modality
    length: int  # tokens of a piece that are looked at
    end: int

    @torch.inference_mode()
    def embed(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Space -> (N, D). Raises RunError for features that are not finite."""
        parts = [pieces[i : i + ROWS] for i in range(0, len(pieces), ROWS)]
        found = {"judge": self.judged(pieces), self.grams.name: torch.cat([self.grams.embed(part) for part in parts])}
        return {space: finite(rows, space) for space, rows in found.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "judge": {"hash": self.judge.hash, "words": self.judge.words},
            self.grams.name: {"hash": self.grams.hash, "words": self.grams.words},
        }

    def judged(self, pieces: Sequence[Piece]) -> Tensor:
        """(N, D): pieces of like length together, so that what a piece looks like does not hang on those beside it."""
        rows = [self.modality.to_tensor(piece)[: self.length] for piece in pieces]
        widths = np.array([padded(len(row), self.length) for row in rows])
        found: dict[int, Tensor] = {}
        for width in np.unique(widths):
            same = np.flatnonzero(widths == width)
            for part in np.split(same, range(ROWS, len(same), ROWS)):
                x = torch.full((len(part), int(width)), self.end)
                for k, i in enumerate(part):
                    x[k, : len(rows[i])] = rows[i]
                found |= zip(part.tolist(), self.judge.judge.embed(x), strict=True)
        return torch.stack([found[i] for i in range(len(rows))])


def padded(tokens: int, length: int) -> int:
    """How wide a piece of so many tokens is with its end and what pads it, as windows of a corpus are: a tenth of the length, or two ...

    >>> padded(5, 96), padded(9, 96), padded(200, 96)
    (9, 18, 96)
    """
    step = max(1, length // WIDTHS)
    return min(length, -(-(tokens + 1) // step) * step)


def spaces_of(corpus: Corpus, modality: Modality, judge: Known | Lent | None = None) -> Spaces:
    """By the judge at hand, else by a reader trained for the audit."""
    space = corpus.spec.space
    grams = Grams(modality, corpus.facts["modality"])
    return Spaces(judge or reader_of(corpus), grams, modality, space.shape[0], space.end)


def sense(
    made: Sequence[Piece],
    corpus: Corpus,
    modality: Modality,
    *,
    judge: Known | Lent | None = None,
    asked: Tensor | None = None,
    seed: int = 0,
) -> Sensed:
    """Pieces beside the test split, and beside as many of the train split for the floor. asked (n, condition.width): what each should be."""
    noun, numbers = modality.pretty or "pieces", looked_at(corpus)
    made = made[: max(FEWEST, min(MOST, TOKENS // usual(corpus)))]
    if min(len(made), len(numbers["test"])) < FEWEST:
        return Sensed((), (f"fewer than {FEWEST} generated or held-out {noun}: nothing was measured against them",))
    spaces = spaces_of(corpus, modality, judge)
    rows = {split: spaces.embed(taken(corpus, modality, k)) for split, k in numbers.items() if len(k)}
    rows["made"] = spaces.embed(made)
    joined = {split: torch.cat(list(features.values()), 1) for split, features in rows.items()}
    labels = labels_probed(joined, numbers, None if asked is None else asked[: len(made)], corpus)
    notes = [labels] if isinstance(labels, str) and labels else []
    notes += searched(len(numbers["train"]), corpus, noun)
    found: list[Finding] = []
    features, distances = {}, {}
    for space in rows["made"]:
        part = {split: features[space] for split, features in rows.items()}
        material = compared(space, noun, part, seed, None if isinstance(labels, str) else labels)
        notes += repeats(part["made"], part["test"], distinct(part["test"]), space, noun)
        features[space] = material.generated, material.test
        distances[space] = material.generated_to_train, material.test_to_train
        found += measure(material) if len(material.test) >= FEWEST else []
    return Sensed(tuple(found), tuple(notes), spaces, features, distances)


def looked_at(corpus: Corpus) -> dict[str, np.ndarray]:
    """Split -> numbers of its pieces that are looked at: held-out ones, and training ones among which the nearest is
    looked for."""
    most = max(FEWEST, TOKENS // usual(corpus))
    limits = {"train": KNOWN, "validation": MOST, "test": MOST}
    return {split: spread(corpus.numbers(split), min(limit, most)) for split, limit in limits.items()}


def compared(space: str, noun: str, rows: Mapping[str, Tensor], seed: int, labels: Labels | None) -> Material:
    """What metrics look at in one space; rows: "made" and each split -> (n, D)."""
    made, test, train = (rows[name] for name in ("made", "test", "train"))
    distances, gaps = (part.split([len(made), len(test)]) for part in nearest(torch.cat([made, test]), train))
    floor = train[spread(np.arange(len(train)), len(made))]
    judged = labels if space == "judge" else None
    return Material(space, noun, made, test[distinct(test)], floor, *distances, seed, judged, gaps)


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D), (T, D) -> (N,), (N,): how far the nearest training row is, and how far that lies from its own nearest other one."""
    found, numbers = Several(queries), torch.arange(len(train))
    found.see(train, numbers)
    middle, place = found.index[:, 0].unique(return_inverse=True)
    others = Several(train[middle], min(2, len(train)))
    others.see(train, numbers)
    return found.distance[:, 0], others.distance[:, -1][place]


def searched(known: int, corpus: Corpus, noun: str) -> list[str]:
    """What is to be said where the nearest one is not looked for among all; copies are (see passages.py)."""
    if known == corpus.size("train"):
        return []
    return [f"distances to training are those to {known:,} of {corpus.size('train'):,} training {noun}, evenly spread"]
