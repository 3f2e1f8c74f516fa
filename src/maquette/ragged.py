"""Sequences of any length end to end, and the order in which windows of them are dealt."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from maquette.space import Space

PASSED = 64 << 20  # bytes that are read before they are given back


class Ragged(NamedTuple):
    """Sequences of any length end to end: sequence i is flat[starts[i]:starts[i + 1]]."""

    flat: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]
        return self.flat[int(self.starts[i]) : int(self.starts[i + 1])]

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts)

    def once(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """These sequences; what was read of a memory-mapped file is given back from time to time."""
        passed = 0
        for i in numbers:
            yield np.asarray(self[i])
            passed += int(self.starts[i + 1] - self.starts[i]) * self.flat.itemsize
            if passed > PASSED:
                forget(self.flat)
                passed = 0
        forget(self.flat)


class Windows:
    """The endless order of windows into pieces of any length; batch k is a function of (seed, k) alone.

    A piece that fits is one window. A longer one is cut at places drawn anew each epoch, so that each token is seen about once;
    its first and its last window are whole. Windows of like length are dealt together: no piece ever reads another, and little is padding.
    """

    NEAR = 16  # batches whose windows are sorted by length among themselves

    def __init__(self, sizes: np.ndarray, numbers: np.ndarray, space: Space, batch_size: int, seed: int):
        self.length, self.align = space.shape[0], (space.periods or (1,))[-1]
        self.numbers, self.sizes, self.batch_size, self.seed = numbers, sizes[numbers], batch_size, seed
        self.counts = -(-self.sizes // self.length)
        self.batches, self.epoch = max(1, int(self.counts.sum()) // batch_size), -1

    def at(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(number of the piece, first token) of the windows of batch k, (B,) each."""
        epoch, place = divmod(k, self.batches)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._dealt(np.random.default_rng([self.seed, epoch]))
        return tuple(column[place * self.batch_size : (place + 1) * self.batch_size] for column in self.order)  # type: ignore[return-value]

    def _dealt(self, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        piece = np.repeat(np.arange(len(self.numbers)), self.counts)
        within = np.arange(len(piece)) - np.repeat(self.counts.cumsum() - self.counts, self.counts)
        last = -(-np.maximum(self.sizes - self.length, 0) // self.align)[piece]  # in units of `align`, as is the place
        spread = (within + chance.random(len(self.numbers))[piece]) / self.counts[piece]
        wanted = (spread * self.sizes[piece] - self.length / 2) // self.align
        first = np.clip(wanted.astype(np.int64), 0, last) * self.align
        order = np.resize(chance.permutation(len(piece)), self.batches * self.batch_size)
        shown = np.minimum(self.sizes[piece] - first, self.length)
        if shown.min() < shown.max():
            order = self._alike(order, shown, chance)
        return self.numbers[piece[order]], first[order]

    def _alike(self, order: np.ndarray, shown: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """The same order with windows of like length in the same batch."""
        found = []
        for part in np.split(order, range(self.NEAR * self.batch_size, len(order), self.NEAR * self.batch_size)):
            batches = part[np.argsort(shown[part], kind="stable")].reshape(-1, self.batch_size)
            found.append(batches[chance.permutation(len(batches))].reshape(-1))
        return np.concatenate(found)


def forget(mapped: np.ndarray) -> None:
    """Give the pages of a memory-mapped array back, so that a large corpus needs little memory."""
    with suppress(AttributeError, OSError, ValueError):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
