"""The audit of texts with a judge: which one it takes, what it passes over aloud, and what the files say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_sensing import of_texts

from maquette.corpus import Corpus
from maquette.errors import SettingError
from maquette.recipe import make_recipe
from maquette.run import Run, identity
from maquette.verbs import lending
from maquette.verbs.audit import audit
from maquette.verbs.train import train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return of_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """An n-gram, a barely trained pretext run and one that has learnt for longer, side by side."""
    place = tmp_path_factory.mktemp("runs")
    made = {"mine": train(corpus, make_recipe({"model": "ngram"}), place / "mine")}
    for name, steps in (("brief", 2), ("pre", 80)):
        recipe = make_recipe({"model": "masked", "size": "tiny", "train": {"steps": steps, "threads": 1}})
        made[name] = train(corpus, recipe, place / name)
    return made


def test_an_audit_of_texts_is_by_the_pretext_run_beside_it_and_says_so(
    corpus: Corpus, runs: dict[str, Run], tmp_path: Path
):
    found = audit(runs["mine"], corpus, samples=24, out=tmp_path)
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["judge"]["hash"] == identity(runs["pre"]) and "a run of masked" in told["judge"]["words"]
    assert "untrained" in told["n-grams"]["words"] and told["n-grams"]["hash"]
    assert any("brief was passed over" in note and "it saw 64 pieces" in note for note in told["notes"])
    names = {(f["name"], f["space"]) for f in told["findings"]}
    wanted = (
        "Frechet distance",
        "KID",
        "precision",
        "density",
        "recall",
        "coverage",
        "Vendi score",
        "C_T",
        "authenticity",
    )
    assert all((name, space) in names for name in wanted for space in ("judge", "n-grams"))
    page = found.page.read_text(encoding="utf-8")
    assert identity(runs["pre"]) in page and told["n-grams"]["hash"] in page and "was passed over" in page
    assert len(found.verdict) == 3 and "look like some held-out one" in found.verdict[0]


def test_a_barely_trained_pretext_run_judges_only_where_it_is_asked_for(corpus: Corpus, runs: dict[str, Run]):
    mine, brief = runs["mine"], runs["brief"]
    assert lending.too_short(brief, 2, corpus) and not lending.too_short(runs["pre"], 80, corpus)
    assert lending.chosen(brief, mine, corpus).hash == identity(brief)
    assert not lending.passed_over(brief, mine, corpus) and lending.chosen("own", mine, corpus) is None


def test_encoders_of_pictures_are_no_judges_of_texts(corpus: Corpus, runs: dict[str, Run], tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(SettingError, match="sequences are judged by a run of `maquette pretrain`"):
        lending.lend(tmp_path / "net.onnx", runs["mine"], corpus)
