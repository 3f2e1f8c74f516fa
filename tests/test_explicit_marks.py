"""Marks that people see or hear on scores and in sound: where they stand in each format, and that nothing else changes."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from test_music import fitted

from maquette.modalities.music import Music
from maquette.piece import Piece
from maquette.provenance import credentials, visible
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import inspect
from maquette.scores import synth
from maquette.scores.midi import _number
from maquette.scores.synth import MORSE, RATE, REST, UNIT
from maquette.verbs.generate import sheet

REGIMES = {"eu": "AI-generated", "cn": "AI生成", "both": "AI生成 · AI-generated", "off": "AI-generated"}
FORMATS = [".mid", ".musicxml", ".wav", ".svg", ".png", ".json"]
LEAD = UNIT * (sum({".": 1, "-": 3}[s] + 1 for s in MORSE if s != " ") + 2) + REST  # seconds before the music


@pytest.fixture(scope="module")
def piece() -> Piece:
    music, pieces = fitted()
    return replace(pieces[0], modality=music)


def written(piece: Piece, path: Path, labels: str = "eu", **marks: bool) -> Path:
    return replace(piece, marks=Marks(labels, **{"sign": False, "visible": True, **marks})).save(path)


def needed(suffix: str) -> None:
    if suffix == ".svg":
        pytest.importorskip("verovio", reason="needs the extra scores: pip install 'maquette[scores]'")


def heard(path: Path) -> np.ndarray:
    with wave.open(io.BytesIO(path.read_bytes())) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, sound.getnchannels())


@pytest.mark.parametrize("labels, words", REGIMES.items())
def test_a_score_names_its_maker_where_credits_stand(piece: Piece, labels: str, words: str, tmp_path: Path) -> None:
    found = ElementTree.fromstring(written(piece, tmp_path / "a.musicxml", labels).read_bytes())
    assert found.find("identification/rights").text == words == found.find("credit/credit-words").text
    order = [e.tag for e in found]
    assert order[:3] == ["identification", "credit", "part-list"]
    assert [e.tag for e in found.find("identification")][:2] == ["rights", "encoding"]


@pytest.mark.parametrize("labels, words", REGIMES.items())
def test_an_engraved_score_shows_it(piece: Piece, labels: str, words: str, tmp_path: Path) -> None:
    needed(".svg")
    text = written(piece, tmp_path / "a.svg", labels).read_text()
    assert f">{words}</tspan>" in text.replace("\n", "") and "pgHead" in text


@pytest.mark.parametrize("labels, words", REGIMES.items())
def test_a_midi_file_says_it_in_its_copyright_notice(piece: Piece, labels: str, words: str, tmp_path: Path) -> None:
    content = written(piece, tmp_path / "a.mid", labels).read_bytes()
    told = words.encode()
    assert content.count(b"\0\xff\x02" + _number(len(told)) + told) == 1
    pytest.importorskip("symusic", reason="needs the extra music: pip install 'maquette[music]'")
    again = next(piece.modality.read(tmp_path / "a.mid")).content
    assert np.array_equal(again.notes, piece.content.notes)
    assert Music.read_facts(tmp_path / "a.mid")["visible"] is True


def test_sound_begins_with_short_long_short_short_and_then_is_what_it_was(piece: Piece, tmp_path: Path) -> None:
    plain, marked = (heard(written(piece, tmp_path / f"{v}.wav", visible=v)) for v in (False, True))
    lead = len(marked) - len(plain)
    assert lead == pytest.approx(LEAD * RATE, abs=10)
    assert np.array_equal(marked[lead:], plain)
    loud = np.abs(marked[:lead, 0].astype(float)).reshape(-1, 1)[: lead // 320 * 320].reshape(-1, 320).max(1) > 1000
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    lengths, gaps = (ends - starts) * 320 / RATE, (starts[1:] - ends[:-1]) * 320 / RATE
    assert np.allclose(lengths, [UNIT, 3 * UNIT, UNIT, UNIT], atol=0.03)
    assert np.allclose(gaps, [UNIT, 3 * UNIT, UNIT], atol=0.03)


def test_the_tones_are_at_their_pitch_and_in_every_channel() -> None:
    found = synth.announced(np.zeros((10, 2), np.float32))
    assert np.array_equal(found[:, 0], found[:, 1]) and np.abs(found).max() <= synth.BEEP
    long = found[round(2 * UNIT * RATE) : round(5 * UNIT * RATE), 0]
    spectrum = np.abs(np.fft.rfft(long))
    assert spectrum.argmax() * RATE / len(long) == pytest.approx(synth.PITCH, abs=5)


def test_a_roll_and_a_sheet_of_rolls_show_it(piece: Piece, tmp_path: Path) -> None:
    plain, marked = (
        np.asarray(PIL.Image.open(written(piece, tmp_path / f"{v}.png", visible=v))) for v in (False, True)
    )
    rows, columns = np.nonzero((plain != marked).any(-1))
    assert len(rows) and rows.min() > 0.4 * len(plain) and columns.min() > 0.4 * plain.shape[1]
    told = {**piece.facts, "wish": {"seed": 0}}
    sheets = []
    for name, shows in (("a", False), ("b", True)):
        marks = Marks(sign=False, visible=shows)
        sheets.append(np.asarray(PIL.Image.open(sheet([replace(piece, facts=told)], tmp_path / name, marks))))
    assert not np.array_equal(*sheets)


@pytest.mark.parametrize("suffix", FORMATS)
def test_without_being_asked_nothing_is_marked(piece: Piece, suffix: str, tmp_path: Path) -> None:
    needed(suffix)
    path = piece.modality.write(piece, tmp_path / f"a{suffix}")
    told = {**piece.facts, "visible": False, "labels": "eu"}
    assert b"AI-generated" not in path.read_bytes() and visible.credit(told) == ""


@pytest.mark.parametrize("sign", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_papers_still_hold_with_the_mark(piece: Piece, suffix: str, sign: bool, tmp_path: Path) -> None:
    needed(suffix)
    if sign and not credentials.installed():
        pytest.skip("needs the extra credentials: pip install 'maquette[credentials]'")
    path = written(piece, tmp_path / f"a{suffix}", "both", sign=sign)
    found = inspect(path)
    assert found.untouched and found.ledger == "untouched" and set(found.labels) == {"eu", "cn"}
    assert found.signature == ("trusted" if sign else "none" if credentials.installed() else "unread")
    assert found.facts["visible"] is True
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not inspect(path).untouched
