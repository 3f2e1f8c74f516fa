"""Disguised text as plain text: NFKC (Unicode UAX 15), look-alikes (after the idea of Unicode UTS 39, own short table), marks and leet."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

LOOKS = dict(
    zip("абвгеікмнорстухѕјӏԁԛԝαβεικνορτυχγη", "a6breikmhopctyxsjldqwabeikvoptuxyn", strict=True)
)  # written by hand for this package, under its licence
LEET = str.maketrans("0134578@$!", "oieastbasi")


@dataclass(frozen=True)
class Folded:
    """text, and for each of its characters the place in the original it came from."""

    text: str
    at: tuple[int, ...] | range

    def span(self, start: int, end: int) -> tuple[int, int]:
        return self.at[start], self.at[end - 1] + 1


def fold(text: str) -> Folded:
    """Lower case without marks, invisible characters and look-alikes; separators and digits stay."""
    if text.isascii():
        return Folded(text.lower(), range(len(text)))
    pairs = [(c, k) for k, original in enumerate(text) for c in _plain(original)]
    return Folded("".join(c for c, _ in pairs), tuple(k for _, k in pairs))


def _plain(c: str) -> str:
    whole = unicodedata.normalize("NFKD", c).casefold()
    return "".join(LOOKS.get(x, x) for x in whole if unicodedata.category(x) not in ("Mn", "Me", "Cf"))
