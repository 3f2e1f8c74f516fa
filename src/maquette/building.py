"""A folder is built beside its place and takes it when it is whole; what a killed process left is put right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maquette import files


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all is done; until then the old one stands."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    folder = out.parent / f".{out.name}.preparing-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        _swap(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(new: Path, out: Path) -> None:
    old = out.parent / f".{out.name}.replaced-{os.getpid()}"
    files.sync(new)
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(new, out)
    except OSError:
        if old.exists():
            os.rename(old, out)
        raise
    files.sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove what a killed prepare left; bring back a corpus that it had just moved away."""
    for left in out.parent.glob(f".{out.name}.*-*"):
        kind, _, process = left.name[len(out.name) + 2 :].partition("-")
        if kind not in ("preparing", "replaced") or not process.isdigit() or _alive(int(process)):
            continue
        if kind == "replaced" and not out.exists():
            os.rename(left, out)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
