"""Writing so that a reader sees the old file or the new one, never half of either; reading without pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from maquette.errors import StorageError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving it is fsynced and renamed. Raises StorageError when the disk is full."""
    path = Path(path)
    temporary: Path | None = None
    with full_disk_in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk is full: {path} could not be written; what was there before is untouched. Free some space and run the same line again"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StorageError(
                f"{error.filename or path} may not be written ({error.strerror}); choose another folder with -o"
            ) from None
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sync(path: Path) -> None:
    """Flush a file or folder to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> Path:
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    return write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> Path:
    return write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_lines(path: Path, lines: Iterable[str]) -> Path:
    """Whole lines at the end of a file, in one write; half a line that a crash left there is ended first."""
    path = Path(path)
    with full_disk_in_words(path), path.open("a+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        broken = size > 0 and stream.read(1) != b"\n"
        stream.write(b"\n" * broken + "".join(f"{line}\n" for line in lines).encode())
        stream.flush()
        os.fsync(stream.fileno())
    return path


def write_with(path: Path, write: Callable[[Path], Any]) -> Path:
    """`write(temporary)` for libraries that insist on a path."""
    with atomic(path) as temporary:
        write(temporary)
    return Path(path)


def read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def checksum(path: Path) -> str:
    """blake2b of a file, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(data: Any) -> str:
    """blake2b of plain data, 16 hexadecimal digits."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
