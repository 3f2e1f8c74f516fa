"""What is known of a piece beside its content and may steer a new one: labels, tags, numbers, captions.

A condition is one float row per piece; NaN means "not known" or "not asked". Each field owns some columns:
label one (the index), number one (standardised), tags one each (0 or 1), caption one per word (index of the word).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from maquette.errors import SettingError, UnknownName

Kind = Literal["label", "tags", "number", "caption"]
CJK = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each character is a word
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+", re.UNICODE)
CAPTIONS = ("text", "caption", "title", "keywords")  # columns that are read word by word


@dataclass(frozen=True)
class Field:
    """One thing that is known.

    values  label and tags: the names, by index; caption: the words, by index (0 is any other word)
    mean, std  number: of the train split
    length  caption: words that are read
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    length: int = 0

    @property
    def width(self) -> int:
        return {"label": 1, "number": 1, "tags": len(self.values), "caption": self.length}[self.kind]

    def encode(self, value: Any, known: Mapping[str, int]) -> list[float]:
        """The columns of one value; None gives NaN. Raises UnknownName and SettingError."""
        if value is None:
            return [math.nan] * self.width
        if self.kind == "label":
            return [float(self._index(str(value), known))]
        if self.kind == "number":
            return [(self._number(value) - self.mean) / self.std]
        if self.kind == "tags":
            chosen = {self._index(t, known) for t in _tags(value)}
            return [float(i in chosen) for i in range(self.width)]
        words = [float(known.get(w, 0)) for w in WORD.findall(str(value).lower())][: self.length]
        return words + [math.nan] * (self.length - len(words))

    def _index(self, name: str, known: Mapping[str, int]) -> int:
        if name not in known:
            raise UnknownName(self.name, name, self.values)
        return known[name]

    def _number(self, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise SettingError(f"{self.name} is a number; {value!r} came")
        return number


def _tags(value: Any) -> list[str]:
    """A list, or a text with | ; or , between; any other value is one tag."""
    parts = (
        re.split(r"[|;,]", value) if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    )
    return [str(p).strip() for p in parts if str(p).strip()]


class Condition:
    """The fields that steer a corpus, and the row of numbers that stands for their values.

    >>> c = Condition([Field("label", "label", ("cat", "dog"))])
    >>> c.encode({"label": "dog"})
    [1.0]
    """

    def __init__(self, fields: Sequence[Field]):
        self.fields = tuple(fields)
        self.width = sum(f.width for f in self.fields)
        self._known = {f.name: {v: i for i, v in enumerate(f.values)} for f in self.fields}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Condition({', '.join(f'{f.name}: {f.kind}' for f in self.fields)})"

    def slices(self) -> list[tuple[Field, slice]]:
        """Each field with the columns it owns."""
        found, start = [], 0
        for f in self.fields:
            found.append((f, slice(start, start + f.width)))
            start += f.width
        return found

    def encode(self, values: Mapping[str, Any]) -> list[float]:
        """{"label": "dog"} -> the row; what is left out is NaN. Raises UnknownName for a field or value that is not known."""
        for name in values:
            if name not in self._known:
                raise UnknownName("condition", name, self._known)
        return [x for f in self.fields for x in f.encode(values.get(f.name), self._known[f.name])]

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(f) for f in self.fields]

    @staticmethod
    def from_json(data: Iterable[Mapping[str, Any]]) -> Condition:
        return Condition([Field(**{**f, "values": tuple(f["values"])}) for f in data])


def fit_condition(
    rows: Sequence[Mapping[str, Any]], most_values: int = 1000, always: Sequence[Field] = ()
) -> Condition | None:
    """Choose fields from the metadata of the train split: `label` and other short repeated texts become labels (the most frequent
    ones), `tags` tags, numeric columns numbers, `text`, `caption`, `title` or `keywords` a caption. Columns that never vary or never
    repeat steer nothing. always: fields that stand whatever the rows say.

    None where nothing is left.
    """
    columns = sorted({name for row in rows for name in row} - {f.name for f in always})
    fields = [
        f
        for name in columns
        if (f := _fit_field(name, [r[name] for r in rows if r.get(name) is not None], most_values))
    ]
    return Condition([*fields, *always]) if fields or always else None


def _fit_field(name: str, values: list[Any], most_values: int) -> Field | None:
    if name in CAPTIONS:
        return _fit_caption(name, values)
    if name == "tags":
        counts = Counter(t for v in values for t in _tags(v))
        return Field(name, "tags", tuple(sorted(t for t, _ in counts.most_common(most_values)))) if counts else None
    if name != "label" and values and all(_is_number(v) for v in values):
        numbers = [float(v) for v in values]
        mean = sum(numbers) / len(numbers)
        std = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))
        return Field(name, "number", mean=mean, std=std) if std > 0 else None
    names = Counter(str(v) for v in values)
    repeats = name == "label" or len(names) <= len(values) / 2
    known = tuple(sorted(n for n, _ in names.most_common(most_values)))
    return Field(name, "label", known) if repeats and len(known) >= 2 else None


def _fit_caption(name: str, values: list[Any], length: int = 24, vocabulary: int = 4000) -> Field | None:
    counts = Counter(w for v in values for w in WORD.findall(str(v).lower()))
    words = tuple(sorted(w for w, n in counts.most_common(vocabulary) if n > 1))
    return Field(name, "caption", ("", *words), length=length) if words else None


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
