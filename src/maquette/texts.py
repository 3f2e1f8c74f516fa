"""Text files as pieces: encodings, records of JSON and CSV, passages of a long text; and cleaning steps for texts.

Everything streams: a file is read in blocks of a megabyte and never held as a whole, unless it is one piece.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from maquette.errors import Unreadable, UsageError

Step = Literal["unicode", "compatibility", "controls", "spaces", "boilerplate"]
Unit = Literal["auto", "file", "record", "paragraph", "line", "passage"]
BLOCK = 1 << 20  # bytes read at a time
WHOLE = 64 << 20  # characters of one piece or one record, at most
LONGEST_LINE = 1 << 20  # characters after which a line without an end is cut
COLUMNS = ("text", "content", "paragraphs", "body", "poem")  # fields that hold the text, the first that is there
FEWEST_ALTERNATIVES = 99  # to a canary
LOOKED_AT = 100  # records that are looked at to find the only column of texts
MARKS = [  # longest first, for UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
]


# ---- bytes to characters


def blocks(path: Path, encoding: str = "auto") -> Iterator[str]:
    """The text of a file, some characters at a time, its line ends as \\n. Raises Unreadable with the byte that fails."""
    with path.open("rb") as stream:
        raw = stream.read(BLOCK)
        if not raw:
            raise Unreadable(f"{path.name}: the file is empty")
        mark, name = next((m for m in MARKS if raw.startswith(m[0])), (b"", "utf-8"))
        name = name if encoding == "auto" else encoding
        mark = mark if codecs.lookup(name).name.startswith("utf") else b""
        decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(name)("strict"), translate=True)
        start, raw = len(mark), raw[len(mark) :]
        while True:
            last = not raw
            try:
                text = decoder.decode(raw, final=last)
            except UnicodeDecodeError as error:
                place = (
                    start + len(raw) - len(error.object) + error.start
                )  # object: what was held of the block before, and raw
                zeros = b"\0" in raw and not codecs.lookup(name).name.startswith(("utf-16", "utf-32"))
                raise Unreadable(_binary(path, start) if zeros else _undecodable(path, name, place)) from None
            if "\0" in text:
                raise Unreadable(_binary(path, start))
            if text:
                yield text
            if last:
                return
            start += len(raw)
            raw = stream.read(BLOCK)


def _undecodable(path: Path, name: str, place: int) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, place - 2048) // 4 * 4)
        sample = stream.read(BLOCK // 16)
    fits = likely_encoding(sample)
    mend = f"it looks like {fits}: --set encoding={fits}" if fits else "save it as UTF-8, or name its encoding"
    return f"{path.name}: byte {place} is no {name.upper()}; {mend}"


def _binary(path: Path, start: int) -> str:
    with path.open("rb") as stream:
        stream.seek(start)
        raw = stream.read(BLOCK)
    even, odd = raw[0::2].count(0), raw[1::2].count(0)
    if max(even, odd) > len(raw) / 8 and min(even, odd) < len(raw) / 100:
        fits = "utf-16-le" if odd > even else "utf-16-be"
        return f"{path.name}: it looks like {fits} without a byte order mark: --set encoding={fits}"
    return f"{path.name}: byte {start + max(raw.find(0), 0)} is 0, so this is a binary file and no text"


def likely_encoding(sample: bytes) -> str:
    """The encoding in which a sample reads most like a language; "" where none does.

    >>> likely_encoding("déjà vu, où es-tu ? L'été dernier".encode("cp1252"))
    'cp1252'
    """
    scores = {name: _likeness(sample, name, usual) for name, usual in _USUAL.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > 0.7 else ""


def _common(encoding: str, first: int, last: int) -> Callable[[str], bool]:
    """Whether a character belongs to the rows of everyday characters of a national standard."""

    def usual(c: str) -> bool:
        raw = c.encode(encoding, "ignore")
        return len(raw) == 2 and first <= raw[0] <= last

    return usual


_USUAL: dict[str, Callable[[str], bool]] = {
    "gb18030": lambda c: _common("gb2312", 0xB0, 0xD7)(c) or c in "，。、；：？！“”‘’《》（）　",
    "big5": lambda c: _common("big5", 0xA4, 0xC6)(c) or c in "，。、；：？！「」『』（）　",
    "shift_jis": lambda c: "\u3041" <= c <= "\u30fe" or _common("euc_jp", 0xB0, 0xCF)(c) or c in "、。「」！？　ー",
    "euc_jp": lambda c: "\u3041" <= c <= "\u30fe" or _common("euc_jp", 0xB0, 0xCF)(c) or c in "、。「」！？　ー",
    "euc_kr": lambda c: "\uac00" <= c <= "\ud7a3",
    "cp1251": lambda c: "\u0430" <= c <= "\u044f" or c in "ёіїєґў«»–—",
    "cp1252": lambda c: "\u00df" <= c <= "\u00ff" or c in "ÄÖÜÉÀŒœ«»‘’“”–—…€£°·¿¡",
}
_WRONG_CASE = re.compile(r"[a-zа-яё][А-ЯЁ]")


def _likeness(sample: bytes, name: str, usual: Callable[[str], bool]) -> float:
    """The share of characters beyond ASCII that are everyday ones in this encoding; strictness breaks ties."""
    cut = next((sample[: len(sample) - k] for k in range(4) if _decodes(sample[: len(sample) - k], name)), None)
    cut = cut if cut is not None else next((sample[k:] for k in range(1, 4) if _decodes(sample[k:], name)), None)
    if cut is None:
        return 0.0
    text = cut.decode(name)
    beyond = [c for c in text if ord(c) > 127][:4000]
    if not beyond:
        return 0.0
    share = sum(map(usual, beyond)) / len(beyond)
    if name in ("cp1252", "cp1251"):  # one byte is one letter, so anything decodes: words must look like words
        letters = sum(c.isascii() and c.isalpha() for c in text)
        mixed = len(_WRONG_CASE.findall(text)) > len(beyond) / 8
        alone = letters > len(beyond) if name == "cp1252" else letters < len(beyond) and not mixed
        return share * (0.95 if alone else 0.3)
    if (
        name == "euc_kr"
    ):  # all of a Korean text is among the everyday characters of GB 2312 too, but not the other way round
        return share * 1.01
    if name in ("shift_jis", "euc_jp"):
        kana = sum("\u3041" <= c <= "\u30fe" and not "\uff61" <= c <= "\uff9f" for c in beyond) / len(beyond)
        return share * (1.02 if kana > 0.2 else 0.5)
    return share


def _decodes(raw: bytes, name: str) -> bool:
    try:
        return bool(raw.decode(name)) and bool(raw)
    except UnicodeDecodeError:
        return False


# ---- units of plain text


def cut(text: Iterable[str], unit: Unit, passage: int) -> Iterator[str]:
    """Pieces of a stream of text; those of nothing but white space are left out."""
    parts = {"paragraph": _paragraphs, "line": _lines}.get(unit)
    found = parts(text) if parts else _passages(text, passage) if unit == "passage" else [whole(text)]
    return (part for part in found if part and not part.isspace())


def whole(text: Iterable[str]) -> str:
    """A stream as one piece. Raises Unreadable where it is too long for one."""
    parts, length = [], 0
    for part in text:
        length += len(part)
        if length > WHOLE:
            raise Unreadable(
                f"more than {WHOLE >> 20} million characters are too long for one piece; --set unit=passage"
            )
        parts.append(part)
    return "".join(parts)


def _passages(text: Iterable[str], size: int) -> Iterator[str]:
    """Passages of about `size` characters; the last may have a quarter more."""
    held = ""
    for part in text:
        held += part
        start = 0
        while len(held) - start > size * 5 // 4:
            stop = _border(held, start, size)
            yield held[start:stop]
            start = stop
        held = held[start:]
    yield held


def _border(text: str, start: int, size: int) -> int:
    """Where a passage ends: after a paragraph, else a line, else a space, else a character with what belongs to it."""
    for end in ("\n\n", "\n", " "):
        if (found := text.rfind(end, start + size // 2, start + size)) >= 0:
            return found + len(end)
    stop = start + size
    while stop < min(len(text) - 1, start + size + 16) and _belongs(text[stop], text[stop - 1]):
        stop += 1
    return stop


def _belongs(c: str, before: str) -> bool:
    """Whether a character is part of the sign before it: accents, joined emoji, variants."""
    return unicodedata.combining(c) > 0 or c in "\u200d\ufe0e\ufe0f" or before == "\u200d"


def _lines(text: Iterable[str]) -> Iterator[str]:
    """Lines without their ends; a line of a million characters is cut."""
    held = ""
    for part in text:
        *full, held = (held + part).split("\n")
        yield from full
        while len(held) > LONGEST_LINE * 5 // 4:
            stop = _border(held, 0, LONGEST_LINE)
            yield held[:stop]
            held = held[stop:]
    yield held


def _paragraphs(text: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    length = 0
    for line in _lines(text):
        length += len(line)
        if not line.strip() or length > LONGEST_LINE:
            yield "\n".join(held)
            held, length = [], len(line)
        if line.strip():
            held.append(line)
    yield "\n".join(held)


# ---- records


class Record(NamedTuple):
    number: int  # in its file, from 0
    text: str
    facts: dict[str, Any]


def records(path: Path, column: str, encoding: str) -> Iterator[Record]:
    """Every record of a .json, .jsonl, .csv or .tsv file that holds a text. Raises Unreadable."""
    rows = _table(path, encoding) if path.suffix.lower() in (".csv", ".tsv") else _json(path, encoding)
    first, broken = _ahead(rows)
    if not first:
        raise broken or Unreadable(f"{path.name}: it holds no records")
    column = _column(path, column, first)
    for number, row in enumerate(_chained(first, rows)):
        text = _text(row.get(column))
        if text and not text.isspace():
            yield Record(
                number, text, {k: v for k, value in row.items() if k != column and (v := _fact(value)) is not None}
            )
    if broken:
        raise broken


def _ahead(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], Unreadable | None]:
    """The first rows, and why there are no more of them where the file breaks."""
    first: list[dict[str, Any]] = []
    try:
        for row in rows:
            first.append(row)
            if len(first) == LOOKED_AT:
                break
    except Unreadable as error:
        return first, error
    return first, None


def _chained(first: list[dict[str, Any]], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from first
    yield from rest


def _column(path: Path, asked: str, rows: list[dict[str, Any]]) -> str:
    """The field that holds the text. Raises Unreadable where that is not plain."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = ", ".join(names[:20])
    if asked != "auto":
        if asked in names:
            return asked
        raise Unreadable(f"{path.name}: there is no column {asked}; it has {shown}")
    if known := next((name for name in COLUMNS if name in names), None):
        return known
    texts = [n for n in names if any(_text(row.get(n)) and not _is_number(row.get(n)) for row in rows)]
    if len(texts) == 1:
        return texts[0]
    raise Unreadable(f"{path.name}: which column holds the text? It has {shown}; --set column=NAME says it")


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return "\n".join(value)
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    try:
        float(value)
        return True
    except (TypeError, ValueError):
        return False


def _fact(value: Any) -> Any:
    """What of a record is kept as a fact: texts, numbers, yes and no; lists are joined; None is left out."""
    if isinstance(value, list):
        parts = [str(v) for v in value if isinstance(v, str | int | float) and v != ""]
        return "; ".join(parts) or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float) and value != "" else None


def _table(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), WHOLE))
    lines = _with_ends(blocks(path, encoding))
    try:
        head = next(lines, "")
        mark = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in head and "," not in head else ","
        reader = csv.DictReader(_chained([head], lines), delimiter=mark)
        for row in reader:
            yield {k: v for k, v in row.items() if k and isinstance(v, str)}
    except csv.Error as error:
        raise Unreadable(f"{path.name}: it cannot be read as a table ({error})") from None


def _with_ends(text: Iterable[str]) -> Iterator[str]:
    """Lines with their ends; the csv reader limits how long one may be."""
    held = ""
    for part in text:
        *full, held = (held + part).split("\n")
        yield from (line + "\n" for line in full)
        if len(held) > WHOLE:
            raise Unreadable(f"a line of more than {WHOLE >> 20} million characters is no row of a table")
    if held:
        yield held


def _json(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    values = _json_lines(path, encoding) if path.suffix.lower() == ".jsonl" else _json_values(path, encoding)
    for number, value in enumerate(values):
        if isinstance(value, str):
            yield {"text": value}
        elif isinstance(value, dict):
            yield value
        else:
            raise Unreadable(
                f"{path.name}: it should be a list of records or of texts; item {number + 1} is {_kind(value)}"
            )


def _kind(value: Any) -> str:
    names = {list: "a list", bool: "yes or no", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _json_lines(path: Path, encoding: str) -> Iterator[Any]:
    """The values of all lines; a line that is no JSON is passed over and told of at the end."""
    broken = []
    for number, line in enumerate(_lines_of_records(path, encoding), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            broken.append(number)
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise Unreadable(f"{path.name}: line {broken[0]}{more} is not JSON")


def _lines_of_records(path: Path, encoding: str) -> Iterator[str]:
    for line in _with_ends(blocks(path, encoding)):
        yield line.rstrip("\n")


_BETWEEN = re.compile(r"[\s,]*")


def _json_values(path: Path, encoding: str) -> Iterator[Any]:
    """The items of a JSON list, or the values of a file one after another, without holding all of it."""
    source = blocks(path, encoding)
    held, place, more, passed = "", 0, True, 0
    decoder = json.JSONDecoder()
    listed: bool | None = None
    while True:
        place = _BETWEEN.match(held, place).end()  # type: ignore[union-attr]
        if listed is None and place < len(held):
            listed = held[place] == "["
            place += listed
            continue
        if listed and held[place : place + 1] == "]":
            return
        try:
            value, stop = decoder.raw_decode(held, place)
            if stop < len(held) or not more:
                yield value
                place = stop
                continue
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            if place == len(held) and not more and not listed:
                return
            if not more or len(held) - place > WHOLE or isinstance(error, RecursionError):
                raise Unreadable(_no_json(path, error, passed, place)) from None
        passed += place
        held, place = held[place:], 0
        wanted, parts = max(BLOCK, len(held)), []  # doubles, so that a long record is not tried again and again
        while more and sum(map(len, parts)) < wanted:
            part = next(source, None)
            more = part is not None
            parts.append(part or "")
        held += "".join(parts)


def _no_json(path: Path, error: Exception, passed: int, place: int) -> str:
    where = passed + (error.pos if isinstance(error, json.JSONDecodeError) else place) + 1
    what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
    return f"{path.name}: it is not JSON from character {where} on ({what})"


# ---- cleaning


def _unicode(text: str) -> str:
    """One spelling of each letter: an e with its accent is one character (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _compatibility(text: str) -> str:
    """One spelling of what looks alike too: full width letters, ligatures, circled numbers (NFKC)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\u200b\u2060\u00ad\u202a-\u202e\u2066-\u2069]")


def _controls(text: str) -> str:
    """Every line end is \\n; what cannot be seen goes."""
    return _UNSEEN.sub("", _ENDS.sub("\n", text))


_WIDE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_TRAILING = re.compile(r"[ \t\u3000]+$", re.MULTILINE)
_EMPTY = re.compile(r"\n{3,}")


def _spaces(text: str) -> str:
    """Plain spaces; none at the ends of lines; at most one empty line; none around the piece."""
    text = text if text.isascii() else _WIDE.sub(" ", text)
    return _EMPTY.sub("\n\n", _TRAILING.sub("", text)).strip("\n").rstrip()


_BEGINS = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]*\n", re.MULTILINE)
_ENDS_HERE = re.compile(r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.MULTILINE)
_MARK = "***"  # is found sooner than the rest
_HEAD = 1 << 16  # characters within which a header ends
_OVERLAP = 64


def body(text: Iterable[str]) -> Iterator[str]:
    """A stream without the header and footer of Project Gutenberg, where it has them."""
    text = iter(text)
    held = ""
    for part in text:
        held += part
        if len(held) >= _HEAD:
            break
    if (found := _BEGINS.search(held, 0, _HEAD)) if _MARK in held else None:
        held = held[found.end() :]
    for part in _chained_text(held, text):
        held = part if part is held else held[-_OVERLAP:] + part
        if (found := _ENDS_HERE.search(held)) if _MARK in held else None:
            yield held[: found.start()]
            return
        yield held[: max(0, len(held) - _OVERLAP)]
        held = held[-_OVERLAP:]
    yield held


def _chained_text(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


STEPS: Mapping[str, Callable[[str], str]] = {
    "unicode": _unicode,
    "compatibility": _compatibility,
    "controls": _controls,
    "spaces": _spaces,
    "boilerplate": lambda text: "".join(body([text])),
}


# ---- canaries


def canaries(path: Path, alternatives: int, seed: int) -> Iterator[list[str]]:
    """Of each line that is not empty: itself without braces, and at most so many others in whose braces other digits and letters a-z
    stand. Raises UsageError."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the canaries {path} cannot be read ({error})") from None
    chosen = [(k, line) for k, line in enumerate(lines, 1) if line.strip()]
    if not chosen:
        raise UsageError(
            f"{path} holds no canary; write one a line, what was drawn by chance in braces: my code is {{40381}}"
        )
    for number, line in chosen:
        own, others = line.replace("{", "").replace("}", ""), redrawn(line, alternatives, np.random.default_rng(seed))
        if len(others) < FEWEST_ALTERNATIVES:
            raise UsageError(
                f"line {number} of {path} might read otherwise in only {len(others)} ways; put two or more digits or letters a-z that "
                "were drawn by chance in braces: my code is {40381}"
            )
        yield [own, *others]


def redrawn(line: str, n: int, chance: np.random.Generator) -> list[str]:
    """At most n different others of a line.

    >>> sorted(redrawn("no {1}.", 20, np.random.default_rng(0)))[:3]
    ['no 0.', 'no 2.', 'no 3.']
    """
    own = line.replace("{", "").replace("}", "")

    def draw(found: re.Match[str]) -> str:
        return "".join(chance.choice(list(_class_of(c))) for c in found[1])

    drawn = (re.sub(r"\{([^{}]*)\}", draw, line) for _ in range(8 * n))
    return [text for text in dict.fromkeys(drawn) if text != own][:n]


def _class_of(letter: str) -> str:
    return next((c for c in (string.digits, string.ascii_lowercase, string.ascii_uppercase) if letter in c), letter)
