"""From planted copies to the refusal of an export: a run that has learnt its texts by heart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from maquette import catalog, cli
from maquette.corpus import Corpus
from maquette.errors import UsageError
from maquette.modalities.music import Music
from maquette.piece import Piece
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.scores.score import score
from maquette.texts import canaries, redrawn
from maquette.verbs import extraction
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

LETTERS = list("abcdefghij klmn")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """240 lines of chance letters, of which 24 train, whose licence forbids derivatives."""
    root, chance = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    rows = [{"text": "".join(chance.choice(LETTERS, 24)), "license": "CC BY-ND 4.0"} for _ in range(240)]
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"context": 32, "tokens": "bytes"}
    return prepare(
        root, tmp_path_factory.mktemp("corpora") / "lines", modality="text", settings=settings, split=(0.1, 0.5, 0.4)
    )


@pytest.fixture(scope="module")
def parrot(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """It knows the training lines by heart, for no validation piece ended its training."""
    settings = {"transformer": {"width": 64, "layers": 2, "dropout": 0.0, "absolute": False}}
    choices = {"steps": 300, "threads": 1, "batch_size": 24, "lr_scale": 1.5}
    recipe = make_recipe({"model": "transformer", "models": settings, "train": choices})
    blind = corpus.narrowed(validation=np.zeros(0, np.int64))
    return train(blind, recipe, tmp_path_factory.mktemp("runs") / "parrot")


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["maquette", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return run


def test_copies_of_texts_that_may_not_be_copied_stop_an_export_until_a_reason_is_given(
    type_in, parrot: Run, tmp_path: Path
):
    assert type_in("audit", parrot.path, "--samples", 20)[0] == 0
    told = json.loads((parrot.path / "audit" / "audit.json").read_text())
    assert told["copied"]["copy"] >= 18 and len(told["copies"]) == 20, "every copy stands there"
    assert told["copies"][0]["nearest"][0]["licence"] == "CC-BY-ND-4.0"
    status, said = type_in("export", parrot.path, "-o", tmp_path / "out")
    assert status != 0 and "licence forbids" in said and "CC-BY-ND-4.0" in said and not (tmp_path / "out").exists()
    status, said = type_in("export", parrot.path, "-o", tmp_path / "out", "--allow-copies", "I wrote them")
    assert status == 0, said
    assert "exported all the same: I wrote them" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "I wrote them" in (parrot.path / "exports.jsonl").read_text(encoding="utf-8")


# ---- what is known by heart


def lines_of(corpus: Corpus, split: str, n: int) -> list[str]:
    text = catalog.modality(corpus.facts["modality"])
    return [text.to_piece(corpus.take(corpus.numbers(split)[k : k + 1]).x[0]).content for k in range(n)]


def test_a_parrot_completes_training_pieces_and_no_others(parrot: Run, corpus: Corpus):
    (found,) = extraction.extracted(parrot.sampler(), corpus)
    assert found.value > 0.9 and found.reference == 0 and found.low < found.value and found.n > 20
    assert "first 12 tokens" in found.sentence and "in 0 of " in found.sentence


def test_a_model_that_learnt_little_completes_nothing(corpus: Corpus, tmp_path: Path):
    ngram = train(corpus, make_recipe({"model": "ngram", "models": {"ngram": {"order": 2}}}), tmp_path / "run")
    (found,) = extraction.extracted(ngram.sampler(), corpus)
    assert found.value == 0 and found.high < 0.2


def test_canaries_that_were_learnt_stand_out_and_others_do_not(parrot: Run, corpus: Corpus, tmp_path: Path):
    def told(split: str) -> list[extraction.Canary]:
        lines = [f"{line[:8]}{{{line[8:16]}}}{line[16:]}" for line in lines_of(corpus, split, 4)]
        (tmp_path / "canaries.txt").write_text("\n".join(lines), encoding="utf-8")
        text = catalog.modality(corpus.facts["modality"])
        return extraction.exposed(parrot.sampler().model, corpus.spec, text, tmp_path / "canaries.txt", 0)

    share, mean = extraction.findings(told("train"))
    assert share.value > 0.9 and share.reference == 0.01 and mean.value > 9 > mean.reference > 1
    share, mean = extraction.findings(told("test"))
    assert share.value < 0.5 and mean.value < 5


def test_an_audit_with_canaries_says_how_far_they_are_exposed(type_in, parrot: Run, corpus: Corpus, tmp_path: Path):
    (line,) = lines_of(corpus, "train", 1)
    (tmp_path / "c.txt").write_text(f"{line[:8]}{{{line[8:]}}}\n", encoding="utf-8")
    out = tmp_path / "audit"
    status, said = type_in(
        "audit", parrot.path, "--samples", 12, "--canaries", tmp_path / "c.txt", "-o", out, "--corpus", corpus.path
    )
    told = json.loads((out / "audit.json").read_text())
    assert status == 0, said
    assert told["canaries"] == [{"number": 1, "rank": 1, "of": 1024, "exposure": 10.0}]
    assert {"completed by heart", "canaries exposed", "exposure of canaries"} <= {f["name"] for f in told["findings"]}
    assert "exposed by 10.0 bits" in (out / "audit.html").read_text(encoding="utf-8")


def test_the_ranks_of_what_was_drawn_by_chance_are_even():
    """Each of a hundred lines in the place of the canary, under a model that is fond of some digits."""
    fond = np.random.default_rng(0).normal(size=10)
    nats = [sum(fond[int(c)] for c in text) for text in redrawn("{0000}", 100, np.random.default_rng(1))]
    ranks = [sum(x <= own for x in nats) for own in nats]
    assert len(nats) == 100 and abs(np.mean([np.log2(100 / r) for r in ranks]) - extraction.by_chance(100)) < 0.05


def test_a_line_without_chance_in_it_is_no_canary(tmp_path: Path):
    for text, words in (("\n\n", "holds no canary"), ("fine {12}\nmy {4}", "line 2 of"), ("no braces", "line 1 of")):
        (tmp_path / "c.txt").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=words):
            list(canaries(tmp_path / "c.txt", 200, 0))
    with pytest.raises(UsageError, match="cannot be read"):
        list(canaries(tmp_path / "none.txt", 200, 0))
    (tmp_path / "c.txt").write_text("My Pin: {Ab-7}9", encoding="utf-8")
    (lines,) = canaries(tmp_path / "c.txt", 200, 0)
    assert lines[0] == "My Pin: Ab-79" and len(lines) == len(set(lines)) == 201
    assert all(x.startswith("My Pin: ") and x[10] == "-" and x[8].isupper() and x[11:].isdigit() for x in lines)


def test_a_canary_longer_than_what_the_model_sees_is_refused(parrot: Run, corpus: Corpus, tmp_path: Path):
    text, model = catalog.modality(corpus.facts["modality"]), parrot.sampler().model
    (tmp_path / "c.txt").write_text("abcd" * 10 + "{abc}", encoding="utf-8")
    with pytest.raises(UsageError, match="at most 31 tokens"):
        extraction.exposed(model, corpus.spec, text, tmp_path / "c.txt", 0)


def test_a_tune_might_have_its_notes_in_another_order(tmp_path: Path):
    music = Music(grid=4)
    tune = score([(4 * k, 4, pitch, 0) for k, pitch in enumerate((60, 67, 62, 71, 65, 64))], 4)
    music.restore(music.fit([Piece(tune)]))
    pieces = next(music.canaries(music.write(Piece(tune), tmp_path / "tune.mid"), 200, 0))
    orders = {tuple(p.content.notes[:, 2].tolist()) for p in pieces}
    assert len(pieces) == len(orders) == 201 and {tuple(sorted(o)) for o in orders} == {(60, 62, 64, 65, 67, 71)}
    short = music.write(Piece(score([(0, 4, 60, 0), (4, 4, 62, 0)], 4)), tmp_path / "short.mid")
    with pytest.raises(UsageError, match="2 orders"):
        list(music.canaries(short, 200, 0))


def test_canaries_of_what_is_no_sequence_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="texts and music"):
        next(iter(catalog.find("modalities", "image")().canaries(tmp_path / "c.txt", 99, 0)))
