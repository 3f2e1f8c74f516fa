"""Near twins among pictures: difference hashes, a sorted neighbourhood (Hernandez and Stolfo 1995), then the pixels decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

ROTATIONS = 8  # sorts of the hashes, each led by other bits
WINDOW = 6  # neighbours each piece is compared with in each sort
BITS = 8  # of 64 that may differ between candidates
TWIN = 0.12  # of a picture's contrast: the distance below which two pictures are one
FLAT = 2.0  # levels of 255 that count as nothing, for pictures almost without contrast
BRIGHTER = 20.0  # levels by which a twin may be brighter or darker as a whole
SIDE = 16  # pixels a side at which pixels are compared; finer ones mostly see the noise of re-encoding


class Signatures(NamedTuple):
    """bits (N,) 64 each; means (N,) levels; coarse (N, 64) uint8 levels of 8 x 8 cells; contrast (N,) levels."""

    bits: np.ndarray
    means: np.ndarray
    coarse: np.ndarray
    contrast: np.ndarray


def signatures(blocks: Iterable[np.ndarray]) -> Signatures:
    """Of blocks of pictures (n, C, H, W) uint8."""
    parts = [_signatures(block) for block in blocks]
    return Signatures(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _signatures(block: np.ndarray) -> Signatures:
    block = _over_grey(block)
    grey = block[:, :3].mean(1)
    small = _area(grey, 8, 9)
    rising = small[:, :, 1:] - small[:, :, :-1] > 2.0  # levels; what is flat stays 0 under noise
    bits = np.packbits(rising.reshape(len(block), 64), axis=1).view(np.uint64)[:, 0]
    coarse = np.rint(_area(grey, 8, 8)).astype(np.uint8).reshape(len(block), 64)
    return Signatures(bits, small.mean((1, 2)), coarse, _centred(_visible(block)).std((1, 2, 3)))


def groups(known: Signatures, load: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(N,) the smallest number of each piece's group of near twins; load: numbers -> pictures (n, C, H, W) uint8.

    n log n: a piece meets at most ROTATIONS x WINDOW others.
    """
    bits, means = known.bits, known.means
    group = np.arange(len(bits))
    by_brightness = np.argsort(means, kind="stable")  # breaks ties among equal hashes, which many simple pictures share
    for rotation in range(ROTATIONS):
        shift = np.uint64(64 // ROTATIONS * rotation)
        turned = (bits << shift) | (bits >> (np.uint64(64) - shift)) if rotation else bits
        order = by_brightness[np.argsort(turned[by_brightness], kind="stable")]
        for step in range(1, min(WINDOW + 1, len(bits))):
            first, second = order[:-step], order[step:]
            close = np.bitwise_count(bits[first] ^ bits[second]) <= BITS
            close &= (group[first] != group[second]) & (np.abs(means[first] - means[second]) <= BRIGHTER)
            first, second = _likely(known, first[close], second[close])
            same = twins(first, second, load)
            _join(group, first[same], second[same])
    return group


def _likely(known: Signatures, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose cells are near enough; averaging only brings pictures nearer, so no twin is lost."""
    near = np.zeros(len(first), bool)
    for start in range(0, len(first), 1 << 16):
        i, j = first[start : start + (1 << 16)], second[start : start + (1 << 16)]
        difference = known.coarse[i].astype(np.float32) - known.coarse[j]
        contrast = np.minimum(known.contrast[i], known.contrast[j])
        near[start : start + (1 << 16)] = difference.std(1) <= _tolerance(contrast) + 1.0  # a level for the rounding
    return first[near], second[near]


def twins(first: np.ndarray, second: np.ndarray, load: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(n,) bool: whether pieces first[i] and second[i] show the same picture, re-encoded, rescaled or brightened."""
    same = np.zeros(len(first), bool)
    if not len(first):
        return same
    step = max(16, (4 << 20) // load(first[:1]).size)
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        same[part] = _same(load(first[part]), load(second[part]))
    return same


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, C, H, W) twice -> (n,): the distance without the difference of the means is small against the contrast."""
    a, b = _visible(a), _visible(b)
    centred_a, centred_b = _centred(a), _centred(b)
    distance = np.sqrt(np.square(centred_a - centred_b).mean((1, 2, 3)))
    contrast = np.minimum(centred_a.std((1, 2, 3)), centred_b.std((1, 2, 3)))
    brighter = np.abs(a.mean((2, 3)) - b.mean((2, 3))).max(1)
    return (distance <= _tolerance(contrast)) & (brighter <= BRIGHTER)


def _tolerance(contrast: np.ndarray) -> np.ndarray:
    return TWIN * contrast + FLAT * (contrast < FLAT)


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean((2, 3), keepdims=True)


def _visible(x: np.ndarray) -> np.ndarray:
    """(n, C, H, W) -> float (n, C, h, w) at most SIDE a side"""
    return _area(_over_grey(x), min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))


def _over_grey(x: np.ndarray) -> np.ndarray:
    """float32; colours of RGBA over mid-grey, so that they count as little as they show; alpha stays a fourth channel."""
    if x.dtype == np.float32:
        return x
    x = x.astype(np.float32)
    if x.shape[1] == 4:
        colours = x[:, :3]
        colours -= 128
        colours *= x[:, 3:] / 255
        colours += 128
    return x


def _area(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(..., H, W) -> (..., height, width) by averaging the area each new pixel covers."""
    return _cover(height, x.shape[-2]) @ x @ _cover(width, x.shape[-1]).T


def _cover(new: int, old: int) -> np.ndarray:
    """(new, old): the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * (new / old)).astype(np.float32)


def _join(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Merge the groups of pairs in place: the smallest number of each connected set spreads over it."""
    while True:
        low = np.minimum(group[first], group[second])
        if np.array_equal(low, group[first]) and np.array_equal(low, group[second]):
            return
        for ends in (first, second):
            np.minimum.at(group, group[ends], low)  # the root follows too, so whole groups move
            np.minimum.at(group, ends, low)
        while not np.array_equal(group[group], group):
            group[:] = group[group]
