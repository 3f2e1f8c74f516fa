"""From planted copies to the refusal of an export: a run that has learnt its texts by heart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from maquette import cli
from maquette.corpus import Corpus
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

LETTERS = list("abcdefghij klmn")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """240 lines of chance letters, of which 24 train, whose licence forbids derivatives."""
    root, chance = tmp_path_factory.mktemp("lines"), np.random.default_rng(5)
    rows = [{"text": "".join(chance.choice(LETTERS, 24)), "license": "CC BY-ND 4.0"} for _ in range(240)]
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    settings = {"context": 32, "tokens": "characters"}
    return prepare(
        root, tmp_path_factory.mktemp("corpora") / "lines", modality="text", settings=settings, split=(0.1, 0.5, 0.4)
    )


@pytest.fixture(scope="module")
def parrot(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """It knows the training lines by heart, for no validation piece ended its training."""
    settings = {"transformer": {"width": 64, "layers": 2, "dropout": 0.0, "absolute": False}}
    choices = {"steps": 300, "threads": 1, "batch_size": 24, "lr_scale": 2.0}
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
