"""A Corpus is a folder of numbered pieces with a fingerprint, split once into train, validation and test.

corpus.json       the facts, written last: a folder without it is no corpus
shard-00000.npy   pieces (rows, *space.shape): uint8 pictures, float32 latents, uint16 or int32 tokens
pieces.jsonl      what is known of each piece, one line each; offsets.npy (N + 1,) says where each line starts
conditions.npy    (N, condition.width) float32, NaN for what is not known
train.npy, validation.npy, test.npy   the numbers of the pieces of each split, ascending
"""

from __future__ import annotations

import copy
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette import files
from maquette.errors import CorpusError, SettingError, UnknownName
from maquette.space import Batch, DataSpec, Space
from maquette.splitting import SPLITS

VERSION = 1
IN_MEMORY = 1 << 30  # bytes; a larger corpus stays memory-mapped
SHARD = 64 << 20  # bytes of one shard
Augment = Callable[[Batch], Batch]


class Corpus:
    """The pieces of a folder that `prepare` made. `Corpus.open(path)` is the way in."""

    def __init__(self, path: Path, facts: Mapping[str, Any]):
        self.path = Path(path)
        self.facts = dict(facts)
        self.spec = DataSpec.from_json(self.facts["spec"])
        self.fingerprint: str = self.facts["fingerprint"]
        self._splits = {name: self._load(name) for name in SPLITS}
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

    def _check(self) -> None:
        count = len(self)
        shapes = {shard.shape[1:] for shard in self._shards}
        if shapes != {self.spec.space.shape} or sum(map(len, self._shards)) != count:
            raise ValueError(f"shards of {sum(map(len, self._shards))} pieces {shapes}, {count} were promised")
        if self._conditions is not None and self._conditions.shape != (count, self.spec.condition.width):
            raise ValueError(f"conditions of shape {self._conditions.shape}")
        for name, numbers in self._splits.items():
            if len(numbers) != self.facts["counts"][name] or (
                len(numbers) and not 0 <= numbers.min() <= numbers.max() < count
            ):
                raise ValueError(f"split {name} does not fit")

    def unconditioned(self) -> Corpus:
        """The same pieces without what is known of them: for codecs, and to learn without labels."""
        other = copy.copy(self)
        other.spec, other._conditions = replace(self.spec, condition=None), None
        return other

    def __len__(self) -> int:
        return len(self._offsets) - 1

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
        order = _Order(numbers, seed)
        k = start
        while True:
            first = k * batch_size + rank * share
            batch = self.take(order.at(first, first + share))
            yield _augmented(batch, augment, (seed * 1_000_003 + k) * 4099 + rank) if augment else batch
            k += 1

    def once(self, split: str, batch_size: int = 256, limit: int | None = None) -> Iterator[Batch]:
        """A split in order, once; with `limit`, that many pieces spread evenly over it."""
        numbers = self.numbers(split)
        if limit is not None and limit < len(numbers):
            numbers = numbers[np.arange(limit) * len(numbers) // limit]
        for start in range(0, len(numbers), batch_size):
            yield self.take(numbers[start : start + batch_size])

    def tensor(self, split: str, limit: int | None = None) -> Batch:
        """A whole split as one batch (see `once` for `limit`)."""
        numbers = [b.index for b in self.once(split, 1 << 16, limit)]
        return self.take(torch.cat(numbers).numpy() if numbers else np.zeros(0, np.int64))

    def take(self, index: np.ndarray) -> Batch:
        """The pieces of these numbers (n,): x float in [-1, 1] or int64 tokens."""
        condition = None if self._conditions is None else torch.from_numpy(self._conditions[index])
        return Batch(to_tensor(self.raw(index)), condition, torch.from_numpy(np.asarray(index, np.int64)))

    def raw(self, index: np.ndarray) -> np.ndarray:
        """(n, *space.shape) as stored."""
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


def _augmented(batch: Batch, augment: Augment, seed: int) -> Batch:
    with torch.random.fork_rng(devices=[]):  # the loop's own chance must not depend on whether pieces are augmented
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


class CorpusWriter:
    """Fills a folder piece by piece; `finish` writes corpus.json last."""

    def __init__(self, folder: Path, space: Space, dtype: np.dtype | type):
        self.folder = Path(folder)
        self.space = space
        rows = max(1, SHARD // max(1, space.elements * np.dtype(dtype).itemsize))
        self.rows = min(rows, 1 << 16)
        self.lines: list[bytes] = []
        self.offsets = array("Q", [0])
        self.shards: list[Path] = []
        self.buffer = np.empty((self.rows, *space.shape), dtype)
        self.filled = 0

    def add(self, content: np.ndarray, line: bytes) -> None:
        """content (*space.shape); line: the facts as one JSON line with its end."""
        self.buffer[self.filled] = content
        self.filled += 1
        self.lines.append(line)
        self.offsets.append(self.offsets[-1] + len(line))
        if self.filled == self.rows:
            self.flush()

    def flush(self) -> None:
        if self.filled:
            path = self.folder / f"shard-{len(self.shards):05d}.npy"
            save(path, self.buffer[: self.filled])
            self.shards.append(path)
            with (self.folder / "pieces.jsonl").open("ab") as stream:
                stream.writelines(self.lines)
            self.lines, self.filled = [], 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def close(self) -> list[np.ndarray]:
        """The shards, memory-mapped."""
        self.flush()
        save(self.folder / "offsets.npy", np.frombuffer(self.offsets, np.uint64))
        return [np.load(p, mmap_mode="r", allow_pickle=False) for p in self.shards]

    def finish(self, splits: Mapping[str, np.ndarray], conditions: np.ndarray | None, facts: Mapping[str, Any]) -> None:
        for name in SPLITS:
            save(self.folder / f"{name}.npy", np.sort(splits[name]).astype(np.int64))
        if conditions is not None:
            save(self.folder / "conditions.npy", conditions.astype(np.float32))
        files.write_json(self.folder / "corpus.json", {"version": VERSION, **facts})


def save(path: Path, content: np.ndarray) -> None:
    """One .npy file, on the disk when this returns.

    `np.save` loses the errno of a full disk, so the bytes are written here.
    """
    content = np.ascontiguousarray(content)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(content))
        stream.write(content.reshape(-1).view(np.uint8).data if content.size else b"")
    files.sync(path)
