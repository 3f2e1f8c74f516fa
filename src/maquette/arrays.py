"""Pictures in arrays: MNIST's idx files and NumPy's .npz, read a few rows at a time whatever their heads promise."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from maquette.errors import Unreadable

IDX = ("idx3-ubyte", "idx3-ubyte.gz", "idx4-ubyte", "idx4-ubyte.gz")
SUFFIXES = (*IDX, ".npz")
COMPANIONS = ("idx1-ubyte", "idx1-ubyte.gz")  # labels
Row = tuple[np.ndarray, str | None]  # content (H, W, C) uint8, label


def rows(path: Path, most_pixels: int) -> Iterator[Row]:
    """Every picture of an idx or .npz file in its order. Raises Unreadable, or what zlib and zipfile raise."""
    yield from (_npz if path.name.lower().endswith(".npz") else _idx)(path, most_pixels)


def levels(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; bool, 16-bit integers and floats in [0, 1] -> uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if values.dtype.kind not in "iuf" or not 0 <= low <= high <= top:
        raise Unreadable(
            f"brightness should be 8 or 16 bit or a float from 0 to 1; {values.dtype} from {low:g} to {high:g} came"
        )
    return np.rint(values * (255 / top)).astype(np.uint8)


def _idx(path: Path, most_pixels: int) -> Iterator[Row]:
    """MNIST's format: two zero bytes, 8 for uint8, the rank, big-endian sizes, then bytes; labels in a file beside."""
    labels_name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    labels_path = path.with_name(labels_name)
    with _opened(path) as stream:
        shape = _idx_header(stream, path.name, (3, 4))
        if labels_name == path.name or not labels_path.is_file() or labels_path.is_symlink():
            yield from ((content, None) for content in _rows(stream, shape, np.dtype(np.uint8), most_pixels))
            return
        with _opened(labels_path) as beside:
            count = _idx_header(beside, labels_name, (1,))[0]
            if count != shape[0]:
                raise Unreadable(
                    f"{labels_name} has {count} labels, {path.name} {shape[0]} pictures; they should match"
                )
            for content in _rows(stream, shape, np.dtype(np.uint8), most_pixels):
                label = beside.read(1)
                if not label:
                    raise Unreadable(f"{labels_name} ends early; the rest of the pictures has no label")
                yield content, str(label[0])


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _idx_header(stream: IO[bytes], name: str, ranks: tuple[int, ...]) -> tuple[int, ...]:
    head = stream.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in ranks:
        raise Unreadable(
            f"{name} is no idx file of bytes with {' or '.join(map(str, ranks))} axes; it begins with {head!r}"
        )
    return tuple(int(n) for n in np.frombuffer(_exactly(stream, 4 * head[3]), ">u4"))


def _rows(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, most_pixels: int) -> Iterator[np.ndarray]:
    """shape (N, H, W), (N, H, W, C) or (N, C, H, W) -> N times (H, W, C) uint8, about a megabyte at a time."""
    row = shape[1:]
    first = len(row) == 3 and row[0] in (1, 3, 4) and row[2] not in (1, 3, 4)
    if len(row) not in (2, 3) or (len(row) == 3 and not first and row[2] not in (1, 3, 4)):
        raise Unreadable(f"pictures should be (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3, 4; {shape} came")
    size = prod(row) * dtype.itemsize
    if not 0 < prod(row) <= 4 * most_pixels:
        raise Unreadable(
            f"pictures of {row} pixels; more than none and at most {most_pixels / 1e6:g} million are expected"
        )
    for start in range(0, shape[0], max(1, (1 << 20) // size)):
        count = min(shape[0] - start, max(1, (1 << 20) // size))
        block = stream.read(count * size)
        for i in range(len(block) // size):
            values = np.frombuffer(block, dtype, prod(row), i * size).reshape(row)
            shades = levels(values)
            yield shades.transpose(1, 2, 0) if first else shades if len(row) == 3 else shades[..., None]
        if len(block) < count * size:
            raise Unreadable(f"ends early: {shape[0]} pictures were announced, {start + len(block) // size} are there")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise Unreadable("ends early, within its head")
    return found


def _npz(path: Path, most_pixels: int) -> Iterator[Row]:
    """Arrays `images` or `x` (also x_train and so on), with `labels` or `y` beside where there are any."""
    with zipfile.ZipFile(path) as archive:
        arrays = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
        chosen = [n for n in sorted(arrays) if n in ("images", "x") or n.startswith(("images_", "x_"))]
        chosen = chosen or (list(arrays) if len(arrays) == 1 else [])
        if not chosen:
            raise Unreadable(f"an .npz should have an array named images or x; it has {', '.join(arrays) or 'none'}")
        for name in chosen:
            beside = "labels" + name[6:] if name.startswith("images") else "y" + name[1:]
            yield from _npz_rows(archive, arrays[name], arrays.get(beside), most_pixels)


def _npz_rows(archive: zipfile.ZipFile, name: str, labels_name: str | None, most_pixels: int) -> Iterator[Row]:
    with archive.open(name) as stream:
        shape, dtype = _npy_header(stream)
        labels = _npz_labels(archive, labels_name, shape[0] if shape else 0) if labels_name else None
        for i, content in enumerate(_rows(stream, shape, dtype, most_pixels)):
            yield content, None if labels is None else str(labels[i])


def _npz_labels(archive: zipfile.ZipFile, name: str, count: int) -> np.ndarray:
    with archive.open(name) as stream:
        shape, dtype = _npy_header(stream)
        if shape not in ((count,), (count, 1)) or dtype.kind not in "iuUb" or count * dtype.itemsize > 1 << 28:
            raise Unreadable(f"{name} should be one whole number or word a picture ({count}); {dtype} {shape} came")
        return np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise Unreadable(f".npy of version {version}; 1.0 and 2.0 are read")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject or dtype.itemsize == 0 or (fortran and len(shape) > 1):
        raise Unreadable(f"arrays are read in C order and without Python objects; {dtype} {shape} came")
    return shape, dtype
