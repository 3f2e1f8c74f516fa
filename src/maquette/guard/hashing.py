"""Many pieces of a text looked up at once: polynomial hashes of all spans from sums (Karp & Rabin 1987), and a set of them behind a bitmap
(Bloom 1970). A hash is 64 bits; what is found is compared letter by letter by whoever asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
MIX = 0xC2B2AE3D27D4EB4F
SPARSE = 5  # the bitmap has 2^SPARSE times as many places as there are keys, or more


class _Powers:
    """Powers of the base and of its inverse, as many as were needed so far."""

    def __init__(self) -> None:
        self.rows = np.ones((2, 1), np.uint64)

    def upto(self, size: int) -> np.ndarray:
        """(2, size or more)"""
        if self.rows.shape[1] < size:
            ratios = np.array([BASE, pow(BASE, -1, 1 << 64)], np.uint64)
            rows = np.repeat(ratios[:, None], 1 << max(10, int(size).bit_length()), axis=1)
            rows[:, 0] = 1
            self.rows = np.cumprod(rows, axis=1, dtype=np.uint64)
        return self.rows


POWERS = _Powers()


class Spans:
    """Hashes of spans of codes (n,): the same letters have the same hash wherever they stand."""

    def __init__(self, codes: np.ndarray):
        mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(MIX)
        mixed ^= mixed >> np.uint64(31)
        powers, self.inverse = POWERS.upto(len(codes) + 1)
        mixed *= powers[: len(codes)]
        self.sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(mixed, out=self.sums[1:])

    def of(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(m,) uint64"""
        return (self.sums[ends] - self.sums[starts]) * self.inverse[starts]


def in_order(hashes: np.ndarray, length: int) -> np.ndarray:
    """(m,) -> (m - length + 1,): one hash of each `length` neighbours.

    >>> a = in_order(np.array([3, 4, 3, 4], np.uint64), 2)
    >>> len(a), bool(a[0] == a[2]), bool(a[0] == a[1])
    (3, True, False)
    """
    spans = Spans(hashes)
    starts = np.arange(max(0, len(hashes) - length + 1))
    return spans.of(starts, starts + length)


class Keys:
    """Hashes (k,) with what each stands for, by number."""

    def __init__(self, hashes: Iterable[int] | np.ndarray, what: Sequence[int]):
        given = np.asarray(hashes, np.uint64)
        order = np.argsort(given, kind="stable")
        self.sorted, self.what = given[order], np.asarray(what, np.int64)[order]
        self.shift = np.uint64(64 - min(26, max(10, len(given).bit_length() + SPARSE)))
        self.bitmap = np.zeros(1 << (64 - int(self.shift)), bool)
        self.bitmap[self.sorted >> self.shift] = True

    def __len__(self) -> int:
        return len(self.sorted)

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Which of these hashes (m,) are among the keys."""
        maybe = np.flatnonzero(self.bitmap[hashes >> self.shift])
        near = np.searchsorted(self.sorted, hashes[maybe])
        near[near == len(self.sorted)] = 0
        return maybe[self.sorted[near] == hashes[maybe]] if len(self) else maybe[:0]

    def pairs(self, hashes: np.ndarray) -> list[tuple[int, int]]:
        """(place, what a key stands for) of all that are among the keys, each key of several things several times."""
        places = self.places(hashes)
        low, high = (np.searchsorted(self.sorted, hashes[places], side) for side in ("left", "right"))
        counts = high - low
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return list(
            zip(np.repeat(places, counts).tolist(), self.what[np.repeat(low, counts) + within].tolist(), strict=True)
        )
