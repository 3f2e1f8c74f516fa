"""A Corpus is a folder of numbered pieces with a fingerprint, split once into train, validation and test.

corpus.json       the facts, written last: a folder without it is no corpus
shard-00000.npy   pieces (rows, *space.shape): uint8 pictures, float32 latents, uint16 or int32 tokens
tokens.npy        of a ragged space instead: all pieces end to end, each with its end token; starts.npy (N + 1,) says where
pieces.jsonl      what is known of each piece, one line each; offsets.npy (N + 1,) says where each line starts
conditions.npy    (N, condition.width) float32, NaN for what is not known
train.npy, validation.npy, test.npy   the numbers of the pieces of each split, ascending
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette import files
from maquette.errors import CorpusError, SettingError, UnknownName
from maquette.ragged import Ragged, Windows
from maquette.space import Batch, DataSpec
from maquette.splitting import SPLITS
from maquette.writing import VERSION

IN_MEMORY = 1 << 30  # bytes; a larger corpus stays memory-mapped
WIDTHS = 10  # that windows are padded to: products of ever new sizes are slow to begin and fill the memory
Augment = Callable[[Batch], Batch]


class Corpus:
    """The pieces of a folder that `prepare` made. `Corpus.open(path)` is the way in."""

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self.path = Path(path)
        self.facts = dict(facts)
        self.spec = DataSpec.from_json(self.facts["spec"])
        self.fingerprint: str = self.facts["fingerprint"]
        self._splits = {name: self._load(name) for name in SPLITS}
        self.narrow: Mapping[str, np.ndarray] = {}
        self._ragged = self._load_ragged() if self.spec.space.ragged else None
        self._shards = [self._load(p.stem, mapped=True) for p in sorted(self.path.glob("shard-*.npy"))]
        self._conditions = self._load("conditions", mapped=True) if self.spec.condition else None
        self._offsets = self._load("offsets", mapped=True)
        self._whole: np.ndarray | None = None
        self._check()

    @staticmethod
    def open(path: str | Path) -> Corpus:
        """Raises CorpusError for a folder that is no corpus, is damaged, or was made by another version."""
        path = Path(path)
        facts = read_facts(path)
        try:
            return Corpus(path, facts)
        except (KeyError, TypeError, ValueError, OSError, EOFError) as error:
            raise CorpusError(
                f"the corpus {path} is damaged ({error}); run `maquette prepare` with the same source again"
            ) from None

    def _load(self, name: str, mapped: bool = False) -> np.ndarray:
        return np.load(self.path / f"{name}.npy", mmap_mode="r" if mapped else None, allow_pickle=False)

    def _load_ragged(self) -> Ragged:
        large = (self.path / "tokens.npy").stat().st_size > IN_MEMORY
        return Ragged(self._load("tokens", mapped=large), self._load("starts"))

    def _check(self) -> None:
        self._check_content()
        count = len(self)
        if self._conditions is not None and self._conditions.shape != (count, self.spec.condition.width):
            raise ValueError(f"conditions of shape {self._conditions.shape}")
        for name, numbers in self._splits.items():
            if len(numbers) != self.facts["counts"][name] or (
                len(numbers) and not 0 <= numbers.min() <= numbers.max() < count
            ):
                raise ValueError(f"split {name} does not fit")

    def _check_content(self) -> None:
        count = len(self)
        if self._ragged is not None:
            if len(self._ragged) != count or self._ragged.starts[-1] != len(self._ragged.flat):
                raise ValueError(f"tokens of {len(self._ragged)} pieces, {count} were promised")
            return
        shapes = {shard.shape[1:] for shard in self._shards}
        if shapes != {self.spec.space.shape} or sum(map(len, self._shards)) != count:
            raise ValueError(f"shards of {sum(map(len, self._shards))} pieces {shapes}, {count} were promised")

    def unconditioned(self) -> Corpus:
        """The same pieces without what is known of them: for codecs, and to learn without labels."""
        other = copy.copy(self)
        other.spec, other._conditions = replace(self.spec, condition=None), None
        return other

    def narrowed(self, **numbers: np.ndarray) -> Corpus:
        """The same corpus with other pieces in some splits: those that shall be learnt from now. `narrow` says which."""
        other = copy.copy(self)
        other.narrow = {**self.narrow, **numbers}
        other._splits = {**self._splits, **{name: np.asarray(n, np.int64) for name, n in numbers.items()}}
        return other

    def widened(self) -> Corpus:
        """The splits as they were drawn."""
        other = copy.copy(self)
        other.narrow, other._splits = {}, {name: self._load(name) for name in SPLITS}
        return other

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def tokens(self) -> int:
        """Ragged: how many there are, ends included."""
        return len(self._ragged.flat)

    def tokens_of(self, split: str) -> int:
        """Ragged: tokens of a split, ends included."""
        return self.tokens_in(self.numbers(split))

    def tokens_in(self, numbers: np.ndarray) -> int:
        """Ragged: tokens of these pieces, ends included."""
        return int(self._ragged.sizes[numbers].sum())

    def __repr__(self) -> str:
        return f"Corpus({self.path}, {len(self)} pieces, {self.spec.space.kind} {self.spec.space.shape})"

    def size(self, split: str = "train") -> int:
        return len(self.numbers(split))

    def numbers(self, split: str) -> np.ndarray:
        """(n,) the numbers of the pieces of a split. Raises UnknownName."""
        if split not in self._splits:
            raise UnknownName("split", split, SPLITS)
        return self._splits[split]

    def batches(
        self,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        split: str = "train",
        augment: Augment | None = None,
    ) -> Iterator[Batch]:
        """The endless stream of batches from number `start` on; batch k is a function of (seed, k) alone.

        Each epoch is shuffled anew. batch_size counts all ranks together; a rank gets its contiguous share.
        """
        numbers = self.numbers(split)
        if not len(numbers):
            raise CorpusError(f"the {split} split of {self.path} is empty; a larger corpus or another --split fills it")
        if batch_size % world:
            raise SettingError(f"batch_size should be a multiple of the {world} processes; {batch_size} came")
        share = batch_size // world
        if self._ragged is not None:
            windows = Windows(self._ragged.sizes, numbers, self.spec.space, batch_size, seed)
        order = _Order(numbers, seed)
        k = start
        while True:
            first = k * batch_size + rank * share
            if self._ragged is not None:
                batch = self._cut(*(column[rank * share : (rank + 1) * share] for column in windows.at(k)))
            else:
                batch = self.take(order.at(first, first + share))
            yield augmented(batch, augment, (seed * 1_000_003 + k) * 4099 + rank) if augment else batch
            k += 1

    def once(self, split: str, batch_size: int = 256, limit: int | None = None) -> Iterator[Batch]:
        """A split in order, once; with `limit`, that many pieces spread evenly over it. Of a ragged space: windows that do not overlap."""
        numbers = self.numbers(split)
        if limit is not None and limit < len(numbers):
            numbers = numbers[np.arange(limit) * len(numbers) // limit]
        if self._ragged is not None:
            yield from self._in_windows(numbers, batch_size)
            return
        for start in range(0, len(numbers), batch_size):
            yield self.take(numbers[start : start + batch_size])

    def tensor(self, split: str, limit: int | None = None) -> Batch:
        """A whole split as one batch (see `once` for `limit`)."""
        numbers = [b.index for b in self.once(split, 1 << 16, limit)]
        return self.take(torch.cat(numbers).numpy() if numbers else np.zeros(0, np.int64))

    def _in_windows(self, numbers: np.ndarray, batch_size: int) -> Iterator[Batch]:
        length = self.spec.space.shape[0]
        counts = -(-self._ragged.sizes[numbers] // length)
        number = np.repeat(numbers, counts)
        first = (np.arange(len(number)) - np.repeat(counts.cumsum() - counts, counts)) * length
        for start in range(0, len(number), batch_size):
            yield self._cut(number[start : start + batch_size], first[start : start + batch_size])

    def sliding(self, split: str, batch_size: int = 64, limit: int | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Ragged: (windows, counted (B, n) bool) of a split in order: windows go on by half of what a model sees at once, and each token
        counts once, in the window where most stands before it."""
        length, align = self.spec.space.shape[0], (self.spec.space.periods or (1,))[-1]
        half = max(align, length // 2 // align * align)
        numbers = self.numbers(split)
        if limit is not None and limit < len(numbers):
            numbers = numbers[np.arange(limit) * len(numbers) // limit]
        counts = 1 + -(-np.maximum(self._ragged.sizes[numbers] - length, 0) // half)
        number = np.repeat(numbers, counts)
        first = (np.arange(len(number)) - np.repeat(counts.cumsum() - counts, counts)) * half
        for start in range(0, len(number), batch_size):
            rows = slice(start, start + batch_size)
            batch = self._cut(number[rows], first[rows])
            place = np.arange(batch.x.shape[1])
            seen = np.where(first[rows] > 0, length - half, 0)
            left = self._ragged.sizes[number[rows]] - first[rows]
            yield batch, torch.from_numpy((place >= seen[:, None]) & (place < left[:, None]))

    def _cut(self, number: np.ndarray, first: np.ndarray) -> Batch:
        """Windows into the pieces `number` (B,) from their token `first` (B,) on, padded with the end."""
        space, ragged = self.spec.space, self._ragged
        start = ragged.starts[number] + first
        stop = np.minimum(start + space.shape[0], ragged.starts[number + 1])
        step = max(1, space.shape[0] // WIDTHS)
        width = min(space.shape[0], -(-int((stop - start).max()) // step) * step)
        places = start[:, None] + np.arange(width)
        x = np.where(places < stop[:, None], ragged.flat[np.minimum(places, len(ragged.flat) - 1)], space.end)
        before = np.where(first > 0, ragged.flat[np.maximum(start - 1, 0)].astype(np.int64), -1)
        condition = None if self._conditions is None else torch.from_numpy(self._conditions[number])
        index = torch.from_numpy(np.asarray(number, np.int64))
        return Batch(torch.from_numpy(x.astype(np.int64)), condition, index, torch.from_numpy(before))

    def pieces(self, split: str = "train") -> Iterator[np.ndarray]:
        """Ragged: the tokens (n,) of each piece of a split, without the end."""
        for number in self.numbers(split):
            yield self._ragged[number][:-1]

    def take(self, index: np.ndarray) -> Batch:
        """The pieces of these numbers (n,): x float in [-1, 1] or int64 tokens; of a ragged space whole, padded to the longest."""
        condition = None if self._conditions is None else torch.from_numpy(self._conditions[index])
        return Batch(to_tensor(self.raw(index)), condition, torch.from_numpy(np.asarray(index, np.int64)))

    def raw(self, index: np.ndarray) -> np.ndarray:
        """(n, *space.shape) as stored."""
        if self._ragged is not None:
            rows = [self._ragged[i] for i in index]
            padded = np.full((len(rows), max(map(len, rows))), self.spec.space.end, self._ragged.flat.dtype)
            for row, piece in zip(padded, rows, strict=True):
                row[: len(piece)] = piece
            return padded
        if self._whole is None and sum(s.nbytes for s in self._shards) <= IN_MEMORY:
            self._whole = np.concatenate(self._shards)
        return take(self._shards, index) if self._whole is None else self._whole[index]

    def conditions(self, split: str = "train") -> Tensor | None:
        """(n, condition.width) of a split: what unconditional sampling draws its conditions from."""
        return None if self._conditions is None else torch.from_numpy(self._conditions[self.numbers(split)])

    def facts_of(self, index: int) -> dict[str, Any]:
        """What is known of piece `index`: source, label, text, license ..."""
        if not 0 <= index < len(self):
            raise CorpusError(f"there is no piece {index} in {self.path}; its pieces are 0 to {len(self) - 1}")
        start, end = (int(n) for n in self._offsets[index : index + 2])
        with (self.path / "pieces.jsonl").open("rb") as stream:
            stream.seek(start)
            return json.loads(stream.read(end - start))

    def lines(self) -> Iterator[bytes]:
        """The facts of all pieces in the order of their numbers, each one JSON line with its end."""
        with (self.path / "pieces.jsonl").open("rb") as stream:
            yield from stream


class _Order:
    """The endless order of a split: one shuffle after the other, each a function of (seed, epoch)."""

    def __init__(self, numbers: np.ndarray, seed: int):
        self.numbers, self.seed, self.epoch = numbers, seed, -1

    def at(self, first: int, last: int) -> np.ndarray:
        parts = []
        while first < last:
            epoch, place = divmod(first, len(self.numbers))
            parts.append(self._shuffled(epoch)[place : place + last - first])
            first += len(parts[-1])
        return np.concatenate(parts)

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self.epoch:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(self.numbers)
            self.epoch = epoch
        return self.order


def augmented(batch: Batch, augment: Augment, seed: int) -> Batch:
    """A random variation of each piece; the caller's own chance does not depend on whether pieces are varied."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % (2**63 - 1))
        return augment(batch)


def to_tensor(stored: np.ndarray) -> Tensor:
    """uint8 -> float in [-1, 1]; other floats -> float32; tokens -> int64."""
    if stored.dtype == np.uint8:
        return torch.from_numpy(stored).float().div_(127.5).sub_(1)
    return torch.from_numpy(stored.astype(np.float32 if stored.dtype.kind == "f" else np.int64))


def take(shards: list[np.ndarray], index: np.ndarray) -> np.ndarray:
    """Rows from equally long shards (the last may be shorter), reading only what is asked."""
    index = np.asarray(index, np.int64)
    found = np.empty((len(index), *shards[0].shape[1:]), shards[0].dtype)
    number, row = np.divmod(index, len(shards[0]))
    for n in np.unique(number):
        here = number == n
        found[here] = shards[n][row[here]]
    return found


def read_facts(path: Path) -> dict[str, Any]:
    """corpus.json of a folder. Raises CorpusError."""
    path = Path(path)
    if not (path / "corpus.json").is_file():
        raise CorpusError(f"{path} is not a corpus (no corpus.json); `maquette prepare FOLDER -o {path}` makes one")
    try:
        facts = files.read_json(path / "corpus.json")
        version = facts["version"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CorpusError(f"{path}/corpus.json cannot be read ({error}); run `maquette prepare` again") from None
    if version != VERSION:
        raise CorpusError(
            f"{path} is a corpus of version {version}, this is version {VERSION}; run `maquette prepare` again"
        )
    return facts
