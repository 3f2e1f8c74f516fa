"""Music: what is read is what was written, whatever bytes come are notes or a sentence, and words become tokens."""

import contextlib
import importlib.util
import json
import struct
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from data import data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.condition import Condition, fit_condition
from maquette.errors import MaquetteError, MissingExtra, Unreadable, UsageError
from maquette.modalities.music import Music
from maquette.piece import Asked, Piece, Works
from maquette.scores import engrave, harmony, layout, midi, synth
from maquette.scores.score import rolls, score
from maquette.space import Batch

QUICK = settings(max_examples=30, deadline=10_000, derandomize=True, suppress_health_check=list(HealthCheck))
PROGRESSION = [(72, 67, 60, 48), (72, 69, 65, 53), (71, 67, 62, 55), (72, 67, 64, 48)]


def chorale(shift=0, bars=2, **facts):
    """Four voices in quarters, the tenor in eighths on the spot."""
    notes = []
    for beat in range(4 * bars):
        for voice, pitch in enumerate(PROGRESSION[beat % 4]):
            parts = [(0, 2), (2, 2)] if voice == 2 else [(0, 4)]
            notes += [(4 * beat + at, length, pitch + shift, voice) for at, length in parts]
    return Piece(score(notes, 4), {"source": f"{shift}.mid", **facts})


def fitted(pieces=None, **choices):
    music = Music(**choices)
    pieces = pieces or [chorale(k % 5, 2 + k % 3, tempo=80 + k) for k in range(8)]
    music.restore(music.fit(pieces))
    return music, [music.clean(p) for p in pieces]


def same(a, b):
    return np.array_equal(a.notes, b.notes) and a.steps == b.steps and a.grid == b.grid


@pytest.mark.parametrize("choices", [{}, {"holds": False}, {"voices": 0}, {"voices": 0, "holds": False}, {"voices": 2}])
def test_tokens_and_back_is_the_same_music(choices):
    music, pieces = fitted(**choices)
    for piece in pieces:
        tokens = music.to_tensor(piece)
        assert tokens.dtype == torch.int64 and 0 <= tokens.min() <= tokens.max() < layout.END
        again = music.to_piece(torch.cat([tokens, torch.tensor([layout.END, 60, 61])]))
        if music.holds:
            assert same(again.content, piece.content)
        assert torch.equal(music.to_tensor(again), tokens)


def test_four_voices_are_chosen_where_they_are_enough_and_frames_where_not():
    music, _ = fitted()
    assert music.voices == 4 and music.space.periods == (4, 16, 64) and music.space.shape == (256,)
    thick = [Piece(score([(0, 4, 60 + 2 * k, 0) for k in range(6)], 4))]
    music, _ = fitted(thick)
    assert music.voices == 0 and music.space.periods == () and music.space.end == layout.END
    assert music.space.digits == (12, 11)


def test_what_is_measured_becomes_facts_and_fields():
    music, pieces = fitted()
    facts = pieces[0].facts
    assert (facts["key"], facts["mode"], facts["shift"]) == ("C", "major", "0")
    assert facts["density"] == 5.0 and 60 < facts["register"] < 64 and facts["mood"] in harmony.MOODS
    assert {"tempo", "register"} <= set(music.fitted["fields"])
    assert [f.name for f in music.fields()] == ["key", "shift"]
    assert music.fields()[1].values == tuple(str(s) for s in range(-5, 7))


# ---- steering


def steered(music, pieces):
    rows = [{k: v for k, v in p.facts.items() if k not in ("source",)} for p in pieces]
    own = fit_condition(rows)
    fields = [f for f in own.fields if f.name not in ("key", "shift")] + music.fields()
    from maquette.condition import Field

    return Condition([*fields, Field("key", "label", tuple(sorted(harmony.TONICS)))])


def test_transposing_moves_pitches_alone_and_says_so_in_the_condition():
    music, pieces = fitted()
    condition = steered(music, pieces)
    known = {f.name for f in condition.fields}
    rows = torch.tensor([condition.encode({k: v for k, v in p.facts.items() if k in known}) for p in pieces])
    length = min(len(music.to_array(p)) for p in pieces)
    x = torch.stack([music.to_tensor(p)[:length] for p in pieces])
    torch.manual_seed(0)
    batch = music.augment(Batch(x, rows, before=torch.full((8,), -1)), condition)
    shifts = (batch.x - x)[:, 0]
    assert shifts.unique().numel() > 2 and shifts.min() >= -5 and shifts.max() <= 6
    assert torch.equal(batch.x, torch.where(x < 128, x + shifts[:, None], x))
    assert torch.equal(batch.before, torch.full((8,), -1))
    where = {f.name: (f, s) for f, s in condition.slices()}
    for row, piece, by in zip(batch.condition, pieces, shifts.tolist(), strict=True):
        field, place = where["shift"]
        assert field.values[int(row[place])] == str(by)
        field, place = where["key"]
        tonic = harmony.TONICS.index(piece.facts["key"])
        assert field.values[int(row[place])] == harmony.TONICS[(tonic + by) % 12]
        field, place = where["register"]
        assert float(row[place]) * field.std + field.mean == pytest.approx(piece.facts["register"] + by, abs=1e-3)


@given(
    pitches=st.lists(st.integers(0, 127), min_size=1, max_size=12), before=st.integers(-1, 130), seed=st.integers(0, 99)
)
@QUICK
def test_no_transposition_leaves_the_keyboard(pitches, before, seed):
    music, _ = fitted()
    torch.manual_seed(seed)
    x = torch.tensor([[*pitches, 128, 129, 130]])
    batch = music.augment(Batch(x, before=torch.tensor([before])))
    kept = batch.x[0, -3:].tolist()
    assert kept == [128, 129, 130] and batch.x.min() >= 0 and batch.x[0, : len(pitches)].max() <= 127
    moved = int(batch.x[0, 0] - x[0, 0])
    assert int(batch.before) == (before + moved if 0 <= before < 128 else before)


def said(music, asked):
    """What the words become; that nothing is moved goes without saying."""
    found = music.conditions(asked)
    assert found.pop("shift") == "0"
    return found


def test_words_become_fields_of_the_corpus():
    music, _ = fitted()
    music.fitted["fields"] = ["key", "mode", "tempo", "density", "register", "mood"]
    assert said(music, {"key": "Gb minor"}) == {"key": "F#", "mode": "minor"}
    calm = said(music, {"mood": "calm"})
    joyful = said(music, {"mood": "joyful", "tempo": 140})
    assert calm["mode"] == joyful["mode"] == "major" and joyful["tempo"] == 140 and calm["tempo"] < 83.5
    music.fitted["fields"] = ["mode"]
    assert said(music, {"mood": "sad", "style": "waltz"}) == {"mode": "minor", "label": "waltz"}


def test_a_voice_and_bars_of_a_source_are_kept(tmp_path):
    music, pieces = fitted()
    path = str(music.write(pieces[0], tmp_path / "a.mid"))
    start = music.start(Asked(source=path, keep="soprano+bass; bars=2"))
    table = start.keep.reshape(-1, 4)
    assert table[:, 0].all() and table[:, 3].all() and table[16:].all() and not table[:16, 1:3].any()
    assert torch.equal(start.source, music.to_tensor(pieces[0])) and start.length == len(start.source)
    for keep, words in (
        ("bars=9", "within the 2 bars"),
        ("violin", "keep takes soprano"),
        ("bars=x", "bars are numbers"),
    ):
        with pytest.raises(UsageError, match=words):
            music.start(Asked(source=path, keep=keep))


def test_a_note_that_is_kept_from_its_middle_is_struck_anew(tmp_path):
    piece = Piece(score([(0, 32, 60, 0), (0, 32, 48, 1)], 4))
    music, pieces = fitted([piece])
    path = str(music.write(pieces[0], tmp_path / "a.json"))
    start = music.start(Asked(source=path, keep="bars=2"))
    assert start.source.reshape(-1, 2)[16].tolist() == [60, 48]


def test_a_prompt_is_continued_by_so_many_bars_and_the_end_comes_only_there(tmp_path):
    music, pieces = fitted()
    path = str(music.write(pieces[0], tmp_path / "a.mid"))
    start = music.start(Asked(prompt=path, bars=2, rules=("all",)))
    assert start.keep.all() and len(start.source) == 128 and start.length == 256
    guide = start.constraint.begin(0)
    for token in start.source.tolist():
        guide.push(token)
    for _ in range(128):
        assert not guide.allowed()[layout.END]
        guide.push(layout.REST)
    assert guide.allowed().nonzero().tolist() == [[layout.END]]


def test_of_frames_the_first_bars_are_kept_and_rules_are_refused(tmp_path):
    music, pieces = fitted(voices=0)
    path = str(music.write(pieces[0], tmp_path / "a.mid"))
    start = music.start(Asked(source=path, keep="bars=1"))
    assert (start.source == layout.FRAME).sum() == 16 and start.keep.all()
    with pytest.raises(UsageError, match="rules of voice leading need"):
        music.start(Asked(rules=("parallels",)))
    with pytest.raises(UsageError, match="first bars can be kept"):
        music.start(Asked(source=path, keep="bars=2"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(form="haiku"), "form means nothing"),
        (Asked(rules=("jazz",)), "rules are ranges"),
        (Asked(keep="soprano"), "give --source"),
        (Asked(bars=0), "make music of 1 to"),
        (Asked(prompt="a", source="b"), "ask for one"),
    ],
)
def test_what_music_does_not_know_is_refused_in_words(asked, words):
    music, _ = fitted()
    with pytest.raises(UsageError, match=words):
        music.start(asked)


def test_a_guide_is_quick():
    music, _ = fitted()
    guide = music.start(Asked(bars=32, rules=("all",))).constraint.begin(0)
    since = time.perf_counter()
    for k in range(1000):
        guide.allowed()
        guide.push(PROGRESSION[k // 4 % 4][k % 4])
    assert time.perf_counter() - since < 0.5  # half a millisecond each on a busy machine; 0.04 ms on a quiet one


# ---- files


@pytest.mark.parametrize("suffix", [".mid", ".json", ".musicxml", ".png", ".wav"])
@pytest.mark.parametrize("choices", [{}, {"voices": 0}])
def test_facts_are_read_back_from_every_format(suffix, choices, tmp_path):
    music, pieces = fitted(**choices)
    facts = {"run": "r", "seed": 3, "tempo": 100.0, "text": 'quotes " <and> é'}
    path = Piece(pieces[0].content, facts, music).save(tmp_path / f"a{suffix}")
    assert Music.read_facts(path) == facts


@pytest.mark.parametrize("suffix", [".mid", ".json"])
def test_what_is_written_is_read_back_note_for_note(suffix, tmp_path):
    music, pieces = fitted()
    piece = Piece(pieces[1].content, {**pieces[1].facts, "tempo": 77.0, "instrument": "organ", "meter": "3/4"}, music)
    again = music.clean(music.one(piece.save(tmp_path / f"a{suffix}")))
    assert same(again.content, piece.content)
    assert [again.facts[k] for k in ("tempo", "instrument", "meter")] == [77.0, "organ", "3/4"]


def test_musicxml_is_well_formed_and_its_bars_are_full():
    from xml.etree import ElementTree

    for grid, meter in ((4, (4, 4)), (4, (3, 4)), (6, (6, 8)), (3, (2, 4))):
        content = score([(0, 7, 61, 0), (9, 3, 66, 0), (12, 30, 70, 0), (0, 42, 40, 1)], grid)
        root = ElementTree.fromstring(engrave.musicxml(content, {}, 90, meter, 2))
        for measure in root.iter("measure"):
            assert sum(int(d.text) for d in measure.iter("duration")) == engrave.bar_steps(meter, grid)
        assert len({len(part.findall("measure")) for part in root.findall("part")}) == 1
        begun, ended = (len(root.findall(f".//tie[@type='{t}']")) for t in ("start", "stop"))
        assert begun == ended > 0


def test_a_wav_is_sound_of_the_right_length_and_the_same_each_time(tmp_path):
    music, pieces = fitted()
    path = Piece(pieces[0].content, {"tempo": 60}, music).save(tmp_path / "a.wav")
    with wave.open(str(path)) as sound:
        assert sound.getnchannels() == 2 and 8 < sound.getnframes() / sound.getframerate() < 10
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert 15_000 < np.abs(samples).max() < 32_700
    assert path.read_bytes() == Piece(pieces[0].content, {"tempo": 60}, music).save(tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("name", synth.TIMBRES)
def test_a_note_sounds_at_its_pitch(name):
    sound = synth.sound(score([(0, 8, 69, 0)], 4), 60, [name])[:, 0]
    spectrum = np.abs(np.fft.rfft(sound[3200:48_000] * np.hanning(44_800)))
    assert np.fft.rfftfreq(44_800, 1 / synth.RATE)[spectrum.argmax()] == pytest.approx(440, abs=2)


def test_silence_is_written_as_silence(tmp_path):
    music, _ = fitted()
    empty = music.to_piece(torch.tensor([layout.END]))
    for suffix in (".mid", ".json", ".musicxml", ".png", ".wav"):
        assert music.write(empty, tmp_path / f"a{suffix}").stat().st_size > 0
    assert "svg" in music.exhibit(empty) and music.units(empty)["note"] == 0
    with pytest.raises(UsageError, match=r"written as .mid"):
        music.write(empty, tmp_path / "a.mp3")


def test_a_sheet_and_an_exhibit_need_nothing_from_outside(tmp_path):
    music, pieces = fitted()
    with PIL.Image.open(music.sheet(pieces[:3], tmp_path / "sheet.txt", captions=["a", "b", "c"])) as image:
        assert image.format == "PNG" and image.width > 300
    html = music.exhibit(pieces[0])
    assert html.count("<rect") == len(pieces[0].content.notes) and "data:audio/wav" in html and len(html) < 300_000
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


# ---- judging


def test_findings_stand_beside_those_of_held_pieces():
    music, pieces = fitted()
    train = [music.to_array(p) for p in pieces[:4]]
    found = {f.name: f for f in music.findings(Works(pieces[4:6], pieces[6:], pieces[:2], lambda: iter(train)))}
    assert set(found) >= {
        "pitch classes",
        "intervals",
        "groove",
        "copied run",
        "fifths in 100 beats",
        "range in 100 beats",
    }
    assert all(f.space == "music" and f.n == 2 and f.reference is not None and f.sentence for f in found.values())
    longest = [len(p.content.notes) for p in pieces[4:6]]
    assert found["copied run"].value <= max(longest) and found["copied run"].value >= 40  # the same music in other keys


def test_units_count_frames_and_notes_that_begin():
    music, pieces = fitted()
    assert music.units(pieces[0]) == {"frame": 32, "step": 32, "note": 40}
    music, pieces = fitted(voices=0)
    assert music.units(pieces[0])["note"] == 40
    music, pieces = fitted(holds=False)
    assert music.units(pieces[0])["note"] == 128


def test_settings_of_one_tune_are_near_twins_in_any_key():
    def tune(seed, shift):
        chance = np.random.default_rng(seed)
        top = 65 + np.cumsum(chance.integers(-3, 4, 40)) % 12
        notes = [(4 * k, 4, int(p) + shift, 0) for k, p in enumerate(top)]
        return notes + [(4 * k, 4, int(45 + chance.integers(0, 9)) + shift, 1) for k in range(40)]

    content = [Piece(score(tune(s, k), 4)) for s, k in ((1, 0), (1, 4), (2, 0), (3, 0), (2, -3))]
    music, pieces = fitted(content)
    groups = music.twins(np.stack([music.sketch(p) for p in pieces])).tolist()
    assert groups == [0, 0, 2, 3, 2]


# ---- reading


def test_rolls_of_every_shape_are_read(tmp_path):
    def read(content):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        return list(Music(grid=1).read(path))

    (one,) = read([[60, 64], [60, 65], [], [60]])
    assert one.content.notes.tolist() == [[0, 1, 64, 0], [0, 2, 60, 0], [1, 1, 65, 0], [3, 1, 60, 0]]
    assert [p.facts["member"] for p in read({"train": [[[60]], [[62]]], "test": [[[64]]]})] == [
        "train/0",
        "train/1",
        "test/0",
    ]
    (voiced,) = read([[60, 62, 55, 40], [60, -1, 55, 40]])
    assert sorted(voiced.content.notes[:, 3].tolist()) == [0, 1, 2, 3]  # the alto above the soprano stays the alto


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '"a"',
        "[[1000]]",
        "[[[60.5]]]",
        '{"a": [1, 2]}',
        "[" * 5000,
        '{"format": "maquette piano roll"}',
    ],
)
def test_json_that_is_no_roll_is_refused_in_words(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(Unreadable):
        list(Music().read(path))


def track(*events):
    body = b"".join(events) + b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def smf(*tracks, kind=1, division=480):
    return b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division) + b"".join(tracks)


NOTE = b"\x00\x90\x3c\x40\x83\x60\x80\x3c\x00"
LATE = b"\xff\xff\xff\x7f\x90\x3c\x40\x83\x60\x80\x3c\x00"
MANY = b"".join(b"\x00\x90" + bytes([p % 128, 64]) for p in range(10_000)) + b"".join(
    (b"\x83\x60" if p == 0 else b"\x00") + b"\x80" + bytes([p % 128, 0]) for p in range(10_000)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no MIDI"),
        (b"RIFF" + bytes(20), "no MIDI"),
        (smf(track(NOTE), kind=2), "type 2"),
        (smf(track(NOTE), division=0), "ticks a quarter"),
        (smf(track(NOTE), division=0xE728), "ticks a quarter"),
        (smf(track(NOTE))[:-9], "cannot be read"),
        (smf(track()), "no notes"),
        (smf(track(b"\x00\x90\x3c\x40\x00\x80\x3c\x00")), "no notes"),  # lasts nothing
        (smf(track(NOTE.replace(b"\x90", b"\x99").replace(b"\x80", b"\x89"))), "no notes"),  # drums
        (smf(track(LATE)), "beats, more than"),
        (smf(track(MANY)), "notes sound at once"),
    ],
)
def test_bad_midi_is_refused_in_words(content, words, tmp_path):
    music, _ = fitted()
    path = tmp_path / "a.mid"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=words):
        [music.clean(p) for p in music.read(path)]


def test_silent_bars_before_the_first_note_are_dropped(tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(smf(track(b"\x9e\x00" + NOTE[1:])))  # 3840 ticks: two bars
    (piece,) = Music().read(path)
    assert piece.content.notes.tolist() == [[0, 4, 60, 0]]


def good_files():
    music, pieces = fitted()
    with tempfile.TemporaryDirectory() as folder:
        return {s: music.write(pieces[0], Path(folder, f"a{s}")).read_bytes() for s in (".mid", ".json")}


GOOD = good_files()
damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), max_size=4)


@pytest.mark.parametrize("suffix", GOOD)
@given(changes=damage, end=st.floats(0.0, 1.0), early=st.booleans())
@QUICK
def test_a_damaged_file_is_read_or_refused_in_words(suffix, changes, end, early):
    content = bytearray(GOOD[suffix])
    for place, new in changes:
        at = int(place * (60 if early else len(content)))
        content[at : at + len(new)] = new
    try_reading(bytes(content[: int(end * len(content)) + 1]) if len(changes) % 2 else bytes(content), suffix)


@pytest.mark.parametrize("suffix", Music.suffixes)
@given(content=st.binary(max_size=200))
@QUICK
def test_any_bytes_at_all_are_refused_in_words(suffix, content):
    try_reading(content, suffix)


def try_reading(content, suffix):
    music, _ = fitted()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(content)
        with contextlib.suppress(Unreadable, MissingExtra):
            for piece in music.read(path):
                cleaned = music.clean(piece)
                assert same(music.to_piece(music.to_tensor(cleaned)).content, cleaned.content)
        with contextlib.suppress(MaquetteError):
            assert isinstance(Music.read_facts(path), dict)


@given(tokens=st.lists(st.integers(0, 131), max_size=60), voices=st.sampled_from([0, 1, 4]), holds=st.booleans())
@QUICK
def test_any_tokens_at_all_are_music(tokens, voices, holds):
    music, _ = fitted(voices=voices, holds=holds)
    piece = music.to_piece(torch.tensor(tokens, dtype=torch.int64))
    assert (piece.content.notes[:, 1] >= 1).all() and (piece.content.notes[:, 2] < 128).all()
    again = music.to_piece(music.to_tensor(piece))
    assert same(again.content, piece.content) or not (holds and voices)


def test_chorales_of_bach_are_kept_voice_by_voice():
    path = data("jsb_chorales", "Jsb16thSeparated.json")
    pieces = list(Music().read(path))[:40]
    music, cleaned = fitted(pieces)
    told = json.loads(path.read_text())["test"]
    assert music.voices == 4 and len(pieces) == 40
    for piece, rows in zip(cleaned, told, strict=False):
        assert np.array_equal(rolls(piece.content, 4)[0], np.array(rows))


def test_quarter_notes_of_bach_are_the_frames_of_the_protocol():
    path = data("jsb_chorales", "jsb-chorales-quarter.json")
    music, cleaned = fitted(list(Music(grid=1).read(path))[:20], grid=1, voices=0, holds=False)
    for piece, rows in zip(cleaned, json.loads(path.read_text())["test"], strict=False):
        assert music.to_array(piece).tolist() == [t for row in rows for t in (*sorted(row, reverse=True), layout.FRAME)]


needs_scores = pytest.mark.skipif(
    importlib.util.find_spec("music21") is None, reason="the extra scores (music21) is not installed"
)


@needs_scores
@pytest.mark.filterwarnings("ignore")
def test_musicxml_of_ours_is_read_back_note_for_note(tmp_path):
    music, pieces = fitted()
    told = Piece(pieces[0].content, {"seed": 123456789}, music)
    again = music.clean(music.one(music.write(told, tmp_path / "a.musicxml")))
    assert same(again.content, pieces[0].content)


@needs_scores
@pytest.mark.filterwarnings("ignore")
def test_a_tune_book_holds_many_pieces(tmp_path):
    path = tmp_path / "a.abc"
    path.write_text("X:1\nM:3/4\nL:1/8\nK:G\nG2 A2 B2|c4 d2|]\n\nX:2\nM:4/4\nL:1/4\nK:D\nD E F G|A4|]\n")
    assert [p.facts["member"] for p in Music().read(path)] == ["0", "1"]


@pytest.mark.parametrize(("name", "text"), [("a.abc", "X:1\nK:C\nC99999999"), ("a.krn", "**kern\n99999999C\n*-\n")])
def test_a_length_that_would_keep_a_reader_busy_for_hours_is_refused(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(Unreadable, match="more than six digits"):
        list(Music().read(tmp_path / name))


@pytest.mark.skipif(importlib.util.find_spec("music21") is not None, reason="the extra scores is installed")
def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "a.abc").write_text("X:1\nK:C\nC")
    with pytest.raises(MissingExtra, match="scores"):
        list(Music().read(tmp_path / "a.abc"))


def test_midi_is_a_song_of_tracks_with_instruments(tmp_path):
    music, pieces = fitted()
    path = Piece(pieces[0].content, {"instrument": "choir"}, music).save(tmp_path / "a.mid")
    assert path.read_bytes().count(bytes([midi.PROGRAMS["choir"]])) >= 4
    assert music.one(path).facts["instrument"] == "choir"


def test_instruments_follow_their_parts_into_the_voices(tmp_path):
    low_first = score([(4 * k, 4, p, v) for k in range(4) for v, p in enumerate((40, 60))], 4)
    _, pieces = fitted([Piece(low_first, {"instrument": "guitar+choir"})])
    assert pieces[0].facts["instrument"] == "choir+guitar" and pieces[0].content.notes[0, 2:].tolist() == [60, 0]


def test_dense_frames_lose_no_note_when_written(tmp_path):
    content = score([(k % 3, 2 + k % 5, 30 + 3 * k, 0) for k in range(24)], 4)
    music, pieces = fitted([Piece(content)])
    assert music.voices == 0
    again = music.clean(music.one(music.write(pieces[0], tmp_path / "a.mid")))
    assert same(again.content, pieces[0].content)
