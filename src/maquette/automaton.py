"""Patterns of characters, and the finite automata that know them (Thompson 1968; Rabin and Scott 1959)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from maquette.errors import UsageError

Ranges = tuple[tuple[int, int], ...]  # of code points, both ends within
LAST = 0x10FFFF
MOST_STATES = 20_000


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


def kinds_of(sets: Sequence[Ranges]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    edges, kinds, inside = kinds_of(net.sets)
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
