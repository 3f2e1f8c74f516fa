"""sensing: sequences as rows of features, by a judge and untrained, beside held-out ones; then every figure of metrics/ as for grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.errors import RunError
from maquette.features import Known, Lent, labels_of
from maquette.finding import Finding, Labels, Material, wilson
from maquette.grams import Grams
from maquette.neighbours import Nearest, Several, distinct
from maquette.piece import Modality, Piece
from maquette.reader import reader_of, usual
from maquette.verbs.measuring import FEWEST, measure, repeats
from maquette.verbs.passages import spread, taken
from maquette.verbs.telling import labels_beside, unlabelled

MOST = 2_000  # pieces a side
KNOWN = 10_000  # training pieces among which the nearest is looked for, at most
TOKENS = 1_000_000  # of these, and of the held-out ones, at most
ROWS = 128  # pieces at once
UNSURE = "the judge tells labels hardly better than chance, so nothing is told of representation and consistency"


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
        by_judge = [self.judge.judge.embed(self.tokens(part)) for part in parts]
        found = {"judge": torch.cat(by_judge), self.grams.name: torch.cat([self.grams.embed(part) for part in parts])}
        for space, rows in found.items():
            if not rows.isfinite().all():
                raise RunError(f"the features in {space} are not all finite numbers; nothing can be measured in them")
        return found

    @torch.inference_mode()
    def told(self, pieces: Sequence[Piece]) -> Tensor:
        """(N,): which of the labels that it learnt the judge finds."""
        parts = (pieces[i : i + ROWS] for i in range(0, len(pieces), ROWS))
        return torch.cat([self.judge.judge.logits(self.tokens(part)).argmax(1) for part in parts])

    def to_json(self) -> dict[str, Any]:
        return {
            "judge": {"hash": self.judge.hash, "words": self.judge.words},
            self.grams.name: {"hash": self.grams.hash, "words": self.grams.words},
        }

    def tokens(self, pieces: Sequence[Piece]) -> Tensor:
        """(N, n): what a model sees of each, padded with the end."""
        rows = [self.modality.to_tensor(piece)[: self.length] for piece in pieces]
        x = torch.full((len(rows), max(1, *map(len, rows))), self.end)
        for row, tokens in zip(x, rows, strict=True):
            row[: len(tokens)] = tokens
        return x


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
    noun, most = modality.pretty or "pieces", TOKENS // usual(corpus)
    made = made[: min(MOST, most)]
    held = spread(corpus.numbers("test"), min(max(len(made), MOST), most))
    if min(len(made), len(held)) < FEWEST:
        return Sensed((), (f"fewer than {FEWEST} generated or held-out {noun}: nothing was measured against them",))
    spaces = spaces_of(corpus, modality, judge)
    known = spread(corpus.numbers("train"), min(KNOWN, most))
    mine, test = spaces.embed(made), spaces.embed(taken(corpus, modality, held))
    train = spaces.embed(taken(corpus, modality, known))
    labels = told_labels(spaces, made, asked, corpus, held)
    notes = (
        [] if labels and sure(labels) else [why for why in [unlabelled(corpus) if labels is None else UNSURE] if why]
    )
    notes += searched(known, corpus, noun)
    found, features, distances = [], {}, {}
    for space, rows in train.items():
        kept = distinct(test[space])
        notes += repeats(mine[space], test[space], kept, space, noun)
        features[space] = mine[space], test[space][kept]
        near = nearest(torch.cat([mine[space], test[space]]), rows)
        distances[space], gaps = (part.split([len(made), len(held)]) for part in near)
        floor = spread(np.arange(len(rows)), len(made))
        material = Material(space, noun, *features[space], rows[floor], *distances[space], seed, gaps=gaps)
        material = replace(material, labels=labels) if space == "judge" and labels and sure(labels) else material
        found += measure(material) if len(kept) >= FEWEST else []
    return Sensed(tuple(found), tuple(notes), spaces, features, distances)


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D), (T, D) -> (N,), (N,): how far the nearest training row is, and how far that lies from its own nearest other one."""
    found, numbers = Nearest(queries), torch.arange(len(train))
    found.see(train, numbers)
    middle, place = found.index.unique(return_inverse=True)
    others = Several(train[middle], min(2, len(train)))
    others.see(train, numbers)
    return found.distance, others.distance[:, -1][place]


def sure(labels: Labels) -> bool:
    """Whether the judge is right of held-out pieces more often than the commonest label is, by more than chance."""
    right = (labels.held_told == labels.held).double()
    return wilson(float(right.mean()), len(right))[0] > float(labels.shares.max())


def searched(known: np.ndarray, corpus: Corpus, noun: str) -> list[str]:
    """What is to be said where the nearest one is not looked for among all; copies are (see passages.py)."""
    if len(known) == corpus.size("train"):
        return []
    return [
        f"distances to training are those to {len(known):,} of {corpus.size('train'):,} training {noun}, evenly spread"
    ]


def told_labels(
    spaces: Spaces, made: Sequence[Piece], asked: Tensor | None, corpus: Corpus, held: np.ndarray
) -> Labels | None:
    """What the judge says of labels, where it learnt any; a lent one did not, and the audit's own reader is asked."""
    if labels_of(corpus) is None:
        return None
    known = spaces.judge if isinstance(spaces.judge, Known) else reader_of(corpus)
    spaces = replace(spaces, judge=known)
    told, of_held = (spaces.told(pieces) for pieces in (made, taken(corpus, spaces.modality, held)))
    conditions = corpus.conditions("test")[np.searchsorted(corpus.numbers("test"), held)]  # type: ignore[index]
    return labels_beside(known.judge.task, corpus, told, asked, of_held, conditions)
