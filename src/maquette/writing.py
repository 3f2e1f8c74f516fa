"""How a corpus comes onto the disk: pieces of one shape in shards, pieces of any length in one row, corpus.json last."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from maquette import files
from maquette.ragged import Ragged
from maquette.space import Space
from maquette.splitting import SPLITS

VERSION = 1  # of a corpus
SHARD = 64 << 20  # bytes of one shard


class Lines:
    """What is known of each piece: one JSON line each in pieces.jsonl, and where it starts."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lines: list[bytes] = []
        self.offsets = array("Q", [0])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.offsets.append(self.offsets[-1] + len(line))
        if len(self.lines) >= 1 << 14:
            self.flush()

    def flush(self) -> None:
        with (self.folder / "pieces.jsonl").open("ab") as stream:
            stream.writelines(self.lines)
        self.lines = []

    def close(self) -> None:
        self.flush()
        save(self.folder / "offsets.npy", np.frombuffer(self.offsets, np.uint64))


class CorpusWriter:
    """Fills a folder piece by piece, all of one shape; `finish` writes corpus.json last."""

    def __init__(self, folder: Path, space: Space, dtype: np.dtype | type):
        self.folder, self.lines = Path(folder), Lines(folder)
        rows = max(1, SHARD // max(1, space.elements * np.dtype(dtype).itemsize))
        self.rows = min(rows, 1 << 16)
        self.shards: list[Path] = []
        self.buffer = np.empty((self.rows, *space.shape), dtype)
        self.filled = 0

    def add(self, content: np.ndarray, line: bytes) -> None:
        """content (*space.shape); line: the facts as one JSON line with its end."""
        self.buffer[self.filled] = content
        self.filled += 1
        self.lines.add(line)
        if self.filled == self.rows:
            self.flush()

    def flush(self) -> None:
        if self.filled:
            path = self.folder / f"shard-{len(self.shards):05d}.npy"
            save(path, self.buffer[: self.filled])
            self.shards.append(path)
            self.filled = 0

    def __len__(self) -> int:
        return len(self.lines)

    def close(self) -> list[np.ndarray]:
        """The shards, memory-mapped."""
        self.flush()
        self.lines.close()
        return [np.load(p, mmap_mode="r", allow_pickle=False) for p in self.shards]

    def finish(self, splits: Mapping[str, np.ndarray], conditions: np.ndarray | None, facts: Mapping[str, Any]) -> None:
        finish(self.folder, splits, conditions, facts)


class RaggedWriter:
    """Fills a folder piece by piece, each of its own length; `tokens` makes the content into tokens once that is known."""

    def __init__(self, folder: Path, dtype: np.dtype | type):
        self.folder, self.lines, self.dtype = Path(folder), Lines(folder), np.dtype(dtype)
        self.starts = array("q", [0])
        self.stream = (self.folder / "stored.bin").open("wb")

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, content: np.ndarray, line: bytes) -> None:
        """content (n,), n > 0"""
        self.stream.write(np.ascontiguousarray(content, self.dtype).data)
        self.starts.append(self.starts[-1] + len(content))
        self.lines.add(line)

    def close(self) -> Ragged:
        """The content, memory-mapped."""
        self.stream.close()
        self.lines.close()
        return Ragged(np.memmap(self.folder / "stored.bin", self.dtype, "r"), np.array(self.starts))

    def tokens(self, stored: Ragged, encode: Callable[[np.ndarray], np.ndarray], space: Space) -> None:
        """tokens.npy and starts.npy in place of the content. The tokens pass by and are never held."""
        kind, starts = np.dtype(np.uint16 if space.vocabulary <= 1 << 16 else np.int32), array("q", [0])
        close = np.array([space.end], kind)
        with (self.folder / "tokens.npy").open("wb") as stream:
            _write_header(stream, 0, kind)
            for content in stored.once(range(len(stored))):
                made = encode(content).astype(kind)
                stream.write(made.data)
                stream.write(close.data)
                starts.append(starts[-1] + len(made) + 1)
            stream.seek(0)
            _write_header(stream, starts[-1], kind)  # numpy leaves room for the number to grow
        files.sync(self.folder / "tokens.npy")
        self.starts = starts
        save(self.folder / "starts.npy", np.array(starts))
        (self.folder / "stored.bin").unlink()

    def count(self, numbers: np.ndarray) -> int:
        """Tokens of these pieces, ends included."""
        return int(np.diff(np.array(self.starts))[numbers].sum())

    def finish(self, splits: Mapping[str, np.ndarray], conditions: np.ndarray | None, facts: Mapping[str, Any]) -> None:
        finish(self.folder, splits, conditions, facts)


def finish(
    folder: Path, splits: Mapping[str, np.ndarray], conditions: np.ndarray | None, facts: Mapping[str, Any]
) -> None:
    """The splits, the conditions, and at last corpus.json."""
    for name in SPLITS:
        save(folder / f"{name}.npy", np.sort(splits[name]).astype(np.int64))
    if conditions is not None:
        save(folder / "conditions.npy", conditions.astype(np.float32))
    files.write_json(folder / "corpus.json", {"version": VERSION, **facts})


def _write_header(stream: IO[bytes], count: int, kind: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(stream, header)


def save(path: Path, content: np.ndarray) -> None:
    """One .npy file, on the disk when this returns.

    `np.save` loses the errno of a full disk, so the bytes are written here.
    """
    content = np.ascontiguousarray(content)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(content))
        stream.write(content.reshape(-1).view(np.uint8).data if content.size else b"")
    files.sync(path)
