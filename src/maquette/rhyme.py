"""Sounds: the rhyme classes of modern Mandarin, English rhyme by spelling, and English syllables.

Chinese follows the fourteen rhymes of the New Rhymes of China (中华新韵, 2005), by the first reading of each character. English goes by
spelling: right for most everyday words, wrong for love/move.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import numpy as np

from maquette.errors import MissingExtra

CLASSES = {  # finals as pypinyin spells them in full (strict)
    "a": "a ia ua",
    "o": "o e uo",
    "ie": "ie ve ê",
    "ai": "ai uai",
    "ei": "ei uei",
    "ao": "ao iao",
    "ou": "ou iou",
    "an": "an ian uan van",
    "en": "en in uen vn",
    "ang": "ang iang uang",
    "eng": "eng ing ueng ong iong",
    "i": "i er v",
    "-i": "-i",
    "u": "u",
}
_CLASS_OF = {final: name for name, finals in CLASSES.items() for final in finals.split()}
HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_HAN = "".join(f"{chr(a)}-{chr(b)}" for a, b in HAN)
_CHINESE_LINE = re.compile(f"([{_HAN}])[^{_HAN}\\n]*[，。！？；\\n]|([{_HAN}])[^{_HAN}\\n]*$")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def is_han(codes: np.ndarray) -> np.ndarray:
    """code points (n,) -> (n,) bool"""
    return np.logical_or.reduce([(codes >= a) & (codes <= b) for a, b in HAN])


@cache
def rhyme_class(character: str) -> str | None:
    """The class of a character's first reading; None where it has none. Raises MissingExtra.

    >>> rhyme_class("天"), rhyme_class("年"), rhyme_class("，")
    ('an', 'an', None)
    """
    try:
        from pypinyin import Style, pinyin
    except ImportError:
        raise MissingExtra("rhyme in Chinese", "zh") from None
    found = pinyin(character, style=Style.FINALS, strict=True, errors="ignore")
    if not found:
        return None
    final = found[0][0]
    if final == "i" and pinyin(character, style=Style.INITIALS, strict=True)[0][0] in _BUZZING:
        return "-i"
    return _CLASS_OF.get(final)


_BUZZING = {"z", "c", "s", "zh", "ch", "sh", "r"}


def line_ends(text: str) -> list[str]:
    """The last character of each line of a Chinese poem, where a line ends at ，。！？； or the end of a row.

    >>> line_ends("白日依山盡，黃河入海流。")
    ['盡', '流']
    """
    return [a or b for a, b in _CHINESE_LINE.findall(text)]


def rhyme_kept(text: str) -> bool | None:
    """Whether the even lines rhyme with each other (in English also: whether couplets do). None where there are fewer than four lines.

    >>> rhyme_kept("白日依山盡，黃河入海流。\\n欲窮千里目，更上一層樓。")
    True
    """
    if is_han(np.frombuffer(text.encode("utf-32-le", "replace"), "<u4")).mean() > 0.3 if text else False:
        ends = line_ends(text)[1::2]
        return None if len(ends) < 2 else len({rhyme_class(c) for c in ends}) == 1 and rhyme_class(ends[0]) is not None
    words = [found[-1] for line in text.splitlines() if (found := WORD.findall(line))]
    if len(words) < 4:
        return None
    sounds = [rhyme_sound(word) for word in words]
    crossed = all(a == b for a, b in pairwise(sounds[1::2]))
    return crossed or all(a == b for a, b in zip(sounds[::2], sounds[1::2], strict=False))


# ---- English


_SPELT = [  # what sounds alike becomes spelt alike, in this order, at the end of a word
    (r"(?:eigh|ey|ay)$", "ay"),
    (r"(?:igh|ie|uy|ye)$", "y*"),
    (r"([^aeiou])y$", r"\1y"),
    (r"(?:ough|ow|oe)$", "o"),
    (r"(?:ew|ue|oo)$", "u"),
    (r"(?:ee|ea)$", "y"),
    (r"ight$", "ite"),
    (r"(?:air|are|ear|ere)$", "air"),
    (r"(?:eer|ier)$", "eer"),
    (r"(?:ain|ane|eign)$", "ane"),
    (r"(?:eat|eet|ete)$", "eet"),
    (r"(?:een|ean|ene)$", "een"),
    (r"(?:eed|ead|ede)$", "eed"),
    (r"(?:eel|eal)$", "eel"),
    (r"(?:oat|ote)$", "ote"),
    (r"(?:oad|ode)$", "ode"),
    (r"(?:oom|ume)$", "oom"),
    (r"(?:oon|une)$", "oon"),
    (r"(?:ail|ale)$", "ale"),
    (r"(?:aid|ade)$", "ade"),
    (r"(?:ait|ate)$", "ate"),
    (r"(?:ck)$", "k"),
    (r"([aeiou])([bdfgklmnpt])\2$", r"\1\2"),
]
_TAIL = re.compile(r"[aeiouy*]+[^aeiouy*]*e?$")


@cache
def rhyme_sound(word: str) -> str:
    """The end of a word from its last vowels on, in a spelling that is the same for what sounds alike; a heuristic.

    >>> rhyme_sound("night") == rhyme_sound("delight") == rhyme_sound("white"), rhyme_sound("day") == rhyme_sound("weigh")
    (True, True)
    """
    word = word.lower().replace("’", "'").split("'")[0] or word.lower()
    for pattern, spelling in _SPELT:
        word = re.sub(pattern, spelling, word)
    found = _TAIL.search(word)
    return found[0] if found else word


def syllables(word: str) -> int:
    """Syllables of an English word by its spelling: runs of vowels, without a silent e, es or ed at the end; at least one.

    >>> [syllables(w) for w in ("stone", "table", "walked", "wanted", "boxes", "quiet", "autumn")]
    [1, 2, 1, 2, 2, 1, 2]
    """
    state = begun()
    for letter in word.lower():
        state = heard(state, letter_kind(letter))
    return counted(state)


# A word as an automaton (runs of vowels, tail), so that a form may count syllables while a word is written. The tail is the kind of the
# last letter; after a consonant and a lone e both, and both with the s or d that may follow, for then the e may be silent.

Heard = tuple[int, str]
_KINDS = (
    {"e": "e", "l": "l", "s": "s", "d": "d", "t": "t", "y": "y"}
    | dict.fromkeys("aiou", "v")
    | dict.fromkeys("xzcgh", "x")
)


def letter_kind(letter: str) -> str:
    """e, y, v other vowels, l, s, d, t, x for the sounds after which -es is spoken, c other consonants, ' the apostrophe."""
    return _KINDS.get(letter.lower(), "'" if letter in "'’" else "c")


def begun() -> Heard:
    return (0, "")


def heard(state: Heard, kind: str) -> Heard:
    """The word with one more letter."""
    runs, tail = state
    if kind == "'":
        return (runs, tail)
    if kind == "v" or (kind == "y" and tail):
        return (runs if tail in ("v",) or tail.endswith("e") else runs + 1, "v")
    if kind == "e":
        if tail == "v" or tail.endswith("e"):
            return (runs, "v")
        return (runs + 1, tail + "e" if tail else "v")
    if tail.endswith("e") and kind in "sd":
        return (runs, tail + kind)
    if kind == "l":
        return (runs, "cl" if tail and tail[-1] not in "ve" else "c")
    return (runs, {"y": "c"}.get(kind, kind))


_SILENT = {  # tails whose e is not spoken
    *("ce", "xe", "se", "de", "te"),
    *("ces", "des", "tes"),
    *("ced", "xed", "sed"),
}


def counted(state: Heard) -> int:
    """The syllables of a word that ends here."""
    runs, tail = state
    return max(1, runs - (tail in _SILENT and runs > 1))
