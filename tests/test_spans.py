"""Passages shared with training pieces: spans, covered shares, resemblance; and what text and music are traced by."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from data import data

from maquette import catalog
from maquette.corpus import Corpus
from maquette.modalities.music import Music
from maquette.modalities.text import Text
from maquette.piece import Piece, Works
from maquette.scores.score import Score, score
from maquette.spans import Index, Indexed, Search, run_length, runs_of, shared
from maquette.verbs.passages import copies_of, finding, held_out, section, spread, taken, to_json
from maquette.verbs.prepare import prepare


def letters(text: str) -> np.ndarray:
    return Text().traces(Piece(text))["letters"]


def longest(a: list[int], b: list[int]) -> int:
    """By dynamic programming."""
    table, best = [0] * (len(b) + 1), 0
    for x in a:
        table = [0, *(table[j] + 1 if x == y and x >= 0 else 0 for j, y in enumerate(b))]
        best = max(best, *table)
    return best


def covered(a: list[int], b: list[int], m: int) -> int:
    there = {tuple(b[j : j + m]) for j in range(len(b) - m + 1)}
    inside = [False] * len(a)
    for i in range(len(a) - m + 1):
        if min(a[i : i + m]) >= 0 and tuple(a[i : i + m]) in there:
            inside[i : i + m] = [True] * m
    return sum(inside)


@pytest.mark.parametrize("symbols", [2, 4, 9])
def test_spans_and_shares_are_those_of_plain_search(symbols: int):
    chance, m = np.random.default_rng(symbols), 3
    pieces = [chance.integers(-1, symbols, n) for n in (5, 17, 40, 40)]
    train = [chance.integers(-1, symbols, n) for n in (2, 9, 30, 60, 44)]
    search = Search(pieces, m)
    search.see(train[:2], np.arange(2))
    search.see(train[2:], np.arange(2, 5))
    found = search.found()
    for i, piece in enumerate(pieces):
        size = max(1, (piece >= 0).sum())
        spans = sorted((s if s >= m else 0 for s in (longest(list(piece), list(t)) for t in train)), reverse=True)[:3]
        shares = sorted((covered(list(piece), list(t), m) for t in train), reverse=True)[:3]
        assert np.allclose(1 - found["longest span"].distances[i], np.array(spans) / size)
        assert np.allclose(1 - found["covered"].distances[i], np.array(shares) / size)


def test_how_much_of_a_training_piece_stands_in_a_longer_one_is_told():
    train, piece = np.arange(8), np.concatenate([np.arange(100, 130), np.arange(6), np.arange(200, 204)])
    search = Search([piece, train, np.arange(50, 59)], 3)
    search.see([train, np.array([1, 2, -1])], np.array([4, 5]))
    found = search.found()
    for measure in ("covered", "longest span"):
        assert np.allclose(found[measure].whole[:, 0], [6 / 8, 1, 0]) and found[measure].train[0, 0] == 4
    assert not found["shingles"].whole.any()


def test_shingles_are_the_exact_resemblance():
    piece, train = np.array([1, 2, 3, 4, 5, 1, 2, 3]), np.array([1, 2, 3, 4, 9])
    a, b = ({tuple(s[i : i + 3]) for i in range(len(s) - 2)} for s in (piece.tolist(), train.tolist()))
    assert Index([train], 3).alike(piece)["shingles"][0].tolist() == [len(a & b) / len(a | b)]


def test_no_run_goes_over_a_break_or_from_piece_to_piece():
    assert runs_of(np.array([1, 2, -1, 3, 4]), 3)[0].size == 0
    assert Index([np.array([1, 2]), np.array([3, 4])], 3).alike(np.array([1, 2, 3, 4])) == {}
    assert Index([], 3).alike(np.array([1, 2, 3, 4])) == {}


def test_a_piece_shorter_than_a_run_is_like_nothing():
    search = Search([np.array([1, 2]), np.zeros(0, np.int64)], 3)
    search.see([np.array([1, 2, 3])], np.array([7]))
    assert (search.found()["covered"].distances == 1).all() and (search.found()["covered"].train == -1).all()


def test_an_edited_copy_names_its_training_piece_by_its_number():
    chance = np.random.default_rng(0)
    train = [chance.integers(0, 20, 50) for _ in range(30)]
    edited = train[11].copy()
    edited[25] = 99
    held = [{"x": chance.integers(0, 20, 50)} for _ in range(20)]
    found = shared([{"x": edited}], held, ((100 + k, {"x": t}) for k, t in enumerate(train)))
    assert {s.train[0, 0] for s in found.values()} == {111}
    assert found["x, covered"].distances[0, 0] == pytest.approx(1 / 50)
    assert found["x, longest span"].distances[0, 0] == pytest.approx(0.5)


def test_a_few_words_in_common_do_not_make_a_fragment_a_copy():
    chance = np.random.default_rng(3)
    train, held = chance.integers(0, 50, (20, 40)), [{"x": row} for row in chance.integers(0, 50, (20, 40))]
    found = shared([{"x": train[4, :5]}, {"x": train[4]}], held, ((k, {"x": t}) for k, t in enumerate(train)))
    assert all(s.distances[0, 0] >= 1 - 5 / 40 and s.distances[1, 0] == 0 for s in found.values())


def test_an_index_that_is_too_large_to_keep_is_made_anew_and_says_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maquette.spans.CHUNK", 100)
    chance, passes = np.random.default_rng(0), []
    train, held = ([{"x": row} for row in chance.integers(0, 9, (20, 40))] for _ in range(2))
    asked = [held[3], train[5], {"x": np.zeros(0, np.int64)}]

    def training():
        passes.append(1)
        return enumerate(train)

    once = shared(asked, held, enumerate(train))
    for most, times in ((10_000, 1), (500, 3)):
        passes.clear()
        known = Indexed(held, training, most)
        for found in [known.shared(asked) for _ in range(3)]:
            assert all((found[s].distances == once[s].distances).all() for s in once)
            assert all((found[s].train == once[s].train).all() for s in once)
        assert len(passes) == times


def test_of_several_traces_only_the_covered_share_is_told():
    rows = [{"a": np.arange(9), "b": np.arange(9)}]
    assert set(shared(rows, rows, enumerate(rows))) == {"a, covered", "b, covered"}
    assert set(shared([{"a": np.arange(9)}], [], [(0, {"a": np.arange(9)})])) > {"a, covered"}


def test_a_run_is_longer_where_symbols_are_few():
    chance = np.random.default_rng(1)
    few, many = ((chance.integers(0, n, (20, 400)), chance.integers(0, n, (20, 200))) for n in (2, 1000))
    assert run_length(list(many[0]), list(many[1])) == 3 < run_length(list(few[0]), list(few[1]))


def test_texts_are_folded():
    assert (letters("The Moon, \u3000the\nRIVER!") == letters("the moon the river")).all()
    assert (letters("床前明月光，疑是地上霜。") == letters("床前明月光\n疑是地上霜")).all()


def test_a_melody_is_the_same_in_any_key():
    music, notes = Music(grid=1, voices=2), [(0, 2, 60, 0), (2, 1, 62, 0), (3, 1, 64, 0), (0, 1, 48, 1), (1, 3, 50, 1)]
    music.restore({"voices": 2, "context": 32})
    here, there = (music.traces(Piece(score([(a, b, p + k, v) for a, b, p, v in notes], 1))) for k in (0, 5))
    assert (here["melody"] == there["melody"]).all() and (here["melody"] < 0).sum() == 2
    assert (here["chords"] == there["chords"]).all() and len(here["chords"]) == 4
    other = music.traces(Piece(score([*notes[:4], (1, 3, 51, 1)], 1)))["chords"]
    assert np.flatnonzero(other != here["chords"]).tolist() == [1, 2], (
        "one note is heard where it begins and as what the next stands on"
    )
    assert music.traces(Piece(Score(np.zeros((0, 4), np.int32), 4, 1)))["melody"].size == 0


def test_two_hundred_pieces_against_a_million_symbols_take_seconds():
    chance = np.random.default_rng(2)
    weights = 1 / np.arange(1, 27)
    train = chance.choice(26, 1_000_000, p=weights / weights.sum()).reshape(250, -1)
    pieces = [{"x": train.reshape(-1)[k : k + 400]} for k in range(0, 200_000, 1000)]
    begun = time.process_time()
    found = shared(pieces, pieces[:100], ((k, {"x": t}) for k, t in enumerate(train)))
    assert time.process_time() - begun < 10
    assert (found["x, longest span"].distances[:, 0] == 0).all()


# ---- in an audit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Lines of chance letters, of which 15 % each validate and test."""
    root, chance = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    rows = [{"text": "".join(chance.choice(list("abcdefghij klmn"), 60)), "license": "CC0-1.0"} for _ in range(800)]
    (root / "lines.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    return prepare(root, tmp_path_factory.mktemp("corpora") / "lines", modality="text", settings={"context": 64})


def works_with_a_copy(corpus: Corpus) -> tuple[Works, int]:
    """Test pieces in the place of generated ones, but the third: a training piece with another letter."""
    text = catalog.modality(corpus.facts["modality"])
    made, number = taken(corpus, text, corpus.numbers("test")[:20]), int(corpus.numbers("train")[17])
    known = text.to_piece(corpus.take(np.array([number])).x[0]).content
    made[2] = Piece(known[:30] + "é" + known[31:])
    return Works(made, [], [], lambda: corpus.pieces("train")), number


def test_an_audit_tells_the_copy_and_its_owner_and_shows_both(corpus: Corpus):
    (works, number), text = works_with_a_copy(corpus), catalog.modality(corpus.facts["modality"])
    copies = copies_of(works, corpus, text)
    told = to_json(copies, corpus)
    first = told["copies"][0]
    assert (first["made"], first["verdict"]) == (2, "copy") and told["copied"]["n"] == 20
    assert first["nearest"][0]["train"] == number and first["nearest"][0]["licence"] == "CC0-1.0"
    assert first["nearest"][0]["source"].startswith("lines.jsonl") and len(first["nearest"]) <= 3
    assert works.generated[2].content in section(copies, works, corpus, text).body


def test_a_piece_that_shares_less_than_half_is_close_and_no_copy(corpus: Corpus):
    (works, number), text = works_with_a_copy(corpus), catalog.modality(corpus.facts["modality"])
    known = text.to_piece(corpus.take(np.array([number])).x[0]).content
    works.generated[:] = [Piece(known[:k] + "0123456789" * 9) for k in (20, 50)]
    works.generated[0] = Piece(works.generated[0].content[:60])
    works.generated[1] = Piece(works.generated[1].content[:60])
    assert [v.verdict for v in copies_of(works, corpus, text).verdicts] == ["close", "copy"]


def test_a_whole_training_piece_within_a_much_longer_one_is_a_copy(corpus: Corpus):
    (works, number), text = works_with_a_copy(corpus), catalog.modality(corpus.facts["modality"])
    known = text.to_piece(corpus.take(np.array([number])).x[0]).content
    others = [p.content for p in works.generated[5:8]]
    works.generated[:] = [
        Piece(others[0] + known + others[1]),
        Piece(others[0] + known[:40] + others[1]),
        Piece("".join(others)),
    ]
    assert [v.verdict for v in copies_of(works, corpus, text).verdicts] == ["copy", "close", "new"]


def test_the_finding_counts_copies_beside_the_held_out_share(corpus: Corpus):
    works, _ = works_with_a_copy(corpus)
    (found,) = finding(copies_of(works, corpus, catalog.modality(corpus.facts["modality"])), "texts")
    assert found.value >= 1 / 20 and found.low < found.value < found.high
    assert found.reference is not None and found.reference <= 0.05 and "of 20 texts" in found.sentence


def test_pieces_that_calibrate_are_not_counted_and_no_piece_comes_twice(corpus: Corpus):
    for few in (120, 70, 0):
        narrow = corpus.narrowed(validation=corpus.numbers("validation")[:few])
        calibrating, counted, words = held_out(narrow)
        both = np.append(calibrating, counted)
        assert len(calibrating) == max(few, 99) and len(np.unique(both)) == len(both) == few + 120
        assert set(counted) <= set(corpus.numbers("test")) and words.startswith(f"{few} validation")
    assert spread(np.arange(57), 200).tolist() == list(range(57)) and spread(np.arange(10), 2).tolist() == [0, 5]


def test_where_too_few_pieces_validate_test_pieces_calibrate_besides(corpus: Corpus):
    few = corpus.narrowed(validation=corpus.numbers("validation")[:60])
    works, text = works_with_a_copy(few)[0], catalog.modality(corpus.facts["modality"])
    copies = copies_of(works, few, text)
    assert copies.verdicts[2].verdict == "copy" and len(copies.held) == 120 - 39
    assert to_json(copies, few)["calibrated"] == "60 validation and 39 test pieces"
    assert "60 validation and 39 test" in section(copies, works, few, text).lead


def test_too_few_held_out_pieces_are_a_reason_and_no_verdict(corpus: Corpus):
    few = corpus.narrowed(validation=corpus.numbers("validation")[:50], test=corpus.numbers("test")[:48])
    works, text = works_with_a_copy(few)[0], catalog.modality(corpus.facts["modality"])
    copies = copies_of(works, few, text)
    assert "99 held-out pieces" in to_json(copies, few)["copies_untold"] and finding(copies, "texts") == []
    assert "50 validation and 48 test" in section(copies, works, few, text).lead


def test_the_chorales_as_they_are_split_by_default_get_a_verdict(tmp_path):
    corpus = prepare(data("jsb_chorales", "Jsb16thSeparated.json"), tmp_path / "c", modality="music")
    music = catalog.modality(corpus.facts["modality"])
    made = taken(corpus, music, corpus.numbers("train")[:5])
    copies = copies_of(Works(made, [], [], lambda: corpus.pieces("train")), corpus, music)
    assert [v.verdict for v in copies.verdicts] == ["copy"] * 5
    assert "test pieces" in copies.calibrated and len(copies.held) >= 10
