"""A small additive synthesiser: harmonics with envelopes that dull as they die, places in the room, and its echo."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from maquette.scores.score import Score

RATE = 32_000  # Hz
TABLE = 4096  # samples of one period
ROOM = 1.1  # seconds until the echo has died (to a thousandth)
WET = 0.16  # share of the echo
LOUD = 0.7  # of full scale at the loudest
MORSE = ".- .."  # AI
UNIT, REST = 0.1, 0.5  # seconds of a short tone; of the silence before the music
PITCH, BEEP = 880.0, 0.35  # Hz and share of full scale of those tones


class Timbre(NamedTuple):
    """harmonics  amplitudes of the first ones; dull: how much faster each dies, a power
    attack, release  seconds; decay: seconds to half the loudness, 0 stays; vibrato: in cents
    """

    harmonics: tuple[float, ...]
    attack: float
    release: float
    decay: float = 0.0
    dull: float = 0.0
    vibrato: float = 0.0


TIMBRES = {
    "piano": Timbre((1, 0.55, 0.32, 0.24, 0.12, 0.1, 0.05, 0.05, 0.03, 0.02), 0.004, 0.18, 0.75, 1.0),
    "organ": Timbre((1, 0.62, 0.18, 0.34, 0.05, 0.1, 0.02, 0.16, 0, 0, 0, 0.04), 0.03, 0.1),
    "strings": Timbre((1, 0.6, 0.42, 0.3, 0.22, 0.16, 0.12, 0.08, 0.06, 0.05), 0.09, 0.22, 0.0, 0.0, 7.0),
    "choir": Timbre((1, 0.7, 0.3, 0.12, 0.1, 0.16, 0.07, 0.03), 0.11, 0.26, 0.0, 0.0, 9.0),
    "guitar": Timbre((1, 0.8, 0.5, 0.3, 0.25, 0.12, 0.1, 0.06, 0.05, 0.03), 0.002, 0.1, 0.4, 1.4),
}


def sound(piece: Score, tempo: float, timbres: Sequence[str], rate: int = RATE, seconds: float = 0.0) -> np.ndarray:
    """(n, 2) float32 in [-1, 1], the voices from left to right; tempo in beats a minute; `seconds` cuts it short (0: all)."""
    step = 60 / tempo / piece.grid
    longest = seconds or piece.steps * step
    room = np.zeros((round((longest + ROOM) * rate) + 2, 2), np.float32)
    for start, length, pitch, voice in piece.notes.tolist():
        if start * step < longest:
            name = timbres[min(voice, len(timbres) - 1)]
            kept = min(length * step, longest - start * step)
            tone = _tone(name, pitch, kept, rate)
            at = round(start * step * rate)
            tone = tone[: len(room) - at]
            room[at : at + len(tone)] += tone[:, None] * _places(voice, len(timbres))
    return _levelled(_echoed(room, rate))


def announced(samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    """(n, channels) after four tones, short long, short short: AI in Morse, then a rest; what follows is the same to the last bit."""
    made = [_beep(UNIT * (3 if sign == "-" else 1), rate) if sign != " " else _still(2 * UNIT, rate) for sign in MORSE]
    tones = np.concatenate([*made, _still(REST, rate)])
    return np.concatenate([np.repeat(tones[:, None], samples.shape[1], 1), samples])


def _beep(seconds: float, rate: int) -> np.ndarray:
    """(n,) a tone with soft edges, and as much silence as a short one is long."""
    time = np.arange(round(seconds * rate), dtype=np.float32) / rate
    edge = np.clip(np.minimum(time, seconds - time) / 0.005, 0, 1)
    return np.concatenate([(BEEP * edge * np.sin(2 * np.pi * PITCH * time)).astype(np.float32), _still(UNIT, rate)])


def _still(seconds: float, rate: int) -> np.ndarray:
    return np.zeros(round(seconds * rate), np.float32)


def _tone(name: str, pitch: int, seconds: float, rate: int) -> np.ndarray:
    """(n,) one note with its release."""
    kind = TIMBRES[name]
    time = np.arange(round((seconds + kind.release) * rate), dtype=np.float32) / rate
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    swing = kind.vibrato / 1200 * np.log(2) / (2 * np.pi * 5.2) * np.minimum(time / 0.4, 1) if kind.vibrato else 0.0
    turns = hertz * (time - swing * np.cos(2 * np.pi * 5.2 * time)) if kind.vibrato else hertz * time.astype(np.float64)
    places = (turns % 1 * TABLE).astype(np.int32)
    bright, dark = _tables(name, pitch, rate)
    tone = bright[places]
    if kind.dull:
        share = np.exp(-time * (2.5 * kind.dull)).astype(np.float32)
        tone = tone * share + dark[places] * (1 - share)
    return tone * _envelope(kind, time, seconds) * np.float32(0.9 ** ((pitch - 60) / 12))


@lru_cache(maxsize=1024)
def _tables(name: str, pitch: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """One period, bright and dark, of the harmonics that the rate can carry; their squares sum to one half."""
    kind = TIMBRES[name]
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    number = np.arange(1, len(kind.harmonics) + 1)
    heights = np.array(kind.harmonics) * (number * hertz < 0.45 * rate)
    phase = 2 * np.pi * np.arange(TABLE) / TABLE
    waves = np.sin(phase[None] * number[:, None] + 0.7 * number[:, None])
    size = max(float(np.sqrt((heights**2).sum())), 1e-9)
    bright, dark = heights @ waves / size, (heights / number**1.5) @ waves / size
    return bright.astype(np.float32), dark.astype(np.float32)


def _envelope(kind: Timbre, time: np.ndarray, seconds: float) -> np.ndarray:
    rise = np.minimum(time / kind.attack, 1)
    fall = np.clip(1 - (time - seconds) / kind.release, 0, 1) ** 2
    died = np.exp2(-time / kind.decay) if kind.decay else 1.0
    return (rise * fall * died).astype(np.float32)


def _places(voice: int, voices: int) -> np.ndarray:
    """(2,) how loud a voice is left and right, of equal power."""
    turn = np.pi / 4 + (0.3 * (2 * voice / (voices - 1) - 1) if voices > 1 else 0.0)
    return np.array([np.cos(turn), np.sin(turn)], np.float32)


def _echoed(room: np.ndarray, rate: int) -> np.ndarray:
    """With the echo of a room: noise that dies away, its high tones first; the same each time."""
    length = round(ROOM * rate)
    chance = np.random.default_rng(7)
    time = np.arange(length) / length
    echo = chance.standard_normal((length, 2)) * np.exp(-6.9 * time)[:, None]
    echo = np.cumsum(echo * np.exp(-3 * time)[:, None], axis=0) * 0.02 + echo  # a little darker
    echo[: round(0.012 * rate)] = 0
    echo /= np.sqrt((echo**2).sum(0))
    size = 1 << (len(room) + length - 1).bit_length()
    wet = np.empty_like(room)
    for side in (0, 1):
        spectrum = np.fft.rfft(room[:, side], size) * np.fft.rfft(echo[:, side], size)
        wet[:, side] = np.fft.irfft(spectrum, size)[: len(room)]
    return room * (1 - WET) + wet * WET


def _levelled(room: np.ndarray) -> np.ndarray:
    room = room - room.mean(0)
    loudest = float(np.abs(room).max(initial=0))
    return (room * (LOUD / loudest) if loudest > 0 else room).astype(np.float32)


def wav(samples: np.ndarray, rate: int = RATE, bits: int = 16) -> bytes:
    """samples (n, channels) in [-1, 1] -> a WAV file of 8 or 16 bits."""
    scaled = np.clip(samples, -1, 1)
    data = np.rint(scaled * 32767).astype("<i2") if bits == 16 else np.rint(scaled * 127 + 128).astype(np.uint8)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(bits // 8)
        out.setframerate(rate)
        out.writeframes(data.tobytes())
    return stream.getvalue()
