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
MOST = 512 << 20  # bytes of a ledger that is read: some 100,000 pieces
MOST_BESIDE = 64 << 20  # bytes of a file beside a piece
BESIDE = {
    "beside": ".json",
    "manifest": ".c2pa",
}  # what is sealed with a file where it is there: its facts, its signature


def enter(written: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Note (file, facts) of files of one folder; a file that is written again gets a new line, and the last one counts."""
    lines: dict[Path, list[str]] = {}
    for path, facts in written:
        lines.setdefault(path.parent / NAME, []).append(json.dumps(_entry(path, facts), ensure_ascii=False))
    for place, added in lines.items():
        files.append_lines(place, added)


def _entry(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"file": path.name, "sum": files.checksum(path), "facts": json.loads(json.dumps(dict(facts), default=str))}
    there = {key: path.with_name(path.name + suffix) for key, suffix in BESIDE.items()}
    entry |= {key: files.checksum(place) for key, place in there.items() if place.is_file()}
    return entry | {"seal": _seal(entry)}


def _seal(entry: Mapping[str, Any]) -> str:
    told = json.dumps({k: v for k, v in entry.items() if k != "seal"}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(told.encode(), key=keys.derived("ledger"), digest_size=16).hexdigest()


def entry_of(path: Path) -> dict[str, Any] | None:
    """The last entry of a file in the ledger of its folder; None where there is none that can be read."""
    place = path.with_name(NAME)
    if not place.is_file() or place.stat().st_size > MOST:
        return None
    data, name = place.read_bytes(), json.dumps(path.name, ensure_ascii=False).encode()
    at = len(data)
    while (at := data.rfind(name, 0, at)) >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        entry = _parsed(data[start:].split(b"\n", 1)[0])
        if entry is not None and entry.get("file") == path.name:
            return entry
        at = start
    return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def state(path: Path, entry: Mapping[str, Any] | None) -> str:
    """unlisted; forged (not sealed with this person's key); changed; beside (a file of facts or a signature beside it changed);
    untouched."""
    if entry is None:
        return "unlisted"
    if not hmac.compare_digest(str(entry.get("seal")).encode(), _seal(entry).encode()):
        return "forged"
    if entry["sum"] != files.checksum(path):
        return "changed"
    there = {key: path.with_name(path.name + suffix) for key, suffix in BESIDE.items() if key in entry}
    return "untouched" if all(_same(place, entry[key]) for key, place in there.items()) else "beside"


def _same(place: Path, told: str) -> bool:
    return place.is_file() and place.stat().st_size <= MOST_BESIDE and files.checksum(place) == told
