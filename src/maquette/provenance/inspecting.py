"""What can be told of one file by its papers: signature, ledger, facts, labels, watermark; run in a child with caps by verbs/verify.py."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
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
        """Something vouches for the file and nothing speaks against it."""
        spoken = self.signature in ("trusted", "unknown") or self.ledger == "untouched"
        return spoken and self.signature != "invalid" and self.ledger not in ("changed", "forged", "beside")


def inspect(path: Path) -> Inspection:
    """Raises Unreadable for what is no file, too large or of no known format. A picture that cannot be decoded is told by its signature."""
    path = Path(path)
    _check(path)
    content = _pixels(path) if path.suffix.lower() in PICTURES else None
    signed, told = _signature(path)
    entry = ledger.entry_of(path)
    state = ledger.state(path, entry)
    sealed = entry["facts"] if entry and state != "forged" else {}
    p = watermark.p_value(content, keys.derived("watermark")) if _may_be_marked(content) else None
    return Inspection(str(path), signed, state, labels_of(path), p, (told if signed != "invalid" else {}) or sealed)


def _check(path: Path) -> None:
    if not path.is_file():
        raise Unreadable(f"{path} is not a file; verify takes the paths of files that Maquette wrote")
    if path.suffix.lower() not in KNOWN:
        raise Unreadable(f"{path.name}: verify knows {' '.join(KNOWN)}; this is {path.suffix or 'without a suffix'}")
    if path.stat().st_size > MOST:
        raise Unreadable(f"{path.name} is larger than {MOST >> 20} MB, more than Maquette writes; it was not read")


def _pixels(path: Path) -> np.ndarray | None:
    """(H, W, C); None where the pixels cannot be decoded, which the signature or the ledger then tells."""
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
                return np.asarray(image.convert("RGB"))
        except Unreadable:
            raise
        except Exception:  # decoders raise anything on bytes of unknown origin
            return None


def _may_be_marked(content: np.ndarray | None) -> bool:
    return content is not None and min(content.shape[:2]) >= watermark.GRID // 2


def _signature(path: Path) -> tuple[str, dict[str, Any]]:
    return credentials.read(path) if credentials.installed() else ("unread", {})
