"""renewing: new pieces of which none is a copy of a training piece; what is one is drawn again, with the next seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from maquette import catalog
from maquette.copying import Verdict
from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError, UsageError
from maquette.features import BATCH, judge_of
from maquette.piece import Piece
from maquette.run import Run
from maquette.verbs import copies, passages
from maquette.verbs.generate import Wish, generating

TRIES = 10  # draws of a piece before it is given up
CALIBRATED = 500  # held-out pictures beside which pictures are judged
APART = "what was written, without what was given"
Judge = Callable[
    [Sequence[Piece]], list[dict[str, Any]]
]  # the verdict on each of some pieces, as it stands in its papers


@dataclass(frozen=True)
class Renewed:
    """Pieces in the order they were asked for, and how often each was drawn: 1 where the first was no copy."""

    pieces: tuple[Piece, ...]
    draws: tuple[int, ...]

    @property
    def words(self) -> str:
        again, more = sum(d > 1 for d in self.draws), sum(self.draws) - len(self.draws)
        if not again:
            return f"new: none of {len(self.pieces)} had to be drawn again"
        often = "once" if more == 1 else f"{more} times in all"
        return (
            f"new: {again} of {len(self.pieces)} were copies of training pieces at first and were drawn again, {often}"
        )


def new(run: Run, n: int, wish: Wish, device: str = "auto", corpus: Corpus | None = None) -> Renewed:
    """n pieces whose verdict is not `copy`, each with that verdict and its nearest training pieces in its papers.

    What --prompt and --keep give of a text or of music is not judged. Raises UsageError where copies cannot be told, CorpusError where the
    corpus is gone, another, or too small, RunError where a piece is a copy in every draw.
    """
    corpus = checked(run, wish, corpus)
    told = of_grids(corpus) if corpus.spec.space.kind == "grid" else of_sequences(corpus, wish)

    def draw(seed: int, count: int) -> list[Piece]:
        return list(generating(run, count, replace(wish, seed=seed), device))

    return renewed(draw, told, n, wish.seed)


def of_grids(corpus: Corpus) -> Judge:
    judge = judge_of(corpus)
    beside = copies.calibrate(corpus, judge, CALIBRATED)

    def told(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        x = torch.stack([piece.modality.to_tensor(piece) for piece in pieces])
        found = copies.near(x.split(BATCH), corpus, judge)
        return _papers(copies.verdicts(found, beside), lambda space, i: copies.nearest(found, space, i, corpus))

    return told


def of_sequences(corpus: Corpus, wish: Wish) -> Judge:
    modality = catalog.modality(corpus.facts["modality"])
    start = modality.start(wish.asked)
    given, kept = modality.given(start), 0 if start.keep is None else int(start.keep.sum())
    beside = passages.calibrate(corpus, modality, None if start.length is None else max(0, start.length - kept))
    left_out = None if given is None else modality.traces(given)
    apart = {} if given is None else {"judged": APART}

    def told(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        found = beside.near(passages.traced(pieces, modality), left_out)
        papers = _papers(beside.verdicts(found), lambda space, i: passages.nearest(found, space, i, corpus))
        return [facts | apart for facts in papers]

    return told


def _papers(verdicts: Sequence[Verdict], nearest: Callable[[str, int], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [{"verdict": v.verdict, "p": round(v.p, 6), "nearest": nearest(v.space, i)} for i, v in enumerate(verdicts)]


def checked(run: Run, wish: Wish, corpus: Corpus | None = None) -> Corpus:
    """The corpus of a run, where copies can be told in it."""
    from maquette.verbs.audit import corpus_of

    if wish.liked:
        raise UsageError("--new and --liked both choose among draws; give one of them")
    corpus = corpus or corpus_of(run, "put it back there, or leave --new away: copies are told beside the corpus")
    if corpus.fingerprint != run.facts["corpus"]["fingerprint"]:
        raise CorpusError(
            f"{corpus.path} is not the corpus {run.path} was trained on, or was prepared anew since; what is new cannot be told by it"
        )
    if corpus.spec.space.kind == "grid" and wish.source:
        raise UsageError(
            "--new draws whole new pictures, and one that is made from --source is near to it by intent; drop one of them"
        )
    if corpus.spec.space.kind != "grid" and not corpus.spec.space.ragged:
        raise UsageError(
            f"--new tells copies among pictures, texts and music; {corpus.path} holds codes of them, so leave --new away"
        )
    return corpus


def renewed(
    draw: Callable[[int, int], list[Piece]],
    facts: Judge,
    n: int,
    seed: int,
    tries: int = TRIES,
) -> Renewed:
    """draw(seed, count) makes pieces of following seeds; facts(pieces) holds the verdict on each. Copies are drawn again."""
    found: dict[int, Piece] = {}
    draws, waiting = [0] * n, list(range(n))
    for _ in range(tries):
        made = draw(seed, len(waiting))
        seed += len(waiting)
        for k, piece, told in zip(waiting, made, facts(made), strict=True):
            draws[k] += 1
            if told["verdict"] != "copy":
                found[k] = replace(piece, facts={**piece.facts, **told, "draws": draws[k]})
        waiting = [k for k in waiting if k not in found]
        if not waiting:
            return Renewed(tuple(found[k] for k in range(n)), tuple(draws))
    raise RunError(
        f"{len(waiting)} of {n} pieces were copies of training pieces in all {tries} draws: this run knows its pieces by heart. Train it "
        "for a shorter time or on more pieces, or leave --new away"
    )
