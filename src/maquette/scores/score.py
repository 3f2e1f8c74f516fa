"""A score as plain data: notes on a grid of steps, and how notes are parted into voices (a nearest-pitch skyline)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

CENTRES = (72.0, 48.0)  # pitches about which the highest and the lowest voice lie before a note was heard


@dataclass(frozen=True, eq=False)
class Score:
    """notes (n, 4) int32: start, length >= 1, pitch 0..127, voice; starts and lengths in steps; sorted by start, then high to low.

    steps  how long the whole lasts
    grid   steps a beat (a quarter)

    credited  its files name a mark that people see or hear by themselves, where that is asked for (see provenance/visible.py)
    """

    notes: np.ndarray
    steps: int
    grid: int
    credited: ClassVar[bool] = True

    @property
    def beats(self) -> float:
        return self.steps / self.grid


def score(notes: Sequence[tuple[int, int, int, int]] | np.ndarray, grid: int, steps: int = 0) -> Score:
    """Sorted; of equal notes of one voice one stays, and a note ends where the next of its pitch and voice begins.

    >>> score([(0, 4, 60, 0), (2, 4, 60, 0)], 4).notes.tolist()
    [[0, 2, 60, 0], [2, 4, 60, 0]]
    """
    found = np.asarray(notes, np.int32).reshape(-1, 4)
    found = found[np.lexsort((-found[:, 1], found[:, 0], found[:, 3], found[:, 2]))]
    same = (np.diff(found[:, 2]) == 0) & (np.diff(found[:, 3]) == 0)
    first = np.concatenate([[True], ~(same & (np.diff(found[:, 0]) == 0))])[: len(found)]
    found = found[first]
    same = (np.diff(found[:, 2]) == 0) & (np.diff(found[:, 3]) == 0)
    gaps = np.diff(found[:, 0])
    found[:-1, 1] = np.where(same, np.minimum(found[:-1, 1], gaps), found[:-1, 1])
    found = found[np.lexsort((found[:, 3], -found[:, 2], found[:, 0]))]
    last = int((found[:, 0] + found[:, 1]).max()) if len(found) else 0
    return Score(found, max(steps, last), grid)


def sounding(piece: Score) -> np.ndarray:
    """(steps,) how many notes sound in each step."""
    change = np.zeros(piece.steps + 1, np.int64)
    np.add.at(change, piece.notes[:, 0], 1)
    np.add.at(change, piece.notes[:, 0] + piece.notes[:, 1], -1)
    return np.cumsum(change)[:-1]


def polyphony(piece: Score) -> int:
    return int(sounding(piece).max(initial=0))


def rolls(piece: Score, voices: int) -> tuple[np.ndarray, np.ndarray]:
    """pitch (steps, voices) int16, -1 where a voice rests; onset (steps, voices) bool."""
    pitch = np.full((piece.steps, voices), -1, np.int16)
    onset = np.zeros((piece.steps, voices), bool)
    for start, length, note, voice in piece.notes.tolist():
        pitch[start : start + length, voice] = note
        onset[start, voice] = True
    return pitch, onset


def separated(piece: Score, voices: int) -> Score:
    """The same notes in voices 0 (highest) .. voices-1, each with one note at a time; what finds no voice is left out.

    Parts that are single lines already stay whole; else each new note goes to the free voice that was nearest in pitch, in order.
    """
    parts = np.unique(piece.notes[:, 3])
    if len(parts) <= voices and all(_line(piece.notes[piece.notes[:, 3] == p]) for p in parts):
        return _parts_placed(piece, parts, voices)
    return score(_skyline(piece.notes.tolist(), voices), piece.grid, piece.steps)


def _line(notes: np.ndarray) -> bool:
    """Whether no two notes overlap."""
    return bool((notes[:-1, 0] + notes[:-1, 1] <= notes[1:, 0]).all())


def _parts_placed(piece: Score, parts: np.ndarray, voices: int) -> Score:
    """Whole parts, the highest on average first; where there are fewer than voices each goes where its pitch is at home."""
    means = [float(piece.notes[piece.notes[:, 3] == p, 2].mean()) for p in parts]
    order = np.argsort(-np.array(means), kind="stable")
    places = matched([[abs(means[i] - c) for c in centres(voices)] for i in order])
    renamed = {int(parts[i]): place for i, place in zip(order, places, strict=True)}
    notes = piece.notes.copy()
    notes[:, 3] = [renamed[int(p)] for p in notes[:, 3]]
    return score(notes, piece.grid, piece.steps)


def centres(voices: int) -> list[float]:
    return np.linspace(*CENTRES, voices).tolist() if voices > 1 else [sum(CENTRES) / 2]


def _skyline(notes: list[list[int]], voices: int) -> list[tuple[int, int, int, int]]:
    last, busy, found, at = centres(voices), [0] * voices, [], 0
    while at < len(notes):
        start, group = notes[at][0], []
        while at < len(notes) and notes[at][0] == start:
            group.append(notes[at])
            at += 1
        free = [v for v in range(voices) if busy[v] <= start]
        group = _outer(sorted(group, key=lambda n: -n[2]), len(free))
        for note, slot in zip(group, matched([[abs(n[2] - last[v]) for v in free] for n in group]), strict=True):
            voice = free[slot]
            last[voice], busy[voice] = note[2], start + note[1]
            found.append((start, note[1], note[2], voice))
    return found


def _outer(notes: list[list[int]], most: int) -> list[list[int]]:
    """The highest and the lowest of notes from high to low, then those next to the highest."""
    if len(notes) <= most:
        return notes
    return [] if most == 0 else notes[:1] if most == 1 else notes[: most - 1] + notes[-1:]


def matched(cost: Sequence[Sequence[float]]) -> list[int]:
    """For each row its column, rising from row to row, so that the sum of costs is least; at most as many rows as columns.

    >>> matched([[0.0, 5.0, 9.0], [9.0, 8.0, 1.0]])
    [0, 2]
    """
    if not cost:
        return []
    rows, columns = len(cost), len(cost[0])
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        best[i][columns] = float("inf")
        for j in range(columns - 1, -1, -1):
            best[i][j] = min(best[i][j + 1], cost[i][j] + best[i + 1][j + 1])
    found, j = [], 0
    for i in range(rows):
        while best[i][j] == best[i][j + 1] and columns - j > rows - i:
            j += 1
        found.append(j)
        j += 1
    return found
