"""Near twins of texts: MinHash (Broder 1997) of their shingles, runs of a few characters, found by bands of equal numbers."""

from __future__ import annotations

import numpy as np

NUMBERS = 64  # of a sketch
BANDS = 16  # of 4 numbers; twins share at least one band
TWIN = 0.6  # share of equal numbers from which two texts are one: an estimate of the share of shingles they share
KEPT = 512  # the smallest hashes of a text, which stand for all of its shingles
HAN, OTHERS = 3, 8  # characters of a shingle
CHUNK = 1 << 20  # characters that are hashed at once
_CHANCE = np.random.default_rng(1997)
_TIMES = _CHANCE.integers(1 << 63, size=NUMBERS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_PLUS = _CHANCE.integers(1 << 63, size=NUMBERS, dtype=np.uint64)
_POWERS = (_CHANCE.integers(1 << 63, size=OTHERS, dtype=np.uint64) | np.uint64(1)).tolist()


def sketch(text: str) -> np.ndarray:
    """(NUMBERS,) uint32; two texts agree in about as many of them as they share shingles."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    han = ((codes >= 0x3400) & (codes < 0xA000)).mean() > 0.3 if len(codes) else False
    size = min(HAN if han else OTHERS, max(1, len(codes)))
    kept = np.zeros(0, np.uint64)
    for start in range(0, max(1, len(codes) - size + 1), CHUNK):
        kept = _smallest(np.concatenate([kept, _hashes(codes[start : start + CHUNK + size - 1], size)]))
    if not len(kept):
        return np.zeros(NUMBERS, np.uint32)
    return ((kept[:, None] * _TIMES + _PLUS) >> np.uint64(32)).min(0).astype(np.uint32)


def _hashes(codes: np.ndarray, size: int) -> np.ndarray:
    """One number for each run of `size` characters."""
    codes = codes.astype(np.uint64)
    count = max(0, len(codes) - size + 1)
    mixed = np.zeros(count, np.uint64)
    for k in range(size):
        mixed += codes[k : k + count] * np.uint64(_POWERS[k])
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


def _smallest(hashes: np.ndarray) -> np.ndarray:
    """The KEPT smallest, each once."""
    few = 4 * KEPT
    if len(hashes) > few:  # most are not looked at twice; where repeats leave too few, all are
        found = _each_once(np.partition(hashes, few)[:few])
        if len(found) >= KEPT:
            return found[:KEPT]
    return _each_once(hashes)[:KEPT]


def _each_once(hashes: np.ndarray) -> np.ndarray:
    """Ascending; faster than `np.unique`, which sorts only after it has hashed."""
    found = np.sort(hashes)
    return found[np.append(True, found[1:] != found[:-1])] if len(found) else found


def groups(sketches: np.ndarray) -> np.ndarray:
    """sketches (N, NUMBERS) -> group (N,) int64, the same for near twins and for what is joined by them."""
    group = np.arange(len(sketches))
    rows = NUMBERS // BANDS
    for band in range(BANDS):
        first, second = _candidates(sketches[:, band * rows : (band + 1) * rows])
        open_ = group[first] != group[second]
        first, second = first[open_], second[open_]
        same = (sketches[first] == sketches[second]).mean(1) >= TWIN if len(first) else np.zeros(0, bool)
        _join(group, first[same], second[same])
    return group


def _candidates(band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in a whole band: each with the one before it and with the first of its run."""
    order = np.lexsort(band.T)
    fresh = np.ones(len(band), bool)
    fresh[1:] = (band[order[1:]] != band[order[:-1]]).any(1)
    start = np.maximum.accumulate(np.where(fresh, np.arange(len(band)), 0))
    later = np.flatnonzero(~fresh)
    return np.concatenate([order[start[later]], order[later - 1]]), np.concatenate([order[later], order[later]])


def _join(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Merge the groups of pairs in place; a group is named by its smallest number."""
    while len(first):
        low = np.minimum(group[first], group[second])
        if np.array_equal(low, group[first]) and np.array_equal(low, group[second]):
            return
        for ends in (first, second):
            np.minimum.at(group, group[ends], low)
            np.minimum.at(group, ends, low)
        while not np.array_equal(group[group], group):
            group[:] = group[group]
