"""What may come next while a score is written: the form of a layout, a length in steps, and the rules of voice leading."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from maquette.scores.harmony import PERFECT, RANGES
from maquette.scores.layout import END, FRAME, HOLD, REST, VOCABULARY

FREE = -1  # a token that nothing is known of yet
PITCHES = torch.arange(128)
PERFECTLY = {  # interval -> (128, 128) bool: which pitches lie so far from a pitch, modulo an octave
    c: (PITCHES[:, None] - PITCHES[None]).abs() % 12 == c for c in PERFECT
}


@dataclass(frozen=True)
class VoicesForm:
    """steps   exactly so many; None: the end may come after any
    rules   of ("ranges", "crossing", "parallels"): never broken, since a rest breaks none and is always allowed
    known   tokens of the whole piece that are given, FREE elsewhere
    """

    voices: int
    holds: bool = True
    steps: int | None = None
    rules: frozenset[str] = frozenset()
    known: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def begin(self, seed: int) -> VoicesGuide:
        return VoicesGuide(self)


class VoicesGuide:
    def __init__(self, form: VoicesForm):
        self.form, self.voices, self.place, self.done = form, form.voices, 0, False
        self.before, self.now = [-1] * form.voices, [-1] * form.voices  # pitches; -1 is silence
        self.known: list[int] = form.known.tolist()
        self.bases = [_base(form, v) for v in range(form.voices)]

    def push(self, token: int) -> None:
        if token == END or self.done:
            self.done = True
            return
        voice = self.place % self.voices
        self.now[voice] = self._pitch(token, voice)
        self.place += 1
        if voice == self.voices - 1:
            self.before, self.now = self.now, [-1] * self.voices

    def _pitch(self, token: int, voice: int) -> int:
        """What sounds when `voice` takes `token`."""
        if token < REST:
            return token
        return self.before[voice] if token == HOLD and self.form.holds else -1

    def allowed(self) -> Tensor:
        """(132,) bool"""
        form, voice = self.form, self.place % self.voices
        if self.done or (form.steps is not None and self.place >= form.steps * self.voices):
            return ONLY_END
        mask, steady = self.bases[voice].clone(), torch.ones(128, dtype=torch.bool)
        others = self._others(voice) if form.rules else []
        if "crossing" in form.rules:
            _uncross(steady, voice, others)
        if "parallels" in form.rules and self.known:
            self._forbid_parallels_to_come(steady, voice, others)
        mask[:128] &= steady
        if "parallels" in form.rules and self.place >= self.voices:
            self._forbid_parallels(mask, voice, others)
        held = self.before[voice]
        mask[HOLD] = form.holds and held >= 0 and bool(steady[held])  # what goes on moves into no parallel
        mask[END] = voice == 0 and self.place > 0 and form.steps is None
        return mask

    def _others(self, voice: int) -> list[tuple[int, int]]:
        """(voice, pitch) of the others that sound in this step, as far as is known."""
        found = [(v, self.now[v]) for v in range(voice)]
        for v in range(voice + 1, self.voices):
            token = self._given(self.place - voice + v)
            found += [] if token == FREE else [(v, self._pitch(token, v))]
        return [(v, pitch) for v, pitch in found if pitch >= 0]

    def _given(self, place: int) -> int:
        return self.known[place] if place < len(self.known) else FREE

    def _forbid_parallels(self, mask: Tensor, voice: int, others: list[tuple[int, int]]) -> None:
        """What would move with another voice from one perfect interval into the same."""
        mine = self.before[voice]
        for v, pitch in others:
            was = self.before[v]
            apart = abs(was - mine) % 12
            if mine >= 0 and was >= 0 and pitch != was and apart in PERFECTLY:
                way = slice(mine + 1, 128) if pitch > was else slice(0, mine)
                mask[way] &= ~PERFECTLY[apart][pitch, way]

    def _forbid_parallels_to_come(self, mask: Tensor, voice: int, others: list[tuple[int, int]]) -> None:
        """The same, into the next step where that is given."""
        mine = self._given(self.place + self.voices)
        if not 0 <= mine < REST:
            return
        for v, pitch in others:
            theirs = self._given(self.place + self.voices - voice + v)
            apart = abs(theirs - mine) % 12
            if 0 <= theirs < REST and theirs != pitch and apart in PERFECTLY:
                way = slice(0, mine) if theirs > pitch else slice(mine + 1, 128)
                mask[way] &= ~PERFECTLY[apart][pitch, way]


def _only(token: int) -> Tensor:
    mask = torch.zeros(VOCABULARY, dtype=torch.bool)
    mask[token] = True
    return mask


ONLY_END = _only(END)


def _base(form: VoicesForm, voice: int) -> Tensor:
    mask = torch.zeros(VOCABULARY, dtype=torch.bool)
    low, high = RANGES[voice] if "ranges" in form.rules else (0, 127)
    mask[low : high + 1] = True
    mask[REST] = True
    return mask


def _uncross(mask: Tensor, voice: int, others: list[tuple[int, int]]) -> None:
    for v, pitch in others:
        if v < voice:
            mask[pitch + 1 : 128] = False
        else:
            mask[:pitch] = False


@dataclass(frozen=True)
class FramesForm:
    """steps  exactly so many frames; None: the end may come after any. notes: at most so many at once"""

    holds: bool = True
    steps: int | None = None
    notes: int = 128

    def begin(self, seed: int) -> FramesGuide:
        return FramesGuide(self)


class FramesGuide:
    def __init__(self, form: FramesForm):
        self.form, self.frames, self.done, self.held = form, 0, False, False
        self.before: list[int] = []  # pitches of the frame before, and of this one so far
        self.now: list[int] = []

    def push(self, token: int) -> None:
        if token == END or self.done:
            self.done = True
        elif token == FRAME:
            self.frames, self.before, self.now, self.held = self.frames + 1, self.now, [], False
        elif token == HOLD:
            self.held = True
        elif token < FRAME:
            self.now.append(token)
            self.held = False

    def allowed(self) -> Tensor:
        """(132,) bool: pitches fall within a frame; held is what sounded before."""
        form, below = self.form, min(self.now, default=128)
        if self.done or (form.steps is not None and self.frames >= form.steps):
            return ONLY_END
        mask = torch.zeros(VOCABULARY, dtype=torch.bool)
        holdable = [p for p in self.before if p < below]
        if self.held and holdable:
            mask[holdable] = True
            return mask
        mask[FRAME] = True
        mask[END] = form.steps is None and self.frames > 0 and not self.now
        if len(self.now) < form.notes:
            mask[:below] = True
            mask[HOLD] = form.holds and bool(holdable)
        return mask
