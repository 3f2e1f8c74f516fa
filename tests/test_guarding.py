"""A policy at work: what is asked, what is made and what is learnt from are held against it; all is told, only `block` keeps back."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import pytest

from maquette import cli
from maquette.api import Trained, generate, prepare, train
from maquette.errors import ContentError, UsageError
from maquette.guard.policy import load, make
from maquette.piece import Piece
from maquette.run import Run
from maquette.verbs.doctor import report
from maquette.verbs.generate import Wish
from maquette.verbs.guarding import Guard, guard_of

WORDS = "the blarg sat on a mat and zonk ran home with cats dogs birds trees under moon"
POLICY = """
[[lists]]
name = "mild"
file = "words.txt"
on = ["training", "output"]

[[lists]]
name = "strict"
words = ["zonk"]
action = "block"
on = ["prompt", "output"]

[personal]
phone = true
action = "block"
on = "training"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sixty texts, of which three name a telephone number, and a policy beside them."""
    root, draw = tmp_path_factory.mktemp("guarding"), random.Random(0)
    (root / "texts").mkdir()
    for k in range(60):
        said = " ".join(draw.choice(WORDS.split()) for _ in range(30)) + (" call +1 (415) 555-2671" if k < 3 else "")
        (root / "texts" / f"{k}.txt").write_text(said + "\n")
    (root / "p.toml").write_text(POLICY)
    (root / "words.txt").write_text("# mild ones\n\nblarg\n")
    return root


@pytest.fixture(scope="module")
def corpus(place):
    return prepare(place / "texts", place / "corpus", policy=place / "p.toml")


@pytest.fixture(scope="module")
def run(place, corpus) -> Run:
    return train(corpus, out=place / "run", model="ngram", minutes=0.02).run


def called(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["maquette", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)


def test_training_text_is_screened_and_what_is_blocked_is_set_apart(place, corpus):
    refused = [json.loads(line) for line in (corpus.path / "quarantine.jsonl").read_text().splitlines()]
    assert [r["file"] for r in refused] == ["0.txt", "1.txt", "2.txt"]
    assert "a telephone number as in US ('+1 (415) 555-2671'" in refused[0]["reason"]
    assert corpus.facts["set_apart"] == {"personal.phone": 3} and corpus.facts["flags"]["mild"] > 30
    lines = [json.loads(line) for line in (corpus.path / "flags.jsonl").read_text().splitlines()]
    assert {"source", "where", "rule", "reason", "span"} <= lines[0].keys()
    card = (corpus.path / "README.md").read_text()
    assert "| kept out by a policy | 3 personal.phone |" in card and "| flagged by a policy |" in card
    assert "flagged: by the policy (mild" in report(corpus)


def test_another_policy_makes_another_corpus_and_none_leaves_no_trace(place, corpus):
    assert prepare(place / "texts", place / "corpus", policy=place / "p.toml").fingerprint == corpus.fingerprint
    bare = prepare(place / "texts", place / "bare")
    assert len(bare) == 60 and "flags" not in bare.facts and not (bare.path / "flags.jsonl").exists()


def test_a_prompt_that_a_rule_blocks_is_refused_with_the_reason(place, run, monkeypatch, capsys):
    with pytest.raises(ContentError, match=r'refused by the policy, prompt: "zonk" is on the list strict'):
        generate(Trained(run), 1, policy=place / "p.toml", prompt="z.0.n.k ran")
    status = called(monkeypatch, "generate", run.path, "-n", 1, "--policy", place / "p.toml", "--prompt", "zonk")
    assert status == 1 and "refused by the policy" in capsys.readouterr().err


def test_pieces_are_flagged_beside_them_and_withheld_ones_are_set_apart(place, run, monkeypatch, capsys):
    out = place / "out"
    called(monkeypatch, "generate", run.path, "-n", 12, "--policy", place / "p.toml", "--no-sign", "-o", out)
    told = json.loads((out / "flags.json").read_text())
    apart = sorted(p.stem for p in (out / "withheld").glob("*.txt"))
    assert told["checked"] == 12 and told["withheld"] == len(apart) > 0
    assert len(list(out.glob("0*.txt"))) == 12 - len(apart)
    assert all("zonk" in (out / "withheld" / f"{name}.txt").read_text() for name in apart)
    assert all("zonk" not in p.read_text() for p in out.glob("0*.txt"))
    assert f"pieces flagged, {len(apart)} withheld" in capsys.readouterr().out
    flags = [f for row in told["pieces"] for f in row["flags"]]
    assert {(f["rule"], f["action"]) for f in flags} == {("mild", "flag"), ("strict", "block")}


def test_python_marks_the_pieces_and_warns_of_what_is_withheld(place, run):
    with pytest.warns(UserWarning, match="of 12 pieces are withheld"):
        kept = generate(Trained(run), 12, policy=load(place / "p.toml"))
    assert 0 < len(kept) < 12 and all("zonk" not in p.content for p in kept)
    assert any(f["rule"] == "mild" for p in kept for f in p.facts["policy"]["flags"])
    assert "policy" not in generate(Trained(run), 1)[0].facts


def test_a_policy_in_the_folder_of_the_run_holds_where_none_is_given(place, run):
    (run.path / "policy.toml").write_text('[[lists]]\nname = "own"\nwords = ["the", "cats"]\n')
    flags = [f["rule"] for p in generate(Trained(run), 6) for f in p.facts["policy"]["flags"]]
    (run.path / "policy.toml").unlink()
    assert set(flags) == {"own"}
    assert guard_of(run) is None


def test_a_stream_is_not_shown_where_it_may_have_to_be_withheld(place):
    with pytest.raises(UsageError, match="drop --stream"):
        Guard(load(place / "p.toml")).before_streaming()
    flagging = Guard(make({"lists": [{"name": "a", "words": ["zonk"]}]}))
    flagging.before_streaming()
    assert list(flagging.said({"text": "a zonk"})) == [
        "flag: text: \"zonk\" is on the list a ('zonk', from character 3)"
    ]


def test_a_caption_that_a_rule_blocks_is_not_told(place):
    with pytest.raises(ContentError, match="withheld by the policy, caption"):
        list(Guard(load(place / "p.toml")).said({"caption": "zonk"}))


def test_conditions_are_asked_too(run):
    guard = Guard(make({"lists": [{"name": "a", "words": ["zonk"], "action": "block"}]}))
    with pytest.raises(ContentError, match="condition label"):
        guard.ask(run, Wish(condition={"label": "zonk"}))
    picture = Piece(None, {"wish": {"seed": 3, "condition": {"label": "Z-o-n-k"}}})
    assert list(guard.passed([picture])) == [] and guard.withheld == 1
    assert guard.pieces[0][2][0].where == "label"


def test_every_flag_is_counted_though_few_are_said():
    guard = Guard(make({"lists": [{"name": "a", "words": ["zonk"]}]}), "p.toml")
    pieces = [Piece("zonk", {"wish": {"seed": k}}) for k in range(9)]
    assert [replace(p, facts={}) for p in guard.passed(pieces)] == [Piece("zonk")] * 9
    lines = list(guard.lines())
    assert lines[5:] == ["flag: and 4 more", "policy: 9 of 9 pieces flagged, 0 withheld (p.toml)"]
