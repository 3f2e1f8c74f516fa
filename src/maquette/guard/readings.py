"""Other readings of a text: signs as letters, letters that stand apart as one word, broken words as whole ones, all as arrays.

A reading differs from the text as it stands in few places as a rule, so only what is around those places is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from maquette.guard.disguise import MOST, SKELETON
from maquette.guard.folding import ODD, SYMBOL, TIGHT, WORD, Folded, decoded
from maquette.guard.hashing import Spans

APART = 3  # most characters between letters that stand apart
BREAK, WALL = 0x20, 0xFFFF  # between words that are read again; between places that are not neighbours
NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Words:
    """Words of a text as read: starts and ends (w,) in codes (n,), the place (n,) in the folded text of each code.

    changed  (w,): read otherwise than they stand; joined (w,): put together of several; apart (w,): of single letters
    """

    codes: np.ndarray
    at: np.ndarray
    odd: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    changed: np.ndarray | None = None
    joined: np.ndarray | None = None
    apart: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def text(self) -> str:
        return decoded(self.codes)

    def word(self, i: int) -> str:
        return self.text[self.starts[i] : self.ends[i]]

    @cached_property
    def hashes(self) -> np.ndarray:
        return Spans(self.codes).of(self.starts, self.ends)

    @cached_property
    def disguised(self) -> np.ndarray:
        """(k,): numbers of words with a character that may stand for another, or two letters and more that repeat those before them."""
        codes = self.codes
        repeats = np.flatnonzero(codes[1:] == codes[:-1]) + 1
        often = np.bincount(self.containing(repeats, 1), minlength=len(self)) > 1
        often[self.containing(np.flatnonzero(self.odd))] = True
        return np.flatnonzero(often)

    def containing(self, places: np.ndarray, skip: int = 0) -> np.ndarray:
        """The words that these codes lie in, the first `skip` codes of a word not counted."""
        if not len(self):
            return NONE
        i = np.searchsorted(self.starts, places, "right") - 1
        return i[(i >= 0) & (places >= self.starts[i] + skip) & (places < self.ends[i])]

    def only(self, numbers: np.ndarray) -> Words:
        """Some of the words (k,), none beside another."""
        none = np.zeros(len(numbers), bool)
        found = again(self, numbers, none, none)
        whole = found.codes[found.starts] != WALL
        return Words(found.codes, found.at, found.odd, found.starts[whole], found.ends[whole])

    @cached_property
    def classes(self) -> np.ndarray:
        """(w,): hashes by what letters may be read as, however often each is repeated."""
        bare = SKELETON[self.codes]
        kept = np.ones(len(bare), bool)
        kept[1:] = bare[1:] != bare[:-1]
        kept[self.starts] = True
        before = np.concatenate([[0], np.cumsum(kept)])
        return Spans(bare[kept]).of(before[self.starts], before[self.ends])


def words_of(folded: Folded, bits: int = WORD) -> Words:
    """The words as they stand; bits: kinds of characters that belong to words."""
    starts, ends = edges((folded.kinds & bits) != 0)
    return Words(folded.codes, np.arange(len(folded.codes)), (folded.kinds & ODD) != 0, starts, ends)


def readings(folded: Folded, plain: Words, longest: int) -> Iterator[Words]:
    """What differs from the text as it stands, with `longest` - 1 words on either side. plain: words_of(folded)."""
    symbols = np.flatnonzero(folded.kinds & SYMBOL)
    signed = words_of(folded, WORD | SYMBOL)
    for words in (plain, signed, _without_calls(signed)) if len(symbols) else (plain,):
        ones = NONE if words is plain else words.containing(symbols)
        alone = [np.zeros(max(0, len(words) - 1), bool)] if len(ones) else []
        for links in alone + _ways(folded, words):
            if found := _reading(words, links, ones, longest):
                yield found


def _without_calls(words: Words) -> Words:
    """Without exclamation marks at the ends of words, where they mostly are no letters."""
    ends = words.ends.copy()
    for _ in range(MOST):
        called = (words.codes[ends - 1] == ord("!")) & (ends - words.starts > 1)
        ends -= called
        if not called.any():
            break
    return replace(words, ends=ends)


def _ways(folded: Folded, words: Words) -> list[np.ndarray]:
    """(w - 1,) each: which words are put together with the next."""
    if len(words) < 2:
        return []
    gaps = words.starts[1:] - words.ends[:-1]
    single = words.ends - words.starts == 1
    spelt = _runs(single[:-1] & single[1:] & (gaps <= APART))
    tight = (gaps == 1) & ((folded.kinds[words.ends[:-1]] & TIGHT) != 0)
    found = [spelt, _nearest(spelt, gaps)] if spelt.any() else []
    if tight.any():
        point = folded.codes[words.ends[:-1]]
        found += [spelt | tight, spelt | (tight & (point != ord(".")) & (point != ord("/")))]
    return [way for k, way in enumerate(found) if way.any() and not any((way == w).all() for w in found[:k])]


def _runs(links: np.ndarray) -> np.ndarray:
    """Only links with another beside them: three letters at least."""
    more = np.zeros_like(links)
    more[1:] |= links[:-1]
    more[:-1] |= links[1:]
    return links & more


def _nearest(links: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Of letters that stand apart, those that stand nearest: wider gaps are between words."""
    starts, ends = edges(links)
    if not len(starts):
        return links
    least = np.minimum.reduceat(np.append(np.where(links, gaps, APART + 1), APART + 1), np.ravel([starts, ends], "F"))[
        ::2
    ]
    found = links.copy()
    found[links] = gaps[links] == np.repeat(least, ends - starts)
    return found


def _reading(words: Words, links: np.ndarray, ones: np.ndarray, longest: int) -> Words | None:
    """Words put together at links, and `ones` that are read otherwise by themselves."""
    changed, linked = np.zeros(len(words), bool), np.zeros(len(words), bool)
    linked[:-1] = links
    changed[ones] = changed[linked] = changed[1:][linked[:-1]] = True
    if not changed.any():
        return None
    kept = np.flatnonzero(_widened(changed, longest - 1))
    return again(words, kept, linked[kept], changed[kept])


def _widened(changed: np.ndarray, by: int) -> np.ndarray:
    """(w,) with `by` more on either side."""
    if by == 0:
        return changed
    places, edges = np.flatnonzero(changed), np.zeros(len(changed) + 1, np.int64)
    np.add.at(edges, np.maximum(places - by, 0), 1)
    np.add.at(edges, np.minimum(places + by + 1, len(changed)), -1)
    return np.cumsum(edges[:-1]) > 0


def again(words: Words, numbers: np.ndarray, linked: np.ndarray, changed: np.ndarray) -> Words:
    """These words (k,) of a text as a text of their own. linked (k,): put together with the next; changed (k,): noted with what becomes
    of them. Words that were not neighbours have a wall between them."""
    sizes = words.ends[numbers] - words.starts[numbers]
    near = np.append(numbers[1:] == numbers[:-1] + 1, False)
    spaces = np.where(linked, 0, np.where(near, 1, 3))
    begun = np.cumsum(sizes + spaces) - sizes - spaces
    within = np.arange(int((sizes + spaces).sum())) - np.repeat(begun, sizes + spaces)
    over = within - np.repeat(sizes, sizes + spaces)
    source = np.repeat(words.starts[numbers], sizes + spaces) + np.where(over < 0, within, 0)
    codes = np.where(over < 0, words.codes[source], np.where(over == 1, WALL, BREAK)).astype(np.uint32)
    starts, ends = edges((over < 0) | (over == 1))
    which = np.searchsorted(starts, begun, "right") - 1
    parts = np.bincount(which, minlength=len(starts))
    marked, joined = np.zeros(len(starts), bool), parts > 1
    marked[which[changed]] = True
    apart = joined & (parts == ends - starts)
    return Words(codes, words.at[source], words.odd[source] & (over < 0), starts, ends, marked, joined, apart)


def edges(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool -> where runs of True start and end.

    >>> [x.tolist() for x in edges(np.array([True, True, False, True]))]
    [[0, 3], [2, 4]]
    """
    padded = np.concatenate([[False], inside, [False]])
    found = np.flatnonzero(padded[1:] != padded[:-1])
    return found[::2], found[1::2]
