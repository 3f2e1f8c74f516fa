"""Labels and signatures in every format that is written: read back, and what carries them is still what it was."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from maquette.modalities.image import Image
from maquette.modalities.music import Music
from maquette.modalities.text import Text
from maquette.piece import Piece
from maquette.provenance import credentials
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import inspect
from maquette.provenance.labels import label, labels_in, labels_of
from maquette.scores.score import score

FACTS = {"generator": 'maquette <0> & "co"', "run": "r", "run_fingerprint": "ab", "wish": {"seed": 7}}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")
SCORES = (".mid", ".midi", ".musicxml", ".wav", *([".svg"] if find_spec("verovio") else []))
TEXTS = (".txt", ".md", ".json")
FORMATS = (*PICTURES, *SCORES, *TEXTS)
needs_credentials = pytest.mark.skipif(not credentials.installed(), reason="needs the extra credentials")


def piece_for(suffix: str) -> Piece:
    if suffix in PICTURES:
        return Piece(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8), FACTS, Image())
    if suffix in TEXTS:
        return Piece("A line\nand another", FACTS, Text())
    music = Music()
    music.restore({"voices": 1, "context": 64})
    return Piece(score([(k, 1, 60 + k, 0) for k in range(4)], 4), FACTS | {"tempo": 240}, music)


def written(folder: Path, suffix: str) -> tuple[Piece, Path]:
    piece = piece_for(suffix)
    return piece, piece.save(folder / f"a{suffix}")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("regime, found", [("eu", ["eu"]), ("cn", ["cn"]), ("both", ["eu", "cn"]), ("off", [])])
def test_every_format_says_by_its_regime_that_a_machine_made_it(
    tmp_path: Path, suffix: str, regime: str, found: list[str]
) -> None:
    _, path = written(tmp_path, suffix)
    assert label(path, regime, FACTS) == found


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_labelled_file_holds_the_same_piece_and_facts(tmp_path: Path, suffix: str) -> None:
    piece, path = written(tmp_path, suffix)
    facts, before = piece.modality.read_facts(path), content(piece, path)
    label(path, "both", FACTS)
    assert {k: v for k, v in piece.modality.read_facts(path).items() if k not in ("AIGC", "DigitalSourceType")} == facts
    assert content(piece, path) == before


def content(piece: Piece, path: Path) -> object:
    """What a reader of the format sees: pixels, notes, words; of sound and drawings the bytes without labels are looked at elsewhere."""
    if path.suffix in (".wav", ".svg") or (path.suffix == ".musicxml" and not find_spec("music21")):
        return path.suffix
    made = next(iter(piece.modality.read(path))).content
    return made.tobytes() if isinstance(made, np.ndarray) else str(getattr(made, "notes", made))


def test_a_sound_plays_as_before(tmp_path: Path) -> None:
    import wave

    _, path = written(tmp_path, ".wav")
    frames = []
    for regime in ("off", "both"):
        label(path, regime, FACTS)
        with wave.open(str(path)) as sound:
            frames.append(sound.readframes(sound.getnframes()))
    assert frames[0] == frames[1] and len(frames[0]) > 1000
    assert b"AIGC" in path.read_bytes() and path.read_bytes()[4:8] == (path.stat().st_size - 8).to_bytes(4, "little")


def test_other_software_finds_the_packet(tmp_path: Path) -> None:
    for suffix in (".webp", ".tiff", ".png", ".jpg"):
        _, path = written(tmp_path, suffix)
        label(path, "both", FACTS)
        with PIL.Image.open(path) as image:
            image.load()
            told = image.info["xmp"]
        assert b"trainedAlgorithmicMedia" in told and b'"Label": "1"' in told


def test_a_picture_without_facts_gets_its_label_too(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA"):
        path = tmp_path / "plain.webp"
        PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (9, 11, 4), dtype=np.uint8)).convert(mode).save(
            path, lossless=True
        )
        before = np.asarray(PIL.Image.open(path))
        assert label(path, "eu", FACTS) == ["eu"]
        assert np.array_equal(np.asarray(PIL.Image.open(path)), before)


def test_the_field_of_the_standard_is_whole_in_midi_musicxml_and_json(tmp_path: Path) -> None:
    from maquette.provenance.embedding import marks_in

    for suffix in (".mid", ".musicxml", ".json"):
        _, path = written(tmp_path, suffix)
        label(path, "cn", FACTS)
        told = marks_in(path.read_bytes())[1]["AIGC"]
        told = json.loads(told) if isinstance(told, str) else told
        assert told["Label"] == "1" and told["ProduceID"] == "ab-7" and told["ContentProducer"] == FACTS["generator"]


def test_a_text_has_its_label_beside_it_and_loses_it_with_that_file(tmp_path: Path) -> None:
    _, path = written(tmp_path, ".txt")
    label(path, "both", FACTS)
    label(path, "eu", FACTS)  # again, by another regime: the file is not added to without end
    assert labels_of(path) == ["eu"] and path.read_text() == "A line\nand another"
    path.with_name("a.txt.json").unlink()
    assert labels_of(path) == []


@pytest.mark.parametrize(
    "begins", [b"GIF89a", b"RIFF", b"MThd", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"II*\0", b"{", b"<svg"]
)
def test_broken_files_carry_no_label(begins: bytes) -> None:
    chance = np.random.default_rng(2)
    assert all(labels_in(begins + chance.bytes(int(n))) == [] for n in chance.integers(0, 60, 50))


@needs_credentials
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_signed_within_or_beside_and_one_bit_is_found(tmp_path: Path, suffix: str) -> None:
    _, path = written(tmp_path, suffix)
    Marks("both", sign=True).finish([path], FACTS)
    assert credentials.beside(path).is_file() == (not credentials.carries(path))
    (tmp_path / "ledger.jsonl").unlink()  # only the signature speaks
    found = inspect(path)
    assert found.signature == "trusted" and found.labels == ["eu", "cn"] and found.facts["run_fingerprint"] == "ab"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert inspect(path).signature == "invalid" and not inspect(path).untouched


@needs_credentials
def test_a_signature_beside_that_is_cut_changed_or_of_another_file_is_invalid(tmp_path: Path) -> None:
    marks = Marks(sign=True)
    paths = []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"words of {name}")
        paths += marks.finish([tmp_path / name], FACTS)
    place, other = (credentials.beside(p) for p in paths)
    whole = place.read_bytes()
    for forged in (whole[:500], b"", other.read_bytes(), bytes([*whole[:900], whole[900] ^ 1, *whole[901:]])):
        place.write_bytes(forged)
        found = inspect(paths[0])
        assert found.signature == "invalid" and found.ledger == "beside" and not found.untouched
    place.unlink()
    assert inspect(paths[0]).signature == "none" and not inspect(paths[0]).untouched


@needs_credentials
def test_a_file_written_again_without_a_signature_keeps_no_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for sign in (True, False):
        path.write_text(f"signed: {sign}")
        Marks(sign=sign).finish([path], FACTS)
    assert inspect(path).signature == "none" and inspect(path).untouched


@needs_credentials
def test_no_thumbnail_makes_a_signed_picture_large(tmp_path: Path) -> None:
    _, path = written(tmp_path, ".png")
    before = path.stat().st_size
    Marks("both", sign=True).finish([path], FACTS)
    assert path.stat().st_size - before < 8000
