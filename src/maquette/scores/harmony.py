"""Keys (Krumhansl & Kessler 1982, Krumhansl & Schmuckler), rules of voice leading, and moods (Russell's circumplex, 1980)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maquette.errors import UsageError
from maquette.scores.score import Score

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
RANGES = ((60, 81), (52, 74), (46, 69), (36, 66))  # soprano, alto, tenor, bass: the outermost notes of Bach's chorales
PERFECT = (0, 7)  # semitones modulo an octave: unisons and octaves, fifths
LEAP = 12  # semitones; a wider step within a voice is a leap
RULES = ("ranges", "crossing", "parallels")


class Key(NamedTuple):
    tonic: int  # pitch class
    mode: str  # "major" or "minor"
    clarity: float  # correlation with the profile, in [-1, 1]


def key_of(piece: Score) -> Key:
    """The key whose profile correlates best with how long each pitch class sounds; C major where nothing does."""
    weights = np.bincount(piece.notes[:, 2] % 12, weights=piece.notes[:, 1], minlength=12)
    return best_key(weights)


def best_key(weights: np.ndarray) -> Key:
    """weights (12,): how much each pitch class sounds.

    >>> best_key(np.array([5, 0, 3, 0, 4, 3, 0, 5, 0, 3, 0, 2.0]))[:2]
    (0, 'major')
    """
    if weights.std() == 0:
        return Key(0, "major", 0.0)
    heard = (weights - weights.mean()) / weights.std() / 12
    fits = PROFILES @ heard
    best = int(fits.argmax())
    return Key(best % 12, ("major", "minor")[best // 12], float(fits[best]))


def _profiles() -> np.ndarray:
    """(24, 12): twelve major keys, then twelve minor ones, standardised."""
    return np.stack([np.roll((p - p.mean()) / p.std(), k) for p in (MAJOR, MINOR) for k in range(12)])


PROFILES = _profiles()


def tonic_named(name: str) -> tuple[int, str | None]:
    """The pitch class of "G", "Db", "f#", and the mode where "G minor" or "Gm" says one. Raises UsageError.

    >>> tonic_named("Db"), tonic_named("f# minor")
    ((1, None), (6, 'minor'))
    """
    found = re.fullmatch(r"\s*([A-Ga-g])([#b♯♭]?)[\s_-]*(m|min|minor|maj|major)?\s*", str(name))
    if not found:
        raise UsageError(f"a key is one of {', '.join(TONICS)}, with or without major or minor; {name!r} came")
    letter, sign, mode = found.groups()
    shift = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}[sign]
    named = None if not mode else "major" if mode.startswith("maj") else "minor"
    return (LETTERS[letter.upper()] + shift) % 12, named


# ---- rules of voice leading


def faults(pitch: np.ndarray, onset: np.ndarray) -> dict[str, int]:
    """How often each rule is broken; pitch (steps, voices), -1 where silent; onset (steps, voices).

    fifths, octaves  two voices move the same way from one such interval into the next (unisons count as octaves)
    crossing         a voice comes to lie above a higher one
    range            notes outside RANGES (four voices only)
    leaps            steps within a voice of more than an octave
    """
    voices = pitch.shape[1]
    pairs = [(u, v) for u in range(voices) for v in range(u + 1, voices)]
    parallel = {c: sum(int(_parallel(pitch[:, u], pitch[:, v], c).sum()) for u, v in pairs) for c in PERFECT}
    found = {"fifths": parallel[7], "octaves": parallel[0]}
    found["crossing"] = sum(int(_begun(_crossed(pitch[:, u], pitch[:, v])).sum()) for u, v in pairs)
    if voices == len(RANGES):
        low, high = np.array(RANGES).T
        found["range"] = int((onset & ((pitch < low) | (pitch > high))).sum())
    found["leaps"] = sum(int((np.abs(np.diff(pitch[onset[:, v], v].astype(int))) > LEAP).sum()) for v in range(voices))
    return found


def _parallel(upper: np.ndarray, lower: np.ndarray, interval: int) -> np.ndarray:
    """(steps - 1,) whether both move the same way while their distance stays `interval` modulo an octave."""
    upper, lower = upper.astype(int), lower.astype(int)
    sound = (np.minimum(upper, lower)[1:] >= 0) & (np.minimum(upper, lower)[:-1] >= 0)
    apart = np.abs(upper - lower) % 12 == interval
    together = np.sign(np.diff(upper)) * np.sign(np.diff(lower)) > 0
    return sound & together & apart[1:] & apart[:-1]


def _crossed(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return (upper >= 0) & (lower >= 0) & (lower > upper)


def _begun(claims: np.ndarray) -> np.ndarray:
    return claims & ~np.concatenate([[False], claims[:-1]])


# ---- measures and moods


def measures(piece: Score) -> dict[str, Any]:
    """key, mode, density (onsets a beat) and register (mean pitch, weighted by length) of a score with notes."""
    key = key_of(piece)
    length = piece.notes[:, 1]
    return {
        "key": TONICS[key.tonic],
        "mode": key.mode,
        "density": round(len(piece.notes) / piece.beats, 3),
        "register": round(float((piece.notes[:, 2] * length).sum() / length.sum()), 2),
    }


class Mood(NamedTuple):
    """A quarter of the circumplex: the signs of valence and arousal, and how far from a corpus's mean its numbers lie, in
    standard deviations (Gabrielsson & Lindstrom 2010: mode and register carry valence, tempo and density arousal)."""

    valence: int
    arousal: int
    mode: str
    tempo: float
    density: float
    register: float


MOODS = {
    "joyful": Mood(+1, +1, "major", 0.8, 0.8, 0.4),
    "tense": Mood(-1, +1, "minor", 0.8, 0.8, 0.0),
    "sad": Mood(-1, -1, "minor", -0.8, -0.8, -0.4),
    "calm": Mood(+1, -1, "major", -0.8, -0.8, 0.0),
}
Numbers = Mapping[str, tuple[float, float]]  # name -> mean and standard deviation in the corpus


def mood_of(measured: Mapping[str, Any], corpus: Numbers) -> str:
    """The quarter a piece lies in: its mode and, half as much, its register; its tempo and its density."""
    valence = (1.0 if measured["mode"] == "major" else -1.0) + 0.5 * _away(measured, "register", corpus)
    arousal = _away(measured, "tempo", corpus) + _away(measured, "density", corpus)
    signs = (1 if valence >= 0 else -1, 1 if arousal >= 0 else -1)
    return next(name for name, mood in MOODS.items() if (mood.valence, mood.arousal) == signs)


def _away(measured: Mapping[str, Any], name: str, corpus: Numbers) -> float:
    """In standard deviations from the mean; 0 where it is not known or never varies."""
    mean, std = corpus.get(name, (0.0, 0.0))
    return (float(measured[name]) - mean) / std if std > 0 and measured.get(name) is not None else 0.0


def mood_in_numbers(name: str, corpus: Numbers) -> dict[str, Any]:
    """What a mood asks for in this corpus: a mode and, of what varies in it, a tempo, a density and a register."""
    if name not in MOODS:
        raise UsageError(f"a mood is one of {', '.join(MOODS)}; {name!r} came")
    mood = MOODS[name]
    asked: dict[str, Any] = {"mode": mood.mode}
    for field in ("tempo", "density", "register"):
        mean, std = corpus.get(field, (0.0, 0.0))
        if std > 0:
            asked[field] = round(mean + getattr(mood, field) * std, 3)
    return asked
