"""The ledger beside the pieces: of each file its checksum and papers, sealed by a keyed hash (BLAKE2 as a MAC, RFC 7693)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maquette import files
from maquette.provenance import keys

NAME = "ledger.jsonl"
MOST = 64 << 20  # bytes of a ledger that is read


def enter(written: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Note (file, facts) of files of one folder; a file that is written again gets a new line, and the last one counts."""
    lines: dict[Path, list[str]] = {}
    for path, facts in written:
        lines.setdefault(path.parent / NAME, []).append(json.dumps(_entry(path, facts), ensure_ascii=False))
    for place, added in lines.items():
        before = place.read_text(encoding="utf-8") if place.is_file() else ""
        files.write_text(place, before + "\n".join(added) + "\n")


def _entry(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"file": path.name, "sum": files.checksum(path), "facts": json.loads(json.dumps(dict(facts), default=str))}
    beside = path.with_name(path.name + ".json")
    if beside.is_file():
        entry["beside"] = files.checksum(beside)
    return entry | {"seal": _seal(entry)}


def _seal(entry: Mapping[str, Any]) -> str:
    told = json.dumps({k: v for k, v in entry.items() if k != "seal"}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(told.encode(), key=keys.derived("ledger"), digest_size=16).hexdigest()


def entry_of(path: Path) -> dict[str, Any] | None:
    """The last entry of a file in the ledger of its folder; None where there is none that can be read."""
    place = path.with_name(NAME)
    if not place.is_file() or place.stat().st_size > MOST:
        return None
    found = None
    for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and entry.get("file") == path.name:
            found = entry
    return found


def state(path: Path, entry: Mapping[str, Any] | None) -> str:
    """unlisted; forged (not sealed with this person's key); changed; beside (the file of facts changed); untouched."""
    if entry is None:
        return "unlisted"
    if not hmac.compare_digest(str(entry.get("seal")).encode(), _seal(entry).encode()):
        return "forged"
    if entry["sum"] != files.checksum(path):
        return "changed"
    beside = path.with_name(path.name + ".json")
    if "beside" in entry and not (beside.is_file() and files.checksum(beside) == entry["beside"]):
        return "beside"
    return "untouched"
