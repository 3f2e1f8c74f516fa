"""An audit of what cannot be judged well says so in a sentence, and gives no silent number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError
from maquette.features import Known, judge_of
from maquette.recipe import make_recipe
from maquette.space import Space
from maquette.verbs.audit import Evidence, assess, audit
from maquette.verbs.train import train
from maquette.writing import CorpusWriter


def corpus_of(folder: Path, content: np.ndarray, label: str | None = None) -> Corpus:
    """A corpus of pictures (n, 1, 8, 8), a fifth of them held out."""
    folder.mkdir()
    space, n = Space("grid", content.shape[1:]), len(content)
    writer = CorpusWriter(folder, space, np.uint8)
    for row in content:
        writer.add(row, b"{}\n")
    writer.close()
    held = n // 5
    rows = np.arange(n)
    splits = {"train": rows[: n - 2 * held], "validation": rows[n - 2 * held : n - held], "test": rows[n - held :]}
    facts = {
        "name": folder.name,
        "fingerprint": f"{folder.name}{n}",
        "spec": {**json.loads(json.dumps(_spec(space)))},
        "counts": {k: len(v) for k, v in splits.items()},
        "modality": {"name": "image", "settings": {}, "fitted": {"channels": 1, "height": 8, "width": 8}},
        **({"labels": {label: n}} if label else {}),
    }
    writer.finish(splits, None, facts)
    return Corpus.open(folder)


def _spec(space: Space) -> dict:
    from maquette.space import DataSpec

    return DataSpec(space).to_json()


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8)).astype(np.uint8)


def assessed(corpus: Corpus, made: torch.Tensor) -> Evidence:
    return assess(made, corpus, judge=judge_of(corpus, work=1), noun="pictures")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_of(tmp_path_factory.mktemp("corpora") / "plain", noise(100))


def test_a_corpus_that_has_moved_or_changed_is_named(plain: Corpus, tmp_path: Path) -> None:
    run = train(plain, make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 1}}), tmp_path / "run")
    other = corpus_of(tmp_path / "other", noise(50))
    with pytest.raises(CorpusError, match=r"is not the corpus .* was trained on, or was prepared anew since"):
        audit(run, other)
    run.facts["corpus"]["path"] = "../gone"
    with pytest.raises(CorpusError, match=r"is no longer at .*gone; say where it is with --corpus"):
        audit(run)


def test_fewer_than_ten_pieces_are_not_measured(plain: Corpus) -> None:
    found = assessed(plain, plain.tensor("validation").x[:9])
    assert not found.findings and "fewer than 10 generated or held-out pictures: nothing was measured" in found.notes[0]
    assert "cannot be measured: 9 were generated and 20 held out, and at least 10" in found.verdict[0]


def test_of_a_single_class_nothing_is_told_of_representation(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "single", noise(100), label="oak")
    found = assessed(corpus, corpus.tensor("validation").x)
    assert "all pieces carry one label, oak: nothing can be told of representation and consistency" in found.notes
    assert found.findings and not any(f.name in ("representation", "consistency") for f in found.findings)


def test_identical_generated_pieces_are_counted_and_of_few_kinds(plain: Corpus) -> None:
    found = assessed(plain, plain.tensor("validation").x[:1].repeat(20, 1, 1, 1))
    assert "19 of 20 generated pictures repeat another in pixels" in found.notes
    assert "of few kinds only" in found.verdict[1]


def test_identical_held_out_pieces_have_constant_features_and_no_figure(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "same", np.full((100, 1, 8, 8), 90, np.uint8))
    found = assessed(corpus, torch.from_numpy(noise(20)).float() / 127.5 - 1)
    assert not found.findings
    assert "only 1 different ones are left, so nothing was measured in judge" in found.notes
    assert "at least 10 different ones of each are needed" in found.verdict[0]


def test_features_that_are_no_numbers_are_refused(plain: Corpus) -> None:
    known = judge_of(plain, work=1)
    known.judge.mean[0] = torch.nan
    with pytest.raises(RunError, match="features in judge are not all finite numbers; nothing can be measured in them"):
        assess(plain.tensor("validation").x, plain, judge=Known(known.judge, known.hash))
