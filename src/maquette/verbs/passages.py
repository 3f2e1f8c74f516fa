"""Which sequences of an audit are copies: what they share with training pieces (spans.py) beside what validation pieces do (copying.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import Any

import numpy as np
import torch

from maquette.copying import FEWEST, Verdict, exact_interval, judged
from maquette.corpus import Corpus
from maquette.errors import CorpusError
from maquette.finding import Finding
from maquette.page import Section, number
from maquette.piece import Modality, Piece, Works
from maquette.spans import Indexed, Shared, Traces, shared, without
from maquette.verbs.copies import papers_of

CALIBRATED = 400  # validation pieces that p-values are counted in, at most
COUNTED = 400  # test pieces of which is said how many would be called copies, at most
HALF = 0.5  # of a piece lies in one training piece, or it is close and no copy of that
WHOLE = 0.9  # of a training piece lies in a piece, which is then a copy of it however much longer it is
TOLD = 12  # pieces that audit.json names beside all copies, the most suspicious first


@dataclass(frozen=True)
class Copies:
    """verdicts (n) of the generated pieces and of counted held-out ones; shared: of the generated, by space; calibrated: on what, in
    words; untold: why there is no verdict."""

    verdicts: tuple[Verdict, ...] = ()
    held: tuple[Verdict, ...] = ()
    shared: dict[str, Shared] | None = None
    calibrated: str = ""
    untold: str = ""


def copies_of(works: Works, corpus: Corpus, modality: Modality) -> Copies:
    """Verdicts on works.generated, and on held-out pieces that did not calibrate: what real pieces score."""
    if not works.generated:
        return Copies(untold="no piece was written")
    try:
        calibrating, counted, words = enough(corpus)
        usual, real = (traced(taken(corpus, modality, numbers), modality) for numbers in (calibrating, counted))
        pieces = [*traced(works.generated, modality), *real]
        found = shared([*pieces, *usual], usual, of_training(corpus, modality))
        n, m = len(works.generated), len(pieces)
        told = verdicts(rows(found, slice(m)), rows(found, slice(m, None)))
    except CorpusError as error:
        return Copies(untold=str(error))
    return Copies(tuple(told[:n]), tuple(told[n:]), found, words)


def verdicts(found: Mapping[str, Shared], usual: Mapping[str, Shared]) -> list[Verdict]:
    """found: of the pieces, usual: of those that calibrate, by space. Each piece is judged by itself. Raises CorpusError."""
    told = judged(*({space: s.distances for space, s in both.items()} for both in (found, usual)))
    half = np.stack([s.distances[:, 0] for s in found.values()]).min(0) <= HALF
    whole = np.stack([s.whole[:, 0] for s in found.values()]).max(0) >= WHOLE
    return [
        v if most or v.verdict != "copy" else replace(v, verdict="close")
        for v, most in zip(told, half | whole, strict=True)
    ]


def rows(found: Mapping[str, Shared], chosen: slice) -> dict[str, Shared]:
    return {space: Shared(s.distances[chosen], s.train[chosen], s.whole[chosen]) for space, s in found.items()}


def traced(pieces: Sequence[Piece], modality: Modality) -> list[Traces]:
    return [modality.traces(piece) for piece in pieces]


@dataclass(frozen=True)
class Calibration:
    """What pieces that come one by one are judged by: the training pieces, and what held-out ones share with them. words: which these are."""

    known: Indexed
    usual: Mapping[str, Shared]
    words: str

    def near(self, pieces: Sequence[Traces], given: Traces | None = None) -> dict[str, Shared]:
        """given: what a person gave of each piece, which is left out."""
        lengths = self.known.lengths
        return self.known.shared([p if given is None else without(p, given, lengths) for p in pieces])

    def verdicts(self, found: Mapping[str, Shared]) -> list[Verdict]:
        return verdicts(found, self.usual)


def calibrate(corpus: Corpus, modality: Modality, length: int | None = None) -> Calibration:
    """Once, for pieces that come a few at a time. length: tokens to which held-out pieces are cut, where no more are to be judged. Raises
    CorpusError where too few are held out."""
    calibrating, _, words = enough(corpus)
    usual = traced(taken(corpus, modality, calibrating, length), modality)
    known = Indexed(usual, lambda: of_training(corpus, modality))
    return Calibration(known, known.shared(usual), words)


def enough(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, str]:
    """As `held_out`. Raises CorpusError where too few calibrate."""
    calibrating, counted, words = held_out(corpus)
    if len(calibrating) < FEWEST:
        raise CorpusError(f"at least {FEWEST} held-out pieces are needed to tell copies; this corpus has {words}")
    return calibrating, counted, words


def held_out(corpus: Corpus) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers of the pieces that calibrate: of the validation split, and where those are too few test pieces besides, as many as are
    needed. The numbers of the other test pieces, which may be counted. What calibrates, in words."""
    validation, test = spread(corpus.numbers("validation"), CALIBRATED), corpus.numbers("test")
    besides = spread(test, max(0, FEWEST - len(validation)))
    words = f"{len(validation)} validation" + (f" and {len(besides)} test pieces" if len(besides) else " pieces")
    return np.append(validation, besides), spread(np.setdiff1d(test, besides), COUNTED), words


def spread(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many, evenly spread, each once."""
    n = min(most, len(numbers))
    return numbers[np.arange(n) * len(numbers) // max(1, n)]


def taken(corpus: Corpus, modality: Modality, numbers: np.ndarray, length: int | None = None) -> list[Piece]:
    """These pieces, of no more tokens than a model writes at once, or than `length`."""
    length = min(corpus.spec.space.shape[0], length or corpus.spec.space.shape[0])
    return [modality.to_piece(corpus.take(np.array([i])).x[0, :length]) for i in numbers]


def of_training(corpus: Corpus, modality: Modality) -> Iterator[tuple[int, Traces]]:
    """(number, traces) of each whole training piece."""
    for i, tokens in zip(corpus.numbers("train"), corpus.pieces("train"), strict=True):
        yield int(i), modality.traces(modality.to_piece(torch.from_numpy(np.asarray(tokens).astype(np.int64))))


# ---- what is told


def finding(copies: Copies, noun: str) -> list[Finding]:
    """The share of copies, exact interval, beside that of the test split; [] where no verdict was given."""
    if not copies.verdicts:
        return []
    n, k = len(copies.verdicts), _count(copies.verdicts, "copy")
    reference = _count(copies.held, "copy") / len(copies.held) if copies.held else None
    beside = "" if reference is None else f" (held-out ones: {_count(copies.held, 'copy')} of {len(copies.held)})"
    close = _count(copies.verdicts, "close")
    sentence = f"{k} of {n} {noun} are copies of a training piece{beside}, {close} more are closer to one than 99% of held-out pieces are."
    return [Finding("copies", "passages", k / n, *exact_interval(k, n), reference, n, "lower", sentence, "share")]


def _count(verdicts: Sequence[Verdict], word: str) -> int:
    return sum(v.verdict == word for v in verdicts)


def to_json(copies: Copies, corpus: Corpus) -> dict[str, Any]:
    """For audit.json, as for grids: every copy, and others up to `TOLD`, with their nearest training pieces; how many of all are copies."""
    if copies.untold:
        return {"copies": [], "copies_untold": copies.untold}
    count = {word: _count(copies.verdicts, word) for word in ("new", "close", "copy")}
    low, high = exact_interval(count["copy"], len(copies.verdicts))
    rows = [
        {"made": i, **asdict(copies.verdicts[i]), "nearest": _nearest(copies, i, corpus)}
        for i in suspicious(copies)[: max(TOLD, count["copy"])]
    ]
    return {
        "copies": rows,
        "copied": {**count, "n": len(copies.verdicts), "low": low, "high": high},
        "calibrated": copies.calibrated,
    }


def suspicious(copies: Copies) -> list[int]:
    """The generated pieces: copies first, then by p, then by distance."""
    order = ("copy", "close", "new")
    near = {space: s.distances[:, 0] for space, s in (copies.shared or {}).items()}
    keys = [(order.index(v.verdict), v.p, float(near[v.space][i])) for i, v in enumerate(copies.verdicts)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _nearest(copies: Copies, i: int, corpus: Corpus) -> list[dict[str, Any]]:
    """In the space where the piece is most suspicious."""
    return nearest(copies.shared or {}, copies.verdicts[i].space, i, corpus)


def nearest(found: Mapping[str, Shared], space: str, i: int, corpus: Corpus) -> list[dict[str, Any]]:
    """At most three training pieces in a space; of source, licence and owner what is known."""
    pairs = zip(found[space].train[i].tolist(), found[space].distances[i].tolist(), strict=True)
    return [{"train": t, "space": space, "distance": round(d, 6), **papers_of(corpus, t)} for t, d in pairs if t >= 0]


def section(copies: Copies, works: Works, corpus: Corpus, modality: Modality) -> Section:
    """The most suspicious piece and the training pieces nearest to it, side by side."""
    title = "Nearest to training"
    if copies.untold:
        return Section(title, f"Whether pieces are copies is not told: {copies.untold}.", "")
    i = suspicious(copies)[0]
    told, near = copies.verdicts[i], _nearest(copies, i, corpus)
    lead = (
        f"The most suspicious of {len(copies.verdicts)}: {told.verdict}, p = {number(told.p)}, in {told.space}. "
        f"Distance is 1 - likeness. Calibrated on {copies.calibrated}."
    )
    shown = [_beside(f"generated, number {i}", works.generated[i], modality)]
    for row in near:
        piece = modality.to_piece(corpus.take(np.array([row["train"]])).x[0])
        words = "; ".join(str(row[k]) for k in ("source", "licence", "owner") if k in row)
        shown.append(_beside(f"training {row['train']}, distance {number(row['distance'])}; {words}", piece, modality))
    return Section(title, lead, f'<div class="two">{"".join(shown)}</div>')


def _beside(words: str, piece: Piece, modality: Modality) -> str:
    return f"<figure>{modality.exhibit(piece)}<figcaption>{escape(words.removesuffix('; '))}</figcaption></figure>"
