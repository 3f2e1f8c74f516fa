"""Settings of one tune are near twins: least hashes (Broder 1997) of the runs of intervals in the highest line, in any key."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from maquette.scores.score import Score

SKETCH, GRAM, BAND = 32, 6, 4  # numbers of a sketch; intervals behind each; numbers that must agree
TWIN = 0.5  # share of a sketch that near twins have in common


def sketch(piece: Score) -> np.ndarray | None:
    """(32,) int64; None where the tune is shorter than a run."""
    intervals = tune(piece)
    if len(intervals) < GRAM:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(intervals, GRAM).astype(np.uint64)
    hashed = (runs * _mixers(GRAM)).sum(1, dtype=np.uint64)
    mixed = (hashed[:, None] ^ _mixers(SKETCH)) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29))).min(0).view(np.int64)


def tune(piece: Score) -> np.ndarray:
    """The intervals of the highest line from beat to beat, without repeated notes: what passes between beats does not count."""
    top = np.full(piece.steps, -1)
    for start, length, pitch, _ in piece.notes.tolist():
        top[start : start + length] = np.maximum(top[start : start + length], pitch)
    line = top[:: piece.grid]
    moves = np.diff(line[line >= 0])
    return moves[moves != 0] + 128


def twins(sketches: np.ndarray) -> np.ndarray:
    """sketches (N, 32) -> group (N,) int64: pieces of which at least half of the sketch agrees, and what is so joined."""
    group = np.arange(len(sketches))
    for band in range(0, SKETCH, BAND):
        _, bucket = np.unique(sketches[:, band : band + BAND], axis=0, return_inverse=True)
        bucket = bucket.reshape(-1)
        for a, b in pairwise(np.argsort(bucket, kind="stable")):
            if bucket[a] == bucket[b] and (sketches[a] == sketches[b]).mean() >= TWIN:
                _join(group, a, b)
    return np.array([_root(group, i) for i in range(len(group))], np.int64)


def _mixers(n: int) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 1 << 63, n, dtype=np.uint64) | np.uint64(1)


def _root(group: np.ndarray, i: int) -> int:
    while group[i] != i:
        i = int(group[i])
    return i


def _join(group: np.ndarray, a: int, b: int) -> None:
    first, second = sorted((_root(group, a), _root(group, b)))
    group[second] = first
