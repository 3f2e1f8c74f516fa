"""MusicXML, ABC and kern, read by music21 (Cuthbert & Ariza 2010) as data: no file of its cache is touched."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maquette.errors import MissingExtra, Unreadable
from maquette.scores.midi import MOST_NOTES, Heard, check_times, timbre
from maquette.scores.score import score

KINDS = {".musicxml": "musicxml", ".mxl": "musicxml", ".abc": "abc", ".krn": "humdrum"}
MOST_BYTES = 1 << 23  # of text


def read(path: Path, grid: int, most_beats: float) -> Iterator[tuple[str | None, Heard]]:
    """Each score with its number where a file holds many (ABC tune books). Raises Unreadable and MissingExtra."""
    found = _scores(_parsed(_text(path), KINDS[path.suffix.lower()], path.name))
    for number, one in enumerate(found):
        yield (str(number) if len(found) > 1 else None), _heard(one, grid, most_beats, path.name)


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix.lower() == ".mxl":
        content = _unzipped(content, path.name)
    if len(content) > MOST_BYTES:
        raise Unreadable(f"{path.name}: more than {MOST_BYTES >> 20} MB of text")
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _unzipped(content: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            inside = [i for i in archive.infolist() if not i.filename.startswith("META-INF")]
            scores = [i for i in inside if i.filename.lower().endswith((".xml", ".musicxml"))]
            if not scores or scores[0].file_size > MOST_BYTES:
                raise Unreadable(f"{name}: holds no MusicXML of at most {MOST_BYTES >> 20} MB")
            return archive.read(scores[0])
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise Unreadable(f"{name}: no compressed MusicXML ({error})") from None


def _parsed(text: str, kind: str, name: str) -> Any:
    try:
        from music21 import converter
    except ImportError:
        raise MissingExtra("reading MusicXML, ABC and kern", "scores") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return converter.parseData(text, format=kind)
        except Exception as error:  # music21 raises anything on what it does not understand
            raise Unreadable(f"{name}: cannot be read ({' '.join(str(error).split())[:160]})") from None


def _scores(stream: Any) -> list[Any]:
    return list(stream.scores) if hasattr(stream, "scores") and "Opus" in stream.classes else [stream]


def _heard(one: Any, grid: int, most_beats: float, name: str) -> Heard:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parts = list(one.parts) if hasattr(one, "parts") and len(one.parts) else [one]
            rows = [row for k, part in enumerate(parts) for row in _notes(part, k)]
            facts = _facts(one, parts)
        except Exception as error:
            raise Unreadable(f"{name}: cannot be read ({' '.join(str(error).split())[:160]})") from None
    if len(rows) > MOST_NOTES:
        raise Unreadable(f"{name}: it holds more than {MOST_NOTES:,} notes")
    times = np.array(rows, np.float64).reshape(-1, 4)
    check_times(np.concatenate([times[:, :2] * grid, times[:, 2:]], 1), grid, most_beats, name)
    begin = np.floor(times[:, 0] * grid + 0.5)
    end = np.floor((times[:, 0] + times[:, 1]) * grid + 0.5)
    notes = np.stack([begin, np.maximum(end - begin, 1), times[:, 2], times[:, 3]], 1).astype(np.int64)
    return Heard(score(notes, grid), facts)


def _notes(part: Any, number: int) -> Iterator[tuple[float, float, int, int]]:
    """(start, length, pitch, part) in quarters; ties are one note, grace notes and percussion none."""
    for element in part.stripTies().flatten().notes:
        length = float(element.duration.quarterLength)
        if length > 0 and hasattr(element, "pitches") and "Harmony" not in element.classes:
            for pitch in element.pitches:
                yield float(element.offset), length, int(pitch.midi), number


def _facts(one: Any, parts: list[Any]) -> dict[str, Any]:
    flat, facts = one.flatten(), {}
    marks = [m.getQuarterBPM() for m in flat.getElementsByClass("MetronomeMark")]
    if tempo := next((t for t in marks if t and 5 <= t <= 500), None):
        facts["tempo"] = round(float(tempo), 1)
    if meter := next(iter(flat.getElementsByClass("TimeSignature")), None):
        facts["meter"] = meter.ratioString
    programs = [i.midiProgram for i in flat.getElementsByClass("Instrument") if i.midiProgram is not None]
    return facts | ({"instrument": timbre(programs[0])} if programs else {})
