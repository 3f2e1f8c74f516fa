"""How like its training pieces new music is: histograms, grooves (Wu & Yang 2020), rules, and the longest copied run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import torch

from maquette.finding import Finding, interval, mean_interval, resamples
from maquette.scores.harmony import faults, key_of
from maquette.scores.score import Score, rolls, score

BASE = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
MASK = (1 << 62) - 1  # of a hash
FAULTS = {
    "fifths": "parallel fifths",
    "octaves": "parallel octaves and unisons",
    "crossing": "voices that cross",
    "range": "notes outside the ranges of soprano, alto, tenor and bass",
    "leaps": "leaps of more than an octave within a voice",
}


# ---- what is measured of one piece


def pitch_classes(piece: Score) -> np.ndarray:
    """(12,) how long each pitch class sounds, counted from the tonic of the piece's key."""
    weights = np.bincount(piece.notes[:, 2] % 12, weights=piece.notes[:, 1], minlength=12)
    return np.roll(weights, -key_of(piece).tonic)


def steps_of(piece: Score) -> np.ndarray:
    """(25,) how often a voice moves by -12 .. 12 semitones; wider ones count with the outermost."""
    notes = piece.notes[np.argsort(piece.notes[:, 3], kind="stable")]
    moves = np.diff(notes[:, 2])[np.diff(notes[:, 3]) == 0]
    return np.bincount(np.clip(moves, -12, 12) + 12, minlength=25).astype(float)


def groove(piece: Score, bar: int) -> float:
    """How alike the onsets of neighbouring bars are, from 0 to 1; nan where there are fewer than two bars."""
    begins = np.zeros(-(-max(piece.steps, 1) // bar) * bar, bool)
    begins[piece.notes[:, 0]] = True
    bars = begins.reshape(-1, bar)
    return float(1 - (bars[1:] ^ bars[:-1]).mean()) if len(bars) > 1 else float("nan")


def moves(piece: Score) -> np.ndarray:
    """(n - 1,) uint64: from each note to the next (by time, then from high to low), its interval and its delay: the same in any key."""
    pitch, start = np.diff(piece.notes[:, 2]), np.diff(piece.notes[:, 0])
    return ((pitch + 128) * 1024 + np.minimum(start, 1023)).astype(np.uint64)


def lines(piece: Score) -> np.ndarray:
    """(n,) int64: the moves of each voice, and -1 behind each voice."""
    voices = (piece.notes[piece.notes[:, 3] == v] for v in np.unique(piece.notes[:, 3]))
    parts = [np.append(moves(Score(notes, piece.steps, piece.grid)).astype(np.int64), -1) for notes in voices]
    return np.concatenate([np.zeros(0, np.int64), *parts])


# ---- the longest shared run


def chords(piece: Score) -> np.ndarray:
    """(k,) a number for each time at which notes begin: how long after the last, and which notes, above the lowest that began then. The
    same in any key; all voices at once, so that a tune with other chords is another."""
    notes = piece.notes[np.lexsort((piece.notes[:, 2], piece.notes[:, 0]))]
    starts, first = np.unique(notes[:, 0], return_index=True)
    lowest = notes[first, 2]
    bases, delays = np.append(lowest[:1], lowest[:-1]), np.diff(starts, prepend=starts[:1])
    events = zip(
        delays.tolist(), np.split(notes[:, 2], first[1:]), bases, strict=False
    )  # split makes one part of nothing
    return np.array([hash((delay, *(on - base + 128).tolist())) & MASK for delay, on, base in events], np.int64)


def reordered(piece: Score, n: int, chance: np.random.Generator) -> list[Score]:
    """At most n different scores with the pitches of each voice in another order."""
    known, found = {piece.notes[:, 2].tobytes()}, []
    for _ in range(4 * n):
        notes = piece.notes.copy()
        for voice in np.unique(notes[:, 3]):
            here = notes[:, 3] == voice
            notes[here, 2] = chance.permutation(notes[here, 2])
        if len(found) < n and (mark := notes[:, 2].tobytes()) not in known:
            known.add(mark)
            found.append(score(notes, piece.grid, piece.steps))
    return found


def longest_shared(pieces: Sequence[np.ndarray], corpus: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) the length of the longest run of each sequence that occurs in some sequence of the corpus; by hashes and halving.

    >>> longest_shared([np.array([9, 1, 2, 3, 8])], [np.array([1, 2, 3]), np.array([8, 9])]).tolist()
    [3]
    """
    known, found = _Hashes(corpus), np.zeros(len(pieces), np.int64)

    def halve(which: np.ndarray, low: int, high: int) -> None:
        """Runs of `low` are shared by all of `which`, runs of more than `high` by none."""
        if not len(which) or low == high:
            found[which] = low
            return
        length = (low + high + 1) // 2
        there = np.sort(known.windows(length))
        shared = np.array([_any_of(_Hashes([pieces[i]]).windows(length), there) for i in which], bool)
        halve(which[shared], length, high)
        halve(which[~shared], low, length - 1)

    halve(np.arange(len(pieces)), 0, max((len(p) for p in pieces), default=0))
    return found


def _any_of(values: np.ndarray, ordered: np.ndarray) -> bool:
    """Whether some of the values is among the ordered ones."""
    if not len(ordered):
        return False
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return bool((ordered[places] == values).any())


class _Hashes:
    """Of all windows of a length, in one pass over numbers modulo 2^64."""

    def __init__(self, sequences: Sequence[np.ndarray]):
        joined = np.concatenate([np.zeros(0, np.uint64), *sequences]).astype(np.uint64)
        self.owner = np.repeat(np.arange(len(sequences)), [len(s) for s in sequences])
        mixed = (joined + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
        self.sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed * _powers(BASE, len(joined)), dtype=np.uint64)])
        self.back = _powers(INVERSE, len(joined))

    def windows(self, length: int) -> np.ndarray:
        n = len(self.owner) - length + 1
        if n <= 0:
            return np.zeros(0, np.uint64)
        inside = self.owner[:n] == self.owner[length - 1 :]
        return ((self.sums[length:] - self.sums[:n]) * self.back[:n])[inside]


def _powers(base: np.uint64, n: int) -> np.ndarray:
    """base^0 .. base^(n-1) modulo 2^64"""
    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(max(n - 1, 0), base)]), dtype=np.uint64)[:n]


# ---- findings


def divergence(counts: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits, [0, 1]; counts (..., k), other (k,)."""
    p = counts / np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    q = other / max(other.sum(), 1e-12)
    middle = (p + q) / 2

    def gain(a: np.ndarray) -> np.ndarray:
        return np.where(a > 0, a * np.log2(np.maximum(a, 1e-12) / np.maximum(middle, 1e-12)), 0).sum(-1)

    return (gain(p) + gain(q)) / 2


def findings(
    made: Sequence[Score],
    held: Sequence[Score],
    training: Callable[[], Iterable[Score]],
    voices: int,
    bar: int,
    seed: int,
) -> list[Finding]:
    """Every figure; `voices` 0 leaves the rules of voice leading out. Pieces without a note are passed over."""
    made, held = [p for p in made if len(p.notes)], [p for p in held if len(p.notes)]
    if not made:
        return []
    classes, intervals, runs = _of_training(training())
    found = [
        _histogram("pitch classes", pitch_classes, classes, made, held, seed),
        _histogram("intervals", steps_of, intervals, made, held, seed),
        _groove(made, held, bar, seed),
        _copied(made, held, runs, seed),
    ]
    return [f for f in found if f] + (_faults(made, held, voices, seed) if voices > 1 else [])


def _of_training(pieces: Iterable[Score]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    classes, intervals, runs = np.zeros(12), np.zeros(25), []
    for piece in pieces:
        if len(piece.notes):
            classes, intervals = classes + pitch_classes(piece), intervals + steps_of(piece)
            runs.append(moves(piece))
    return classes, intervals, runs


WORDS = {
    "pitch classes": "how much each note of the scale sounds",
    "intervals": "how widely the voices move",
}


def _histogram(
    name: str,
    measure: Callable[[Score], np.ndarray],
    training: np.ndarray,
    made: Sequence[Score],
    held: Sequence[Score],
    seed: int,
) -> Finding:
    own = np.stack([measure(p) for p in made])
    value = float(divergence(own.sum(0), training))
    draws = divergence(resamples(len(own), seed).numpy() @ own, training)
    low, high = interval(torch.from_numpy(draws))
    others = held[: len(made)]  # as many, since few pieces lie further away by chance alone
    reference = float(divergence(np.sum([measure(p) for p in others], 0), training)) if others else None
    beside = "" if reference is None else f"; real pieces that were held back lie {reference:.3f} away"
    sentence = f"In {WORDS[name]}, new pieces lie {value:.3f} bits from the training pieces{beside}."
    return Finding(name, "music", value, low, high, reference, len(made), "lower", sentence, "bits")


def _groove(made: Sequence[Score], held: Sequence[Score], bar: int, seed: int) -> Finding | None:
    own = _numbers(groove(p, bar) for p in made)
    return own and _mean(
        "groove",
        own,
        _numbers(groove(p, bar) for p in held),
        "near",
        seed,
        "Neighbouring bars share {:.0%} of their rhythm{}.",
        "{:.0%}",
        "share",
    )


def _numbers(values: Iterable[float]) -> list[float]:
    return [v for v in values if np.isfinite(v)]


def _mean(
    name: str,
    own: Sequence[float],
    others: Sequence[float],
    direction: Literal["higher", "lower", "near"],
    seed: int,
    sentence: str,
    form: str,
    unit: str,
) -> Finding:
    """The mean of one number a piece, beside that of held pieces; the sentence has places for both."""
    low, high = mean_interval(torch.tensor(own, dtype=torch.float64), seed)
    value, reference = float(np.mean(own)), float(np.mean(others)) if len(others) else None
    beside = "" if reference is None else f" (real pieces that were held back: {form.format(reference)})"
    return Finding(
        name, "music", value, low, high, reference, len(own), direction, sentence.format(value, beside), unit
    )


def _copied(made: Sequence[Score], held: Sequence[Score], runs: Sequence[np.ndarray], seed: int) -> Finding:
    own, others = (longest_shared([moves(p) for p in pieces], runs) + 1 for pieces in (made, held))
    words = f"The longest run a piece shares with a training piece, in any key, is {{:.1f}} notes{{}}; the longest of all is {own.max()}."
    return _mean("copied run", own.astype(float), others.astype(float), "near", seed, words, "{:.1f}", "notes")


def _faults(made: Sequence[Score], held: Sequence[Score], voices: int, seed: int) -> list[Finding]:
    own, others = ([_rates(p, voices) for p in pieces] for pieces in (made, held))
    return [
        _mean(
            f"{n} in 100 beats",
            [r[n] for r in own],
            [r[n] for r in others],
            "lower" if n in LOWER else "near",
            seed,
            f"{FAULTS[n].capitalize()}: {{:.2f}} in 100 beats{{}}.",
            "{:.2f}",
            "faults",
        )
        for n in FAULTS
        if n in own[0]
    ]


LOWER = ("fifths", "octaves", "range")  # the fewer the better; of the others real music has its share


def _rates(piece: Score, voices: int) -> dict[str, float]:
    """Faults in 100 beats."""
    return {name: 100 * n / piece.beats for name, n in faults(*rolls(piece, voices)).items()}
