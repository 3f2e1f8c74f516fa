"""verify: a file in, what its papers say out; it is read in a child process with caps on memory and time, for it may be forged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.errors import Unreadable
from maquette.provenance.credentials import beside, carries
from maquette.provenance.inspecting import Inspection

MEMORY = 2 << 30  # bytes of address space of the child, where the system can cap it
SECONDS = 2  # of its processor, once its libraries are there
WALL = 60  # seconds in all, on a machine that is busy
LONGEST = 400  # characters of one fact that are shown
UNLIKE = "no training piece shares a passage with it"
FOUND = 1e-4  # p-value of the watermark below which it counts as found
START = """
import sys, importlib.util
from maquette.provenance import inspecting
if importlib.util.find_spec("c2pa"): import c2pa
try:
    import resource
    spent = resource.getrusage(resource.RUSAGE_SELF)
    until = int(spent.ru_utime + spent.ru_stime) + 1 + {seconds}
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 1))
    resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
except (ImportError, ValueError, OSError):
    pass
from dataclasses import asdict
import json
from pathlib import Path
from maquette.errors import Unreadable
try:
    print(json.dumps(asdict(inspecting.inspect(Path(sys.argv[1]))), default=str))
except Unreadable as error:
    print(json.dumps({{"refused": str(error)}}))
"""


def verify(path: str | Path) -> Inspection:
    """What the papers of one file say. Raises Unreadable for what cannot be told."""
    path = Path(path)
    code = START.format(seconds=SECONDS, memory=MEMORY)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=WALL)
    except subprocess.TimeoutExpired:
        raise Unreadable(
            f"{path.name}: reading took more than {WALL} s and was stopped; trust nothing it says"
        ) from None
    try:
        told = json.loads(done.stdout.decode("utf-8", "replace"))
    except ValueError:
        raise Unreadable(
            f"{path.name}: its reader ended (status {done.returncode}) at the cap of {SECONDS} s of processor or {MEMORY >> 30} GB, "
            "or broke on it; such a file is damaged or forged, trust nothing it says"
        ) from None
    if "refused" in told:
        raise Unreadable(told["refused"])
    return Inspection(**told)


SIGNED = {
    "trusted": "signed with this person's key; trusted",
    "unknown": "whole and signed, but by a signer whom this machine does not know (to know one, put their root.pem into known/ by your keys)",
    "invalid": "INVALID: the file was changed after it was signed, or the signature is forged",
    "none": "no signature",
    "unread": "not looked for: pip install 'maquette[credentials]'",
}
LISTED = {
    "untouched": "the same bytes as when it was written",
    "changed": "CHANGED since it was written",
    "beside": "the file itself is untouched, but the facts or the signature beside it were changed or are missing",
    "forged": "the entry was not made with this person's key: forged, or from another machine",
    "unlisted": "none beside it",
}


def words(found: Inspection) -> str:
    """A few lines for a person."""
    verdict = "untouched" if found.untouched else "NOT shown to be untouched"
    place = beside(Path(found.path))
    where = "" if carries(Path(found.path)) or found.signature == "none" else f" ({place.name} beside it)"
    lines = [
        f"{plain(found.path)}: {verdict}",
        f"  signature: {SIGNED[found.signature]}{where}",
        f"  ledger:    {LISTED[found.ledger]}",
        f"  labels:    {', '.join(found.labels) or 'none within the file or beside it'}",
    ]
    if found.watermark is not None:
        seen = "found" if found.watermark < FOUND else "not found"
        lines.append(f"  watermark: {seen} (p = {found.watermark:.2g})")
    if found.signature == "unknown" and found.ledger != "untouched" and found.facts:
        lines.append("  by the word of that signer:")
    return "\n".join(lines + _told(found.facts))


def _told(facts: Mapping[str, Any]) -> list[str]:
    if not facts:
        return ["  papers:    none that something vouches for"]
    corpus, recipe = facts.get("corpus"), facts.get("recipe")
    told = {
        "made by": facts.get("generator"),
        "run": f"{facts.get('run')} ({facts.get('run_fingerprint')})",
        "model": recipe.get("model") if isinstance(recipe, Mapping) else None,
        "corpus": f"{corpus.get('name')} ({corpus.get('fingerprint')})" if isinstance(corpus, Mapping) else None,
        "wish": json.dumps(facts.get("wish"), ensure_ascii=False, default=str),
        "nearest": UNLIKE if facts.get("verdict") and facts.get("nearest") == [] else near(facts.get("nearest")),
        "verdict": _verdict(facts),
    }
    return [f"  {name + ':':<10} {plain(value)}" for name, value in told.items() if value is not None]


def _verdict(facts: Mapping[str, Any]) -> str:
    """With its p, what of the piece was judged, and how often it was drawn before the verdict was not `copy`."""
    verdict, draws = facts.get("verdict"), facts.get("draws")
    if not verdict:
        return "not measured"
    chance = f" (p = {_short(facts['p'])})" if "p" in facts else ""
    judged = f" of {facts['judged']}" if "judged" in facts else ""
    again = f"; drawn {draws} times" if isinstance(draws, int) and draws > 1 else ""
    return f"{verdict}{chance}{judged}{again}"


def near(nearest: Any) -> str:
    """How near the nearest training piece is: a distance, or what is known of that piece; of several the first."""
    first = nearest[0] if isinstance(nearest, list) and nearest else nearest
    if isinstance(first, Mapping):
        return ", ".join(f"{key} {_short(value)}" for key, value in first.items() if value not in (None, ""))
    return "not measured" if first in (None, []) else _short(first)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> str:
    """One line without signs that a terminal would obey, for a file may say anything."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
