"""onepass: the train split goes by once; each batch is embedded once by each embedder and shown to all who look through its eyes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.errors import RunError, StorageError
from maquette.features import BATCH
from maquette.neighbours import Several

LARGEST = 1 << 28  # bytes of features kept in memory, for each space; more lie in a file (64 floats: a million pieces)


class Looker(Protocol):
    """Who waits for training pieces, as `neighbours.Several` does."""

    def see(self, rows: Tensor, numbers: Tensor) -> None: ...


@dataclass(frozen=True)
class View:
    """One who looks at training pieces through an embedder. name: for words; views of one embedder share what it says."""

    name: str
    embed: Callable[[Tensor], Tensor]
    looker: Looker


@torch.inference_mode()
def go_by(corpus: Corpus, views: Sequence[View]) -> None:
    """Raises RunError where features are not finite."""
    for batch in corpus.once("train", BATCH):
        seen: dict[Callable, Tensor] = {}
        for view in views:
            if view.embed not in seen:
                seen[view.embed] = finite(view.embed(batch.x), view.name)
            view.looker.see(seen[view.embed], batch.index)


def finite(features: Tensor, space: str) -> Tensor:
    """The same. Raises RunError."""
    if not features.isfinite().all():
        raise RunError(f"the features in {space} are not all finite numbers; nothing can be measured in them")
    return features


class Kept:
    """What an embedder says of each of n pieces, in their order: rows (n, D) float32, numbers (n,).

    Beyond `largest` bytes they lie in a file without a name in the folder for temporary files, which is gone with the last who reads it.
    """

    def __init__(self, n: int, largest: int = LARGEST):
        self.rows, self.numbers = torch.zeros(0, 1), torch.zeros(n, dtype=torch.long)
        self.largest, self.count = largest, 0

    def see(self, rows: Tensor, numbers: Tensor) -> None:
        """rows (M, D), numbers (M,): the next ones."""
        if not self.count:
            self.rows = room(len(self.numbers), rows.shape[1], self.largest)
        place = slice(self.count, self.count + len(rows))
        self.rows[place], self.numbers[place] = rows, numbers
        self.count += len(rows)

    def spread(self, n: int) -> Tensor:
        """(n, D): that many rows spread evenly, those that `Corpus.once` takes with a limit."""
        return self.rows[torch.arange(n) * len(self.rows) // n] if n else self.rows[:0]


def room(n: int, width: int, largest: int) -> Tensor:
    """(n, width) float32, in memory or in a file. Raises StorageError."""
    size = 4 * n * width
    if size <= largest:
        return torch.empty(n, width)
    with tempfile.TemporaryFile() as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise StorageError(
                f"the features of {n:,} training pieces need {size:,} bytes in {tempfile.gettempdir()} ({error.strerror}); make room there, "
                "or name a folder on a larger disk in TMPDIR"
            ) from None
        return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(n, width)))


def _reserve(file: int, size: int) -> None:
    """All of it at once, where the system can: a disk that fills up under a mapped file ends the process without a word."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def gaps(kept: Kept, index: Tensor) -> Tensor:
    """index (N,) of training pieces -> (N,): how far each lies from the nearest other one."""
    asked, back = index.unique(return_inverse=True)
    order = kept.numbers.argsort()
    several = Several(kept.rows[order[torch.searchsorted(kept.numbers[order], asked)]], 2)
    for rows, numbers in zip(kept.rows.split(BATCH), kept.numbers.split(BATCH), strict=True):
        several.see(rows, numbers)
    own = several.index == asked[:, None]
    twin_first = torch.where(own[:, 0], several.distance[:, 1], several.distance[:, 0])
    return twin_first[back]  # a twin may stand before the piece itself
