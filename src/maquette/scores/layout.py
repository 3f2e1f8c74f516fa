"""Scores as tokens and back, in two layouts: voices (so many tokens a step) and frames (what sounds, from high to low)."""

from __future__ import annotations

import numpy as np

from maquette.scores.score import Score, score

REST = FRAME = 128  # voices: silence; frames: this frame is over
HOLD = 129  # voices: the note goes on; frames: the next pitch is held over from the frame before
END = 130
VOCABULARY = 132  # 12 pitch classes by 11 octaves


def to_voices(piece: Score, voices: int, holds: bool) -> np.ndarray:
    """(steps * voices,) uint8, the highest voice of a step first; the score is parted into voices already."""
    grid = np.full((piece.steps, voices), REST, np.uint8)
    for start, length, pitch, voice in piece.notes.tolist():
        grid[start : start + length, voice] = HOLD if holds else pitch
        grid[start, voice] = pitch
    return grid.reshape(-1)


def from_voices(tokens: np.ndarray, voices: int, holds: bool, grid: int) -> Score:
    """A step that was broken off is filled with rests; a hold after a rest is a rest. Without holds equal pitches are one note."""
    steps = -(-len(tokens) // voices)
    table = np.full(steps * voices, REST, np.int64)
    table[: len(tokens)] = tokens
    table = table.reshape(steps, voices)
    notes = [np.zeros((0, 4), np.int64)]
    for voice in range(voices):
        column = table[:, voice]
        begins = column != HOLD if holds else np.concatenate([[True], column[1:] != column[:-1]])[:steps]
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.concatenate([starts, [steps]]))
        pitches = column[starts]
        found = np.stack([starts, lengths, pitches, np.full_like(starts, voice)], 1)
        notes.append(found[pitches < REST])
    return score(np.concatenate(notes), grid, steps)


def to_frames(piece: Score, holds: bool) -> np.ndarray:
    """(n,) uint8; a pitch that two voices sound is written once, as begun where one of them begins it."""
    frames: list[dict[int, bool]] = [{} for _ in range(piece.steps)]
    for start, length, pitch, _ in piece.notes.tolist():
        for step in range(start, start + length):
            frames[step][pitch] = frames[step].get(pitch, True) and step > start
    tokens: list[int] = []
    for frame in frames:
        for pitch in sorted(frame, reverse=True):
            tokens += [HOLD, pitch] if holds and frame[pitch] else [pitch]
        tokens.append(FRAME)
    return np.array(tokens, np.uint8)


def from_frames(tokens: np.ndarray, holds: bool, grid: int) -> Score:
    """All notes in voice 0. What is held without having sounded begins; without holds equal pitches are one note."""
    notes: list[tuple[int, int, int, int]] = []
    before: dict[int, int] = {}  # what sounds -> where it began
    now: dict[int, int] = {}
    step, held = 0, not holds
    for token in [*tokens.tolist(), FRAME] if len(tokens) and tokens[-1] != FRAME else tokens.tolist():
        if token < FRAME:
            now[token] = before.get(token, step) if held else step
            held = not holds
        elif token == HOLD:
            held = True
        elif token == FRAME:
            notes += [(s, step - s, p, 0) for p, s in before.items() if now.get(p) != s]
            before, now, step, held = now, {}, step + 1, not holds
    notes += [(s, step - s, p, 0) for p, s in before.items()]
    return score(notes, grid, step)
