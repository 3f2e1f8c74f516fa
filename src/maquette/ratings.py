"""What a person likes and dislikes, as lines of a file: each names a piece by the wish that makes it again, and the weights that made it.

{"run": "2f1c...", "wish": {"seed": 7}, "liked": true, "rater": "", "time": "2026-11-25T09:00:00+00:00"}
{"run": "2f1c...", "better": {"seed": 7}, "worse": {"seed": 9}, "rater": "", "time": "..."}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maquette.errors import ContentError, RunError
from maquette.files import fingerprint, full_disk_in_words, sync

FILE = "ratings.jsonl"


@dataclass(frozen=True)
class Rating:
    """One judgement of pieces of `run` (the fingerprint of its weights): of one, where `liked` is told, or of two.

    wish   of the piece, or of the better of two; worse: of the other
    line   of the file it stands in, for sentences
    """

    run: str
    wish: Mapping[str, Any]
    liked: bool | None = None
    worse: Mapping[str, Any] | None = None
    rater: str = ""
    time: str = ""
    line: int = 0

    def to_json(self) -> dict[str, Any]:
        what = {"wish": self.wish, "liked": self.liked} if self.worse is None else self._pair()
        return {"run": self.run, **what, "rater": self.rater, "time": self.time or now()}

    def _pair(self) -> dict[str, Any]:
        return {"better": self.wish, "worse": self.worse}


@dataclass(frozen=True)
class Ratings:
    """What was said of the pieces of one run: wishes (each piece once), liked (number of the piece, whether), pairs (better, worse).

    left_out  how many ratings of the file are of other weights; mark: a fingerprint of all that counts
    """

    wishes: tuple[Mapping[str, Any], ...]
    liked: tuple[tuple[int, bool], ...]
    pairs: tuple[tuple[int, int], ...]
    left_out: int = 0

    @property
    def mark(self) -> str:
        return fingerprint([list(self.wishes), list(self.liked), list(self.pairs)])

    @property
    def likes(self) -> int:
        return sum(liked for _, liked in self.liked)

    @property
    def dislikes(self) -> int:
        return len(self.liked) - self.likes

    @property
    def one_sided(self) -> bool:
        """Whether nothing says what is better than what."""
        return not self.pairs and (self.likes == 0 or self.dislikes == 0)

    @property
    def words(self) -> str:
        parts = [f"{self.likes} liked and {self.dislikes} disliked"] if self.liked else []
        parts += [f"{len(self.pairs)} pairs"] if self.pairs else []
        rest = f" ({self.left_out} of other weights are left out)" if self.left_out else ""
        return ", ".join(parts) + rest

    def need_both_sides(self) -> None:
        """Raise ContentError, saying what is missing, unless something is liked and something is not."""
        if self.one_sided:
            which, missing = ("liked", "disliked") if self.likes else ("disliked", "liked")
            raise ContentError(
                f"all {len(self.liked)} rated pieces are {which}; a taste is learnt from differences: rate some that are "
                f"{missing} too (`maquette rate`), ten of each are a beginning"
            )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, ratings: Iterable[Rating]) -> int:
    """Add lines to the file in one write; half a line that a crash left behind is closed first. Raises StorageError."""
    lines = [json.dumps(r.to_json(), ensure_ascii=False) for r in ratings]
    path = Path(path)
    if not lines:
        return 0
    with full_disk_in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "" if _closed(path) else "\n"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (head + "".join(f"{line}\n" for line in lines)).encode())
        finally:
            os.close(handle)
        sync(path)
    return len(lines)


def _closed(path: Path) -> bool:
    """Whether what stands in the file ends with a line end."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def merge(path: Path, other: Path) -> int:
    """Add the ratings of another file that are not there yet; how many. Raises ContentError."""
    known = {_said(r) for r in read(path)} if Path(path).is_file() else set()
    return append(path, [r for r in read(other) if _said(r) not in known])


def _said(r: Rating) -> str:
    return fingerprint([r.run, r.wish, r.liked, r.worse, r.rater])


def read(path: Path) -> list[Rating]:
    """All ratings of a file in their order. Raises ContentError for a file that is not there, and for a damaged line by its number."""
    path = Path(path)
    if not path.is_file():
        raise ContentError(f"no ratings at {path}; `maquette rate RUN` asks for some and writes them there")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [_parsed(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]


def _parsed(line: str, number: int, path: Path) -> Rating:
    try:
        data = json.loads(line)
        rater, time = str(data.get("rater", "")), str(data.get("time", ""))
        if "better" in data or "worse" in data:
            better, worse = _wish(data["better"]), _wish(data["worse"])
            return Rating(str(data["run"]), better, None, worse, rater, time, number)
        if not isinstance(data["liked"], bool):
            raise ValueError("liked should be true or false")
        return Rating(str(data["run"]), _wish(data["wish"]), data["liked"], None, rater, time, number)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ContentError(
            f"line {number} of {path} is no rating ({reason}): take that line out, all others can stay"
        ) from None


def _wish(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or not isinstance(data.get("seed"), int):
        raise ValueError("a piece is told by its wish, which has a seed")
    return data


def settled(ratings: Sequence[Rating], run: str, name: str) -> Ratings:
    """What the ratings say of the run whose weights have the fingerprint `run`; name: of the run, for sentences.

    Raises ContentError where nothing is rated or ratings contradict each other, RunError where all are of other weights.
    """
    if not ratings:
        raise ContentError(f"no piece of {name} is rated yet; `maquette rate {name}` asks for likes and dislikes")
    own = [r for r in ratings if r.run == run]
    if not own:
        raise RunError(
            f"the {len(ratings)} ratings are of other weights than those of {name} now (it was trained further, or they belong to "
            f"another run): rate pieces of {name}, or give the run they were made for"
        )
    numbers: dict[str, int] = {}
    wishes: list[Mapping[str, Any]] = []

    def number(wish: Mapping[str, Any]) -> int:
        if (mark := fingerprint(wish)) not in numbers:
            numbers[mark] = len(wishes)
            wishes.append(wish)
        return numbers[mark]

    liked: dict[int, tuple[bool, int]] = {}
    pairs: dict[tuple[int, int], int] = {}
    for r in own:
        if r.worse is None:
            _agreeing(liked, number(r.wish), r)
        else:
            _ordered(pairs, number(r.wish), number(r.worse), r)
    singles = tuple((i, said) for i, (said, _) in liked.items())
    return Ratings(tuple(wishes), singles, tuple(pairs), len(ratings) - len(own))


def _agreeing(liked: dict[int, tuple[bool, int]], i: int, r: Rating) -> None:
    before = liked.setdefault(i, (bool(r.liked), r.line))
    if before[0] != r.liked:
        raise ContentError(
            f"the piece of seed {r.wish['seed']} is liked and disliked (lines {before[1]} and {r.line}): decide, and take one of the "
            "two lines out"
        )


def _ordered(pairs: dict[tuple[int, int], int], better: int, worse: int, r: Rating) -> None:
    if better == worse:
        raise ContentError(f"line {r.line} compares the piece of seed {r.wish['seed']} with itself; take it out")
    if (worse, better) in pairs:
        seeds = f"{r.wish['seed']} and {r.worse['seed']}"  # type: ignore[index]
        raise ContentError(
            f"each of the pieces of seeds {seeds} is better than the other (lines {pairs[worse, better]} and {r.line}): decide, and "
            "take one of the two lines out"
        )
    pairs.setdefault((better, worse), r.line)
