"""Terms of scripts that write no spaces, and signs such as emoji: found anywhere, also with spaces, points or repeats between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from maquette.guard.folding import BLANK, HANGUL, MARK, TIGHT, UNSPACED, WORD, Folded, decoded
from maquette.guard.hashing import Keys, Spans
from maquette.guard.readings import edges

APART = 3  # most spaces and points between two characters


class Unspaced:
    """Terms, each with at least one character of such a script."""

    def __init__(self, terms: Sequence[str]):
        by_length: dict[int, list[int]] = {}
        for k, term in enumerate(terms):
            by_length.setdefault(len(term), []).append(k)
        self.terms, self.longest = terms, max(by_length, default=0)
        self.keys = {n: _keys([terms[k] for k in which], which) for n, which in by_length.items()}

    def find(self, folded: Folded, strict: bool = False) -> Iterator[tuple[str, int, int]]:
        """Term, start and end in the folded text. strict: only as it is written."""
        if not self.terms or not (folded.kinds & UNSPACED).any():
            return
        whole = np.arange(len(folded.codes))
        yield from self._among(folded, whole)
        if strict:
            return
        closed = whole[~_between(folded.kinds)]
        yield from self._among(folded, closed) if len(closed) < len(whole) else ()
        single = closed[~_repeats(folded, closed)]
        yield from self._among(folded, single) if len(single) < len(closed) else ()

    def _among(self, folded: Folded, at: np.ndarray) -> Iterator[tuple[str, int, int]]:
        """Terms in the characters at these places (n,)."""
        codes, kinds = folded.codes[at], folded.kinds[at]
        spans, text = Spans(codes), decoded(codes)
        count = np.concatenate([[0], np.cumsum((kinds & UNSPACED) != 0)])
        for length, keys in self.keys.items():
            starts = np.arange(max(0, len(codes) - length + 1))
            starts = starts[count[starts + length] > count[starts]]
            hashes = spans.of(starts, starts + length)
            for i, k in keys.pairs(hashes):
                start, end = int(starts[i]), int(starts[i]) + length
                if text[start:end] == self.terms[k] and _whole(codes, kinds, start, end):
                    yield text[start:end], int(at[start]), int(at[end - 1]) + 1


def _keys(terms: Sequence[str], numbers: Sequence[int]) -> Keys:
    codes = np.frombuffer("".join(terms).encode("utf-32-le", "surrogatepass"), np.uint32)
    starts = np.arange(0, len(codes), len(terms[0]))
    return Keys(Spans(codes).of(starts, starts + len(terms[0])), numbers)


def _whole(codes: np.ndarray, kinds: np.ndarray, start: int, end: int) -> bool:
    """No sign that belongs to the last character after it; no letter of a spaced script cut off; Hangul from the beginning of a word."""
    if end < len(codes) and (kinds[end] & MARK or kinds[end] & kinds[end - 1] & WORD):
        return False
    if start == 0:
        return True
    hangul = all(HANGUL[0] <= codes[k] <= HANGUL[1] for k in (start - 1, start))
    return not hangul and not kinds[start] & kinds[start - 1] & WORD


def _between(kinds: np.ndarray) -> np.ndarray:
    """(n,): spaces and points, few at a time, between two characters of such scripts."""
    found = (kinds & (BLANK | TIGHT)) != 0
    starts, ends = edges(found)
    around = np.concatenate([[0], kinds, [0]]) & UNSPACED
    fits = (ends - starts <= APART) & (around[starts] != 0) & (around[ends + 1] != 0)
    found[found] = np.repeat(fits, ends - starts)
    return found


def _repeats(folded: Folded, at: np.ndarray) -> np.ndarray:
    """(n,): of a character of such a script that stands three times or more, all but the first."""
    codes, apart = folded.codes[at], (folded.kinds[at] & UNSPACED) != 0
    same = np.zeros(len(at), bool)
    same[1:] = (codes[1:] == codes[:-1]) & apart[1:]
    starts, ends = edges(same)
    same[same] = np.repeat(ends - starts >= 2, ends - starts)
    return same
