"""Forms that always hold while a text is written: forms of verse, numbers of lines, regular expressions, shapes of JSON.

Every form is a pattern (expression.py, or one of those below), which becomes one finite automaton (automaton.py) that guides the tokens of
a model (guide.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from maquette import rhyme
from maquette.automaton import NO_END, Machine, Pattern, either, joined, kinds_of, literal, machine, one, repeat, row
from maquette.errors import UnknownName, UsageError
from maquette.expression import expression, shape
from maquette.guide import Form

CHINESE = {
    "五言绝句": (4, 5),
    "七言绝句": (4, 7),
    "五言律诗": (8, 5),
    "七言律诗": (8, 7),
}  # lines, characters of a line
SPELLINGS = str.maketrans("絕詩", "绝诗")
NAMES = [*CHINESE, "haiku", "lines=4", "lines=4x7", "/regular expression/", '{"title": "string"}']
RULES = ("rhyme",)


def form(name: str, texts: Sequence[bytes], end: int = 0, rules: Sequence[str] = (), length: int = 1 << 20) -> Form:
    """The constraint of a form, for tokens of these texts. Raises UsageError where it is unknown or cannot be written, MissingExtra.

    >>> ab = form("/a+b/", [b"", b"a", b"b"], length=3).begin(0)
    >>> ab.push(1)
    >>> ab.push(1)
    >>> ab.allowed().tolist()  # one token is left
    [False, False, True]
    """
    characters = [t.decode("utf-8", "ignore") for t in texts if t]
    by_character = all(len(c) == 1 for c in characters)
    codes = np.array(sorted(map(ord, characters)), np.int64) if by_character else None
    han = None if codes is None else codes[rhyme.is_han(codes)]
    return Form(name, parse(name, rules, han), texts, end, length)


def form_kept(text: str, name: str) -> bool:
    """Whether a text is of a form.

    >>> form_kept("白日依山盡，黃河入海流。\\n欲窮千里目，更上一層樓。", "五言绝句")
    True
    """
    return parse(name).accepts_text(text)


def begins(text: str, name: str) -> bool:
    """Whether a text of a form may begin so."""
    return parse(name).state_after(text) >= 0


def forms_of(text: str) -> list[str]:
    """The named forms that a text keeps."""
    return [name for name in (*CHINESE, "haiku") if form_kept(text, name)]


rhyme_kept = rhyme.rhyme_kept


# ---- forms by name


def parse(name: str, rules: Sequence[str] = (), han: np.ndarray | None = None) -> Machine:
    """The automaton of a form; han: the characters (code points) that a rhyme may take. Raises UsageError, UnknownName."""
    for rule in rules:
        if rule not in RULES:
            raise UnknownName("rule", rule, RULES)
    return _parsed(name.strip(), bool(rules), None if han is None or not rules else han.tobytes())


@lru_cache(64)
def _parsed(name: str, rhymes: bool, han: bytes | None) -> Machine:
    if name == "haiku" and not rhymes:
        return _haiku()
    ends = _rhyme_ends(None if han is None else np.frombuffer(han, np.int64)) if rhymes else None
    plain = name.translate(SPELLINGS)
    if plain in CHINESE:
        return machine(_rhyming(lambda end: _couplets(*CHINESE[plain], end), ends))
    if found := re.fullmatch(r"lines=(\d+)(?:[x×](\d+))?", name):
        return machine(_lines(int(found[1]), int(found[2] or 0), ends))
    if rhymes:
        raise UsageError(f"rhyme can be kept in {', '.join(CHINESE)} and lines=4x7; {name} came")
    if len(name) > 2 and name[0] == name[-1] == "/":
        return machine(expression(name[1:-1]))
    if name.startswith("{"):
        return machine(shape(name))
    raise UnknownName("form", name, NAMES)


def _couplets(lines: int, length: int, end: Pattern | None) -> Pattern:
    """秦川雄帝宅，函谷壯皇居。 and so on, one couplet a row; `end` is the last character of the even lines."""
    han = one(rhyme.HAN)
    first = row(*[han] * length, literal("，"))
    second = row(*[han] * (length - 1), end or han, literal("。"))
    parts = [first, second]
    for _ in range(lines // 2 - 1):
        parts += [literal("\n"), first, second]
    return row(*parts)


def _lines(lines: int, length: int, ends: list[Pattern] | None) -> Pattern:
    if not 1 <= lines <= 1000 or length > 1000:
        raise UsageError(
            f"lines={lines}{f'x{length}' if length else ''} should be 1 to 1000 lines of at most 1000 characters"
        )
    if ends and not length:
        raise UsageError("rhyme needs to know where a line ends: lines=4x7 is four lines of seven characters")

    def verse(end: Pattern | None) -> Pattern:
        middle = repeat(one(NO_END), length or 1, length or None)
        rhymed = row(repeat(one(NO_END), length - 1, length - 1), end) if end else middle
        return row(*[p for k in range(lines) for p in ([literal("\n")] * (k > 0) + [rhymed if k % 2 else middle])])

    return _rhyming(verse, ends)


def _rhyming(build: Callable[[Pattern | None], Pattern], ends: list[Pattern] | None) -> Pattern:
    """One way for each class of rhymes; without rules, or where no two characters rhyme, any."""
    return either(*(build(end) for end in ends)) if ends else build(None)


def _rhyme_ends(han: np.ndarray | None) -> list[Pattern]:
    """For each class that at least two of the characters share, their set."""
    codes = np.arange(0x4E00, 0xA000) if han is None else han
    classes: dict[str, list[int]] = {}
    for code in codes.tolist():
        if name := rhyme.rhyme_class(chr(code)):
            classes.setdefault(name, []).append(code)
    return [one(joined(found)) for found in classes.values() if len(found) > 1]


# ---- haiku: 5-7-5 syllables, counted while words are written

SYLLABLES = (5, 7, 5)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_HAIKU = dict.fromkeys("evylsdtxc", "")
for _letter in _LETTERS:
    _HAIKU[rhyme.letter_kind(_letter)] += _letter + _letter.upper()
_HAIKU |= {"'": "'’", " ": " ", ",": ",;:.!?", "-": "-—", "\n": "\n"}
_LONGEST_CLUSTER = 4  # consonants in a row


class _Line(NamedTuple):
    """number of the line, syllables of its finished words, the word that is written, consonants in a row, the sign before: a letter,
    an apostrophe, a space, a mark."""

    number: int
    done: int
    word: rhyme.Heard
    cluster: int
    before: str


@lru_cache(1)
def _haiku() -> Machine:
    """Words of letters and apostrophes, one space or hyphen between them, at most one mark after a word."""
    order = list(_HAIKU)
    edges, kinds, inside = kinds_of([joined(map(ord, _HAIKU[k])) for k in order])
    column = {k: int(np.flatnonzero(inside[i])[0]) for i, k in enumerate(order)}
    states, todo, table = {_Line(0, 0, rhyme.begun(), 0, "\n"): 0}, [_Line(0, 0, rhyme.begun(), 0, "\n")], []
    for state in todo:
        line = np.full(inside.shape[1], -1, np.int32)
        for kind, place in column.items():
            if (found := _after(state, kind)) is None:
                continue
            if found not in states:
                states[found] = len(states)
                todo.append(found)
            line[place] = states[found]
        table.append(line)
    accepts = [s.number == len(SYLLABLES) - 1 and _syllables(s) == SYLLABLES[-1] and s.before in "a," for s in todo]
    return Machine(edges, kinds, np.array(table), np.array(accepts))


def _syllables(line: _Line) -> int:
    return line.done + (rhyme.counted(line.word) if line.word[1] else 0)


def _after(line: _Line, kind: str) -> _Line | None:
    """The line with one more sign of a kind; None where it may not stand there."""
    letter = kind not in "', -\n"
    if letter or kind == "'":
        if line.before == "," or (kind == "'" and line.before != "a"):
            return None
        word = rhyme.heard(line.word, kind)
        cluster = 0 if kind in "eyv" else line.cluster + letter
        if line.done + word[0] - 1 > SYLLABLES[line.number] or cluster > _LONGEST_CLUSTER:
            return None
        return _Line(line.number, line.done, word, cluster, "a" if letter else "'")
    if line.before not in ("a,", "a")[kind in ",-"] or not line.before:
        return None
    done = _syllables(line)
    if done > SYLLABLES[line.number]:
        return None
    if kind == "\n":
        whole = done == SYLLABLES[line.number] and line.number + 1 < len(SYLLABLES)
        return _Line(line.number + 1, 0, rhyme.begun(), 0, "\n") if whole else None
    return _Line(line.number, done, rhyme.begun(), 0, kind.replace("-", " "))
