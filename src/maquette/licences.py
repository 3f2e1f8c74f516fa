"""Licences and owners of pieces: read beside them, brought to SPDX names, held against a policy (SPDX 3.0; REUSE 3.3, 2024)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from maquette.errors import ContentError

LICENCE, OWNER = ("license", "licence"), ("owner", "author", "artist")
FOLDER_FILES = ("license", "licence", "license.txt", "licence.txt", "license.md", "licence.md", "source.md")
UNKNOWN = "unknown"
LONGEST = 64 << 10  # bytes of a licence file that are read
KNOWN = ("MIT", "OFL-1.1", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "GPL-3.0-only", "GPL-2.0-only", "Unlicense")
PHRASES = (  # the beginning of a licence's own text, or a common name of it
    (r"cc0|creative commons zero", "CC0-1.0"),
    (r"sil open font licen[cs]e", "OFL-1.1"),
    (r"mit licen[cs]e|permission is hereby granted, free of charge", "MIT"),
    (r"apache licen[cs]e,?\s+version 2", "Apache-2.0"),
)
CC = re.compile(r"\bcc[ -](by(?:[ -](?:nc|sa|nd))*)[ -](\d\.\d)\b", re.I)
HASH = re.compile(r"[0-9a-f]{64}")


def normalised(text: str) -> str:
    """The SPDX name of a licence where it is a common one; else as it is written, on one line.

    >>> normalised("cc by-sa 4.0"), normalised("mit"), normalised("CC0"), normalised("ask my aunt")
    ('CC-BY-SA-4.0', 'MIT', 'CC0-1.0', 'ask my aunt')
    """
    words = " ".join(text.split())
    if found := CC.fullmatch(words):
        return f"CC-{found[1].upper().replace(' ', '-')}-{found[2]}"
    exact = {name.lower(): name for name in (*KNOWN, "CC0-1.0")} | {"cc0": "CC0-1.0", "public domain": "public domain"}
    return exact.get(words.lower(), words[:200])


def recognised(licence: str) -> bool:
    """Whether a normalised name is one whose terms are known here."""
    return licence in (*KNOWN, "CC0-1.0", "public domain") or bool(CC.fullmatch(licence))


def of_text(text: str) -> str | None:
    """The licence that a file's text names: an SPDX line, a line `Licence: ...`, one name alone, or the text's own title."""
    if said := re.search(r"SPDX-License-Identifier:\s*(\S+)|^\W*licen[cs]e\W*:\W*(.+)$", text, re.I | re.M):
        return normalised((said[1] or said[2]).strip(" *_`.|"))
    if len(text.split("\n")[0]) < 60 and recognised(name := normalised(text)):
        return name
    return next((name for phrase, name in PHRASES if re.search(phrase, text[:2000], re.I)), None)


def owner_of(text: str) -> str | None:
    """Who is named in `SPDX-FileCopyrightText:` of a sidecar."""
    found = re.search(r"SPDX-FileCopyrightText:\s*(.+)", text)
    return " ".join(found[1].split())[:200] if found else None


def of_row(row: Mapping[str, Any], where: str = "its metadata") -> dict[str, str]:
    """licence and owner of a metadata row. Raises ContentError for what is no text."""
    found = {}
    for key, names in (("license", LICENCE), ("owner", OWNER)):
        value = next((row[n] for n in names if row.get(n) not in (None, "")), None)
        if value is not None and not isinstance(value, str):
            raise ContentError(f"{key} in {where} should be a text such as CC-BY-4.0; it is {type(value).__name__}")
        if value:
            found[key] = normalised(value) if key == "license" else " ".join(value.split())[:200]
    return found


def beside(path: Path, top: Path, cache: dict[Path, dict[str, str]]) -> dict[str, str]:
    """What the files around `path` say, the nearer over the farther: folders from `top` down, then its own sidecars."""
    folders = [p for p in (path.parent, *path.parent.parents) if p == top or top in p.parents]
    found: dict[str, str] = {}
    for folder in reversed(folders):
        if folder not in cache:
            cache[folder] = _of_folder(folder)
        found |= cache[folder]
    return found | _of_json(path.with_name(path.name + ".json")) | _of_file(path.with_name(path.name + ".license"))


def _of_folder(folder: Path) -> dict[str, str]:
    names = sorted((p for p in folder.iterdir() if p.name.lower() in FOLDER_FILES), key=lambda p: _rank(p.name))
    return next((found for p in names if (found := _of_file(p))), {})


def _rank(name: str) -> int:
    return FOLDER_FILES.index(name.lower())


def _of_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open("rb") as stream:
        text = stream.read(LONGEST).decode("utf-8", "replace")
    said = {"license": of_text(text), "owner": owner_of(text)}
    return {k: v for k, v in said.items() if v}


def _of_json(path: Path) -> dict[str, str]:
    if not path.is_file() or path.stat().st_size > LONGEST:
        return {}
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ContentError(f"{path.name} should be a JSON object with license and owner; it cannot be read") from None
    return of_row(row, path.name) if isinstance(row, dict) else {}


@dataclass(frozen=True)
class Terms:
    """Patterns of licences (`CC-BY-*`, `unknown`), compared without case. An empty `allow` allows all."""

    allow: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    set_apart: tuple[str, ...] = ()

    def reason(self, licence: str) -> str | None:
        """Why a piece of this licence is not taken, or None."""
        names = {licence} if recognised(licence) else {licence, UNKNOWN}
        if _matches(names, self.forbid):
            return f"its licence ({licence}) is forbidden by the policy"
        if _matches(names, self.set_apart):
            return f"its licence ({licence}) is set apart by the policy"
        if self.allow and not _matches(names, self.allow):
            return f"its licence ({licence}) is not among those the policy allows"
        return None


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(n.lower(), p.lower()) for n in names for p in patterns)


def opted_out(path: Path) -> frozenset[str]:
    """The SHA-256 hashes of an opt-out list, one a line, `#` before a comment. Raises ContentError naming bad lines."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ContentError(f"the opt-out list {path} cannot be read ({error})") from None
    told = {k: line.split("#")[0].strip().lower() for k, line in enumerate(lines, 1)}
    told = {k: value for k, value in told.items() if value}
    if bad := [k for k, value in told.items() if not HASH.fullmatch(value)]:
        listed = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
        raise ContentError(f"{path} should hold one SHA-256 (64 hexadecimal digits) a line; line {listed} does not")
    return frozenset(told.values())


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def forbids_copies(licence: str) -> bool:
    """Whether a copy may not be handed on freely: no derivatives, no commerce, or all rights reserved."""
    return bool(re.match(r"CC-BY.*-(NC|ND)", licence, re.I)) or "all rights reserved" in licence.lower()


def copies_in_the_way(copies: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Of an audit's copies: those of a piece whose licence forbids it, and those whose licence is not known; in words. Where several
    training pieces are equally near, each counts."""
    forbidden, unsure = [], []
    for copy in copies:
        for near in _likest(copy.get("nearest") or []) if copy.get("verdict") == "copy" else []:
            licence = normalised(str(near.get("licence") or UNKNOWN))
            words = f"{copy.get('made')} copies {near.get('source') or near.get('train')} ({licence})"
            if forbids_copies(licence):
                forbidden.append(words)
            elif not recognised(licence):
                unsure.append(words)
    return forbidden, unsure


def _likest(nearest: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [n for k, n in enumerate(nearest) if not k or n.get("distance", 1) == nearest[0].get("distance")]
