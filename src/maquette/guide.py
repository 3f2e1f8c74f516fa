"""An automaton as the guide of a model's tokens: which may follow, so that a text of the form always comes out, and in time.

An automaton is pruned of every way that cannot be finished with the tokens at hand. So at each place the tokens that may follow are a mask
looked up by state, and a piece is never led into a dead end; near its greatest length only what can still be finished is allowed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from maquette.automaton import LAST, Machine
from maquette.errors import UsageError

FAR = 1 << 30  # a distance that cannot be gone


@dataclass
class Form:
    """A constraint (see space.Constraint): what is written is always of this form, and ends within `length` tokens.

    texts: the bytes of each token, b"" for those that stand for nothing (the end; what is never written). Raises UsageError where
    these tokens cannot write it. Built by `verse.form`.
    """

    name: str
    machine: Machine
    texts: Sequence[bytes]
    end: int
    length: int
    shortest: int = field(init=False)

    def __post_init__(self) -> None:
        self._masks: dict[tuple[int, bytes, int], Tensor] = {}
        self._partial: dict[bytes, list[int]] = {}
        self._closed = torch.zeros(len(self.texts), dtype=torch.bool)
        self._closed[self.end] = True
        characters = [t.decode("utf-8", "ignore") for t in self.texts]
        self.by_character = all(len(c) == 1 or not t for c, t in zip(characters, self.texts, strict=True))
        weights = self._weights(characters)
        self._left = _distances(self.machine, weights)
        reachable = self._left[self._left < FAR]
        if self._left[0] >= FAR:
            raise UsageError(
                f"{self.name} cannot be written with these {len(self.texts):,} tokens; {self._missing(weights)}"
            )
        self._farthest = int(reachable.max()) + max(map(len, self.texts), default=1) + 1
        self.shortest = int(self._left[0])
        self._check(self.length)

    def _check(self, length: int) -> None:
        if self.shortest > length:
            raise UsageError(f"{self.name} needs at least {self.shortest} tokens; length {length} came")

    def within(self, length: int) -> Form:
        """The same form with another greatest length; what is known already is shared. Raises UsageError where that is too short."""
        self._check(length)
        other = copy.copy(self)
        other.length = length
        return other

    def left_after(self, text: str) -> int:
        """Tokens that are needed at least to finish a text that begins so; FAR where none of this form does."""
        there = self.after(0, b"", text.encode())
        return FAR if there is None else self._cost(*there)

    def _weights(self, characters: list[str]) -> np.ndarray:
        """(K,) tokens that one character of each kind takes at least, as far as can be promised; FAR: none writes it."""
        known = self.machine
        weights = np.full(known.table.shape[1], FAR, np.int64)
        if self.by_character:
            codes = np.array([ord(c) if t else 0 for c, t in zip(characters, self.texts, strict=True)])
            self._kind = np.where([bool(t) for t in self.texts], known.kind_of(codes), -1)
            weights[self._kind[self._kind >= 0]] = 1
        else:
            single = {t[0] for t in self.texts if len(t) == 1}
            if len(single) < 256:
                raise UsageError(f"{self.name} needs tokens for each byte; {len(single)} of 256 are there")
            np.minimum.at(weights, known.kinds, np.searchsorted([0x80, 0x800, 0x10000], known.edges, side="right") + 1)
        return weights

    def _missing(self, weights: np.ndarray) -> str:
        """In words, what characters are not there."""
        if not self.by_character:
            return "nothing matches it"
        alone = [chr(a) for a, b in zip(self.machine.edges, [*self.machine.edges[1:], LAST], strict=True) if b == a + 1]
        gone = [c for c in alone if weights[self.machine.kind_of(np.array([ord(c)]))[0]] >= FAR and c.isprintable()]
        return (
            f"such characters as {' '.join(gone[:10])} are not among them"
            if gone
            else "its characters are not among them"
        )

    def begin(self, seed: int) -> Guide:
        return Guide(self)

    # where a text stands: (state, bytes of a character that is not complete yet)

    def after(self, state: int, partial: bytes, more: bytes) -> tuple[int, bytes] | None:
        """None where no text of this form goes on so."""
        for byte in more:
            partial += bytes([byte])
            if len(partial) < _bytes_of(partial[0]):
                if self._cost(state, partial) >= FAR:
                    return None
                continue
            try:
                kind = int(self.machine.kind_of(np.array([ord(partial.decode())]))[0])
            except UnicodeDecodeError:
                return None
            state, partial = int(self.machine.table[state, kind]), b""
            if state < 0 or self._left[state] >= FAR:
                return None
        return state, partial

    def _cost(self, state: int, partial: bytes) -> int:
        """Tokens that are needed to finish from here; FAR where it cannot be."""
        if not partial:
            return int(self._left[state])
        next_ = self.machine.table[state, self._kinds_behind(partial)]
        left = self._left[next_[next_ >= 0]]
        return int(left.min()) + _bytes_of(partial[0]) - len(partial) if len(left) else FAR

    def _kinds_behind(self, partial: bytes) -> list[int]:
        """The kinds of characters whose UTF-8 begins with these bytes."""
        if partial not in self._partial:
            found: set[int] = set()
            for low, high in _span(partial):
                first = np.searchsorted(self.machine.edges, low, side="right") - 1
                found |= set(
                    self.machine.kinds[first : np.searchsorted(self.machine.edges, high, side="right")].tolist()
                )
            self._partial[partial] = sorted(found)
        return self._partial[partial]

    def mask(self, state: int, partial: bytes, left: int) -> Tensor:
        """(V,) bool: the tokens that may follow with `left` tokens to go; the end where the form is complete."""
        key = (state, partial, min(left, self._farthest))
        if key not in self._masks:
            self._masks[key] = self._mask(*key)
        return self._masks[key]

    def _mask(self, state: int, partial: bytes, left: int) -> Tensor:
        if self.by_character:
            row = self.machine.table[state]
            good = (row >= 0) & (np.where(row >= 0, self._left[row], FAR) <= left - 1)
            found = torch.from_numpy(np.append(good, False)[self._kind])
        else:
            found = torch.tensor([bool(t) and self._fits(state, partial, t, left) for t in self.texts])
        if self.machine.accepts[state] and not partial:
            found[self.end] = True
        return found if bool(found.any()) else self._closed

    def _fits(self, state: int, partial: bytes, more: bytes, left: int) -> bool:
        there = self.after(state, partial, more)
        return there is not None and self._cost(*there) <= left - 1


class Guide:
    """See space.Guide."""

    def __init__(self, form: Form):
        self.form, self.state, self.partial, self.left = form, 0, b"", form.length

    def allowed(self) -> Tensor | None:
        if self.state < 0:
            return self.form._closed
        return self.form.mask(self.state, self.partial, self.left)

    def push(self, token: int) -> None:
        self.left -= 1
        if self.state < 0:
            return
        text = self.form.texts[token]
        if self.form.by_character and text:
            self.state = int(self.form.machine.table[self.state, self.form._kind[token]])
            return
        there = self.form.after(self.state, self.partial, text) if text else None
        self.state, self.partial = there or (-1, b"")


@dataclass(frozen=True)
class Never:
    """A constraint that forbids some tokens and nothing else."""

    tokens: tuple[int, ...]
    size: int

    def begin(self, seed: int) -> Never:
        return self

    def allowed(self) -> Tensor:
        return _never(self.tokens, self.size)

    def push(self, token: int) -> None:
        pass


@lru_cache(16)
def _never(tokens: tuple[int, ...], size: int) -> Tensor:
    found = torch.ones(size, dtype=torch.bool)
    found[list(tokens)] = False
    return found


def _distances(known: Machine, weights: np.ndarray) -> np.ndarray:
    """(S,) the fewest tokens from each state to a finished text; FAR where none is reached."""
    left = np.where(known.accepts, 0, FAR).astype(np.int64)
    while True:
        ways = np.where(known.table >= 0, left[known.table] + weights, FAR)
        nearer = np.minimum(left, np.minimum(ways.min(1), FAR))
        if np.array_equal(nearer, left):
            return left
        left = nearer


def _bytes_of(lead: int) -> int:
    """Bytes of the UTF-8 character that begins so; 1 for what begins none (it fails to decode)."""
    return 1 if lead < 0xC2 or lead > 0xF4 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _span(partial: bytes) -> list[tuple[int, int]]:
    """The code points whose UTF-8 begins with these bytes, as ranges."""
    size = _bytes_of(partial[0])
    if any(not 0x80 <= b < 0xC0 for b in partial[1:]):
        return []
    code = partial[0] & (0x7F >> size)
    for byte in partial[1:]:
        code = code << 6 | byte & 0x3F
    free = 6 * (size - len(partial))
    low, high = max(code << free, (0, 0, 0x80, 0x800, 0x10000)[size]), min((code + 1 << free) - 1, LAST)
    return [(a, b) for a, b in ((low, min(high, 0xD7FF)), (max(low, 0xE000), high)) if a <= b]
