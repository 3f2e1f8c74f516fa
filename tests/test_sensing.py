"""Sequences as features: real pieces score as real ones, worse ones worse, and the judge is kept, named, and no barely trained one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette import catalog
from maquette.corpus import Corpus
from maquette.features import Known
from maquette.grams import Grams, hashed
from maquette.metrics.diversity import covered
from maquette.metrics.fidelity import frechet_distance, precision
from maquette.modalities.text import Text
from maquette.piece import Piece
from maquette.reader import reader_of
from maquette.verbs.audit import Audit
from maquette.verbs.comparing import beside
from maquette.verbs.prepare import prepare
from maquette.verbs.sensing import Sensed, nearest, sense, spaces_of

WORK = 120_000  # tokens that the judge of these tests is shown
PEOPLE, ACTS, THINGS = (
    ("the owl", "a cat", "my dog", "the king"),
    ("sees", "hears", "wants", "finds"),
    ("a pie", "the sea", "no end", "it all"),
)


def sentence(chance: np.random.Generator, loud: bool) -> str:
    words = " ".join(f"{chance.choice(PEOPLE)} {chance.choice(ACTS)} {chance.choice(THINGS)}." for _ in range(2))
    return words.upper() if loud else words


def of_texts(root: Path) -> Corpus:
    """Six hundred texts of two sentences, a third of them in capitals."""
    chance = np.random.default_rng(0)
    rows = [{"text": sentence(chance, k % 3 == 0), "author": "loud" if k % 3 == 0 else "soft"} for k in range(600)]
    (root / "texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    settings = {"context": 96, "tokens": "characters"}
    return prepare(root, root / "corpus", settings=settings, split=(0.4, 0.2, 0.4))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return of_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def judge(corpus: Corpus) -> Known:
    return reader_of(corpus, work=WORK)


@pytest.fixture(scope="module")
def perfect(corpus: Corpus, judge: Known) -> Sensed:
    """Validation texts passed off as generated, each as it was asked for."""
    return sensed(real(corpus), corpus, judge, corpus.conditions("validation"))


def modality(corpus: Corpus) -> Text:
    return catalog.modality(corpus.facts["modality"])


def real(corpus: Corpus, split: str = "validation") -> list[str]:
    made = modality(corpus)
    return [made.to_piece(torch.from_numpy(np.asarray(t).astype(np.int64))).content for t in corpus.pieces(split)]


def sensed(texts: list[str], corpus: Corpus, judge: Known, asked: torch.Tensor | None = None) -> Sensed:
    return sense([Piece(t) for t in texts], corpus, modality(corpus), judge=judge, asked=asked)


def scores(texts: list[str], corpus: Corpus, judge: Known) -> dict[str, tuple[float, float, float]]:
    """Space -> precision, coverage and Frechet distance, beside 100 held-out texts"""
    spaces = spaces_of(corpus, modality(corpus), judge)
    made, held = spaces.embed([Piece(t) for t in texts]), spaces.embed([Piece(t) for t in real(corpus, "test")[:100]])
    pairs = {space: (made[space], held[space]) for space in made}
    return {s: (precision(a, b), float(covered(a, b).mean()), frechet_distance(a, b)) for s, (a, b) in pairs.items()}


def replaced(text: str, share: float) -> str:
    """A share of the characters by others of any text."""
    chance = np.random.default_rng(len(text))
    return "".join(chance.choice(list("aehiknosty. WO")) if chance.random() < share else c for c in text)


def figure(found: Sensed, name: str, space: str = "judge"):
    return next(f for f in found.findings if (f.name, f.space) == (name, space))


# ---- what the figures say


def test_held_out_pieces_passed_off_as_generated_score_like_the_floor(perfect: Sensed):
    found = perfect
    for space in ("judge", "n-grams"):
        assert abs(figure(found, "C_T", space).value) < 3
        for name in ("precision", "coverage"):
            f = figure(found, name, space)
            assert f.value > f.reference - 0.15, f.sentence
        assert figure(found, "KID", space).low <= max(0.0, figure(found, "KID", space).reference)


def test_shuffled_pieces_score_worse_in_both_spaces(corpus: Corpus, judge: Known):
    chance = np.random.default_rng(0)
    floor, made = (
        scores(real(corpus), corpus, judge),
        scores(["".join(chance.permutation(list(t))) for t in real(corpus)], corpus, judge),
    )
    assert made["judge"][2] > 1.2 * floor["judge"][2] and made["judge"][1] < floor["judge"][1]
    assert made["n-grams"][0] < 0.5 * floor["n-grams"][0] and made["n-grams"][1] < 0.5 * floor["n-grams"][1]


def test_pieces_of_another_corpus_score_worse_in_both_spaces(corpus: Corpus, judge: Known):
    others = [f"{k} + {k} = {2 * k}; {k % 7} x {k % 9} = {(k % 7) * (k % 9)}" for k in range(60)]
    assert all(max(row[:2]) < 0.2 for row in scores(others, corpus, judge).values())


def test_the_more_tokens_are_replaced_the_worse_the_judge_finds_them(corpus: Corpus, judge: Known):
    found = [scores([replaced(t, share) for t in real(corpus)], corpus, judge)["judge"] for share in (0.1, 0.3, 1.0)]
    close, coverage, distance = zip(*found, strict=True)
    assert sorted(close, reverse=True) == list(close) and close[-1] < 0.3
    assert sorted(coverage, reverse=True) == list(coverage) and coverage[-1] < 0.3
    assert sorted(distance) == list(distance)


def test_one_piece_again_and_again_has_lost_its_variety(corpus: Corpus, judge: Known):
    found = sensed(real(corpus)[:1] * 60, corpus, judge)
    for space in ("judge", "n-grams"):
        assert figure(found, "Vendi score", space).value < 1.01 and figure(found, "homogeneity", space).value > 0.99
        assert figure(found, "coverage", space).value < 0.3 * figure(found, "coverage", space).reference
    assert any("59 of 60 generated texts repeat another" in note for note in found.notes)


def test_training_pieces_lie_at_no_distance_and_show_it(corpus: Corpus, judge: Known):
    found = sensed(real(corpus, "train")[:60], corpus, judge)
    assert found.distances["judge"][0].max() < 1e-3 and figure(found, "C_T").value < -5
    assert figure(found, "authenticity").value < 0.1 < figure(found, "authenticity").reference


def test_labels_are_told_and_what_was_asked_for_is_found(corpus: Corpus, judge: Known, perfect: Sensed):
    assert figure(perfect, "consistency").value > 0.9 and figure(perfect, "representation").value < 0.2
    loud = sensed([t.upper() for t in real(corpus)], corpus, judge, corpus.conditions("validation"))
    assert figure(loud, "share of loud").value > 0.9 and figure(loud, "consistency").value < 0.6


def test_fewer_than_ten_pieces_are_not_measured_and_train_no_judge(corpus: Corpus):
    found = sense([Piece("a")] * 9, corpus, modality(corpus))
    assert not found.findings and found.spaces is None and "fewer than 10" in found.notes[0]


def test_empty_and_short_pieces_are_no_neighbours_of_all(corpus: Corpus, judge: Known):
    found = sensed([*real(corpus)[:20], "", "a", "."], corpus, judge)
    for space in ("judge", "n-grams"):
        assert figure(found, "density", space).high < 2 * figure(found, "density", space).reference


def test_the_nearest_row_and_its_own_nearest_other_one_are_found():
    train = torch.tensor([[0.0], [3.0], [4.0], [4.0]])
    distance, gap = nearest(torch.tensor([[1.0], [3.2], [9.0]]), train)
    assert torch.allclose(distance, torch.tensor([1.0, 0.2, 5.0])) and gap.tolist() == [3.0, 1.0, 0.0]


# ---- the judge and the untrained space


def test_the_reader_is_kept_beside_its_corpus_and_is_the_same_again(corpus: Corpus):
    judge, before = reader_of(corpus, work=1), set((corpus.path / "judge").glob("*.safetensors"))
    assert reader_of(corpus, work=1).hash == judge.hash
    assert reader_of(corpus, work=1, seed=1).hash != judge.hash
    (new,) = set((corpus.path / "judge").glob("*.safetensors")) - before
    new.write_bytes(b"torn")
    assert reader_of(corpus, work=1, seed=1).hash != judge.hash and new.stat().st_size > 1000


def test_features_do_not_depend_on_what_stands_beside_a_piece(corpus: Corpus, judge: Known):
    spaces = spaces_of(corpus, modality(corpus), judge)
    pieces = [Piece(t) for t in (*real(corpus)[:5], "", "a", "the owl sees " * 20)]
    together, alone = spaces.embed(pieces), [spaces.embed([piece]) for piece in pieces]
    for space, width in (("judge", 48), ("n-grams", 255)):
        assert together[space].shape == (8, width)
        assert torch.allclose(together[space], torch.cat([one[space] for one in alone]), atol=1e-4)


def test_a_piece_in_another_key_has_the_same_ngrams():
    from maquette.modalities.music import Music
    from maquette.scores.score import score

    music = Music(grid=1)
    low, high, other = (
        Piece(score([(k, 1, pitch + shift, 0) for k, pitch in enumerate(line)], 1))
        for line, shift in (((60, 64, 67, 65), 0), ((60, 64, 67, 65), 5), ((60, 61, 67, 59), 0))
    )
    rows = Grams(music, "music").embed([low, high, other])
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_ngrams_weigh_long_and_short_pieces_alike_and_are_named_by_a_hash():
    rows = [hashed({"characters": np.arange(n)}) for n in (0, 1, 20, 2000)]
    assert all(np.isclose(np.square(row).sum(), len(row)) for row in rows) and len(rows[0]) == 255
    assert Grams(Text(), "text").hash == Grams(Text(), "text").hash != Grams(Text(), "music").hash


def test_two_audits_of_texts_are_compared_piece_by_piece(corpus: Corpus, judge: Known, perfect: Sensed, tmp_path: Path):
    broken = sensed([replaced(t, 0.5) for t in real(corpus)], corpus, judge)
    audits = [Audit(found.findings, (), tmp_path, found) for found in (perfect, broken)]
    told = {(d.first.name, d.first.space): d for d in beside(audits[0], audits[1], ("whole", "broken")).differences}
    precision = told["precision", "judge"]
    assert precision.better == "first" and precision.low is not None and precision.low > 0
    assert told["coverage", "n-grams"].low is not None and told["KID", "judge"].low is None
