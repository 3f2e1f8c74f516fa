"""What happens to a file after it is written: labels, then the signature, then the ledger. (The watermark is in its pixels before.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from maquette import files
from maquette.errors import StorageError
from maquette.provenance import credentials, keys, ledger, watermark
from maquette.provenance.labels import check, labelled


@dataclass(frozen=True)
class Marks:
    """What each file of a call gets.

    labels     "eu", "cn", "both" or "off", which is noted too
    sign       None: where the extra is installed
    watermark  pictures of at least 64 pixels
    """

    labels: str = "eu"
    sign: bool | None = None
    watermark: bool = False

    def __post_init__(self) -> None:
        check(self.labels)
        if self.sign:
            credentials.require()

    @property
    def signs(self) -> bool:
        return credentials.installed() if self.sign is None else self.sign

    @cached_property
    def signing(self) -> credentials.Signing:
        return credentials.Signing()

    def marked(self, content: Any) -> Any:
        """A picture (H, W, C) uint8 with the watermark where it was asked for; anything else as it is."""
        return watermark.embed(content, keys.derived("watermark")) if self._marks(content) else content

    def _marks(self, content: Any) -> bool:
        return self.watermark and getattr(content, "ndim", 0) == 3 and min(content.shape[:2]) >= watermark.SMALLEST

    def noted(self, content: Any) -> dict[str, Any]:
        return {"labels": self.labels, "watermark": self._marks(content)}

    def finish(self, paths: Sequence[Path], facts: Mapping[str, Any]) -> list[Path]:
        """Labels, signature, ledger. Raises StorageError where a signature cannot be read back."""
        for path in paths:
            self._finish(path, facts)
        ledger.enter((path, facts) for path in paths)
        return list(paths)

    def _finish(self, path: Path, facts: Mapping[str, Any]) -> None:
        content, manifest = labelled(path, self.labels, facts), b""
        if self.signs:
            content, manifest = self.signing.signed(content, path, facts)
        files.write_bytes(path, content)
        place = credentials.beside(path)
        if manifest:
            files.write_bytes(place, manifest)
        else:
            place.unlink(missing_ok=True)  # of what had this name before
        if self.signs and credentials.read(path)[0] not in ("trusted", "unknown"):
            raise StorageError(f"the signature of {path} could not be read back; sign again or use --no-sign")
