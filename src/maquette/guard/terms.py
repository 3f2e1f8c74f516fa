"""Forbidden terms in folded text by look-up of whole words, which is exact at word boundaries; Chinese and the like by substring."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from maquette.guard.folding import LEET, fold

WORD = re.compile(r"[\w@$!]+")
SPELT = re.compile(r"(?<!\w)\w(?:[ ._*-]+\w(?!\w)){2,}")
PARTED = re.compile(r"\w+(?:[._*-]\w+)+")
THRICE = re.compile(r"(.)\1{2,}")
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


@dataclass(frozen=True)
class Hit:
    """A rule that was met, why, and where in the original text."""

    rule: str
    reason: str
    span: tuple[int, int]


class Terms:
    """A list of words and phrases; the terms of scripts without spaces are found anywhere."""

    def __init__(self, name: str, words: Iterable[str], allow: Iterable[str] = ()):
        plain = {fold(w).text.strip() for w in words} - {""}
        self.name = name
        self.allow = {fold(w).text for w in allow}
        self.inside = {w for w in plain if UNSPACED.search(w)}
        self.phrases = {" ".join(w.split()) for w in plain - self.inside if len(w.split()) > 1}
        self.lengths = sorted({len(w.split()) for w in self.phrases})
        self.words = plain - self.inside - self.phrases
        self.anywhere = re.compile("|".join(map(re.escape, sorted(self.inside)))) if self.inside else None

    def find(self, text: str) -> list[Hit]:
        folded = fold(text)
        return [
            Hit(self.name, f'"{term}" is on the list {self.name}', folded.span(a, b))
            for term, a, b in sorted(set(self._found(folded.text)), key=lambda f: f[1:])
        ]

    def _found(self, text: str) -> Iterator[tuple[str, int, int]]:
        for pattern in (WORD, SPELT, PARTED):
            known = {w: term for w in set(pattern.findall(text)) if (term := self._term(w))}
            if known:
                yield from ((known[m[0]], *m.span()) for m in pattern.finditer(text) if m[0] in known)
        yield from self._in_order(text)
        if self.anywhere:
            yield from ((m[0], *m.span()) for m in self.anywhere.finditer(text))

    def _in_order(self, text: str) -> Iterator[tuple[str, int, int]]:
        """Phrases, whatever stands between their words but other words."""
        found = list(WORD.finditer(text)) if self.phrases else []
        words = [m[0] if m[0].isalpha() else m[0].rstrip("!").translate(LEET) for m in found]
        for length in self.lengths:
            for i in range(len(words) - length + 1):
                if (phrase := " ".join(words[i : i + length])) in self.phrases and phrase not in self.allow:
                    yield phrase, found[i].start(), found[i + length - 1].end()

    def _term(self, word: str) -> str | None:
        joined = re.sub(r"[ ._*-]", "", word)
        if joined in self.allow:
            return None
        forms = [joined, joined.rstrip("!")]
        if not joined.isalpha() and not joined.isdigit():
            forms += [f.translate(LEET) for f in forms]
        forms += [THRICE.sub(r"\1", f) for f in forms if THRICE.search(f)]
        return next((f for f in forms if f in self.words and f not in self.allow), None)
