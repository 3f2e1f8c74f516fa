"""Piano rolls in JSON: a list of frames, each a list of MIDI pitches; lists and objects of such pieces; -1 is silence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maquette import files
from maquette.errors import Unreadable
from maquette.scores.midi import Heard, check_times
from maquette.scores.score import Score, rolls, score

MOST_BYTES = 1 << 27  # of a file that is read
MOST_VOICES = 8  # columns that are taken for voices
FORMAT = "maquette piano roll"
Frames = list[list[int]]


def read(path: Path, grid: int, most_beats: float) -> Iterator[tuple[str | None, Heard]]:
    """Each piece with its name in the file ("train/3"), None where the file is one piece. Raises Unreadable."""
    if path.stat().st_size > MOST_BYTES:
        raise Unreadable(f"{path.name}: more than {MOST_BYTES >> 20} MB; split it into several files")
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path.name}: no JSON ({str(error)[:100]})") from None
    found = False
    for name, part in _parts(data, path.name):
        found = True
        yield name, _heard(part, grid, most_beats, f"{path.name}#{name}" if name else path.name)
    if not found:
        raise Unreadable(
            f"{path.name}: it holds no piano roll, which is a list of frames, each a list of MIDI pitches: [[60, 64], [62]]"
        )


def _parts(data: Any, name: str) -> Iterator[tuple[str | None, Any]]:
    if (isinstance(data, dict) and data.get("format") == FORMAT) or _is_roll(data):
        yield None, data
    elif isinstance(data, list):
        yield from ((str(k), piece) for k, piece in enumerate(data) if _is_roll(piece))
    elif isinstance(data, dict):
        for split, pieces in data.items():
            if _is_roll(pieces):
                yield str(split), pieces
            elif isinstance(pieces, list):
                yield from ((f"{split}/{k}", piece) for k, piece in enumerate(pieces) if _is_roll(piece))


def _is_roll(data: Any) -> bool:
    """A list of frames, of which at least one holds a pitch."""
    if not isinstance(data, list) or not all(isinstance(frame, list) for frame in data):
        return False
    return any(data) and all(type(p) in (int, float) or p is None for frame in data for p in frame)


def _heard(part: Any, grid: int, most_beats: float, name: str) -> Heard:
    if isinstance(part, dict):
        return _ours(part, grid, most_beats, name)
    frames = [[_pitch(p, name) for p in frame] for frame in part]
    if len(frames) > most_beats * grid:
        raise Unreadable(f"{name}: {len(frames):,} frames are more than {most_beats:,.0f} beats of {grid} steps")
    if _in_columns(frames):
        return Heard(_columns(np.array(frames), grid), {"voices": len(frames[0])})
    return Heard(_sets(frames, grid), {})


def _pitch(value: Any, name: str) -> int:
    """-1 for silence."""
    if value is None or value != value:
        return -1
    if not -1 <= value <= 127 or value != int(value):
        raise Unreadable(f"{name}: pitches are whole numbers from 0 to 127, or -1 for silence; {value!r} came")
    return int(value)


def _in_columns(frames: Frames) -> bool:
    """Whether the k-th number of each frame belongs to the k-th voice: all frames are as long, and not each rises."""
    width = len(frames[0])
    if not 1 <= width <= MOST_VOICES or any(len(f) != width for f in frames):
        return False
    return width == 1 or any(a >= b for f in frames for a, b in pairwise(f))


def _columns(table: np.ndarray, grid: int) -> Score:
    notes = []
    for voice, column in enumerate(table.T):
        starts = np.flatnonzero(np.concatenate([[True], column[1:] != column[:-1]]))
        lengths = np.diff(np.concatenate([starts, [len(column)]]))
        found = np.stack([starts, lengths, column[starts], np.full_like(starts, voice)], 1)
        notes.append(found[found[:, 2] >= 0])
    return score(np.concatenate(notes), grid, len(table))


def _sets(frames: Frames, grid: int) -> Score:
    """A pitch in frames that follow each other is one note."""
    on = np.zeros((128, len(frames) + 2), np.int8)
    for step, frame in enumerate(frames):
        on[[p for p in frame if p >= 0], step + 1] = 1
    pitch, begin = np.nonzero(np.diff(on) == 1)
    _, end = np.nonzero(np.diff(on) == -1)
    return score(np.stack([begin, end - begin, pitch, np.zeros_like(pitch)], 1), grid, len(frames))


def _ours(data: Mapping[str, Any], grid: int, most_beats: float, name: str) -> Heard:
    """What `write` wrote, brought to another grid where need be."""
    try:
        notes = np.array(data["notes"], np.float64).reshape(-1, 4)
        times = grid / float(data["grid"])
        steps, facts = round(float(data["steps"]) * times), dict(data.get("facts") or {})
        if not np.isfinite(notes).all() or not 0 < times <= 1000:
            raise ValueError("numbers out of range")
        notes[:, :2] = np.rint(notes[:, :2] * times)
        notes[:, 1] = np.maximum(notes[:, 1], 1)
        check_times(notes, grid, most_beats, name)
        if not 0 <= steps <= most_beats * grid or notes[:, 3].min(initial=0) < 0 or notes[:, 3].max(initial=0) > 1000:
            raise ValueError("numbers out of range")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"{name}: a {FORMAT} that is damaged ({error})") from None
    return Heard(score(notes.astype(np.int64), grid, steps), {k: facts[k] for k in SCORED if k in facts})


SCORED = ("tempo", "meter", "instrument", "voices")  # of a piece's facts those that belong to the score


def write(piece: Score, path: Path, facts: Mapping[str, Any], voices: int) -> Path:
    """frames for everyone, notes (start, length, pitch, voice) so that nothing is lost."""
    pitch, _ = rolls(piece, voices)
    frames = [[int(p) for p in row if p >= 0] for row in pitch] if voices > 0 else []
    data = {"format": FORMAT, "grid": piece.grid, "steps": piece.steps, "facts": dict(facts)}
    text = json.dumps({**data, "frames": frames, "notes": piece.notes.tolist()}, default=str)
    return files.write_text(path, text + "\n")
