"""Several runs in one audit: paired differences, one sentence, a refusal where corpora differ; what a run costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.errors import CorpusError, SettingError
from maquette.finding import Finding
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.comparing import compare, difference, paired_interval, same_corpus, sentence
from maquette.verbs.costing import ASSUMPTION, bytes_on_disk, cost_of
from maquette.verbs.train import train

ONE = Finding("KID", "judge", 0.1, 0.05, 0.15, 0.0, 50, "lower", "")


def finding(name: str, value: float, direction: str = "lower") -> Finding:
    return replace(ONE, name=name, value=value, low=value - 0.05, high=value + 0.05, direction=direction)


def test_a_paired_interval_sees_what_two_intervals_cannot() -> None:
    easy = torch.arange(200) % 2 * 1.0
    better = easy.clone()
    better[:20:2] = 1.0
    low, high = paired_interval(better, easy, 0)
    assert 0 < low < 0.05 < high
    assert paired_interval(easy, easy, 0) == (0.0, 0.0)


@pytest.mark.parametrize(
    "first, second, direction, better",
    [
        (0.1, 0.4, "lower", "first"),
        (0.1, 0.4, "higher", "second"),
        (0.1, 0.15, "lower", "neither"),
        (0.1, 0.4, "near", "first"),
    ],
)
def test_without_scores_two_intervals_that_meet_show_no_difference(
    first: float, second: float, direction: str, better: str
) -> None:
    found = difference(finding("x", first, direction), finding("x", second, direction), None)
    assert found.better == better and found.low is None and found.high is None


def test_one_sentence_says_who_is_better_in_what() -> None:
    found = [
        difference(finding("KID", 0.1), finding("KID", 0.4), None),
        difference(finding("recall", 0.1, "higher"), finding("recall", 0.12, "higher"), (-0.04, -0.01)),
        difference(finding("coverage", 0.1, "higher"), finding("coverage", 0.4, "higher"), (-0.4, 0.1)),
    ]
    words = sentence(found, ("a", "b"))
    assert (
        words
        == "a beside b: a is better in KID (judge); b is better in recall (judge); no difference is found in coverage (judge)."
    )


def test_runs_of_different_corpora_are_refused() -> None:
    runs = [SimpleNamespace(path=Path(n), facts={"corpus": {"name": n, "fingerprint": n}}) for n in ("a", "b")]
    with pytest.raises(CorpusError, match=r"trained on the corpus a .* on b .*cannot be compared"):
        same_corpus(runs)
    with pytest.raises(SettingError, match="two runs"):
        compare(runs[:1])


def test_two_runs_are_audited_and_stand_side_by_side(corpus, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 2, "batch_size": 8}})
    for name in ("a", "b"):
        train(corpus, recipe, tmp_path / name)
    made = compare([Run.open(tmp_path / n) for n in ("a", "b")], samples=20)
    assert made.folder == tmp_path / "a" / "comparison-b"
    facts = json.loads((made.folder / "comparison.json").read_text())
    (own,) = facts["comparisons"]
    assert own["runs"] == ["a", "b"] and own["words"] == made.words and made.words in made.page.read_text()
    told = {(d["first"]["name"], d["low"] is not None) for d in own["differences"]}
    assert {n for n, pair in told if pair} == {"precision", "recall", "coverage"}
    assert {d["better"] for d in own["differences"]} == {"neither"}  # the same recipe and seed: the same weights
    assert all((made.folder / n / "audit.json").is_file() for n in ("a", "b"))
    cost = json.loads((made.folder / "a" / "audit.json").read_text())["cost"]
    assert cost["seconds_a_piece"] > 0 and cost["bytes_on_disk"] > 1000 and cost["cpu_seconds"] > 0
    assert cost["words"] in made.audits[0].page.read_text() and ASSUMPTION in cost["words"]


def test_energy_follows_from_processor_time_by_the_assumption_and_audits_take_no_room(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.html").write_text("x" * 500)
    (tmp_path / "weights").write_text("x" * 70)
    assert bytes_on_disk(tmp_path) == 70
    run = SimpleNamespace(path=tmp_path, facts={"cpu_seconds": 240.0}, codec=None, partner=None)
    cost = cost_of(run, 2.0, 8)
    assert cost["watt_hours"] == 1.0 and cost["seconds_a_piece"] == 0.25
    run.facts = {}
    assert cost_of(run)["watt_hours"] is None and "does not tell" in cost_of(run)["words"]
