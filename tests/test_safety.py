"""A safety head: thresholds keep the chosen miss rate, unsure pieces are told and never blocked, what cannot be promised is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import tiny

from maquette.api import Trained, generate
from maquette.corpus import Corpus
from maquette.errors import SettingError, UnknownName, UsageError
from maquette.guard.policy import make
from maquette.piece import Piece
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.adapt import adapt
from maquette.verbs.guarding import Guard
from maquette.verbs.prepare import prepare
from maquette.verbs.safety import Safety, thresholds
from maquette.verbs.train import train


@pytest.mark.parametrize("n", [19, 20, 39, 137])
def test_the_next_piece_is_missed_as_often_as_was_chosen_at_most(n):
    chance = torch.Generator().manual_seed(n)
    bad, good = torch.rand(2000, n + 1, generator=chance), torch.rand(2000, 150, generator=chance)
    found = [thresholds(b[:-1], g[:-1], 0.05, 0.02) for b, g in zip(bad, good, strict=True)]
    missed = sum(float(b[-1]) < t.low for b, t in zip(bad, found, strict=True)) / 2000
    alarmed = sum(float(g[-1]) >= t.high for g, t in zip(good, found, strict=True)) / 2000
    assert missed < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    assert alarmed < 0.02 + 3 * (0.02 * 0.98 / 2000) ** 0.5
    assert missed > 0.01


def test_too_few_pieces_promise_nothing():
    with pytest.raises(SettingError, match=r"misses = 0.05 needs 19 validation pieces.*there are 18"):
        thresholds(torch.rand(18), torch.rand(100), 0.05, 0.01)


@pytest.fixture(scope="module")
def head(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tells circles from squares."""
    place = tmp_path_factory.mktemp("heads")
    start = train(corpus, tiny("contrast", 4), place / "start")
    given = {"batch_size": 16, "threads": 1}
    return adapt(start, corpus, place / "head", task="classify", method="full", steps=30, given=given)


@pytest.fixture(scope="module")
def maker(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(corpus, tiny("gan", 4), tmp_path_factory.mktemp("makers") / "maker")


def policy(head: Run, **more):
    return make({"head": {"run": str(head.path), "labels": ["circle"], "misses": 0.2, "alarms": 0.2, **more}})


def test_what_is_looked_for_is_blocked_and_what_is_unsure_is_only_told(head, corpus):
    safety = Safety(policy(head, action="block").head)
    numbers = corpus.numbers("test").tolist()
    held = [
        safety.modality.to_piece(x, corpus.facts_of(k)) for k, x in zip(numbers, corpus.take(numbers).x, strict=True)
    ]
    hits = {label: [safety.look(p) for p in held if p.facts["label"] == label] for label in ("circle", "square")}
    assert sum(bool(h) for h in hits["circle"]) >= 0.5 * len(hits["circle"])
    assert all(h.action == "flag" for found in hits.values() for one in found for h in one if h.rule == "head.unsure")
    assert all(h.action == "block" for found in hits.values() for one in found for h in one if h.rule == "head")


def test_thresholds_are_kept_with_the_head(head):
    first = Safety(policy(head).head).thresholds
    known = json.loads((head.path / "safety.json").read_text())
    assert known["thresholds"]["low"] == first.low and first.bad == first.good == 9
    known["thresholds"]["low"] = 0.123
    (head.path / "safety.json").write_text(json.dumps(known))
    assert Safety(policy(head).head).thresholds.low == 0.123
    assert Safety(policy(head, misses=0.3).head).thresholds.low != 0.123


def test_generate_holds_each_piece_against_the_head(head, maker):
    (head.path / "safety.json").unlink(missing_ok=True)
    guard = Guard(policy(head, action="block"))
    guard.safety.thresholds = type(guard.safety.thresholds)(0.0, 0.0, 9, 9)  # everything is what is looked for
    made = generate(Trained(maker), 3)
    assert list(guard.passed(made)) == [] and guard.withheld == 3
    assert next(iter(guard.lines())).startswith("flag: seed 0, piece: the safety head takes it for circle")
    guard.safety.thresholds = type(guard.safety.thresholds)(1.1, 1.1, 9, 9)
    assert len(list(guard.passed(made))) == 3


def test_a_head_that_cannot_serve_is_refused_in_words(head, maker, tmp_path: Path):
    with pytest.raises(UnknownName, match="did you mean circle"):
        Safety(policy(head, labels=["circel"]).head)
    with pytest.raises(SettingError, match="adapt --task classify"):
        Safety(policy(maker).head)
    with pytest.raises(SettingError, match=r"head\.misses of the policy"):
        policy(head, misses=2)
    with pytest.raises(UnknownName, match="did you mean labels"):
        make({"head": {"run": "x", "label": ["a"]}})


# ---- texts


@pytest.fixture(scope="module")
def shouting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Run]:
    """Texts of which a third shout, some of them longer than a head sees at once; and a head that tells them from the others."""
    root, chance, rows = tmp_path_factory.mktemp("texts"), np.random.default_rng(0), []
    for k in range(300):
        text = " ".join(chance.choice(["the owl", "my dog", "a pie", "the sea", "sees", "wants"], 3 + 9 * (k % 7 == 0)))
        rows.append({"text": text.upper() if k % 3 == 0 else text, "label": "shout" if k % 3 == 0 else "talk"})
    (root / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"context": 32, "tokens": "characters"}
    corpus = prepare(root, root / "corpus", settings=settings, split=(0.5, 0.3, 0.2))
    given = {"batch_size": 16, "threads": 1}
    start = train(
        corpus, make_recipe({"model": "masked", "size": "tiny", "train": {"steps": 4, "threads": 1}}), root / "pre"
    )
    return corpus, adapt(start, corpus, root / "head", task="classify", method="full", steps=60, given=given)


def test_a_head_on_texts_flags_what_it_learnt_and_long_ones_by_their_worst_window(shouting):
    corpus, head = shouting
    safety = Safety(make({"head": {"run": str(head.path), "labels": ["shout"], "misses": 0.1, "alarms": 0.1}}).head)
    pieces = [
        (safety.modality.to_piece(corpus.take(k[None]).x[0]), corpus.facts_of(int(k))["label"])
        for k in corpus.numbers("test")
    ]
    hits = {label: [bool(safety.look(p)) for p, found in pieces if found == label] for label in ("shout", "talk")}
    assert np.mean(hits["shout"]) > 0.8 and np.mean(hits["talk"]) < 0.3
    calm, loud = "the owl sees a pie and wants the sea. " * 4, "THE OWL SEES MY DOG AND WANTS IT"
    scores = [safety.score(safety.modality.to_tensor(Piece(text))) for text in (calm, calm + loud, loud)]
    assert scores[0] < scores[1] and scores[1] > 0.5 * scores[2]


def test_a_head_on_texts_refuses_pictures_and_says_what_it_cannot_read(shouting, head):
    safety = Safety(
        make({"head": {"run": str(shouting[1].path), "labels": ["shout"], "misses": 0.1, "alarms": 0.1}}).head
    )
    picture = Piece(np.zeros((16, 16, 1), np.uint8), {}, Safety(policy(head).head).modality)
    with pytest.raises(SettingError, match="knows texts, and these are pictures"):
        safety.look(picture)
    (hit,) = safety.look(Piece("", {}, safety.modality))
    assert hit.rule == "head.unsure" and "cannot read it" in hit.reason


def test_a_text_that_a_head_may_withhold_is_not_streamed_and_what_it_flags_is_told(shouting):
    about = {"run": str(shouting[1].path), "labels": ["shout"], "misses": 0.1, "alarms": 0.1}
    with pytest.raises(UsageError, match="drop --stream"):
        Guard(make({"head": {**about, "action": "block"}})).before_streaming()
    guard = Guard(make({"head": about}))
    guard.before_streaming()
    guard.safety.thresholds = type(guard.safety.thresholds)(0.0, 0.0, 9, 9)
    assert [line[:30] for line in guard.said({"text": "hm"}, Piece("hm"))] == ["flag: piece: the safety head t"]
