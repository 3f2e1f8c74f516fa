"""The whole road of texts on a small folder: prepare, train with a partner, generate, stream, audit; and what early stopping keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import RunError, UsageError
from maquette.piece import Piece
from maquette.recipe import make_recipe
from maquette.run import Run, identity
from maquette.verbs.audit import audit
from maquette.verbs.generate import Wish, generate, like, save, streaming
from maquette.verbs.prepare import prepare
from maquette.verbs.reading import gathered
from maquette.verbs.train import choose, train

WORDS = ("the moon", "a river", "my song", "the hill", "an owl", "cold rain", "old wine", "a friend")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Eighty poems of three lines by two poets, one of whom writes in capitals."""
    root = tmp_path_factory.mktemp("texts")
    chance = np.random.default_rng(0)
    poems = []
    for k in range(80):
        lines = "\n".join(" and ".join(chance.choice(WORDS, 2)) for _ in range(3))
        poems.append({"text": lines.upper() if k % 2 else lines, "author": "loud" if k % 2 else "soft"})
    (root / "poems.jsonl").write_text("\n".join(json.dumps(p) for p in poems), encoding="utf-8")
    return prepare(root, tmp_path_factory.mktemp("corpora") / "poems", settings={"context": 64})


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {"transformer": {"width": 48, "layers": 2}}
    recipe = {"model": "transformer+ngram", "models": settings, "train": {"steps": 60, "threads": 1}}
    return train(corpus, make_recipe(recipe), tmp_path_factory.mktemp("runs") / "poems")


def test_auto_takes_a_transformer_with_an_ngram_for_texts(corpus: Corpus):
    chosen, why = choose(make_recipe({}), corpus)
    assert chosen.model == "transformer+ngram" and "than either" in why


def test_partners_foretell_better_than_either_alone(run: Run, corpus: Corpus):
    from maquette.likelihood import piece_nats

    both = run.sampler().model
    nats = [float(piece_nats(m, corpus, "validation")[1].sum()) for m in (both, both.first, both.second)]
    assert nats[0] < min(nats[1:]) * 1.01


def test_the_run_resumes_to_nothing_and_is_the_same_run(run: Run, corpus: Corpus):
    before = identity(run)
    assert identity(train(corpus, run.recipe, run.path)) == before
    with pytest.raises(RunError, match="another recipe"):
        train(corpus, make_recipe({"model": "ngram"}), run.path)


def test_poems_are_written_with_their_papers_and_made_again_from_them(run: Run, tmp_path: Path):
    made = generate(run, 3, Wish(seed=5, condition={"author": "loud"}, prompt="THE"))
    paths = save(made, tmp_path)
    assert [p.suffix for p in paths] == [".txt"] * 3 and all(p.content.startswith("THE") for p in made)
    facts = made[1].modality.read_facts(paths[1])
    again = generate(run, 1, like(facts, run))[0]
    assert again.content == made[1].content


def test_streaming_shows_the_same_text_part_by_part(run: Run):
    wish = Wish(seed=3, prompt="a ")
    parts = list(streaming(run, wish))
    assert len(parts) > 5 and "".join(parts) == generate(run, 1, wish)[0].content


def test_the_author_steers(run: Run):
    loud, soft = (
        "".join(p.content for p in generate(run, 8, Wish(condition={"author": a}, guidance=2.0)))
        for a in ("loud", "soft")
    )
    assert sum(c.isupper() for c in loud) > sum(c.isupper() for c in soft)


def test_a_form_holds_in_every_piece(run: Run):
    made = generate(run, 20, Wish(form="lines=2"))
    assert all(len(p.content.strip("\n").split("\n")) == 2 for p in made)


def test_words_that_mean_nothing_here_are_refused(run: Run):
    for wish, said in ((Wish(form="sonnett"), "form"), (Wish(bars=4), "bars"), (Wish(prompt="☃"), "☃")):
        with pytest.raises(UsageError, match=said):
            generate(run, 1, wish)


def test_the_audit_prints_exact_nats_beside_the_ngrams_and_its_own_figures(run: Run, corpus: Corpus, tmp_path: Path):
    made = audit(run, corpus, samples=12, out=tmp_path)
    names = [f.name for f in made.findings]
    assert "nats a character" in names and "nats a character, told nothing" in names
    nats = next(f for f in made.findings if f.name == "nats a character")
    assert 0 < nats.low <= nats.value <= nats.high and nats.reference > 0
    assert len(made.verdict) == 3 and "n-gram" in made.verdict[0]
    page = made.page.read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "") and "<pre" in page
    assert json.loads((tmp_path / "audit.json").read_text())["findings"]
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["copies"] == [] and "99 held-out pieces" in told["copies_untold"] and "99 held-out" in page
    held = [p.content for p in gathered([Piece("")] * 50, corpus, catalog.modality(corpus.facts["modality"]), 0).held]
    assert len(held) == corpus.size("test") == len(set(held)), "of few held-out pieces each comes once"


def test_the_best_weights_on_validation_are_those_that_write(corpus: Corpus, tmp_path: Path):
    """Two hundred poems learnt by heart: training ends early, and what samples is the best and not the last."""
    settings = {"transformer": {"width": 96, "layers": 2, "dropout": 0.0, "head_width": 48}}
    recipe = {"model": "transformer", "models": settings, "train": {"steps": 400, "threads": 1, "lr_scale": 2.0}}
    found = train(corpus, make_recipe(recipe), tmp_path / "run")
    best, newest = found.best(()), found.newest(())
    assert best is not None and newest is not None
    assert best.facts["step"] <= newest.facts["step"] and newest.facts["best"][0] == best.facts["step"]
    if best.facts["step"] < 280:
        assert newest.facts["step"] < 400
