"""Modified Kneser-Ney (Chen & Goodman 1998, TR-10-98) as a trie of n-grams in sorted arrays: counting, smoothing, looking up.

An n-gram is a node whose parent is the n-gram without its last symbol; node 0 is the empty one, and the nodes of order k + 1 come
after those of order k. One sorted array of parent * (V + 1) + symbol finds them all. Symbol V opens a piece and is never predicted.
Texts are flat arrays of symbols (T,) with `opens` (T,) bool at the symbols whose history is not known: the openings of
pieces, or the token before a window. Those are context and are not predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FEATURES = 4  # of `Tables.score`
LEAST = 1e-2  # of a discount, so that every symbol keeps some probability


class Text(NamedTuple):
    """symbols (T,) int64 in [0, V]; opens (T,) bool, True at the first of each stretch"""

    symbols: np.ndarray
    opens: np.ndarray


@dataclass(frozen=True)
class Tables:
    """A fitted model. Of N nodes beside the root and C nodes that may be contexts, the root first:

    keys (N,) int64  ascending, parent * (V + 1) + symbol; node i + 1 has keys[i]
    chance (N,)      p(symbol | parent)
    left (C,)        share that a context leaves to the symbols never seen after it
    entropy (C,)     nats of the next symbol; peak (C,) the largest p of the next symbol
    """

    keys: np.ndarray
    chance: np.ndarray
    left: np.ndarray
    entropy: np.ndarray
    peak: np.ndarray
    order: int
    vocabulary: int

    @staticmethod
    def empty(vocabulary: int) -> Tables:
        """Nothing counted: every symbol is as likely as any other."""
        none = np.zeros(0, np.float32)
        one = np.ones(1, np.float32)
        return Tables(
            np.zeros(0, np.int64), none, one, one * np.log(np.float32(vocabulary)), one / vocabulary, 0, vocabulary
        )

    def find(self, parent: np.ndarray, symbol: np.ndarray) -> np.ndarray:
        """The node of each symbol after its parent; -1 where there is none or the parent is -1."""
        if not len(self.keys):
            return np.full(parent.shape, -1)
        keys = parent * (self.vocabulary + 1) + symbol
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where((parent >= 0) & (self.keys[place] == keys), place + 1, -1)

    def score(self, text: Text) -> tuple[np.ndarray, np.ndarray]:
        """log p (T,) float64 of each symbol after those before it, 0 at openings; features (T, 4) of what was known before it was read:
        share of the order whose context was seen, log of the share left to the unseen, entropy / log V, log of the largest p."""
        chance = np.full(len(text.symbols), 1 / self.vocabulary)
        context, depth = np.zeros(len(text.symbols), np.int64), np.zeros(len(text.symbols))
        for k, parent, node in self._walk(text):
            seen = parent >= 0
            lower = np.where(seen, self.left[parent], 1.0) * chance
            chance = np.where(node >= 0, self.chance[node - 1], lower)
            context = np.where(seen, parent, context)
            depth = np.where(seen & (self.left[context] < 1), k - 1, depth)
        return np.log(np.where(text.opens, 1.0, chance)), self.features(context, depth)

    def _walk(self, text: Text) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each order k: the nodes of the k - 1 symbols before each place, and of those with the symbol itself."""
        node = np.zeros(len(text.symbols), np.int64)
        for k in range(1, self.order + 1):
            parent = node if k == 1 else before(node, text.opens)
            node = self.find(parent, text.symbols)
            yield k, parent, node

    def features(self, context: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """context (n,) nodes, depth (n,) symbols matched -> (n, 4) float32"""
        found = [
            depth / max(1, self.order - 1),
            np.log(self.left[context]),
            self.entropy[context] / np.log(max(2, self.vocabulary)),
            np.log(self.peak[context]),
        ]
        return np.stack(found, 1).astype(np.float32)

    def dense(self, contexts: np.ndarray) -> np.ndarray:
        """contexts (B, order) nodes of the last 0, 1, 2 ... symbols, -1 where not seen -> p (B, V) float64 of the next symbol."""
        chance = np.full((len(contexts), self.vocabulary + 1), 1 / self.vocabulary)
        for parent in contexts.T[: self.order]:
            rows = np.flatnonzero(parent >= 0)
            nodes = parent[rows]
            chance[rows] *= self.left[nodes][:, None]
            row, place = _ranges(self.keys, nodes, self.vocabulary + 1)
            chance[rows[row], self.keys[place] % (self.vocabulary + 1)] = self.chance[place]
        return chance[:, : self.vocabulary]

    def push(self, contexts: np.ndarray, symbol: np.ndarray) -> np.ndarray:
        """The contexts (B, order) once symbol (B,) is written."""
        after = np.zeros_like(contexts)
        after[:, 1:] = self.find(contexts[:, :-1], symbol[:, None])
        return after


def before(node: np.ndarray, opens: np.ndarray) -> np.ndarray:
    """Each place's predecessor; -1 where none is known."""
    parent = np.empty_like(node)
    parent[1:] = node[:-1]
    parent[opens] = -1
    return parent


def _ranges(keys: np.ndarray, nodes: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """The children of each node: which of `nodes` (M,), and their places in `keys`."""
    first, last = np.searchsorted(keys, nodes * base), np.searchsorted(keys, (nodes + 1) * base)
    counts = last - first
    row = np.repeat(np.arange(len(nodes)), counts)
    return row, np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts) + np.repeat(first, counts)


class Level(NamedTuple):
    """The M n-grams of one order in the order of (parent, symbol); parent and suffix are numbers within the level below.

    suffix (M,)  the n-gram without its first symbol; opens (M,) bool: whether it begins with the opening of a piece
    counts (M,)  how often it was seen
    """

    parent: np.ndarray
    symbol: np.ndarray
    suffix: np.ndarray
    opens: np.ndarray
    counts: np.ndarray


class Smoothed(NamedTuple):
    """chance (M,) of each n-gram of a level; left, entropy, peak of each n-gram of the level below, as a context."""

    chance: np.ndarray
    left: np.ndarray
    entropy: np.ndarray
    peak: np.ndarray


class Trie:
    """Counts of a text, order by order: each `grow` adds one, and `tables` is the model of that order.

    >>> trie = Trie(Text(np.array([2, 0, 1, 0]), np.array([True, False, False, False])), vocabulary=2)
    >>> trie.grow().grow().tables().order
    2
    """

    def __init__(self, text: Text, vocabulary: int):
        self.text, self.vocabulary = text, vocabulary
        self.levels: list[Level] = []
        self.below: list[Smoothed] = []  # of every level but the last, by their continuations
        self.node = np.zeros(len(text.symbols), np.int64)

    def grow(self) -> Trie:
        """Count the n-grams of the next order."""
        if not self.levels:
            parent, places = self.node, np.arange(len(self.node))
        else:
            parent = before(self.node, self.text.opens)
            places = np.flatnonzero(parent >= 0)
        level, number = self._count(parent[places], places)
        if self.levels:
            self.below.append(self._smoothed(len(self.levels) - 1, continuations(self.levels[-1], level.suffix)))
        self.levels.append(level)
        self.node = np.full(len(parent), -1)
        self.node[places] = number
        return self

    def _count(self, parent: np.ndarray, places: np.ndarray) -> tuple[Level, np.ndarray]:
        base = self.vocabulary + 1
        symbols = self.text.symbols[places]
        keys, first, number = np.unique(parent * base + symbols, return_index=True, return_inverse=True)
        parents, symbol = np.divmod(keys, base)
        predicted = ~self.text.opens[places]
        counts = np.bincount(number, weights=predicted, minlength=len(keys)).astype(np.int64)
        opens = self.levels[-1].opens[parents] if self.levels else symbol == self.vocabulary
        return Level(parents, symbol, self.node[places[first]], opens, counts), number

    def _smoothed(self, number: int, counts: np.ndarray) -> Smoothed:
        """Level `number` by these counts, upon the levels below."""
        level = self.levels[number]
        if number == 0:
            chance = np.full(len(level.symbol), 1 / self.vocabulary)
            chance[level.symbol == self.vocabulary] = 0
            return smoothed(level, counts, chance, np.array([np.log(self.vocabulary)]), np.array([1 / self.vocabulary]))
        lower, grams = self.below[number - 1], self.levels[number - 1]
        return smoothed(
            level, counts, lower.chance[level.suffix], lower.entropy[grams.suffix], lower.peak[grams.suffix]
        )

    def tables(self) -> Tables:
        """The model of the order that was grown."""
        all_ = [*self.below, self._smoothed(len(self.levels) - 1, self.levels[-1].counts)]
        starts = np.cumsum([0, 1, *(len(level.symbol) for level in self.levels)])
        base = self.vocabulary + 1
        keys = [(lv.parent + s) * base + lv.symbol for lv, s in zip(self.levels, starts, strict=False)]
        columns = (np.concatenate([getattr(s, name) for s in all_]).astype(np.float32) for name in Smoothed._fields)
        return Tables(np.concatenate(keys), *columns, order=len(self.levels), vocabulary=self.vocabulary)


def continuations(level: Level, suffixes: np.ndarray) -> np.ndarray:
    """In how many ways each n-gram is continued to the left; where a piece opens there is nothing to the left, and counts count."""
    found = np.bincount(suffixes, minlength=len(level.counts))
    return np.where(level.opens, level.counts, np.maximum(found, level.counts > 0))


def smoothed(level: Level, counts: np.ndarray, lower: np.ndarray, entropy: np.ndarray, peak: np.ndarray) -> Smoothed:
    """p(w | c) = (counts - D) / total + left(c) p'(w | c'), where c' is c without its first symbol (Chen & Goodman 1998).

    lower (M,) p'(w | c'); entropy and peak (C,) of p'( . | c') for each context c
    """
    size = len(entropy)

    def per_context(values: np.ndarray) -> np.ndarray:
        return np.bincount(level.parent, weights=values, minlength=size)

    discount = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    total = per_context(counts)
    some = np.maximum(total, 1e-300)
    left = np.where(total > 0, per_context(discount) / some, 1.0)
    chance = (counts - discount) / some[level.parent] + left[level.parent] * lower
    rest = left[level.parent] * lower  # what an unseen symbol has; the seen ones take its place
    change = per_context(_surprise(chance) - _surprise(rest))
    return Smoothed(
        chance, left, change + left * entropy + _surprise(left), np.maximum(left * peak, _largest(level, chance, size))
    )


def discounts(counts: np.ndarray) -> list[float]:
    """D1, D2 and D3+ of an order from how many n-grams occur once, twice, three and four times (Chen & Goodman 1998).

    >>> discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4]))
    [0.5, 1.25, 1.0]
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    y = n[1] / max(1, n[1] + 2 * n[2])
    found = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] and n[i + 1] else i / 2 for i in (1, 2, 3)]
    return [float(np.clip(d, LEAST, i)) for i, d in enumerate(found, 1)]


def _surprise(p: np.ndarray) -> np.ndarray:
    return -p * np.log(np.maximum(p, 1e-300))


def _largest(level: Level, chance: np.ndarray, size: int) -> np.ndarray:
    """(size,) the largest chance below each context; 0 where it has no children."""
    found = np.zeros(size)
    parents, first = np.unique(level.parent, return_index=True)
    found[parents] = np.maximum.reduceat(chance, first)
    return found


def fit(text: Text, vocabulary: int, order: int) -> Tables:
    """The model of n-grams of up to `order` symbols; of no text, the empty one."""
    if not len(text.symbols):
        return Tables.empty(vocabulary)
    trie = Trie(text, vocabulary)
    for _ in range(order):
        trie.grow()
    return trie.tables()


def parted(text: Text) -> tuple[Text, Text]:
    """A tenth is held out: every tenth stretch, or the last tenth of the symbols where there are fewer than ten stretches."""
    stretch = text.opens.cumsum() - 1
    if len(stretch) and stretch[-1] >= 9:
        held = stretch % 10 == 9
        return Text(text.symbols[~held], text.opens[~held]), Text(text.symbols[held], text.opens[held])
    cut = len(stretch) * 9 // 10
    opens = text.opens.copy()
    opens[cut : cut + 1] = True
    return Text(text.symbols[:cut], opens[:cut]), Text(text.symbols[cut:], opens[cut:])


def best_order(train: Text, held: Text, vocabulary: int, most: int) -> int:
    """The order whose model of `train` says `held` in the fewest nats; the search ends where one more is no gain."""
    if held.opens.all():
        return 1
    trie, least = Trie(train, vocabulary), np.inf
    for order in range(1, most + 1):
        found = trie.grow().tables().score(held)[0]
        nats = -found[~held.opens].mean()
        if nats >= least:
            return order - 1
        least = nats
    return most
