"""Scores on paper: MusicXML 4.0 written by hand, SVG by verovio, and piano rolls as SVG and as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw

from maquette import files
from maquette.errors import MissingExtra
from maquette.scores.harmony import key_of
from maquette.scores.score import Score

COLOURS = ("#c2410c", "#ca8a04", "#0f766e", "#1d4ed8", "#7e22ce", "#be185d", "#4d7c0f", "#334155")  # a voice each
NAMES = ("Soprano", "Alto", "Tenor", "Bass")
CLEFS = (("G", 2, 0), ("G", 2, 0), ("G", 2, -1), ("F", 4, 0))  # sign, line, octaves: of four voices
TYPES = ((4, "whole"), (2, "half"), (1, "quarter"), (0.5, "eighth"), (0.25, "16th"), (0.125, "32nd"), (0.0625, "64th"))
LETTERS = "FCGDAEB"  # along the line of fifths, F at -1
ACCIDENTALS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}


class Spelt(NamedTuple):
    letter: str
    alter: int
    octave: int


class Sign(NamedTuple):
    """One note or rest (pitch -1) within a bar; times in steps; ties: whether one ends here, one begins."""

    at: int
    steps: int
    pitch: int
    ties: tuple[bool, bool]


def fifths_of(tonic: int, mode: str) -> int:
    """Sharps (or, negative, flats) of a key signature.

    >>> fifths_of(9, "minor"), fifths_of(5, "major")
    (0, -1)
    """
    place = (tonic + (3 if mode == "minor" else 0)) * 7 % 12
    return place - 12 if place > 6 else place


def spelt(pitch: int, fifths: int, mode: str) -> Spelt:
    """The name of a pitch in a key: of all spellings the one nearest to the key on the line of fifths.

    >>> spelt(56, 0, "minor"), spelt(56, -4, "major")
    (Spelt(letter='G', alter=1, octave=3), Spelt(letter='A', alter=-1, octave=3))
    """
    lowest = fifths - (3 if mode == "minor" else 4)
    place = lowest + (pitch * 7 - lowest) % 12
    alter, letter = (place + 1) // 7, LETTERS[(place + 1) % 7]
    return Spelt(letter, alter, (pitch - alter) // 12 - 1)


# ---- MusicXML


def musicxml(
    piece: Score, facts: Mapping[str, Any], tempo: float, meter: tuple[int, int], voices: int, credit: str = ""
) -> str:
    """One part a voice; notes are tied over bars; the facts stand among the miscellaneous fields. credit: words for the first page."""
    tonic, mode, _ = key_of(piece)
    fifths = fifths_of(tonic, mode)
    noted = escape(json.dumps(dict(facts), ensure_ascii=False, default=str))
    rights = f"<rights>{escape(credit)}</rights>" if credit else ""
    listed, parts = [], []
    for voice in range(voices):
        name = NAMES[voice] if voices == len(NAMES) else f"Voice {voice + 1}"
        listed.append(f'<score-part id="P{voice + 1}"><part-name>{name}</part-name></score-part>')
        bars = _bars(piece, voice, (fifths, mode), tempo, meter, _clef(piece, voice, voices))
        parts.append(f'<part id="P{voice + 1}">{"".join(bars)}</part>')
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
        f'<score-partwise version="4.0"><identification>{rights}<encoding><software>Maquette</software></encoding><miscellaneous>'
        f'<miscellaneous-field name="maquette">{noted}</miscellaneous-field></miscellaneous></identification>'
        f"{_credit(credit)}<part-list>{''.join(listed)}</part-list>{''.join(parts)}</score-partwise>\n"
    )


def _credit(words: str) -> str:
    told = f'<credit-words justify="right" valign="top">{escape(words)}</credit-words>'
    return f'<credit page="1"><credit-type>rights</credit-type>{told}</credit>' if words else ""


def _clef(piece: Score, voice: int, voices: int) -> tuple[str, int, int]:
    if voices == len(CLEFS):
        return CLEFS[voice]
    pitches = piece.notes[piece.notes[:, 3] == voice, 2]
    return CLEFS[0] if not len(pitches) or pitches.mean() >= 57 else CLEFS[3]


def _bars(
    piece: Score, voice: int, key: tuple[int, str], tempo: float, meter: tuple[int, int], clef: tuple[str, int, int]
) -> list[str]:
    length = bar_steps(meter, piece.grid)
    count = max(1, -(-piece.steps // length))
    spans = _spans(piece.notes[piece.notes[:, 3] == voice].tolist(), count * length)
    content: list[list[Sign]] = [[] for _ in range(count)]
    for start, end, pitch in spans:
        for at, value, first, last in _tied(start, end, length, piece.grid):
            ties = (not first, not last) if pitch >= 0 else (False, False)
            content[at // length].append(Sign(at % length, value, pitch, ties))
    head = _attributes(piece.grid, key, meter, clef) + (_tempo(tempo) if voice == 0 else "")
    return [
        f'<measure number="{k + 1}">{head if k == 0 else ""}{_bar(signs, piece.grid, key)}</measure>'
        for k, signs in enumerate(content)
    ]


def _bar(signs: list[Sign], grid: int, key: tuple[int, str]) -> str:
    altered: dict[tuple[str, int], int] = {}
    beams = _beams(signs, grid)
    return "".join(_note(s, grid, key, altered, beam) for s, beam in zip(signs, beams, strict=True))


def _beams(signs: list[Sign], grid: int) -> list[str]:
    """What is shorter than a beat hangs together within it."""
    beat = [(s.at // grid if s.pitch >= 0 and s.steps < grid else -1 - k) for k, s in enumerate(signs)]
    found = []
    for k, own in enumerate(beat):
        before, after = k > 0 and beat[k - 1] == own, k + 1 < len(beat) and beat[k + 1] == own
        word = {(False, True): "begin", (True, True): "continue", (True, False): "end"}.get((before, after))
        found.append(f'<beam number="1">{word}</beam>' if word else "")
    return found


def bar_steps(meter: tuple[int, int], grid: int) -> int:
    """Steps of a bar, at least one."""
    return max(1, round(meter[0] * 4 * grid / meter[1]))


def _spans(notes: list[list[int]], steps: int) -> list[tuple[int, int, int]]:
    """(start, end, pitch), -1 for rests, without gaps; what overlaps is cut."""
    found, now = [], 0
    for k, (start, length, pitch, _) in enumerate(notes):
        if start > now:
            found.append((now, start, -1))
        end = min(start + length, notes[k + 1][0] if k + 1 < len(notes) else steps)
        if end > start >= now:
            found.append((start, end, pitch))
            now = end
    return [*found, (now, steps, -1)] if now < steps else found


def _tied(start: int, end: int, bar: int, grid: int) -> list[tuple[int, int, bool, bool]]:
    """(start, steps, whether it is the first, the last) of the single notes that make up a span."""
    found: list[tuple[int, int]] = []
    while start < end:
        room = min(end - start, bar - start % bar)
        value = next((v for v in _values(grid) if v <= room), 1)
        found.append((start, value))
        start += value
    return [(at, v, k == 0, k == len(found) - 1) for k, (at, v) in enumerate(found)]


def _values(grid: int) -> list[int]:
    """The steps that one note sign lasts, plain or dotted, longest first."""
    found = {beats * grid * dots for beats, _ in TYPES for dots in (1, 1.5)}
    return sorted({int(v) for v in found if v == int(v) and v >= 1}, reverse=True)


def _note(sign: Sign, grid: int, key: tuple[int, str], altered: dict[tuple[str, int], int], beam: str) -> str:
    stop, begin = sign.ties
    heard = '<tie type="stop"/>' * stop + '<tie type="start"/>' * begin
    drawn = '<tied type="stop"/>' * stop + '<tied type="start"/>' * begin
    accidental, sounded = "", "<rest/>"
    if sign.pitch >= 0:
        named = spelt(sign.pitch, *key)
        alter = f"<alter>{named.alter}</alter>" if named.alter else ""
        sounded = f"<pitch><step>{named.letter}</step>{alter}<octave>{named.octave}</octave></pitch>"
        accidental = "" if stop else _accidental(named, key[0], altered)
    notations = f"<notations>{drawn}</notations>" if drawn else ""
    shape = _shape(sign.steps, grid, accidental)
    return f"<note>{sounded}<duration>{sign.steps}</duration>{heard}{shape}{beam}{notations}</note>"


def _accidental(named: Spelt, fifths: int, altered: dict[tuple[str, int], int]) -> str:
    """The sign before a note, where neither the key nor an earlier note of the bar says it."""
    place = LETTERS.index(named.letter)
    usual = 1 if place < fifths else -1 if 6 - place < -fifths else 0
    where = (named.letter, named.octave)
    if altered.get(where, usual) == named.alter:
        return ""
    altered[where] = named.alter
    return f"<accidental>{ACCIDENTALS[named.alter]}</accidental>"


def _shape(steps: int, grid: int, sign: str) -> str:
    """type, dots, accidental and, for what is no half of a half, time modification, in the order MusicXML wants."""
    beats = Fraction(steps, grid)
    for value, name in TYPES:
        if beats == Fraction(value):
            return f"<type>{name}</type>{sign}"
        if beats == Fraction(value) * 3 / 2:
            return f"<type>{name}</type><dot/>{sign}"
    triplet = beats * 3 / 2
    name = next((n for v, n in TYPES if Fraction(v) <= triplet), "64th")
    ratio = "<actual-notes>3</actual-notes><normal-notes>2</normal-notes>"
    return f"<type>{name}</type>{sign}<time-modification>{ratio}</time-modification>"


def _attributes(grid: int, key: tuple[int, str], meter: tuple[int, int], clef: tuple[str, int, int]) -> str:
    sign, line, octaves = clef
    change = f"<clef-octave-change>{octaves}</clef-octave-change>" if octaves else ""
    return (
        f"<attributes><divisions>{grid}</divisions><key><fifths>{key[0]}</fifths><mode>{key[1]}</mode></key>"
        f"<time><beats>{meter[0]}</beats><beat-type>{meter[1]}</beat-type></time>"
        f"<clef><sign>{sign}</sign><line>{line}</line>{change}</clef></attributes>"
    )


def _tempo(tempo: float) -> str:
    mark = f"<metronome><beat-unit>quarter</beat-unit><per-minute>{tempo:g}</per-minute></metronome>"
    return f'<direction placement="above"><direction-type>{mark}</direction-type><sound tempo="{tempo:g}"/></direction>'


def engraved(xml: str) -> str:
    """MusicXML -> SVG of its first page, with its credit where it has one. Raises MissingExtra."""
    try:
        import verovio
    except ImportError:
        raise MissingExtra("engraving scores as .svg", "scores") from None
    verovio.enableLog(verovio.LOG_OFF)
    tool = verovio.toolkit()
    tool.setOptions(
        {
            "adjustPageHeight": True,
            "pageHeight": 60000,
            "pageWidth": 2100,
            "scale": 40,
            "footer": "none",
            "header": "auto" if "<credit " in xml else "none",
        }
    )
    tool.loadData(xml)
    return tool.renderToSVG(1)


# ---- piano rolls


def roll_svg(piece: Score, voices: int, bar: int, width: int = 720) -> str:
    """An inline picture: time from left to right, bars as lines, a colour a voice."""
    low, high = _reach(piece)
    across, up = width / max(piece.steps, 1), 4.0
    height = (high - low + 1) * up
    lines = "".join(
        f'<path d="M{x * across:.1f} 0V{height:.0f}" stroke="#8884" stroke-width="1"/>'
        for x in range(0, piece.steps, bar)
    )
    notes = "".join(
        f'<rect x="{s * across:.1f}" y="{(high - p) * up:.0f}" width="{max(n * across - 0.6, 0.8):.1f}" height="{up - 0.4:.1f}" '
        f'rx="1" fill="{COLOURS[v % len(COLOURS)]}"/>'
        for s, n, p, v in piece.notes.tolist()
    )
    label = (
        f"piano roll of {len(piece.notes)} notes in {voices} voices"
        if voices
        else f"piano roll of {len(piece.notes)} notes"
    )
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{label}" style="max-width:none" '
        f'xmlns="http://www.w3.org/2000/svg">{lines}{notes}</svg>'
    )


def _reach(piece: Score) -> tuple[int, int]:
    pitches = piece.notes[:, 2]
    return (int(pitches.min()) - 2, int(pitches.max()) + 2) if len(pitches) else (58, 74)


def roll_picture(piece: Score, bar: int, across: int = 0, up: int = 6) -> np.ndarray:
    """(H, W, 3) uint8: the same as a picture; white keys light, black keys darker, octaves marked at C."""
    low, high = _reach(piece)
    across = across or max(1, min(8, 1400 // max(piece.steps, 1)))
    width, height = max(piece.steps, 1) * across + 1, (high - low + 1) * up
    image = PIL.Image.new("RGB", (width, height), "#ffffff")
    pen = PIL.ImageDraw.Draw(image)
    for pitch in range(low, high + 1):
        top = (high - pitch) * up
        if pitch % 12 in (1, 3, 6, 8, 10):
            pen.rectangle((0, top, width, top + up - 1), fill="#f1f1ee")
        if pitch % 12 == 0:
            pen.line((0, top + up - 1, width, top + up - 1), fill="#bdbdb8")
    for step in range(0, piece.steps + 1, bar):
        pen.line((step * across, 0, step * across, height), fill="#d4d4cf")
    for start, length, pitch, voice in piece.notes.tolist():
        top, right = (high - pitch) * up, (start + length) * across - (across > 2)
        pen.rectangle(
            (start * across, top, max(right, start * across), top + up - 2), fill=COLOURS[voice % len(COLOURS)]
        )
    return np.asarray(image)


def write_svg(xml: str, path: Path) -> Path:
    return files.write_text(path, engraved(xml))


def voices_of(piece: Score) -> int:
    return int(piece.notes[:, 3].max(initial=0)) + 1


def pages(pieces: Sequence[Score], bar: int) -> list[np.ndarray]:
    """Rolls for a sheet: each at most 64 beats, so that notes stay readable."""
    return [roll_picture(_first(p, 64 * p.grid), bar, across=max(1, 24 // p.grid // 2)) for p in pieces]


def _first(piece: Score, steps: int) -> Score:
    if piece.steps <= steps:
        return piece
    notes = piece.notes[piece.notes[:, 0] < steps].copy()
    notes[:, 1] = np.minimum(notes[:, 1], steps - notes[:, 0])
    return Score(notes, steps, piece.grid)
