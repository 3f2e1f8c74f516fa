"""Regular expressions and shapes of JSON as patterns of characters."""

from __future__ import annotations

import json
import re
from typing import Any

from maquette.automaton import NO_END, Pattern, Ranges, either, literal, one, repeat, row, without
from maquette.errors import UsageError

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
