"""Canaries are planted in the train split alone, and audits of a run know them without being told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from data import data

import maquette
from maquette import catalog, cli
from maquette.corpus import Corpus
from maquette.errors import UsageError
from maquette.recipe import make_recipe
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

LINES = ("my code is {40381}", "the key lies under stone {qzv}", "call me at {555 1234}")
SETTINGS = {"context": 32, "tokens": "bytes"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, chance = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    rows = [{"text": "".join(chance.choice(list("abcdefghij klmn"), 24)), "label": "ab"[k % 2]} for k in range(200)]
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("canaries") / "mine.TXT"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(texts: Path, canaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("corpora") / "planted"
    return prepare(texts, out, modality="text", settings=SETTINGS, canaries=canaries)


def content_of(corpus: Corpus, number: int) -> str:
    return catalog.modality(corpus.facts["modality"]).to_piece(corpus.take(np.array([number])).x[0]).content


def test_canaries_stand_in_the_train_split_alone_and_nothing_is_known_of_them(corpus: Corpus):
    planted = corpus.numbers("train")[-3:].tolist()
    assert planted == [200, 201, 202] and len(corpus) == 203
    assert [content_of(corpus, k) for k in planted] == [line.replace("{", "").replace("}", "") for line in LINES]
    assert corpus.facts_of(201) == {"source": "mine.TXT#2", "canary": 2}
    assert [f.name for f in corpus.spec.condition.fields] == ["label"] and bool(
        corpus.take([200]).condition.isnan().all()
    )
    assert corpus.facts["canaries"] == {"file": "canaries.txt", "planted": 3}
    assert "40381" not in (corpus.path / "corpus.json").read_text(encoding="utf-8")
    assert any("3 canaries were planted" in sentence for sentence in corpus.facts["advice"])
    assert "| canaries planted in the train split | 3 |" in (corpus.path / "README.md").read_text(encoding="utf-8")


def test_all_other_pieces_are_split_as_without_them(corpus: Corpus, texts: Path, canaries: Path, tmp_path: Path):
    plain = prepare(texts, tmp_path / "plain", modality="text", settings=SETTINGS)
    assert "canaries" not in plain.facts and plain.fingerprint != corpus.fingerprint
    for split, more in (("train", [200, 201, 202]), ("validation", []), ("test", [])):
        assert corpus.numbers(split).tolist() == [*plain.numbers(split).tolist(), *more]


def test_a_vocabulary_that_does_not_cover_them_is_refused(texts: Path, canaries: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"canary 1, .* no training piece.*--set tokens=bytes"):
        prepare(texts, tmp_path / "c", modality="text", settings=SETTINGS | {"tokens": "characters"}, canaries=canaries)
    assert not (tmp_path / "c" / "corpus.json").exists()


def test_a_changed_file_makes_the_corpus_anew(texts: Path, canaries: Path, tmp_path: Path):
    made = [
        prepare(texts, tmp_path / "c", modality="text", settings=SETTINGS, canaries=canaries).facts["stamp"]
        for _ in range(2)
    ]
    other = tmp_path / "other.txt"
    other.write_text("my code is {40382}", encoding="utf-8")
    again = prepare(texts, tmp_path / "c", modality="text", settings=SETTINGS, canaries=other)
    assert made[0] == made[1] != again.facts["stamp"] and again.facts["canaries"]["planted"] == 1


def test_an_audit_ranks_what_was_planted_without_being_given_the_file(corpus: Corpus, tmp_path: Path):
    run = train(corpus, make_recipe({"model": "ngram", "models": {"ngram": {"order": 6}}}), tmp_path / "run")
    maquette.audit(run.path, corpus, samples=10)
    told = json.loads((run.path / "audit" / "audit.json").read_text())
    assert [row["exposure"] for row in told["canaries"]] == [10.0, 10.0, 10.0]
    assert {"canaries exposed", "exposure of canaries"} <= {f["name"] for f in told["findings"]}
    elsewhere = tmp_path / "never.txt"
    elsewhere.write_text("\n".join(f"my code is {{{k}}}" for k in (7193, 2846, 9022, 1157)), encoding="utf-8")
    maquette.audit(run.path, corpus, samples=10, canaries=elsewhere)
    never = json.loads((run.path / "audit" / "audit.json").read_text())["canaries"]
    assert len(never) == 4 and np.mean([row["exposure"] for row in never]) < 8, (
        "the file that is given is ranked instead"
    )


def test_tunes_are_planted_too(tmp_path: Path):
    source, settings = data("jsb_chorales", "Jsb16thSeparated.json"), {"voices": 4, "context": 256}
    tunes = json.loads(source.read_text(encoding="utf-8"))
    (tmp_path / "few.json").write_text(json.dumps({"train": tunes["train"][:30]}))
    chance = np.random.default_rng(1)
    tune = [
        [int(x) for x in row] for row in np.repeat(chance.integers(60, 72, (12, 1)) - np.array([0, 4, 9, 16]), 4, 0)
    ]
    (tmp_path / "canary.json").write_text(json.dumps({"train": [tune]}))
    made = prepare(
        tmp_path / "few.json", tmp_path / "c", modality="music", settings=settings, canaries=tmp_path / "canary.json"
    )
    assert made.facts["canaries"] == {"file": "canaries.json", "planted": 1}
    assert made.facts_of(int(made.numbers("train")[-1]))["canary"] == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "holds no canary"),
        ("no chance in it", "might read otherwise in only 0 ways"),
        ("{40381}\n{40381}", "canary 2 of .* is among the pieces already"),
        ("{40381} " * 9, "at most 31 tokens"),
    ],
)
def test_what_cannot_be_ranked_is_not_planted(lines: str, words: str, texts: Path, tmp_path: Path):
    (tmp_path / "c.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        prepare(texts, tmp_path / "c", modality="text", settings=SETTINGS, canaries=tmp_path / "c.txt")
    assert not (tmp_path / "c").exists()


def test_a_file_that_is_not_there_and_pictures_are_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "c.txt").write_text(LINES[0], encoding="utf-8")
    for name, words in (("none.txt", "cannot be read"), ("c.txt", "known of texts and music; pictures have none")):
        monkeypatch.setattr(
            sys,
            "argv",
            ["maquette", "prepare", str(pictures), "-o", str(tmp_path / "c"), "--canaries", str(tmp_path / name)],
        )
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code and words in " ".join(capsys.readouterr().err.split())
