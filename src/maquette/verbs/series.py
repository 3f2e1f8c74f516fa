"""series: pieces that share an identity. Of each seed the piece itself, then its neighbours: their noise is mostly that of the seed, so that a
variation is as likely as any piece (the mixing keeps normal noise normal; as in variations by small steps of latents, White 2016,
arXiv:1609.04468). Of a file its variations (SDEdit, Meng 2022, arXiv:2108.01073, for flows)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.errors import SpaceError
from maquette.run import Run, Sampler
from maquette.space import SampleRequest

if TYPE_CHECKING:
    from maquette.verbs.generate import Wish

ROW = 16  # pieces of a series that stand side by side
USUAL = 0.3  # share of a variation that is new where nothing else is asked


@dataclass(frozen=True)
class Series:
    """Which pieces a call makes: n of following seeds, or n series of `asked.series` pieces. Raises SpaceError for a model without neighbours."""

    run: Run
    sampler: Sampler
    asked: Wish
    n: int

    def __post_init__(self) -> None:
        wanted = self.asked.series or self.asked.member or self.asked.vary is not None
        if wanted and not varies(self.sampler):
            raise SpaceError(
                f"{self.run.recipe.model} has no space in which a piece has neighbours, so it makes no series; gan, vae and flow have one. "
                "What a model of sequences changes of a piece is said with --source and --keep"
            )

    @property
    def vary(self) -> float:
        return USUAL if self.asked.vary is None else self.asked.vary

    @property
    def each(self) -> int:
        return max(1, self.asked.series)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of all pieces: a series has one."""
        return tuple(self.asked.seed + k // self.each for k in range(self.n * self.each))

    def request(self, plain: SampleRequest) -> SampleRequest:
        """With which neighbour each piece is."""
        if not self.asked.series:
            return plain
        return plain.with_(vary=self.vary, members=tuple(k % self.each for k in range(len(plain))))

    def wish(self, k: int) -> Wish:
        """What makes piece k again, alone."""
        if not self.asked.series:
            return replace(self.asked, seed=self.asked.seed + k)
        member = k % self.each
        told = {"series": 0, "member": member, "vary": self.vary if member else None}
        return replace(self.asked, seed=self.asked.seed + k // self.each, **told)

    def facts(self, k: int) -> dict[str, Any]:
        """Which series piece k is of, and where it stands in it; {} of single pieces."""
        if self.asked.series:
            seed, place = self.asked.seed + k // self.each, k % self.each
            return {"series": {"seed": seed, "position": place + 1, "of": self.each, "vary": self.vary}}
        if self.asked.source and self.asked.vary is not None:
            source = Path(self.asked.source).name
            return {"series": {"source": source, "position": k + 1, "of": self.n, "vary": self.vary}}
        return {}


def varies(sampler: Sampler) -> bool:
    return getattr(sampler.model, "varies", False)


def named(facts: Mapping[str, Any]) -> str:
    """What the name of a file adds to its seed: the place in its series, or the variation that it is."""
    series, member = facts.get("series", {}), facts["wish"].get("member")
    if "seed" in series:
        return f"-{series['position']}of{series['of']}"
    return f"-variation{member}" if member else ""


def columns(facts: Mapping[str, Any]) -> int:
    """Of a sheet: a series is a row, if that is no long one; 0 leaves it open."""
    series = facts.get("series", {})
    return series["of"] if "seed" in series and series["of"] <= ROW else 0


def of_all(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a sheet says of its series: all that is not of one of them."""
    series = {k: v for k, v in facts.get("series", {}).items() if k in ("of", "vary", "source")}
    return {"series": series} if series else {}
