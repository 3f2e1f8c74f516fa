"""guarding: a policy held against what is asked of a run and what it makes.

Every flag is told, with its rule and its reason; only `action = "block"` keeps anything back, and what is kept back is counted aloud.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maquette import catalog, files
from maquette.errors import ContentError, UsageError
from maquette.guard.policy import Policy, load
from maquette.piece import Modality, Piece
from maquette.run import Run
from maquette.verbs.generate import Wish
from maquette.verbs.safety import Safety
from maquette.verbs.screening import Flag, flags_in

FILE, USUAL, APART = "flags.json", "policy.toml", "withheld"
TOLD = 5  # flags that are said one by one


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
        self.safety = Safety(policy.head) if policy.head is not None else None
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
        head = self.policy.head is not None and self.policy.head.action == "block"
        if head or self.policy.screens("output", "block"):
            raise UsageError("the policy may withhold what is written, which --stream would have shown; drop --stream")

    def passed(self, pieces: Iterable[Piece], apart: Callable[[Piece], object] = lambda _: None) -> Iterator[Piece]:
        """The pieces with what was flagged among their facts; those that a rule blocks go to `apart` instead."""
        for piece in pieces:
            flags = flags_in(self.policy, texts_of(piece), "output")
            flags += [Flag("piece", hit, "") for hit in (self.safety.look(piece) if self.safety else ())]
            withheld = any(f.hit.action == "block" for f in flags)
            noted = {"fingerprint": self.policy.fingerprint, "flags": [f.to_json() for f in flags]}
            piece = replace(piece, facts={**piece.facts, "policy": noted})
            self.pieces.append((piece.facts["wish"]["seed"], withheld, flags))
            if withheld:
                apart(piece)
            else:
                yield piece

    def said(self, texts: Mapping[str, Any], piece: Piece | None = None) -> Iterator[str]:
        """Flags of what has no file of its own, in words; of a piece also by the head. Raises ContentError where it is withheld."""
        flags = flags_in(self.policy, {k: str(v) for k, v in texts.items()}, "output")
        flags += [Flag("piece", hit, "") for hit in (self.safety.look(piece) if self.safety and piece else ())]
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
