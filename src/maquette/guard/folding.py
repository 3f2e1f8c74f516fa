"""Disguised text as plain text: NFKD (Unicode UAX 15), lower case, without marks and invisible characters; whole arrays at a time."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maquette.guard.disguise import READINGS

WORD, UNSPACED, SYMBOL, TIGHT, BLANK, MARK, ODD = (1 << k for k in range(7))  # bits of a character's kind
SCRIPTS = (  # that write no spaces between words; of Hangul, that joins its endings to words
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
HANGUL = (0x1100, 0x11FF)  # after NFKD
ENDINGS = (0x1160, 0x11FF)  # vowels and last consonants of a Hangul syllable
MARKS = (  # accents and points, without which a word is still the same; signs of Indic scripts are letters
    (0x0300, 0x036F),
    (0x0483, 0x0489),
    (0x0591, 0x05C7),
    (0x0610, 0x061A),
    (0x0640, 0x0640),
    (0x064B, 0x065F),
    (0x0670, 0x0670),
    (0x06D6, 0x06ED),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F),
    (0xE0100, 0xE01EF),
)
INVISIBLE = {0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0}  # letters and signs that show nothing
LETTERS = dict(  # that no decomposition leads to a plain letter; written by hand for this package, under its licence
    zip(
        "øłđħŧıɑɡɩʙᴀᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢȷƙɓɗɦƥƭʋƴɨʉɵƶƀ",
        "oldhtiagibacdefghijklmnoprstuvwyzjkbdhptvyiuozb",
        strict=True,
    )
) | {"æ": "ae", "œ": "oe"}
SQUARED = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)  # letters in squares and circles, and of flags: A begins here
TIGHTS = "._*-~+|·•^#=/\\\u2010\u2012\u2043"
INNER_I = "\u01c0"  # a capital I beside a small letter, which may be meant as an l
UNKNOWN = 255


@dataclass(frozen=True)
class Folded:
    """codes (n,) of the folded text, their kinds (n,), and the place (n,) in the original that each came from."""

    codes: np.ndarray
    kinds: np.ndarray
    at: np.ndarray
    original: str

    @cached_property
    def text(self) -> str:
        return decoded(self.codes)

    def span(self, start: int, end: int) -> tuple[int, int]:
        return int(self.at[start]), int(self.at[end - 1]) + 1


def decoded(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def fold(text: str) -> Folded:
    """Lower case without marks, invisible characters and other forms of letters; separators, digits and look-alikes stay."""
    raw = _raw(text)
    if not text.isascii():
        ALPHABET.learn(raw)
    codes = ALPHABET.single[raw]
    codes[_inner_i(raw)] = ord(INNER_I)
    at = np.arange(len(raw))
    if not text.isascii():
        codes, at = _spread(raw, codes, at)
    return Folded(codes, ALPHABET.kind[codes], at, text)


def _spread(raw: np.ndarray, codes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters that are folded to nothing left out, and those that are folded to several put in."""
    sizes = ALPHABET.size[raw]
    if (sizes == 1).all():
        return codes, at
    spread = np.repeat(at, sizes)
    begun = np.cumsum(sizes, dtype=np.int64) - sizes
    several = np.flatnonzero(sizes[spread] > 1)
    found, source = codes[spread], spread[several]
    found[several] = ALPHABET.flat[ALPHABET.start[raw[source]] + several - begun[source]]
    return found, spread


def _raw(text: str) -> np.ndarray:
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8).astype(np.intp)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _inner_i(raw: np.ndarray) -> np.ndarray:
    """(k,): where a capital I, or two, stand beside a small letter of a to z."""
    places = np.flatnonzero(raw == ord("I"))
    padded = np.concatenate([[0, 0], raw, [0, 0]])
    near = np.zeros(len(places), bool)
    for side in (-1, 1):
        next_to, beyond = padded[places + 2 + side], padded[places + 2 + 2 * side]
        near |= _small(next_to) | ((next_to == ord("I")) & _small(beyond))
    return places[near]


def _small(raw: np.ndarray) -> np.ndarray:
    return (raw >= ord("a")) & (raw <= ord("z"))


class Alphabet:
    """What is known of every character seen so far: what it is folded to (flat[start : start + size]), and the kind of that."""

    def __init__(self) -> None:
        self.size = np.full(0x110000, UNKNOWN, np.uint8)
        self.start = np.zeros(0x110000, np.int32)
        self.single = np.zeros(0x110000, np.uint32)  # what it is folded to where that is one character
        self.kind = np.zeros(0x110000, np.uint8)
        self.flat = np.zeros(0, np.uint32)
        self.kind[ord(INNER_I)] = WORD | ODD
        self.learn(np.arange(0x250, dtype=np.uint32))

    def learn(self, raw: np.ndarray) -> None:
        new = np.unique(raw[self.size[raw] == UNKNOWN])
        if not len(new):
            return
        folded = [plain(chr(c)) for c in new.tolist()]
        sizes = np.array([len(f) for f in folded])
        self.start[new] = len(self.flat) + np.cumsum(sizes) - sizes
        self.flat = np.concatenate([self.flat, np.array([ord(x) for f in folded for x in f], np.uint32)])
        self.size[new] = sizes
        self.single[new[sizes == 1]] = self.flat[self.start[new[sizes == 1]]]
        for x in {x for f in folded for x in f}:
            self.kind[ord(x)] = kind_of(x)


def plain(c: str) -> str:
    """
    >>> plain("Á"), plain("ﬁ"), plain("\u200b"), plain("Ｂ"), plain("ł")
    ('a', 'fi', '', 'b', 'l')
    """
    for first in SQUARED:
        if first <= ord(c) < first + 26:
            return chr(ord("a") + ord(c) - first)
    whole = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", c).casefold())
    return "".join(LETTERS.get(x, x) for x in whole if not _nothing(x))


def _nothing(c: str) -> bool:
    return unicodedata.category(c) == "Cf" or ord(c) in INVISIBLE or _within(ord(c), MARKS)


def kind_of(c: str) -> int:
    """The bits of a folded character."""
    category = unicodedata.category(c)
    kind = ODD if c in READINGS else 0
    kind |= MARK if category[0] == "M" or _within(ord(c), (ENDINGS,)) else 0
    if _within(ord(c), (*SCRIPTS, HANGUL)) and category[0] in "LMN":
        return kind | UNSPACED
    if category[0] in "LMN":
        return kind | WORD
    kind |= SYMBOL if c in READINGS else 0
    kind |= TIGHT if c in TIGHTS else 0
    kind |= BLANK if category == "Zs" else 0
    return kind | (UNSPACED if category == "So" or 0x1F3FB <= ord(c) <= 0x1F3FF else 0)


def _within(code: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(low <= code <= high for low, high in ranges)


ALPHABET = Alphabet()
