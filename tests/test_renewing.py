"""What is a copy is drawn again, with the next seeds; what was given is not judged; where copies cannot be told it is said."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data import data

import maquette
from maquette import catalog, cli
from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError, UsageError
from maquette.piece import Asked, Piece, Works
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.space import Space
from maquette.verbs import passages
from maquette.verbs.generate import Wish
from maquette.verbs.prepare import prepare
from maquette.verbs.renewing import checked, of_sequences, renewed
from maquette.verbs.train import train
from maquette.verbs.verify import verify, words

COPIES = {0, 3, 4}  # seeds


def draw(seed: int, count: int) -> list[Piece]:
    return [Piece(seed + k, {"wish": {"seed": seed + k}}) for k in range(count)]


def facts(pieces: Sequence[Piece]) -> list[dict]:
    return [{"verdict": "copy" if p.content in COPIES else "new", "nearest": []} for p in pieces]


def test_copies_are_drawn_again_with_the_seeds_behind_the_others() -> None:
    found = renewed(draw, facts, 3, seed=0)
    assert [p.content for p in found.pieces] == [5, 1, 2] and found.draws == (4, 1, 1)
    assert found.pieces[0].facts == {"wish": {"seed": 5}, "verdict": "new", "nearest": [], "draws": 4}
    assert found.words == "new: 1 of 3 were copies of training pieces at first and were drawn again, 3 times in all"
    assert "none of 2" in renewed(draw, facts, 2, seed=1).words


def test_a_run_that_only_copies_is_given_up_in_words() -> None:
    with pytest.raises(RunError, match="1 of 2 pieces were copies of training pieces in all 2 draws"):
        renewed(
            draw, lambda pieces: [{"verdict": "new" if p.content == 4 else "copy"} for p in pieces], 2, seed=3, tries=2
        )


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory):
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 1, "batch_size": 8}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "shapes")


def test_a_corpus_that_is_too_small_is_named(run) -> None:
    with pytest.raises(CorpusError, match="at least 99 held-out pieces"):
        maquette.generate(run.path, 2, new=True)


def test_what_cannot_be_told_is_refused(run) -> None:
    with pytest.raises(UsageError, match="--liked"):
        checked(run, Wish(liked=True))
    assert checked(run, Wish()).fingerprint == run.facts["corpus"]["fingerprint"]
    run.facts["corpus"]["path"] = "../gone"
    with pytest.raises(CorpusError, match=r"no longer at .*put it back there"):
        checked(run, Wish())


def test_a_picture_that_is_made_from_another_is_near_to_it_by_intent(run, corpus) -> None:
    with pytest.raises(UsageError, match="near to it by intent"):
        checked(run, Wish(source="a.png"), corpus)


def test_codes_of_pictures_are_no_texts(run, corpus) -> None:
    codes = copy.copy(corpus)
    codes.spec = replace(corpus.spec, space=Space("tokens", (16,), 8))
    with pytest.raises(UsageError, match="holds codes of them"):
        checked(run, Wish(), codes)


# ---- texts


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """240 lines of chance letters, of which 24 train."""
    root, chance = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    letters = list("abcdefghij klmn")
    rows = [{"text": "".join(chance.choice(letters, 24)), "license": "CC BY-ND 4.0"} for _ in range(240)]
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"context": 32, "tokens": "characters"}
    return prepare(
        root, tmp_path_factory.mktemp("corpora") / "lines", modality="text", settings=settings, split=(0.1, 0.5, 0.4)
    )


@pytest.fixture(scope="module")
def parrot(lines: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = make_recipe({"model": "ngram", "models": {"ngram": {"order": 6}}})
    return train(lines, recipe, tmp_path_factory.mktemp("runs") / "parrot")


def real(corpus: Corpus, split: str, n: int) -> list[Piece]:
    return passages.taken(corpus, catalog.modality(corpus.facts["modality"]), corpus.numbers(split)[:n])


def drawing(pieces: Sequence[Piece]) -> Callable[[int, int], list[Piece]]:
    """The piece of seed k is the k-th of these."""
    return lambda seed, count: [replace(pieces[seed + k], facts={"seed": seed + k}) for k in range(count)]


def test_what_a_parrot_says_is_drawn_again_until_none_of_it_is_a_copy(parrot: Run, lines: Corpus, tmp_path: Path):
    known = {p.content for p in real(lines, "train", 24)}
    at_first = maquette.generate(parrot.path, 8, temperature=0.35)
    assert any(p.content in known for p in at_first)
    made = maquette.generate(parrot.path, 8, temperature=0.35, new=True)
    again = [p for p in made if p.facts["draws"] > 1]
    assert len(again) >= 2 and not {p.content for p in made} & known
    assert {p.facts["verdict"] for p in made} <= {"new", "close"} and all("judged" not in p.facts for p in made)
    close = next(p for p in made if p.facts["verdict"] == "close")
    assert close.facts["p"] <= 0.01 and close.facts["nearest"][0]["licence"] == "CC-BY-ND-4.0"
    said = words(verify(again[0].save(tmp_path / "a.txt")))
    assert f"; drawn {again[0].facts['draws']} times" in said


def test_a_piece_judged_by_itself_gets_the_verdict_of_the_audit(lines: Corpus):
    made, text = [*real(lines, "train", 3), *real(lines, "test", 5)], catalog.modality(lines.facts["modality"])
    told = passages.copies_of(Works(made, [], [], lambda: lines.pieces("train")), lines, text)
    judge = of_sequences(lines, Wish())
    alone = [judge([piece])[0] for piece in made]
    assert [(v.verdict, round(v.p, 6)) for v in told.verdicts] == [(f["verdict"], f["p"]) for f in alone]
    assert [f["verdict"] for f in alone[:3]] == ["copy"] * 3
    assert [f["nearest"][0]["train"] for f in alone[:3]] == lines.numbers("train")[:3].tolist()


def test_training_pieces_are_indexed_once_however_often_is_drawn(lines: Corpus, monkeypatch: pytest.MonkeyPatch):
    passes, whole = [], passages.of_training
    monkeypatch.setattr(passages, "of_training", lambda *both: passes.append(1) or whole(*both))
    pieces = [*real(lines, "train", 6), *real(lines, "test", 1)]
    assert renewed(drawing(pieces), of_sequences(lines, Wish()), 1, 0).draws == (7,) and len(passes) == 1


def test_what_a_prompt_gives_is_no_copy_and_what_follows_may_be_one(lines: Corpus):
    (known, *_), (other, *_) = real(lines, "train", 1), real(lines, "test", 1)
    half, text = known.content[:12], known.modality
    made = [
        Piece(half + known.content[12:], {}, text),
        Piece(half + other.content[12:], {}, text),
        Piece(half, {}, text),
    ]
    told = of_sequences(lines, Wish(prompt=half))(made)
    assert [t["verdict"] for t in told] == ["copy", "new", "new"]
    assert {t["judged"] for t in told} == {"what was written, without what was given"}
    whole = of_sequences(lines, Wish())(made)
    assert [t["verdict"] for t in whole] != [t["verdict"] for t in told] and "judged" not in whole[0]


def test_short_pieces_that_were_asked_for_are_judged_beside_held_out_ones_of_their_length(lines: Corpus):
    made = [replace(p, content=p.content[:7]) for p in (*real(lines, "train", 3), *real(lines, "test", 3))]
    short, usual = ([f["verdict"] for f in of_sequences(lines, wish)(made)] for wish in (Wish(length=7), Wish()))
    assert short == ["copy"] * 3 + ["new"] * 3 and "copy" not in usual


def test_a_given_text_is_said_by_verify(parrot: Run, lines: Corpus, tmp_path: Path):
    (piece,) = maquette.generate(parrot.path, 1, prompt="abcdef", new=True)
    said = words(verify(piece.save(tmp_path / "a.txt")))
    assert (
        f"verdict:   {piece.facts['verdict']} (p = " in said and ") of what was written, without what was given" in said
    )
    silent = words(verify(replace(piece, facts={**piece.facts, "nearest": []}).save(tmp_path / "b.txt")))
    assert "nearest:   no training piece shares a passage with it" in silent


def test_too_few_held_out_texts_are_named(parrot: Run, lines: Corpus):
    few = lines.narrowed(validation=lines.numbers("validation")[:20], test=lines.numbers("test")[:30])
    with pytest.raises(CorpusError, match=r"99 held-out pieces .* 20 validation and 30 test pieces"):
        of_sequences(few, Wish())


@pytest.mark.parametrize("other", [["--liked"], ["--stream"], ["--interpolate", "1", "2"]])
def test_what_cannot_be_drawn_again_is_refused(
    other: list[str], parrot: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["maquette", "generate", str(parrot.path), "--new", *other])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code and "--new draws pieces again; drop --liked" in capsys.readouterr().err


# ---- music


@pytest.fixture(scope="module")
def chorales(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("corpora") / "chorales"
    return prepare(data("jsb_chorales", "Jsb16thSeparated.json"), out, modality="music", settings={"voices": 4})


def test_tunes_that_are_copies_are_drawn_again_in_any_key(chorales: Corpus):
    known, other = real(chorales, "train", 1)[0], real(chorales, "test", 3)[2]
    notes = known.content.notes.copy()
    notes[:, 2] += 2
    moved = Piece(replace(known.content, notes=notes), {}, known.modality)
    found = renewed(drawing([known, moved, other]), of_sequences(chorales, Wish()), 1, 0)
    assert found.draws == (3,) and found.pieces[0].content is other.content
    assert found.pieces[0].facts["verdict"] == "new" and found.pieces[0].facts["draws"] == 3


def test_the_voices_and_bars_that_stay_of_a_source_are_left_out(chorales: Corpus, tmp_path: Path):
    known = real(chorales, "train", 1)[0]
    music, path = known.modality, str(known.modality.write(known, tmp_path / "known.mid"))
    soprano = music.given(music.start(Asked(source=path, keep="soprano"))).content.notes
    assert set(soprano[:, 3]) == {0} and len(soprano) == (known.content.notes[:, 3] == 0).sum()
    assert music.given(music.start(Asked(source=path))) is None
    voiced, all_bars = Wish(source=path, keep="soprano"), Wish(source=path, keep="soprano+alto+tenor+bass")
    (told,), (kept,) = (of_sequences(chorales, wish)([known]) for wish in (voiced, all_bars))
    assert told["verdict"] == "copy" and told["judged"], "the same other voices below a given one are a copy"
    assert kept["verdict"] == "new" and kept["nearest"] == []


def test_a_tune_that_is_gone_on_from_is_left_out(chorales: Corpus, tmp_path: Path):
    known = real(chorales, "train", 1)[0]
    path = str(known.modality.write(known, tmp_path / "known.mid"))
    (told,) = of_sequences(chorales, Wish(prompt=path, bars=1))([known])
    assert (told["verdict"], told["nearest"]) == ("new", [])
