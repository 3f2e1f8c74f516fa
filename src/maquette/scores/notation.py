"""MusicXML, ABC and kern, read by music21 (Cuthbert & Ariza 2010) as data: no file of its cache is touched."""

from __future__ import annotations

import io
import re
import signal
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

from maquette.errors import MissingExtra, Unreadable
from maquette.scores.midi import MOST_NOTES, Heard, check_times, timbre
from maquette.scores.score import score

KINDS = {".musicxml": "musicxml", ".mxl": "musicxml", ".abc": "abc", ".krn": "humdrum"}
MOST_BYTES = 1 << 23  # of text
MOST_SECONDS = 120.0  # music21 may be slow, and on damaged bars it may never end
HUGE = {  # no note is that long; a few such numbers would keep music21 busy for hours
    "musicxml": re.compile(r">\s*-?([0-9]{7,})[0-9.]*\s*<"),
    "abc": re.compile(r"^(?![A-Za-z]:|%).*?([0-9]{7,})|^[ML]:.*?([0-9]{7,})", re.MULTILINE),
    "humdrum": re.compile(r"^(?!!).*?([0-9]{7,})", re.MULTILINE),
}


def read(path: Path, grid: int, most_beats: float) -> Iterator[tuple[str | None, Heard]]:
    """Each score with its number where a file holds many (ABC tune books). Raises Unreadable and MissingExtra."""
    with _in_time(path.name), _quiet():
        scores = _scores(_parsed(_text(path), KINDS[path.suffix.lower()], path.name))
        found = [_heard(one, grid, most_beats, path.name) for one in scores]
    for number, heard in enumerate(found):
        yield (str(number) if len(found) > 1 else None), heard


@contextmanager
def _in_time(name: str) -> Iterator[None]:
    """Raises Unreadable after MOST_SECONDS, where this thread and system can be interrupted at all."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(*_: Any) -> None:
        raise Unreadable(
            f"{name}: music21 did not finish it within {MOST_SECONDS:g} seconds; is it damaged, or very long?"
        )

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS, 1.0)  # again each second: what music21 catches comes anew
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """music21 says on the screen what it guesses; this is no place for that."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix.lower() == ".mxl":
        content = _unzipped(content, path.name)
    if len(content) > MOST_BYTES:
        raise Unreadable(f"{path.name}: more than {MOST_BYTES >> 20} MB of text")
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if HUGE[KINDS[path.suffix.lower()]].search(text):
        raise Unreadable(f"{path.name}: it holds a number of more than six digits in the place of a length")
    return text


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
    try:
        return converter.parseData(text, format=kind)
    except Unreadable:
        raise
    except Exception as error:  # music21 raises anything on what it does not understand
        raise Unreadable(f"{name}: cannot be read ({' '.join(str(error).split())[:160]})") from None


def _scores(stream: Any) -> list[Any]:
    return list(stream.scores) if hasattr(stream, "scores") and "Opus" in stream.classes else [stream]


def _heard(one: Any, grid: int, most_beats: float, name: str) -> Heard:
    try:
        parts = list(one.parts) if hasattr(one, "parts") and len(one.parts) else [one]
        rows = [row for k, part in enumerate(parts) for row in _notes(part, k)]
        facts = _facts(one)
    except Unreadable:
        raise
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


def _facts(one: Any) -> dict[str, Any]:
    flat, facts = one.flatten(), {}
    marks = [m.getQuarterBPM() for m in flat.getElementsByClass("MetronomeMark")]
    if tempo := next((t for t in marks if t and 5 <= t <= 500), None):
        facts["tempo"] = round(float(tempo), 1)
    if meter := next(iter(flat.getElementsByClass("TimeSignature")), None):
        facts["meter"] = meter.ratioString
    programs = [i.midiProgram for i in flat.getElementsByClass("Instrument") if i.midiProgram is not None]
    return facts | ({"instrument": timbre(programs[0])} if programs else {})
