"""The card in a run's folder: there after training, filled in by the audit, and a person's own words stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maquette import cli
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.audit import audit
from maquette.verbs.carding import BESIDE, NAME, keep_card
from maquette.verbs.train import train


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 4, "batch_size": 8, "threads": 1}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "mine")


def figures(run: Run, weights: str) -> None:
    """What `audit` writes, in small."""
    found = {"name": "KID", "space": "judge", "value": 0.5, "low": 0.4, "high": 0.6, "reference": 0.1, "n": 48}
    (run.path / "audit").mkdir(exist_ok=True)
    copied = {"new": 40, "close": 7, "copy": 1, "n": 48, "low": 0.0005, "high": 0.11}
    told = {"weights": weights, "copied": copied, "verdict": ["They are unlike real ones."], "findings": [found]}
    (run.path / "audit" / "audit.json").write_text(json.dumps(told))


def test_training_leaves_a_card_that_invents_nothing(run: Run) -> None:
    text = (run.path / NAME).read_text()
    assert "| model | vae, size tiny |" in text and "| steps of training | 4 |" in text
    assert "this run was not audited" in text and '"license": ' not in text and 'license: "unknown"' in text
    assert "maquette generate FOLDER" in text


def test_the_audit_fills_in_its_figures_and_those_of_other_weights_are_left_out(run: Run) -> None:
    from maquette.run import identity

    for weights, there in ((identity(run), True), ("others", False)):
        figures(run, weights)
        keep_card(run)
        text = (run.path / NAME).read_text()
        assert ("Copies of training pieces: 1 of 48 (95% interval 0.1% to 11.0%)" in text) == there
        assert ("| KID (judge) | 0.5 |" in text and "unlike real ones" in text) == there
        assert ("was not audited" in text) != there


def test_an_audit_by_hand_ends_in_the_card(run: Run) -> None:
    audit(run, samples=12)
    assert "| precision (judge) |" in (run.path / NAME).read_text()


def test_an_edited_card_stays_and_the_new_one_lies_beside_it(run: Run, monkeypatch, capsys) -> None:
    place, beside = run.path / NAME, run.path / BESIDE
    edited = place.read_text() + "\nMy own words.\n"
    place.write_text(edited)
    assert keep_card(run) == beside and keep_card(run) == beside
    assert place.read_text() == edited and "My own words" not in beside.read_text()
    cli._card(run.path)
    assert f"{place} was edited by hand and stays as it is; the new one is {beside}" in capsys.readouterr().out
    beside.write_text("mine too")
    assert keep_card(run) is None and beside.read_text() == "mine too"
    for path in (place, beside):
        path.unlink()
    assert keep_card(run) == place
    cli._card(run.path)
    assert capsys.readouterr().out == ""


def test_a_card_that_is_no_text_counts_as_edited(run: Run) -> None:
    (run.path / NAME).write_bytes(b"\xff\xfe\x00")
    assert keep_card(run) == run.path / BESIDE
    (run.path / NAME).unlink()


def test_a_damaged_audit_does_not_stop_the_card(run: Run) -> None:
    (run.path / "audit" / "audit.json").write_text("{")
    assert "was not audited" in Path(str(keep_card(run))).read_text()
