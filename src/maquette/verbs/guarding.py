"""guarding: a policy held against what is asked of a run, what it makes, and what a corpus is made of.

Every flag is told, with its rule and its reason; only `action = "block"` keeps anything back, and what is kept back is counted aloud.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from maquette import catalog, files
from maquette.errors import ContentError, Unreadable, UsageError
from maquette.guard.hits import Hit, Stage
from maquette.guard.policy import Policy, load
from maquette.piece import Modality, Piece
from maquette.run import Run
from maquette.verbs.generate import Wish

FILE, USUAL, APART = "flags.json", "policy.toml", "withheld"
TOLD = 5  # flags that are said one by one


@dataclass(frozen=True)
class Flag:
    """A hit, and in what it was found: the prompt, a condition, the text of a piece, a caption."""

    where: str
    hit: Hit
    written: str

    @property
    def words(self) -> str:
        return f"{self.where}: {self.hit.reason} ({self.written!r}, from character {self.hit.span[0] + 1})"

    def to_json(self) -> dict[str, Any]:
        return {"where": self.where, "written": self.written, **asdict(self.hit)}


def flags_in(policy: Policy, texts: Mapping[str, str], on: Stage) -> list[Flag]:
    """texts: what they are -> themselves"""
    return [Flag(name, hit, text[slice(*hit.span)]) for name, text in texts.items() for hit in policy.check(text, on)]


def asked_texts(wish: Wish, modality: Modality) -> dict[str, str]:
    """All words of a wish; of a source those that it is made of."""
    found = {"prompt": wish.prompt or ""} | {f"condition {k}": str(v) for k, v in wish.condition.items()}
    content = modality.one(wish.source).content if wish.source else None
    return {k: v for k, v in (found | {"source": content}).items() if isinstance(v, str) and v}


def texts_of(piece: Piece) -> dict[str, str]:
    """The text of a piece that is one, and what was asked of it."""
    asked = {k: str(v) for k, v in piece.facts.get("wish", {}).get("condition", {}).items()}
    return ({"text": piece.content} if isinstance(piece.content, str) else {}) | asked


class Guard:
    """A policy at work on one call of `generate`."""

    def __init__(self, policy: Policy, source: str = ""):
        self.policy, self.source = policy, source
        self.asked: list[Flag] = []
        self.pieces: list[tuple[int, bool, list[Flag]]] = []

    def ask(self, run: Run, wish: Wish) -> None:
        """Raises ContentError where a rule that blocks is met by what is asked."""
        texts = asked_texts(wish, catalog.modality(run.facts["corpus"]["modality"]))
        self.asked = flags_in(self.policy, texts, "prompt")
        if blocked := [f for f in self.asked if f.hit.action == "block"]:
            raise ContentError(
                f"refused by the policy, {blocked[0].words}; ask for something else, or change the policy"
            )

    def before_streaming(self) -> None:
        """Raises UsageError where what is written may have to be withheld: then it cannot be shown before it is whole."""
        if self.policy.screens("output", "block"):
            raise UsageError("the policy may withhold what is written, which --stream would have shown; drop --stream")

    def passed(self, pieces: Iterable[Piece], apart: Callable[[Piece], object] = lambda _: None) -> Iterator[Piece]:
        """The pieces with what was flagged among their facts; those that a rule blocks go to `apart` instead."""
        for piece in pieces:
            flags = flags_in(self.policy, texts_of(piece), "output")
            withheld = any(f.hit.action == "block" for f in flags)
            noted = {"fingerprint": self.policy.fingerprint, "flags": [f.to_json() for f in flags]}
            piece = replace(piece, facts={**piece.facts, "policy": noted})
            self.pieces.append((piece.facts["wish"]["seed"], withheld, flags))
            if withheld:
                apart(piece)
            else:
                yield piece

    def said(self, texts: Mapping[str, Any]) -> Iterator[str]:
        """Flags of what has no file of its own, in words. Raises ContentError where it is withheld."""
        flags = flags_in(self.policy, {k: str(v) for k, v in texts.items()}, "output")
        if blocked := [f for f in flags if f.hit.action == "block"]:
            raise ContentError(f"withheld by the policy, {blocked[0].words}")
        yield from (f"flag: {f.words}" for f in [*self.asked, *flags])

    @property
    def withheld(self) -> int:
        return sum(withheld for _, withheld, _ in self.pieces)

    def write(self, folder: Path) -> Path:
        """flags.json beside the pieces, also where there are none: that was looked is worth knowing."""
        rows = [
            {"seed": seed, "withheld": withheld, "flags": [f.to_json() for f in flags]}
            for seed, withheld, flags in self.pieces
            if flags
        ]
        return files.write_json(
            folder / FILE,
            {
                "policy": {"source": self.source, "fingerprint": self.policy.fingerprint},
                "checked": len(self.pieces),
                "flagged": len(rows),
                "withheld": self.withheld,
                "asked": [f.to_json() for f in self.asked],
                "pieces": rows,
            },
        )

    def lines(self) -> Iterator[str]:
        """What a person is told."""
        flagged = [(f"seed {seed}", flag) for seed, _, flags in self.pieces for flag in flags]
        told = [("asked", f) for f in self.asked] + flagged
        for name, flag in told[:TOLD]:
            yield f"flag: {name}, {flag.words}"
        if len(told) > TOLD:
            yield f"flag: and {len(told) - TOLD} more"
        count = sum(bool(flags) for _, _, flags in self.pieces)
        yield f"policy: {count} of {len(self.pieces)} pieces flagged, {self.withheld} withheld ({self.source})"


def guard_of(run: Run, policy: Policy | str | Path | None = None) -> Guard | None:
    """By the policy that is given, else by policy.toml in the run's folder, else none."""
    if isinstance(policy, Policy):
        return Guard(policy, "given")
    path = Path(policy) if policy else run.path / USUAL
    if policy is None and not path.is_file():
        return None
    return Guard(load(path), path.as_posix() if not path.is_absolute() else path.name)


def kept(guard: Guard | None, make: Callable[[], list[Piece]]) -> list[Piece]:
    """For Python: the pieces that pass; a warning counts those that do not."""
    if guard is None:
        return make()
    found = list(guard.passed(make()))
    if guard.withheld:
        warnings.warn(f"{guard.withheld} of {len(guard.pieces)} pieces are withheld by the policy", stacklevel=3)
    return found


# ---- training text


class Screen:
    """A policy held against the pieces of a corpus while it is made."""

    def __init__(self, policy: Policy | None = None, folder: Path = Path()):
        self.policy = policy if policy is not None and policy.screens("training") else None
        self.path = folder / "flags.jsonl"
        self.counts: Counter[str] = Counter()  # pieces by rule
        self.apart: Counter[str] = Counter()
        self.lines: list[str] = []

    def look(self, source: str, piece: Piece, facts: Mapping[str, Any], aside: Iterable[str]) -> None:
        """aside: facts that are no text of a piece. Raises Unreadable, with the reason, where a rule keeps the piece out."""
        if self.policy is None:
            return
        said = {k: v for k, v in facts.items() if isinstance(v, str) and k not in aside}
        texts = said | ({"text": piece.content} if isinstance(piece.content, str) else {})
        flags = flags_in(self.policy, texts, "training")
        self.counts.update({f.hit.rule for f in flags})
        self.lines += [json.dumps({"source": source, **f.to_json()}, ensure_ascii=False) + "\n" for f in flags]
        if blocked := [f for f in flags if f.hit.action == "block"]:
            self.apart[blocked[0].hit.rule] += 1
            raise Unreadable(f"kept out by the policy, {blocked[0].words}")

    def facts(self) -> dict[str, Any]:
        """Of a corpus: how many pieces each rule names; nothing where no rule was held against them."""
        return {"flags": dict(self.counts.most_common())} if self.policy is not None else {}

    def write(self) -> None:
        if self.policy is not None:
            files.write_text(self.path, "".join(self.lines))
