"""Standard MIDI files: read by symusic, written here; the facts of a piece stand in a text event of the first track."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maquette import files
from maquette.errors import MissingExtra, Unreadable
from maquette.scores.score import Score, score

TICKS = 480  # a quarter, when written
MOST_BYTES = 1 << 24  # of a file that is read
MOST_NOTES = 200_000
MARK = b"maquette "
TIMBRES = ("piano", "organ", "strings", "choir", "guitar")
PROGRAMS = {"piano": 0, "organ": 19, "strings": 48, "choir": 52, "guitar": 24}  # General MIDI, from 0
FAMILIES = (  # of eight programs each
    *("piano", "piano", "organ", "guitar", "guitar", "strings", "strings", "organ"),
    *("organ", "organ", "choir", "choir", "choir", "guitar", "guitar", "piano"),
)


class Heard(NamedTuple):
    """A file: notes with parts for voices, and what else it says."""

    score: Score
    facts: dict[str, Any]


def timbre(program: int) -> str:
    return "choir" if 52 <= program <= 54 else FAMILIES[program // 8 % 16]


def read(path: Path, grid: int, most_beats: float) -> Heard:
    """Tracks are parts; percussion and empty notes are left out. Raises Unreadable for what is damaged, of type 2, or absurdly long."""
    content = path.read_bytes()
    _check_head(content, path.name)
    found = _parsed(content, path.name)
    tracks = [t for t in found.tracks if not t.is_drum and len(t.notes)]
    if sum(len(t.notes) for t in tracks) > MOST_NOTES:
        raise Unreadable(f"{path.name}: it holds more than {MOST_NOTES:,} notes")
    parts = [_on_grid(t.notes.numpy(), found.ticks_per_quarter, grid, k) for k, t in enumerate(tracks)]
    notes = np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)
    check_times(notes, grid, most_beats, path.name)
    return Heard(score(notes, grid), _facts(found, tracks) | _said(content))


def _check_head(content: bytes, name: str) -> None:
    if len(content) > MOST_BYTES:
        raise Unreadable(f"{name}: {len(content) >> 20} MB is no score; at most {MOST_BYTES >> 20} MB are read")
    if len(content) < 14 or content[:4] != b"MThd":
        raise Unreadable(f"{name}: its content is no MIDI file (it does not begin with MThd)")
    kind, _, division = struct.unpack(">HHH", content[8:14])
    if kind > 1:
        raise Unreadable(f"{name}: MIDI of type {kind} holds songs side by side; save each as type 0 or 1")
    if division & 0x8000 or division == 0:
        raise Unreadable(f"{name}: its times are not in ticks a quarter, so it has no beats")


def _parsed(content: bytes, name: str) -> Any:
    try:
        from symusic import Score as Midi
    except ImportError:
        raise MissingExtra("reading MIDI", "music") from None
    try:
        return Midi.from_midi(content)
    except Exception as error:  # the parser raises several kinds
        raise Unreadable(f"{name}: cannot be read ({' '.join(str(error).split())[:160]})") from None


def _on_grid(notes: Mapping[str, np.ndarray], ticks: int, grid: int, part: int) -> np.ndarray:
    """(n, 4) int64; a note that lasts at all lasts at least a step."""
    start, length = notes["time"].astype(np.int64), notes["duration"].astype(np.int64)
    whole = length > 0
    begin = np.floor(start * grid / ticks + 0.5).astype(np.int64)
    end = np.floor((start + length) * grid / ticks + 0.5).astype(np.int64)
    columns = [begin, np.maximum(end - begin, 1), notes["pitch"].astype(np.int64), np.full_like(begin, part)]
    return np.stack(columns, 1)[whole]


def check_times(notes: np.ndarray, grid: int, most_beats: float, name: str) -> None:
    """Raises Unreadable for notes before the beginning, after the longest time, or outside 0..127."""
    if not len(notes):
        return
    if notes[:, 0].min() < 0 or notes[:, 1].min() < 0:
        raise Unreadable(f"{name}: a note begins before the piece does, or lasts less than nothing")
    last = (notes[:, 0] + notes[:, 1]).max() / grid
    if last > most_beats:
        raise Unreadable(
            f"{name}: it lasts {last:,.0f} beats, more than {most_beats:,.0f}; cut it or raise longest (--set longest=...)"
        )
    if notes[:, 2].min() < 0 or notes[:, 2].max() > 127:
        raise Unreadable(f"{name}: pitches are numbers from 0 to 127")


def _facts(found: Any, tracks: list[Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if len(found.tempos) and 5 <= found.tempos[0].qpm <= 500:
        facts["tempo"] = round(float(found.tempos[0].qpm), 1)
    if len(found.time_signatures):
        first = found.time_signatures[0]
        facts |= {"meter": f"{first.numerator}/{first.denominator}"} if first.numerator and first.denominator else {}
    named = [timbre(t.program) for t in tracks]
    if named:
        facts["instrument"] = named[0] if len(set(named)) == 1 else "+".join(named)
    return facts


def _said(content: bytes) -> dict[str, Any]:
    """Of what `write` noted only what a score needs."""
    noted = noted_in(content)
    return {"voices": noted["voices"]} if isinstance(noted.get("voices"), int) else {}


# ---- out


def write(
    piece: Score,
    path: Path,
    facts: Mapping[str, Any],
    tempo: float,
    meter: tuple[int, int],
    timbres: Sequence[str],
    credit: str = "",
) -> Path:
    """One track a voice; timbres: the instrument of each voice; credit: words for the copyright notice."""
    head = [(0, b"\xff\x01" + _sized(MARK + json.dumps(dict(facts), default=str).encode()))]
    head += [(0, b"\xff\x02" + _sized(credit.encode()))] if credit else []
    head.append((0, b"\xff\x51\x03" + struct.pack(">I", min(round(60e6 / tempo), 0xFFFFFF))[1:]))
    head.append((0, b"\xff\x58\x04" + bytes([meter[0], meter[1].bit_length() - 1, 24, 8])))
    tracks = [head] + [_track(piece, voice, name) for voice, name in enumerate(timbres)]
    body = b"".join(_chunk(t, piece) for t in tracks)
    return files.write_bytes(path, b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS) + body)


def _track(piece: Score, voice: int, name: str) -> list[tuple[int, bytes]]:
    channel = (voice if voice % 16 < 9 else voice + 1) % 16  # the tenth is percussion's
    channel += channel == 9
    events = [(0, bytes([0xC0 | channel, PROGRAMS[name]]))]
    ticks = TICKS / piece.grid
    for start, length, pitch, _ in piece.notes[piece.notes[:, 3] == voice].tolist():
        events.append((round(start * ticks), bytes([0x90 | channel, pitch, 80])))
        events.append((round((start + length) * ticks), bytes([0x80 | channel, pitch, 0])))
    return sorted(events, key=lambda e: (e[0], 0xC0 > e[1][0] >= 0x90))  # at one time what ends comes first


def _chunk(events: list[tuple[int, bytes]], piece: Score) -> bytes:
    end = max(round(piece.steps * TICKS / piece.grid), events[-1][0])
    content, now = b"", 0
    parts = []
    for at, event in [*events, (end, b"\xff\x2f\x00")]:
        parts.append(_number(at - now) + event)
        now = at
    content = b"".join(parts)
    return b"MTrk" + struct.pack(">I", len(content)) + content


def _number(value: int) -> bytes:
    """A quantity of variable length: seven bits a byte, the last without its high bit."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.append(value & 0x7F | 0x80)
    return bytes(reversed(found))


def _sized(content: bytes) -> bytes:
    return _number(len(content)) + content


def noted_in(content: bytes) -> dict[str, Any]:
    """The facts in the first event of the first track; {} where there is nothing of ours."""
    if content[:4] != b"MThd" or content[22:25] != b"\x00\xff\x01":
        return {}
    size, at = 0, 25
    while at < len(content) and at < 29:
        size, at = size << 7 | content[at] & 0x7F, at + 1
        if content[at - 1] < 0x80:
            break
    text = content[at : at + size]
    try:
        facts = json.loads(text.removeprefix(MARK)) if text.startswith(MARK) else {}
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
