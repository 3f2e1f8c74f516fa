"""Forbidden words and phrases in text, seen through disguises, by look-up of all words at once; exact at the boundaries of words.

A word counts as a term where it is read as one (`disguise.reads`) as it stands, with its signs as letters, put together where its letters
or parts stand apart (`readings`), or, of scripts without spaces, anywhere (`unspaced`). Whatever stands between the words of a phrase,
other words do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from maquette.errors import SettingError
from maquette.guard.disguise import SKELETON, alike, foreign, lettered, reads
from maquette.guard.folding import ALPHABET, INNER_I, SYMBOL, UNSPACED, WORD, Folded, fold
from maquette.guard.hashing import Keys, Spans, in_order
from maquette.guard.hits import Hit
from maquette.guard.readings import Words, edges, readings, words_of
from maquette.guard.unspaced import Unspaced

WITHIN = 4  # letters of a word that is looked for within a row of letters that stand apart
AROUND = 40  # characters before and after a word that say of which alphabet a text is

Found = tuple[str, int, int]  # a term, and from where to where it stands in the folded text


class Terms:
    """A list of words and phrases; `allow` are words and phrases within which nothing counts, as they are written."""

    def __init__(self, name: str, words: Iterable[str], allow: Iterable[str] = ()):
        self.name = name
        self.listed = _Listed(name, words)
        allow = list(allow)
        self.allowed = _Listed(name, allow) if allow else None

    def find(self, text: str | Folded) -> list[Hit]:
        folded = text if isinstance(text, Folded) else fold(text)
        found = set(self.listed.find(folded))
        if not folded.original.isascii():
            found = {f for f in found if not _foreign(folded, f)}
        if found and self.allowed:
            spans = [(a, b) for _, a, b in self.allowed.strictly(folded)]
            found = {f for f in found if not any(a <= f[1] and f[2] <= b for a, b in spans)}
        return [
            Hit(self.name, f'"{term}" is on the list {self.name}', folded.span(a, b))
            for term, a, b in sorted(found, key=lambda f: (f[1], f[2], f[0]))
        ]


def _foreign(folded: Folded, found: Found) -> bool:
    term, (a, b) = found[0], folded.span(*found[1:])
    text = folded.original
    written = text[a:b]
    return (
        not written.isascii()
        and term.isascii()
        and foreign(written, text[max(0, a - AROUND) : a] + text[b : b + AROUND])
    )


class _Listed:
    """The terms of one list, ready to be looked up."""

    def __init__(self, name: str, words: Iterable[str]):
        self.terms = _folded(words)
        self.words: list[
            str
        ] = []  # that are looked for, with the term of each and whether only where they were put together
        self.of: list[int] = []
        self.only_joined: list[bool] = []
        self.phrases: dict[int, list[tuple[int, tuple[str, ...]]]] = {}
        unspaced = []
        for k, term in enumerate(self.terms):
            parts, anywhere = _parts(term)
            if anywhere:
                unspaced.append("".join(parts))
            elif sum(map(len, parts)) < 2:
                raise SettingError(
                    f'"{term}" on the list {name} has fewer than two letters or digits, so it would be found everywhere; leave it out'
                )
            else:
                self._add(k, parts)
        self.unspaced = Unspaced(sorted(set(unspaced)))
        self._ready()

    def _add(self, k: int, parts: tuple[str, ...]) -> None:
        self.words.append("".join(parts))
        self.of.append(k)
        self.only_joined.append(len(parts) > 1)
        if len(parts) > 1:
            self.phrases.setdefault(len(parts), []).append((k, parts))

    def _ready(self) -> None:
        written, numbers = _row(self.words), range(len(self.words))
        self.exact, self.alike = Keys(written.hashes, numbers), Keys(written.classes, numbers)
        self.order = {m: Keys(_order(phrases, m), range(len(phrases))) for m, phrases in self.phrases.items()}
        sizes = written.ends - written.starts
        bare = Spans(SKELETON[written.codes]).of(written.starts, written.ends)
        self.within = {n: _some(bare, np.flatnonzero(sizes == n)) for n in set(sizes.tolist()) if n >= WITHIN}
        self.longest = max(self.phrases, default=1)

    def find(self, folded: Folded) -> Iterator[Found]:
        """Everything, some of it several times."""
        plain = words_of(folded)
        yield from self._single(plain)
        yield from self._several(plain)
        for words in readings(folded, plain, self.longest):
            for read in (self._single, self._several, self._apart):
                yield from read(words)
        yield from self.unspaced.find(folded)

    def strictly(self, folded: Folded) -> Iterator[Found]:
        """Only what is written as it stands on the list."""
        folded = replace(folded, codes=np.where(folded.codes == ord(INNER_I), ord("i"), folded.codes))
        plain = words_of(folded)
        yield from self._exact(plain)
        yield from self._several(plain, strict=True)
        yield from self.unspaced.find(folded, strict=True)

    def _exact(self, words: Words) -> Iterator[Found]:
        for i, k in self.exact.pairs(words.hashes):
            if words.word(i) == self.words[k] and self._fits(words, i, k):
                yield self._found(words, i, k)

    def _single(self, words: Words) -> Iterator[Found]:
        yield from self._exact(words)
        numbers = words.disguised
        for j, k in self.alike.pairs(words.only(numbers).classes):
            i = int(numbers[j])
            if reads(words.word(i), self.words[k]) and self._fits(words, i, k):
                yield self._found(words, i, k)

    def _fits(self, words: Words, i: int, k: int) -> bool:
        """A phrase as one word counts only where that was put together."""
        return not self.only_joined[k] or (words.joined is not None and bool(words.joined[i]))

    def _found(self, words: Words, i: int, k: int) -> Found:
        return self.terms[self.of[k]], *_span(words, int(words.starts[i]), int(words.ends[i]))

    def _several(self, words: Words, strict: bool = False) -> Iterator[Found]:
        """Phrases, whatever stands between their words but other words."""
        for m, phrases in self.phrases.items():
            hashes = in_order(words.classes, m)
            for i, k in self.order[m].pairs(hashes):
                if _agree([words.word(i + j) for j in range(m)], phrases[k][1], strict):
                    span = _span(words, int(words.starts[i]), int(words.ends[i + m - 1]))
                    yield self.terms[phrases[k][0]], *span

    def _apart(self, words: Words) -> Iterator[Found]:
        """Longer words within a row of letters that stand apart, which may be a whole sentence."""
        if words.apart is None or not words.apart.any():
            return
        rows = words.only(np.flatnonzero(words.apart))
        bare = Spans(SKELETON[rows.codes])
        sizes = rows.ends - rows.starts
        places = np.repeat(rows.starts - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
        left = np.repeat(rows.ends, sizes) - places
        for n, keys in self.within.items():
            starts = places[left >= n]
            hashes = bare.of(starts, starts + n)
            for i, k in keys.pairs(hashes):
                start = int(starts[i])
                if reads(rows.text[start : start + n], self.words[k]):
                    yield self.terms[self.of[k]], *_span(rows, start, start + n)


def _agree(tokens: Sequence[str], words: Sequence[str], strict: bool) -> bool:
    if strict or not any(map(lettered, tokens)):
        return list(tokens) == list(words)
    return all(map(alike, tokens, words))


def _span(words: Words, start: int, end: int) -> tuple[int, int]:
    return int(words.at[start]), int(words.at[end - 1]) + 1


def _folded(words: Iterable[str]) -> list[str]:
    """Each term once, folded, in order."""
    lines = "\n".join(" ".join(w.split()) for w in words)
    return [term for term in dict.fromkeys(fold(lines.casefold()).text.split("\n")) if term.strip()]


def _parts(term: str) -> tuple[tuple[str, ...], bool]:
    """The words of a term; or all its letters, and that it is found anywhere."""
    kinds = [int(ALPHABET.kind[ord(c)]) for c in term]
    if any(k & UNSPACED for k in kinds):
        return tuple(c for c, k in zip(term, kinds, strict=True) if k & (UNSPACED | WORD)), True
    spaced = "".join(c if k & (WORD | SYMBOL) else " " for c, k in zip(term, kinds, strict=True))
    return tuple(spaced.split()), False


def _row(words: Sequence[str]) -> Words:
    """Words one after another as a text."""
    codes = np.frombuffer("\n".join(words).encode("utf-32-le", "surrogatepass"), np.uint32)
    starts, ends = edges(codes != ord("\n"))
    return Words(codes, np.arange(len(codes)), np.zeros(len(codes), bool), starts, ends)


def _order(phrases: Sequence[tuple[int, tuple[str, ...]]], m: int) -> np.ndarray:
    return in_order(_row([w for _, parts in phrases for w in parts]).classes, m)[::m]


def _some(hashes: np.ndarray, numbers: np.ndarray) -> Keys:
    return Keys(hashes[numbers], numbers.tolist())
