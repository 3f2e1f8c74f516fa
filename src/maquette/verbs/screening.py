"""screening: a policy held against texts: what each flag says, and the pieces of a corpus while it is made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maquette import files
from maquette.errors import Unreadable
from maquette.guard.hits import Hit, Stage
from maquette.guard.policy import Policy
from maquette.piece import Piece


@dataclass(frozen=True)
class Flag:
    """A hit, and in what it was found: the prompt, a condition, the text of a piece, a caption."""

    where: str
    hit: Hit
    written: str

    @property
    def words(self) -> str:
        at = f" ({self.written!r}, from character {self.hit.span[0] + 1})" if self.written else ""
        return f"{self.where}: {self.hit.reason}{at}"

    def to_json(self) -> dict[str, Any]:
        return {"where": self.where, "written": self.written, **asdict(self.hit)}


def flags_in(policy: Policy, texts: Mapping[str, str], on: Stage) -> list[Flag]:
    """texts: what they are -> themselves"""
    return [Flag(name, hit, text[slice(*hit.span)]) for name, text in texts.items() for hit in policy.check(text, on)]


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
