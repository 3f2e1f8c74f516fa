"""Forms that always hold while a text is written: forms of verse, numbers of lines, regular expressions, shapes of JSON.

Every form becomes one finite automaton over kinds of characters (Thompson 1968; Rabin and Scott 1959), pruned of every way that cannot
be finished with the tokens at hand. So at each place the tokens that may follow are a mask looked up by state, and a piece is never
led into a dead end; near its greatest length only what can still be finished is allowed.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maquette import rhyme
from maquette.errors import UnknownName, UsageError

Ranges = tuple[tuple[int, int], ...]  # of code points, both ends within
LAST = 0x10FFFF
MOST_STATES = 20_000
FAR = 1 << 30  # a distance that cannot be gone
CHINESE = {
    "五言绝句": (4, 5),
    "七言绝句": (4, 7),
    "五言律诗": (8, 5),
    "七言律诗": (8, 7),
}  # lines, characters of a line
SPELLINGS = str.maketrans("絕詩", "绝诗")
NAMES = [*CHINESE, "haiku", "lines=4", "lines=4x7", "/regular expression/", '{"title": "string"}']
RULES = ("rhyme",)


# ---- patterns: a small language of sets of characters one after another


class Pattern(NamedTuple):
    """kind: set (ranges), row (parts), either (parts), repeat (parts[0], least, most; None is without end)."""

    kind: str
    ranges: Ranges = ()
    parts: tuple[Pattern, ...] = ()
    least: int = 0
    most: int | None = None


def one(ranges: Ranges) -> Pattern:
    return Pattern("set", ranges)


def row(*parts: Pattern) -> Pattern:
    return Pattern("row", (), parts)


def either(*parts: Pattern) -> Pattern:
    return Pattern("either", (), parts)


def repeat(part: Pattern, least: int, most: int | None) -> Pattern:
    return Pattern("repeat", (), (part,), least, most)


def literal(text: str) -> Pattern:
    return row(*(one(((ord(c), ord(c)),)) for c in text))


def joined(codes: Iterable[int]) -> Ranges:
    """Code points as ranges."""
    found: list[tuple[int, int]] = []
    for code in sorted(codes):
        if found and code == found[-1][1] + 1:
            found[-1] = (found[-1][0], code)
        elif not found or code > found[-1][1]:
            found.append((code, code))
    return tuple(found)


def without(ranges: Ranges) -> Ranges:
    """All other characters."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, LAST)) if start <= LAST else tuple(found)


NO_END = without(((10, 10),))


# ---- the machine


@dataclass(frozen=True)
class Machine:
    """edges (E,): code points at which kinds change, kinds (E,): the kind from each edge on; table (S, K): the next state, -1
    where there is none; accepts (S,) bool. State 0 is the beginning."""

    edges: np.ndarray
    kinds: np.ndarray
    table: np.ndarray
    accepts: np.ndarray

    def kind_of(self, codes: np.ndarray) -> np.ndarray:
        """code points (n,) -> kinds (n,)"""
        return self.kinds[np.searchsorted(self.edges, codes, side="right") - 1]

    def state_after(self, text: str) -> int:
        """-1 where no text of this form begins so."""
        state = 0
        for kind in self.kind_of(_codes(text)).tolist():
            state = int(self.table[state, kind])
            if state < 0:
                return -1
        return state

    def accepts_text(self, text: str) -> bool:
        return (state := self.state_after(text)) >= 0 and bool(self.accepts[state])


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _kinds(sets: Sequence[Ranges]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """edges (E,), kinds (E,), and inside (sets, K) bool: which set holds which kind."""
    bounds = sorted({0, *(b for ranges in sets for low, high in ranges for b in (low, high + 1) if b <= LAST)})
    edges = np.array(bounds)
    cover = np.zeros((len(sets), len(edges) + 1), np.int64)
    for number, ranges in enumerate(sets):
        bounds_of = np.array(ranges, np.int64).reshape(-1, 2)
        np.add.at(cover[number], np.searchsorted(edges, bounds_of[:, 0]), 1)
        np.add.at(cover[number], np.searchsorted(edges, bounds_of[:, 1] + 1), -1)
    inside, kinds = np.unique(cover.cumsum(1)[:, :-1] > 0, axis=1, return_inverse=True)
    return edges, kinds.reshape(-1), inside


def machine(pattern: Pattern) -> Machine:
    """The automaton of a pattern: Thompson's construction, then sets of its places."""
    net = _Net()
    start, stop = net.add(pattern)
    edges, kinds, inside = _kinds(net.sets)
    reached = [[np.flatnonzero(inside[s]).tolist(), to] for s, to in net.steps]

    @lru_cache(None)
    def onward(place: int) -> tuple[tuple[list[int], int], ...]:
        return tuple((reached[k][0], reached[k][1]) for k in net.out[place])

    states = {net.free(frozenset([start])): 0}
    table, todo = [], list(states)
    for places in todo:
        next_: dict[int, set[int]] = {}
        for place in places:
            for passing, to in onward(place):
                for kind in passing:
                    next_.setdefault(kind, set()).add(to)
        line = np.full(inside.shape[1], -1, np.int32)
        for kind, to in next_.items():
            found = net.free(frozenset(to))
            if found not in states:
                states[found] = len(states)
                todo.append(found)
            line[kind] = states[found]
        table.append(line)
        if len(states) > MOST_STATES:
            raise UsageError(f"this form is too intricate (more than {MOST_STATES} states); ask for less")
    return Machine(edges, kinds, np.array(table), np.array([stop in places for places in todo]))


class _Net:
    """Thompson's net: places, steps that read one character of a set, and free steps."""

    def __init__(self) -> None:
        self.sets: list[Ranges] = []
        self._number: dict[Ranges, int] = {}
        self.steps: list[tuple[int, int]] = []  # (set, to)
        self.out: list[list[int]] = []
        self._free: list[list[int]] = []
        self.free = lru_cache(None)(self._closure)

    def place(self) -> int:
        self.out.append([])
        self._free.append([])
        if len(self.out) > 20 * MOST_STATES:
            raise UsageError("this form is too long; ask for fewer repetitions")
        return len(self.out) - 1

    def add(self, pattern: Pattern) -> tuple[int, int]:
        """The first and last place of a pattern."""
        return getattr(self, "_" + pattern.kind)(pattern)

    def _set(self, pattern: Pattern) -> tuple[int, int]:
        first, last = self.place(), self.place()
        if pattern.ranges not in self._number:
            self._number[pattern.ranges] = len(self.sets)
            self.sets.append(pattern.ranges)
        self.out[first].append(len(self.steps))
        self.steps.append((self._number[pattern.ranges], last))
        return first, last

    def _row(self, pattern: Pattern) -> tuple[int, int]:
        first = last = self.place()
        for part in pattern.parts:
            begin, end = self.add(part)
            self._free[last].append(begin)
            last = end
        return first, last

    def _either(self, pattern: Pattern) -> tuple[int, int]:
        first, last = self.place(), self.place()
        for part in pattern.parts:
            begin, end = self.add(part)
            self._free[first].append(begin)
            self._free[end].append(last)
        return first, last

    def _repeat(self, pattern: Pattern) -> tuple[int, int]:
        part = pattern.parts[0]
        optional = 1 if pattern.most is None else pattern.most - pattern.least
        first, last = self._row(row(*[part] * pattern.least))
        stop = self.place()
        for _ in range(optional):
            begin, end = self.add(part)
            self._free[last] += [begin, stop]
            if pattern.most is None:
                self._free[end].append(last)
            else:
                last = end
        self._free[last].append(stop)
        return first, stop

    def _closure(self, places: frozenset[int]) -> frozenset[int]:
        seen, todo = set(places), list(places)
        while todo:
            for to in self._free[todo.pop()]:
                if to not in seen:
                    seen.add(to)
                    todo.append(to)
        return frozenset(seen)


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
    edges, kinds, inside = _kinds([joined(map(ord, _HAIKU[k])) for k in order])
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


# ---- JSON


def shape(text: str) -> Pattern:
    """A JSON shape such as {"title": "string", "lines": ["string"], "mood": "sad|happy", "year": "integer"}: an object whose values
    are the words string, integer, number, boolean, a choice a|b, a list of one of these (one to eight of it), or an object."""
    try:
        wanted = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the shape {text[:60]} is not JSON ({error})") from None
    return _shape(wanted)


_DIGIT = one(((48, 57),))
_STRING = row(
    literal('"'),
    repeat(
        either(one(without(((0, 31), (34, 34), (92, 92), (127, 159)))), either(*map(literal, ('\\"', "\\\\", "\\n")))),
        0,
        None,
    ),
    literal('"'),
)
_INTEGER = row(repeat(literal("-"), 0, 1), either(literal("0"), row(one(((49, 57),)), repeat(_DIGIT, 0, 14))))
_WORDS = {
    "string": _STRING,
    "integer": _INTEGER,
    "number": row(_INTEGER, repeat(row(literal("."), repeat(_DIGIT, 1, 6)), 0, 1)),
    "boolean": either(literal("true"), literal("false")),
}


def _shape(wanted: Any) -> Pattern:
    if isinstance(wanted, dict) and wanted:
        parts = [row(literal(json.dumps(k, ensure_ascii=False) + ": "), _shape(v)) for k, v in wanted.items()]
        return row(literal("{"), parts[0], *(row(literal(", "), part) for part in parts[1:]), literal("}"))
    if isinstance(wanted, list) and len(wanted) == 1:
        part = _shape(wanted[0])
        return row(literal("["), part, repeat(row(literal(", "), part), 0, 7), literal("]"))
    if isinstance(wanted, str) and wanted in _WORDS:
        return _WORDS[wanted]
    if isinstance(wanted, str) and "|" in wanted:
        return either(*(literal(json.dumps(v, ensure_ascii=False)) for v in wanted.split("|")))
    raise UsageError(
        f"a value of a shape is {', '.join(_WORDS)}, a choice a|b, a list of one of these, or an object; {wanted!r} came"
    )


# ---- regular expressions


def expression(text: str) -> Pattern:
    """A regular expression: . [a-z] [^a-z] \\d \\w \\s \\n \\uXXXX ( ) (?: ) | * + ? {2} {2,} {2,5}; it matches the whole piece.
    Raises UsageError for what it does not know, such as look-ahead and references back."""
    reader = _Expression(text)
    pattern = reader.either()
    if reader.place < len(text):
        reader.fail(f"an unexpected {text[reader.place]}")
    return pattern


_DIGITS: Ranges = ((48, 57),)
_SPACES: Ranges = ((9, 13), (32, 32), (0x3000, 0x3000))
_WORD: Ranges = (
    *((48, 57), (65, 90), (95, 95), (97, 122), (0xAA, 0xAA), (0xB5, 0xB5), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6)),
    *((0xF8, 0x2C1), (0x370, 0x373), (0x386, 0x3FF), (0x400, 0x481), (0x48A, 0x52F), (0x531, 0x556), (0x561, 0x587)),
    *(
        (0x5D0, 0x5EA),
        (0x620, 0x64A),
        (0x904, 0x939),
        (0xE01, 0xE3A),
        (0x1E00, 0x1FFC),
        (0x3041, 0x3096),
        (0x30A1, 0x30FA),
    ),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x20000, 0x323AF)),
)
_SHORT = {"d": _DIGITS, "s": _SPACES, "w": _WORD, "D": without(_DIGITS), "S": without(_SPACES), "W": without(_WORD)}
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}


class _Expression:
    def __init__(self, text: str):
        self.text, self.place, self.depth = text, 0, 0

    def fail(self, what: str) -> Any:
        raise UsageError(f"the pattern /{self.text}/ has {what} at character {self.place + 1}")

    def ahead(self, count: int = 1) -> str:
        return self.text[self.place : self.place + count]

    def take(self) -> str:
        self.place += 1
        return self.text[self.place - 1] if self.place <= len(self.text) else self.fail("no end")

    def either(self) -> Pattern:
        self.depth += 1
        if self.depth > 100:
            self.fail("more than 100 brackets in each other")
        ways = [self.row()]
        while self.ahead() == "|":
            self.take()
            ways.append(self.row())
        self.depth -= 1
        return either(*ways) if len(ways) > 1 else ways[0]

    def row(self) -> Pattern:
        parts = []
        while self.ahead() and self.ahead() not in "|)":
            parts.append(self.repeated(self.atom()))
        return row(*parts)

    def repeated(self, part: Pattern) -> Pattern:
        while (sign := self.ahead()) and sign in "*+?{":
            self.take()
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(sign) or self.counts()
            part = repeat(part, least, most)
            if self.ahead() and self.ahead() in "?+":  # how greedy it is changes nothing for what may be written
                self.take()
        return part

    def counts(self) -> tuple[int, int | None]:
        found = re.compile(r"(\d+)(,(\d*))?\}").match(self.text, self.place)
        if not found:
            self.fail("a { without {2} or {2,5}")
        self.place = found.end()
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if least > 2000 or (most or 0) > 2000 or (most is not None and most < least):
            self.fail("a repetition that is not between 0 and 2000")
        return least, most

    def atom(self) -> Pattern:
        sign = self.take()
        if sign == "(":
            return self.group()
        if sign == "[":
            return one(self.among())
        if sign == ".":
            return one(NO_END)
        if sign in "*+?{":
            self.place -= 1
            self.fail(f"a {sign} with nothing before it")
        if sign in "^$":  # the whole piece is matched anyway
            return row()
        return one(self.escape()) if sign == "\\" else literal(sign)

    def group(self) -> Pattern:
        if self.ahead() == "?":
            if self.ahead(2) != "?:":
                self.fail("a (? that is not (?:")
            self.place += 2
        found = self.either()
        if self.ahead() != ")":
            self.fail("a ( that is not closed")
        self.take()
        return found

    def escape(self) -> Ranges:
        sign = self.take()
        if sign in _SHORT:
            return _SHORT[sign]
        if sign in "ux":
            width = 4 if sign == "u" else 2
            if not re.fullmatch(f"[0-9a-fA-F]{{{width}}}", self.ahead(width)):
                self.fail(f"a \\{sign} without {width} digits")
            self.place += width
            code = int(self.text[self.place - width : self.place], 16)
            return ((code, code),)
        if sign not in _SIGNS and sign.isalnum():
            self.place -= 1
            self.fail(f"an unknown \\{sign}")
        code = ord(_SIGNS.get(sign, sign))
        return ((code, code),)

    def among(self) -> Ranges:
        """[a-z] from behind its bracket on."""
        other = self.ahead() == "^"
        self.place += other
        found: list[tuple[int, int]] = []
        while (sign := self.take()) != "]" or not found:
            ranges = self.escape() if sign == "\\" else ((ord(sign), ord(sign)),)
            if self.ahead() == "-" and self.ahead(2) != "-]" and len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
                self.take()
                high = self.take()
                last = self.escape()[0][1] if high == "\\" else ord(high)
                if last < ranges[0][0]:
                    self.fail("a range that runs backwards")
                ranges = ((ranges[0][0], last),)
            found += ranges
        merged = without(without(tuple(found)))
        return without(merged) if other else merged


# ---- guides


@dataclass
class Form:
    """A constraint (see space.Constraint): what is written is always of this form, and ends within `length` tokens.

    texts: the bytes of each token, b"" for those that stand for nothing (the end; what is never written). Raises UsageError where
    these tokens cannot write it. Built by `form`.
    """

    name: str
    machine: Machine
    texts: Sequence[bytes]
    end: int
    length: int
    shortest: int = field(init=False)

    def __post_init__(self) -> None:
        self._masks: dict[tuple[int, bytes, int], Tensor] = {}
        self._partial: dict[bytes, list[int]] = {}
        self._closed = torch.zeros(len(self.texts), dtype=torch.bool)
        self._closed[self.end] = True
        characters = [t.decode("utf-8", "ignore") for t in self.texts]
        self.by_character = all(len(c) == 1 or not t for c, t in zip(characters, self.texts, strict=True))
        weights = self._weights(characters)
        self._left = _distances(self.machine, weights)
        reachable = self._left[self._left < FAR]
        if self._left[0] >= FAR:
            raise UsageError(
                f"{self.name} cannot be written with these {len(self.texts):,} tokens; {self._missing(weights)}"
            )
        self._farthest = int(reachable.max()) + max(map(len, self.texts), default=1) + 1
        self.shortest = int(self._left[0])
        self._check(self.length)

    def _check(self, length: int) -> None:
        if self.shortest > length:
            raise UsageError(f"{self.name} needs at least {self.shortest} tokens; length {length} came")

    def within(self, length: int) -> Form:
        """The same form with another greatest length; what is known already is shared. Raises UsageError where that is too short."""
        self._check(length)
        other = copy.copy(self)
        other.length = length
        return other

    def left_after(self, text: str) -> int:
        """Tokens that are needed at least to finish a text that begins so; FAR where none of this form does."""
        there = self.after(0, b"", text.encode())
        return FAR if there is None else self._cost(*there)

    def _weights(self, characters: list[str]) -> np.ndarray:
        """(K,) tokens that one character of each kind takes at least, as far as can be promised; FAR: none writes it."""
        known = self.machine
        weights = np.full(known.table.shape[1], FAR, np.int64)
        if self.by_character:
            codes = np.array([ord(c) if t else 0 for c, t in zip(characters, self.texts, strict=True)])
            self._kind = np.where([bool(t) for t in self.texts], known.kind_of(codes), -1)
            weights[self._kind[self._kind >= 0]] = 1
        else:
            single = {t[0] for t in self.texts if len(t) == 1}
            if len(single) < 256:
                raise UsageError(f"{self.name} needs tokens for each byte; {len(single)} of 256 are there")
            np.minimum.at(weights, known.kinds, np.searchsorted([0x80, 0x800, 0x10000], known.edges, side="right") + 1)
        return weights

    def _missing(self, weights: np.ndarray) -> str:
        """In words, what characters are not there."""
        if not self.by_character:
            return "nothing matches it"
        alone = [chr(a) for a, b in zip(self.machine.edges, [*self.machine.edges[1:], LAST], strict=True) if b == a + 1]
        gone = [c for c in alone if weights[self.machine.kind_of(np.array([ord(c)]))[0]] >= FAR and c.isprintable()]
        return (
            f"such characters as {' '.join(gone[:10])} are not among them"
            if gone
            else "its characters are not among them"
        )

    def begin(self, seed: int) -> Guide:
        return Guide(self)

    # where a text stands: (state, bytes of a character that is not complete yet)

    def after(self, state: int, partial: bytes, more: bytes) -> tuple[int, bytes] | None:
        """None where no text of this form goes on so."""
        for byte in more:
            partial += bytes([byte])
            if len(partial) < _bytes_of(partial[0]):
                if self._cost(state, partial) >= FAR:
                    return None
                continue
            try:
                kind = int(self.machine.kind_of(np.array([ord(partial.decode())]))[0])
            except UnicodeDecodeError:
                return None
            state, partial = int(self.machine.table[state, kind]), b""
            if state < 0 or self._left[state] >= FAR:
                return None
        return state, partial

    def _cost(self, state: int, partial: bytes) -> int:
        """Tokens that are needed to finish from here; FAR where it cannot be."""
        if not partial:
            return int(self._left[state])
        next_ = self.machine.table[state, self._kinds_behind(partial)]
        left = self._left[next_[next_ >= 0]]
        return int(left.min()) + _bytes_of(partial[0]) - len(partial) if len(left) else FAR

    def _kinds_behind(self, partial: bytes) -> list[int]:
        """The kinds of characters whose UTF-8 begins with these bytes."""
        if partial not in self._partial:
            found: set[int] = set()
            for low, high in _span(partial):
                first = np.searchsorted(self.machine.edges, low, side="right") - 1
                found |= set(
                    self.machine.kinds[first : np.searchsorted(self.machine.edges, high, side="right")].tolist()
                )
            self._partial[partial] = sorted(found)
        return self._partial[partial]

    def mask(self, state: int, partial: bytes, left: int) -> Tensor:
        """(V,) bool: the tokens that may follow with `left` tokens to go; the end where the form is complete."""
        key = (state, partial, min(left, self._farthest))
        if key not in self._masks:
            self._masks[key] = self._mask(*key)
        return self._masks[key]

    def _mask(self, state: int, partial: bytes, left: int) -> Tensor:
        if self.by_character:
            row = self.machine.table[state]
            good = (row >= 0) & (np.where(row >= 0, self._left[row], FAR) <= left - 1)
            found = torch.from_numpy(np.append(good, False)[self._kind])
        else:
            found = torch.tensor([bool(t) and self._fits(state, partial, t, left) for t in self.texts])
        if self.machine.accepts[state] and not partial:
            found[self.end] = True
        return found if bool(found.any()) else self._closed

    def _fits(self, state: int, partial: bytes, more: bytes, left: int) -> bool:
        there = self.after(state, partial, more)
        return there is not None and self._cost(*there) <= left - 1


class Guide:
    """See space.Guide."""

    def __init__(self, form: Form):
        self.form, self.state, self.partial, self.left = form, 0, b"", form.length

    def allowed(self) -> Tensor | None:
        if self.state < 0:
            return self.form._closed
        return self.form.mask(self.state, self.partial, self.left)

    def push(self, token: int) -> None:
        self.left -= 1
        if self.state < 0:
            return
        text = self.form.texts[token]
        if self.form.by_character and text:
            self.state = int(self.form.machine.table[self.state, self.form._kind[token]])
            return
        there = self.form.after(self.state, self.partial, text) if text else None
        self.state, self.partial = there or (-1, b"")


@dataclass(frozen=True)
class Never:
    """A constraint that forbids some tokens and nothing else."""

    tokens: tuple[int, ...]
    size: int

    def begin(self, seed: int) -> Never:
        return self

    def allowed(self) -> Tensor:
        return _never(self.tokens, self.size)

    def push(self, token: int) -> None:
        pass


@lru_cache(16)
def _never(tokens: tuple[int, ...], size: int) -> Tensor:
    found = torch.ones(size, dtype=torch.bool)
    found[list(tokens)] = False
    return found


def _distances(known: Machine, weights: np.ndarray) -> np.ndarray:
    """(S,) the fewest tokens from each state to a finished text; FAR where none is reached."""
    left = np.where(known.accepts, 0, FAR).astype(np.int64)
    while True:
        ways = np.where(known.table >= 0, left[known.table] + weights, FAR)
        nearer = np.minimum(left, np.minimum(ways.min(1), FAR))
        if np.array_equal(nearer, left):
            return left
        left = nearer


def _bytes_of(lead: int) -> int:
    """Bytes of the UTF-8 character that begins so; 1 for what begins none (it fails to decode)."""
    return 1 if lead < 0xC2 or lead > 0xF4 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _span(partial: bytes) -> list[tuple[int, int]]:
    """The code points whose UTF-8 begins with these bytes, as ranges."""
    size = _bytes_of(partial[0])
    if any(not 0x80 <= b < 0xC0 for b in partial[1:]):
        return []
    code = partial[0] & (0x7F >> size)
    for byte in partial[1:]:
        code = code << 6 | byte & 0x3F
    free = 6 * (size - len(partial))
    low, high = max(code << free, (0, 0, 0x80, 0x800, 0x10000)[size]), min((code + 1 << free) - 1, LAST)
    return [(a, b) for a, b in ((low, min(high, 0xD7FF)), (max(low, 0xE000), high)) if a <= b]


# ---- the public doors


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
