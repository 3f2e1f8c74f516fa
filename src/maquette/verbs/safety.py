"""safety: a task head, learnt from a person's labelled pieces, as a rule of a policy.

Its thresholds are chosen on the validation split of those pieces, by ranks (conformal prediction, Vovk 2005): a new piece that is drawn as
they were is missed with at most the chosen probability. Between the two thresholds it abstains, which is told and never blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import ceil, inf
from pathlib import Path

import torch
from torch import Tensor

from maquette import catalog, files
from maquette.corpus import Corpus
from maquette.errors import CorpusError, SettingError, UnknownName, Unreadable
from maquette.guard.hits import Hit
from maquette.guard.policy import Head
from maquette.piece import Piece
from maquette.run import Run, identity
from maquette.space import Batch, Space
from maquette.verbs.audit import corpus_of
from maquette.verbs.sensing import padded


@dataclass(frozen=True)
class Thresholds:
    """A piece whose probability is under `low` passes, from `high` on it is what is looked for, between them nobody knows.

    bad, good: validation pieces by which they were chosen
    """

    low: float
    high: float
    bad: int
    good: int


class Safety:
    """A head at work."""

    def __init__(self, asked: Head):
        self.asked, self.run = asked, Run.open(Path(asked.run))
        self.space = self.run.spec.space
        if self.run.stage != "classify":
            raise SettingError(
                f"the head of the policy should be a run of `maquette adapt --task classify`; {asked.run} is one of {self.run.recipe.model}"
            )
        self.model = self.run.load_model()
        if missing := [label for label in asked.labels if label not in self.model.names]:
            raise UnknownName(f"label of the head {asked.run}", missing[0], self.model.names)
        self.modality = catalog.modality(self.run.facts["corpus"]["modality"])
        self.chosen = torch.tensor([self.model.names.index(label) for label in asked.labels])
        self.thresholds = self._kept() or self._measured()

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B,): the probability of any of the labels"""
        p = self.model.probabilities(x).cpu()[:, self.chosen]
        return p.sum(1) if self.model.single else p.max(1).values

    def score(self, x: Tensor) -> float:
        """x (*shape), of a sequence (n,) of any n: the same, of a long one that of its worst window"""
        rows = windows(x, self.space) if self.space.ragged else [x]
        return max(float(self.scores(row.unsqueeze(0).to(self.model.device))) for row in rows)

    def look(self, piece: Piece) -> list[Hit]:
        """What the head says of a piece: nothing, that it is what is looked for, or that it is unsure. Raises SettingError for another kind of
        content."""
        if piece.modality is not None and type(piece.modality) is not type(self.modality):
            raise SettingError(
                f"the head {self.asked.run} of the policy knows {self.modality.pretty}, and these are {piece.modality.pretty}; drop it from the "
                "policy, or teach one"
            )
        try:
            score = self.score(self.modality.to_tensor(self.modality.clean(piece)))
        except Unreadable as error:
            return [Hit("head.unsure", f"the safety head cannot read it: {error}", (0, 0))]
        labels, t = " or ".join(self.asked.labels), self.thresholds
        if score < t.low:
            return []
        if score < t.high:
            return [Hit("head.unsure", f"the safety head is unsure whether it is {labels} ({score:.2f})", (0, 0))]
        return [Hit("head", f"the safety head takes it for {labels} ({score:.2f})", (0, 0), self.asked.action)]

    # ---- thresholds, kept in the head's folder, for the pieces they were chosen by may be elsewhere later

    def _key(self) -> dict[str, object]:
        rates = {"labels": list(self.asked.labels), "misses": self.asked.misses, "alarms": self.asked.alarms}
        return {"weights": identity(self.run), **rates}

    def _kept(self) -> Thresholds | None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = files.read_json(self.run.path / "safety.json")
            return Thresholds(**known["thresholds"]) if known["for"] == self._key() else None
        return None

    def _measured(self) -> Thresholds:
        corpus = corpus_of(self.run)
        if corpus.fingerprint != self.run.facts["corpus"]["fingerprint"]:
            raise CorpusError(
                f"{corpus.path} is not the corpus that the head {self.run.path} learnt from; prepare that again"
            )
        found = thresholds(*self._validation(corpus), self.asked.misses, self.asked.alarms)
        files.write_json(self.run.path / "safety.json", {"for": self._key(), "thresholds": asdict(found)})
        return found

    def _validation(self, corpus: Corpus) -> tuple[Tensor, Tensor]:
        """Scores of the validation pieces that are what is looked for, and of those that are not."""
        bad, good = [torch.zeros(0)], [torch.zeros(0)]
        for batch in self._batches(corpus):
            asked = self.model.asked(batch).cpu()
            known = ~asked.isnan().any(1)
            single = torch.isin(asked[:, 0].nan_to_num(-1).long(), self.chosen)
            is_bad = single if self.model.single else (asked[:, self.chosen] > 0.5).any(1)
            scores = (
                torch.tensor([self.score(x) for x in batch.x])
                if self.space.ragged
                else self.scores(batch.x.to(self.model.device))
            )
            bad.append(scores[known & is_bad])
            good.append(scores[known & ~is_bad])
        return torch.cat(bad), torch.cat(good)

    def _batches(self, corpus: Corpus) -> Iterator[Batch]:
        """The validation split; sequences whole and one by one, so that they are scored as those are that are looked at."""
        if not self.space.ragged:
            yield from corpus.once("validation")
            return
        for number in corpus.numbers("validation"):
            yield corpus.take(number[None])


def windows(x: Tensor, space: Space) -> list[Tensor]:
    """tokens (n,), with an end or without -> windows that follow each other, padded as those of a corpus.

    >>> [w.tolist() for w in windows(torch.tensor([1, 2, 3, 1, 2]), Space("tokens", (4,), 4, end=0))]
    [[1, 2, 3, 1], [2, 0]]
    """
    length, found = space.shape[0], []
    tokens = x[: int((x != space.end).sum())]
    for start in range(0, max(1, len(tokens)), length):
        part = tokens[start : start + length]
        row = torch.full((padded(len(part), length),), space.end)
        row[: len(part)] = part
        found.append(row)
    return found


def thresholds(bad: Tensor, good: Tensor, misses: float, alarms: float) -> Thresholds:
    """bad (n,), good (m,): scores. Of the next bad piece the chance to lie under `low` is at most `misses`; of the next good one to reach
    `high`, `alarms`. Raises SettingError where so few pieces cannot promise that.

    >>> thresholds(torch.arange(19) / 19, torch.zeros(99), 0.1, 0.01).low  # of 20 the second smallest, at most 2 in 20 under it
    0.05263157933950424
    """
    under, over = int(misses * (len(bad) + 1) + 1e-9), int(alarms * (len(good) + 1) + 1e-9)
    if not under:
        raise SettingError(
            f"misses = {misses:g} needs {ceil(1 / misses - 1e-9) - 1} validation pieces of what is looked for; there are {len(bad)}: label more, "
            "or allow more misses"
        )
    low = float(bad.sort().values[under - 1])
    reached = good.sort(descending=True).values
    high = float(torch.nextafter(reached[over - 1], torch.tensor(inf))) if over else inf
    return Thresholds(low, max(low, high), len(bad), len(good))
