"""What can be told of one file by its papers: signature, ledger, facts, labels, watermark; run in a child with caps by verbs/verify.py."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from dataclasses import dataclass, field
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from maquette.errors import Unreadable
from maquette.provenance import credentials, keys, ledger, watermark
from maquette.provenance.labels import labels_of

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
KNOWN = (*PICTURES, ".txt", ".md", ".json", ".mid", ".midi", ".wav", ".musicxml", ".svg")
MOST = 512 << 20  # bytes of a file
MOST_PIXELS = 64_000_000
ENOUGH = 2_000_000  # pixels in which the watermark is looked for
_PICTURE = ("picture", (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"))
BEGINNINGS = dict.fromkeys(PICTURES, _PICTURE) | {
    ".mid": ("MIDI file", (b"MThd",)), ".midi": ("MIDI file", (b"MThd",)), ".wav": ("sound", (b"RIFF",)),
    ".json": ("JSON", (b"{", b"[")), ".svg": ("SVG", (b"<",)), ".musicxml": ("MusicXML", (b"<",)),
}  # fmt: skip
REASONS = {
    errno.ENOENT: "there is no such file; verify takes the paths of files that Maquette wrote",
    errno.ENOTDIR: "there is no such file; a part of this path is no folder",
    errno.ELOOP: "this link leads in a circle, to no file",
    errno.EACCES: "this file may not be read by you",
    errno.ENAMETOOLONG: "there is no such file; no name is so long",
}
KINDS = (
    (stat.S_ISDIR, "a folder (give the files in it)"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """signature: trusted, unknown, invalid, none, or unread (the extra is not installed); ledger: see ledger.state."""

    path: str
    signature: str
    ledger: str
    labels: list[str]
    watermark: float | None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def untouched(self) -> bool:
        """This person's signature or ledger, or a signer they know, vouches for the file, and nothing speaks against it."""
        spoken = self.signature == "trusted" or self.ledger == "untouched"
        return spoken and self.signature != "invalid" and self.ledger not in ("changed", "forged", "beside")


def inspect(path: Path) -> Inspection:
    """Raises Unreadable for what is no file, too large, of no known format, or never was of the format that its name says. A file that the
    ledger knows and that cannot be read any more is told by that."""
    path = Path(path)
    _check(path)
    entry = ledger.entry_of(path)
    if entry is None:
        _begins_right(path)
    content = _pixels(path) if path.suffix.lower() in PICTURES else None
    signed, told = _signature(path)
    state = ledger.state(path, entry)
    sealed = entry["facts"] if entry and state != "forged" else {}
    p = watermark.p_value(content, keys.derived("watermark")) if _may_be_marked(content) else None
    return Inspection(str(path), signed, state, labels_of(path), p, (told if signed != "invalid" else {}) or sealed)


def _check(path: Path) -> None:
    """Raises Unreadable for everything that should not even be opened."""
    try:
        about = path.stat()
    except OSError as error:
        raise Unreadable(f"{path}: {REASONS.get(error.errno or 0, str(error.strerror))}") from None
    if not stat.S_ISREG(about.st_mode):
        kind = next((words for asked, words in KINDS if asked(about.st_mode)), "something else")
        raise Unreadable(f"{path} is not a file but {kind}; it was not opened")
    if not os.access(path, os.R_OK):
        raise Unreadable(f"{path}: {REASONS[errno.EACCES]}")
    known = path.suffix.lower() in KNOWN or credentials.beside(path).is_file() or ledger.entry_of(path)
    if not known:
        raise Unreadable(f"{path.name}: verify knows {' '.join(KNOWN)}; this is {path.suffix or 'without a suffix'}")
    if about.st_size > MOST:
        raise Unreadable(f"{path.name} is larger than {MOST >> 20} MB, more than Maquette writes; it was not read")


def _begins_right(path: Path) -> None:
    """Raises Unreadable for a file that does not begin as those of its kind do."""
    kind, beginnings = BEGINNINGS.get(path.suffix.lower(), ("", ()))
    with path.open("rb") as stream:
        head = stream.read(64).removeprefix(b"\xef\xbb\xbf")
    fits = head.lstrip() if kind in ("JSON", "SVG", "MusicXML") else head
    if not kind or fits.startswith(beginnings):
        return
    how = "is empty" if not head else "does not begin as one"
    raise Unreadable(f"{path.name} is no {kind}: it {how}, and no ledger beside it knows it; it was not read further")


def _pixels(path: Path) -> np.ndarray | None:
    """(H, W, C), a large one smaller; None where the pixels cannot be decoded, which the signature or the ledger then tells."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            with PIL.Image.open(path) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise Unreadable(
                        f"{path.name} says that it is {width}x{height}, more than {MOST_PIXELS // 10**6} million pixels; it was not opened"
                    )
                return np.asarray(image.convert("RGB").reduce(ceil(sqrt(width * height / ENOUGH))))
        except Unreadable:
            raise
        except Exception:  # decoders raise anything on bytes of unknown origin
            return None


def _may_be_marked(content: np.ndarray | None) -> bool:
    return content is not None and min(content.shape[:2]) >= watermark.GRID // 2


def _signature(path: Path) -> tuple[str, dict[str, Any]]:
    return credentials.read(path) if credentials.installed() else ("unread", {})
