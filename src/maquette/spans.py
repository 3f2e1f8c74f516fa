"""Passages that a sequence shares with training pieces: hashed runs of m symbols, extended (Karp and Rabin 1987), and resemblance by
them (Broder 1997). Distance = 1 - likeness; a negative symbol is a break over which no run goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MEASURES = ("longest span", "covered", "shingles")
KEPT = 3  # training pieces that are remembered of each piece
LADDER = (3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48)  # lengths of runs that are tried
RARE = 0.1  # share of the runs of held-out pieces that training may hold: a longer run says something
SHORT = 4  # a run is at most this part of the usual piece, so that an edited piece still holds some
BRIEF = 0.02  # share of held-out pieces that are shorter than what a fragment is taken to be
CHUNK = 1 << 22  # symbols of training pieces that are indexed at once
HELD = 1 << 24  # symbols of training pieces whose index is kept, about 0.5 GB
BREAK = -1
_CHANCE = np.random.default_rng(1987)
_POWERS = (_CHANCE.integers(1 << 63, size=max(LADDER), dtype=np.uint64) | np.uint64(1)).tolist()
Traces = Mapping[str, np.ndarray]  # of a piece: name -> symbols (n,)
Likest = tuple[np.ndarray, np.ndarray]  # likeness in [0, 1] (k,), of which training sequences (k,)


@dataclass(frozen=True)
class Shared:
    """distances (n, KEPT), ascending, to the training pieces `train` (n, KEPT); -1 where no other shares a run. whole (n, KEPT): the share
    of that training piece which stands in the piece; 0 by resemblance."""

    distances: np.ndarray
    train: np.ndarray
    whole: np.ndarray


def shared(
    pieces: Sequence[Traces], held: Sequence[Traces], training: Iterable[tuple[int, Traces]]
) -> dict[str, Shared]:
    """Space ("letters, covered") -> what each piece shares with training pieces, which come as (number, traces) and pass by once.

    held: those by which the length of a run is chosen, see `run_length`. Of several traces only the covered share is told: each
    space more raises false alarms where few pieces calibrate.
    """
    return _shared(pieces, held, parts(held, training))


def _shared(pieces: Sequence[Traces], held: Sequence[Traces], known: Iterable[Part]) -> dict[str, Shared]:
    search: dict[str, Search] = {}
    for part in known:
        for name, index in part.index.items():
            if name not in search:
                search[name] = Search([p[name] for p in pieces], index.m, _least([p[name] for p in held]))
            search[name].ask(index, part.numbers)
    measures = MEASURES if len(search) == 1 else ("covered",)
    return {f"{name}, {measure}": s.found()[measure] for name, s in search.items() for measure in measures}


def _least(held: Sequence[np.ndarray]) -> int:
    return int(np.quantile([(p >= 0).sum() for p in held], BRIEF)) if held else 0


@dataclass(frozen=True)
class Part:
    """Some training pieces: their numbers (k,), and where their runs stand, by trace."""

    numbers: np.ndarray
    index: dict[str, Index]


def parts(held: Sequence[Traces], training: Iterable[tuple[int, Traces]]) -> Iterator[Part]:
    """All training pieces, in runs of the lengths that the first of them and the held-out pieces call for."""
    lengths: dict[str, int] = {}
    for numbers, chunk in _chunks(training):
        rows = {name: [t[name] for t in chunk] for name in chunk[0]}
        lengths = lengths or {name: run_length(found, [p[name] for p in held]) for name, found in rows.items()}
        yield Part(numbers, {name: Index(found, lengths[name]) for name, found in rows.items()})


class Indexed:
    """Training pieces that are asked about again and again, by `shared`. Their index is kept where it is of at most `most` symbols; else
    each question passes over them anew.

    >>> known = Indexed([{"x": np.arange(9)}], lambda: [(7, {"x": np.arange(20)})])
    >>> int(known.shared([{"x": np.arange(5, 14)}])["x, covered"].train[0, 0])
    7
    """

    def __init__(self, held: Sequence[Traces], training: Callable[[], Iterable[tuple[int, Traces]]], most: int = HELD):
        self.held, self.training, self.most = held, training, most
        self.lengths: dict[str, int] = {}  # of runs, by trace; known once a question was asked
        self.kept: list[Part] | None = None

    def shared(self, pieces: Sequence[Traces]) -> dict[str, Shared]:
        return _shared(pieces, self.held, self._parts() if self.kept is None else self.kept)

    def _parts(self) -> Iterator[Part]:
        kept, size = [], 0
        for part in parts(self.held, self.training()):
            self.lengths = {name: index.m for name, index in part.index.items()}
            size += max(len(index.places) for index in part.index.values())
            kept = [*kept, part] if size <= self.most else []
            yield part
        self.kept = kept if size <= self.most else None


def without(traces: Traces, given: Traces, lengths: Mapping[str, int]) -> Traces:
    """The same with a break where symbols stand in `given` too, in runs of so many.

    >>> without({"x": np.arange(6)}, {"x": np.arange(4)}, {"x": 3})["x"].tolist()
    [-1, -1, -1, -1, 4, 5]
    """
    return {name: _without(symbols, given[name], lengths[name]) for name, symbols in traces.items()}


def _without(symbols: np.ndarray, given: np.ndarray, m: int) -> np.ndarray:
    runs, place = runs_of(symbols, m)
    inside = place[np.isin(runs, runs_of(given, m)[0])]
    left = symbols.copy()
    left[(inside[:, None] + np.arange(m)).reshape(-1)] = BREAK
    return left


def _chunks(training: Iterable[tuple[int, Traces]]) -> Iterator[tuple[np.ndarray, list[Traces]]]:
    numbers, chunk, size = [], [], 0
    for number, traces in training:
        numbers.append(number)
        chunk.append(traces)
        size += max((len(x) for x in traces.values()), default=0)
        if size >= CHUNK:
            yield np.array(numbers), chunk
            numbers, chunk, size = [], [], 0
    if chunk:
        yield np.array(numbers), chunk


def run_length(training: Sequence[np.ndarray], held: Sequence[np.ndarray]) -> int:
    """The shortest run of LADDER of which training holds at most a tenth of the held-out ones; not above a quarter of a usual piece."""
    most = np.median([len(h) for h in held]) / SHORT if len(held) else 0
    lengths = [m for m in LADDER if m <= most] or [LADDER[0]]
    long, probe = joined(training), joined(held)
    for m in lengths:
        runs, _ = runs_of(probe, m)
        if len(runs) and np.isin(runs, runs_of(long, m)[0]).mean() <= RARE:
            return m
    return lengths[-1]


def joined(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """One sequence with a break behind each."""
    return np.concatenate([np.zeros(0, np.int64), *(np.append(s, BREAK) for s in sequences)]).astype(np.int64)


def runs_of(symbols: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """(k,) one number for each run of m symbols without a break, (k,) where it begins.

    >>> hashes, places = runs_of(np.array([5, 6, 5, 6, -1, 5, 6]), 2)
    >>> places.tolist(), bool(hashes[0] == hashes[2] == hashes[3])
    ([0, 1, 2, 5], True)
    """
    count = max(0, len(symbols) - m + 1)
    breaks = np.concatenate([[0], np.cumsum(symbols < 0)])
    places = np.flatnonzero(breaks[m : m + count] == breaks[:count])
    codes, mixed = symbols.astype(np.uint64), np.zeros(count, np.uint64)
    for k in range(m):
        mixed += codes[k : k + count] * np.uint64(_POWERS[k])
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed ^ (mixed >> np.uint64(29)))[places], places


class Search:
    """The training pieces nearest to each of `pieces` by three measures, of runs of m symbols; a piece of fewer than `least` symbols
    counts as so long, for a few words in common do not make a fragment a copy."""

    def __init__(self, pieces: Sequence[np.ndarray], m: int, least: int = 0):
        self.pieces, self.m, self.least = [np.asarray(p, np.int64) for p in pieces], m, least
        shape = (len(self.pieces), KEPT)
        self.best = {s: (np.zeros(shape), np.full(shape, -1), np.ones(shape)) for s in MEASURES}

    def see(self, sequences: Sequence[np.ndarray], numbers: np.ndarray) -> None:
        self.ask(Index(sequences, self.m), numbers)

    def ask(self, index: Index, numbers: np.ndarray) -> None:
        for i, piece in enumerate(self.pieces):
            for measure, (likeness, owner) in index.alike(piece, self.least).items():
                self._keep(measure, i, likeness, np.asarray(numbers)[owner], index.sizes[owner])

    def _keep(self, measure: str, i: int, *fresh: np.ndarray) -> None:
        """fresh: likeness, number and size of training pieces."""
        known = self.best[measure]
        both = [np.append(old[i], new) for old, new in zip(known, fresh, strict=True)]
        first = np.argsort(-both[0], kind="stable")[:KEPT]
        for old, new in zip(known, both, strict=True):
            old[i] = new[first]

    def found(self) -> dict[str, Shared]:
        sizes = np.array([max(self.least, (p >= 0).sum()) for p in self.pieces]).reshape(-1, 1)
        return {
            s: Shared(1 - value, known, value * sizes / size if s != "shingles" else np.zeros_like(value))
            for s, (value, known, size) in self.best.items()
        }


class Index:
    """Where each run of m symbols stands in training sequences, ordered by (run, sequence, place)."""

    def __init__(self, sequences: Sequence[np.ndarray], m: int):
        self.m = m
        owners = np.repeat(np.arange(len(sequences)), [len(s) + 1 for s in sequences])
        runs, places = runs_of(joined(sequences), m)
        order = np.argsort(runs, kind="stable")  # places rise already
        runs, self.places = runs[order], places[order]
        owner = owners[self.places]
        fresh = np.append(True, (runs[1:] != runs[:-1]) | (owner[1:] != owner[:-1]))[: len(runs)]
        self.first = np.append(np.flatnonzero(fresh), len(runs))
        self.runs, self.owner = runs[fresh], owner[fresh]
        self.sizes = np.array([max(1, int((s >= 0).sum())) for s in sequences])
        self.different = np.bincount(self.owner, minlength=len(sequences))  # runs of each sequence

    def alike(self, piece: np.ndarray, least: int = 0) -> dict[str, Likest]:
        """Measure -> likeness to the sequences that share a run; of the longest span only to the likest. {} where none does."""
        runs, place = runs_of(piece, self.m)
        low, high = (np.searchsorted(self.runs, runs, side=side) for side in ("left", "right"))
        which, offset = _spread(high - low)
        if not len(which):
            return {}
        entry, q = low[which] + offset, place[which]
        order = np.argsort(self.owner[entry], kind="stable")
        hits, size = _Hits(self, entry[order], q[order]), max(least, int((piece >= 0).sum()))
        span, who = hits.longest()
        found = {"longest span": (span / size, who), "covered": (hits.covered() / size, hits.who)}
        return {**found, "shingles": (self._resemblance(runs, place, hits, least), hits.who)}

    def _resemblance(self, runs: np.ndarray, place: np.ndarray, hits: _Hits, least: int) -> np.ndarray:
        """Runs in both, of all runs in either, each counted once."""
        _, once = np.unique(runs, return_index=True)
        new = np.zeros(place[-1] + 1, np.int64)
        new[place[once]] = 1
        both = np.add.reduceat(new[hits.q], hits.begin)
        return both / (np.maximum(len(once) + self.different[hits.who] - both, least - self.m + 1))


class _Hits:
    """Runs of one piece found in training, ordered by sequence and place in the piece."""

    def __init__(self, index: Index, entry: np.ndarray, q: np.ndarray):
        self.index, self.entry, self.q = index, entry, q
        owner = index.owner[entry]
        self.begin = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
        self.who = owner[self.begin]

    def covered(self) -> np.ndarray:
        """Symbols of the piece that stand in some shared run, for each sequence."""
        reach = np.full(len(self.q), self.index.m)
        reach[:-1] = np.minimum(np.diff(self.q), self.index.m)
        reach[np.append(self.begin[1:], len(self.q)) - 1] = self.index.m
        return np.add.reduceat(reach, self.begin)

    def longest(self) -> Likest:
        """The longest verbatim spans. Runs one after the other in the piece bound them from above, so few sequences need a closer look."""
        most = self._bound()
        found: list[tuple[int, int]] = []
        for k in np.argsort(-most, kind="stable"):
            if len(found) >= KEPT and most[k] <= found[-1][0]:
                break
            found = sorted([*found, (self._verbatim(k), -int(self.who[k]))], reverse=True)[:KEPT]
        return np.array([s for s, _ in found]), np.array([-w for _, w in found])

    def _bound(self) -> np.ndarray:
        broken = np.append(True, np.diff(self.q) != 1)
        broken[self.begin] = True
        start = np.maximum.accumulate(np.where(broken, np.arange(len(self.q)), 0))
        return np.maximum.reduceat(np.arange(len(self.q)) - start, self.begin) + self.index.m

    def _verbatim(self, k: int) -> int:
        stop = self.begin[k + 1] if k + 1 < len(self.begin) else len(self.q)
        entry, q = self.entry[self.begin[k] : stop], self.q[self.begin[k] : stop]
        low = self.index.first[entry]
        which, offset = _spread(self.index.first[entry + 1] - low)
        q = q[which]
        shift = self.index.places[low[which] + offset] - q
        order = np.lexsort((q, shift))
        broken = np.append(True, (np.diff(q[order]) != 1) | (np.diff(shift[order]) != 0))
        return int(np.diff(np.append(np.flatnonzero(broken), len(q))).max()) + self.index.m - 1


def _spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of so many: whose it is, and the how manieth there."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
