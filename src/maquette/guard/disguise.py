"""How one character stands for another: digits and signs (leet), and letters of other alphabets (after the idea of Unicode UTS 39)."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np

LEET = {
    **{"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "bg", "7": "t", "8": "b", "9": "gq"},
    **{"@": "a", "$": "s", "!": "il", "|": "il", "€": "e", "£": "l", "¢": "c"},
}
ALIKE = {  # written by hand for this package, under its licence
    **dict(zip("абвгеікмнорстухѕјӏԁԛԝһүӕҽ", "abbreikmhopctyxsjldqwhyae", strict=True)),
    **{"α": "a", "β": "b", "ε": "e", "ι": "i", "κ": "k", "μ": "u", "ν": "vn", "ο": "o", "ρ": "p", "σ": "o", "τ": "t"},
    **{"υ": "u", "χ": "x", "γ": "y", "η": "nh", "ζ": "z", "ω": "w", "ϲ": "c", "ϳ": "j", "ո": "n", "ս": "u", "օ": "o"},
    **{"հ": "h", "ց": "g", "զ": "q", "ք": "p", "в": "b", "з": "e", "и": "n", "п": "n", "ц": "u", "ԍ": "g", "я": "r"},
    "\u01c0": "il",
}
READINGS = LEET | ALIKE
LETTER = re.compile(r"[^\W\d_]|[@$]")
STRANGE = re.compile(rf"(.)\1\1|[{re.escape(''.join(READINGS))}]", re.S)
MOST = 64  # letters of a token that is looked at closely


def _components() -> dict[str, str]:
    """Each character that stands for others, and each of those, with one that stands for all of them together."""
    top: dict[str, str] = {}

    def find(c: str) -> str:
        while top.get(c, c) != c:
            c = top[c]
        return c

    for c, letters in READINGS.items():
        for letter in letters:
            top[find(c)] = find(letter)
    return {c: find(c) for c in {*READINGS, *"".join(READINGS.values())}}


def _table() -> np.ndarray:
    table = np.arange(0x110000, dtype=np.uint32)
    for c, standing in _components().items():
        table[ord(c)] = ord(standing)
    return table


SKELETON = _table()  # code -> code; two characters that may be read as the same letter have the same


def reads(token: str, word: str) -> bool:
    """Whether a token may be meant as a word: its letters or what stands for them, as often or three times and more, or all doubled.

    >>> [reads(t, "ass") for t in ("ass", "asss", "a$$", "@$$", "45s", "aassss", "as", "aass", "455")]
    [True, True, True, True, True, True, False, False, False]
    >>> reads("сyкa", "сука"), reads("cyka", "сука")  # Latin letters among Russian ones; no Russian one
    (True, False)
    """
    return token == word or (lettered(token) and alike(token, word))


def lettered(token: str) -> bool:
    """Whether it is more than digits, strokes and exclamation marks, which mostly mean what they are."""
    return LETTER.search(token) is not None


def alike(token: str, word: str) -> bool:
    """The same where digits alone may be letters too, as among other words of a phrase."""
    if token == word or (token.isascii() and not word.isascii()):
        return token == word
    if len(token) > MOST or not (len(token) == 2 * len(word) or STRANGE.search(token)):
        return False
    return bool(_pattern(word).fullmatch(token))


@lru_cache(4096)
def _pattern(word: str) -> re.Pattern[str]:
    runs = [(_set(m[1]), len(m[0])) for m in re.finditer(r"(.)\1*", word, re.S)]
    once = "".join(f"(?:{c}{{{n}}}|{c}{{{max(3, n)},}})" for c, n in runs)
    twice = "".join(f"{c}{{{2 * n}}}" for c, n in runs)
    return re.compile(f"{once}|{twice}" if len(word) > 1 else once)


def _set(letter: str) -> str:
    return f"[{re.escape(letter)}{''.join(re.escape(c) for c in STANDS_FOR.get(letter, ''))}]"


def _reversed() -> dict[str, str]:
    """Letter -> what stands for it; letters of other alphabets are stood for by what they look like, too."""
    found: dict[str, str] = {}
    for c, letters in READINGS.items():
        for letter in letters:
            found[letter] = found.get(letter, "") + c
    back = {c: letters + "".join(found[x] for x in letters) for c, letters in ALIKE.items()}
    return found | back


STANDS_FOR = _reversed()


def foreign(written: str, around: str) -> bool:
    """Whether a word wholly in another alphabet stands among others of it, so that it is what it seems: рот in a Russian sentence."""
    scripts = {_script(c) for c in written if c.isalpha()}
    if len(scripts) != 1 or "LATIN" in scripts or not any(c.isalpha() for c in written):
        return False
    return any(_script(c) in scripts for c in around if c.isalpha() and c.casefold() not in READINGS)


def _script(c: str) -> str:
    return unicodedata.name(c, "UNKNOWN").split()[0]
