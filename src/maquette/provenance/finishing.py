"""What a piece gets on its way into a file: a watermark, a mark that is seen, labels, the signature, the ledger; in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from maquette import files
from maquette.errors import StorageError
from maquette.provenance import credentials, keys, ledger, visible, watermark
from maquette.provenance.labels import check, labelled


@dataclass(frozen=True)
class Marks:
    """What each file of a call gets.

    labels     "eu", "cn", "both" or "off", which is noted too
    sign       None: where the extra is installed
    watermark  pictures of at least 64 pixels
    visible    a mark that people see or hear: on pictures, in texts and scores, before sound; its words are those of `labels`
    """

    labels: str = "eu"
    sign: bool | None = None
    watermark: bool = False
    visible: bool = False

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
        """A picture (H, W, C) uint8 or a text with the marks that were asked for. Raises UsageError for what cannot show a visible one."""
        if self._marks(content):
            content = watermark.embed(content, keys.derived("watermark"))
        return self.shown(content)

    def shown(self, content: Any) -> Any:
        """The same with the visible mark alone, for contact sheets."""
        return visible.shown(content, self.labels) if self.visible else content

    def _marks(self, content: Any) -> bool:
        return self.watermark and getattr(content, "ndim", 0) == 3 and min(content.shape[:2]) >= watermark.SMALLEST

    def noted(self, content: Any) -> dict[str, Any]:
        return {"labels": self.labels, "watermark": self._marks(content), "visible": self.visible}

    @property
    def news(self) -> str:
        """What a person should hear once, before the key is made; empty where it is there."""
        if keys.there():
            return ""
        advice = "not signed" if self.sign is False else "not signed: that needs pip install 'maquette[credentials]'"
        how = "signed by C2PA and entered in ledger.jsonl" if self.signs else f"entered in ledger.jsonl, {advice}"
        return (
            f"papers: pieces are labelled ({self.labels}) and {how}. Your key is made now in {keys.folder()}, which only you may read; "
            "keep a copy of it, and let nobody have it"
        )

    def finish(self, paths: Sequence[Path], facts: Mapping[str, Any]) -> list[Path]:
        """Labels, signature, ledger. Raises StorageError where a signature cannot be read back."""
        for path in paths:
            self._finish(path, facts)
        ledger.enter((path, facts) for path in paths)
        return list(paths)

    def _finish(self, path: Path, facts: Mapping[str, Any]) -> None:
        content, manifest = labelled(path, self.labels, facts), b""
        signs = self.signs and bool(content)  # of an empty text the ledger alone speaks
        if signs:
            content, manifest = self.signing.signed(content, path, facts)
        files.write_bytes(path, content)
        place = credentials.beside(path)
        if manifest:
            files.write_bytes(place, manifest)
        else:
            place.unlink(missing_ok=True)  # of what had this name before
        if signs and credentials.read(path)[0] not in ("trusted", "unknown"):
            raise StorageError(f"the signature of {path} could not be read back; sign again or use --no-sign")
