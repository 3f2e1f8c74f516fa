"""What every file of modalities/ keeps: the suite lists the folder, so a new file is under contract at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import MaquetteError
from maquette.piece import Asked
from maquette.verbs.prepare import prepare

KINDS = catalog.names("modalities")
every_kind = pytest.mark.parametrize("name", KINDS)


def content(name: str, folder: Path) -> Path:
    """Twelve different pieces of a kind; a new modality adds its own here."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    if name == "image":
        for k in range(12):
            PIL.Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{k}.png")
    elif name == "text":
        rows = [{"text": "".join(chance.choice(list("abc \n"), 40)) + str(k)} for k in range(12)]
        (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif name == "music":
        rolls = [[[int(p), int(p) - 7] for p in chance.integers(60, 80, 16)] for _ in range(12)]
        (folder / "all.json").write_text(json.dumps({"all": rolls}), encoding="utf-8")
    else:
        pytest.fail(f"tests/test_modalities_contract.py knows no content for {name}")
    return folder


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    root = tmp_path_factory.mktemp("kinds")
    return {n: prepare(content(n, root / n), root / f"{n}-corpus", modality=n) for n in KINDS}


@every_kind
def test_its_settings_say_what_they_are(name: str) -> None:
    kind = catalog.find("modalities", name)
    assert kind.pretty and all(s == s.lower() for s in (*kind.suffixes, *kind.formats))
    assert all(row["description"] for row in catalog.table(kind))


@every_kind
def test_tensors_are_of_its_space_and_become_pieces_that_become_the_same_tensors(name: str, corpora) -> None:
    corpus = corpora[name]
    modality = catalog.modality(corpus.facts["modality"])
    x = corpus.take(corpus.numbers("train")[:1]).x[0]
    again = modality.to_tensor(modality.to_piece(x))
    assert modality.space == corpus.spec.space and again.dtype == x.dtype
    assert torch.equal(again, x[: len(again)])


@every_kind
@pytest.mark.parametrize("which", ["usual", "first"])
def test_what_is_written_is_read_back_with_its_facts(name: str, which: str, corpora, tmp_path: Path) -> None:
    corpus = corpora[name]
    modality = catalog.modality(corpus.facts["modality"])
    piece = modality.to_piece(corpus.take(corpus.numbers("train")[:1]).x[0], {"wish": {"seed": 3}})
    suffix = (modality.formats or modality.suffixes)[0] if which == "usual" else modality.suffixes[0]
    path = modality.write(piece, tmp_path / f"a{suffix}")
    assert modality.read_facts(path)["wish"] == {"seed": 3}
    back = modality.to_tensor(modality.clean(modality.one(path)))
    assert torch.equal(back, modality.to_tensor(piece))


@every_kind
def test_a_sheet_and_an_exhibit_show_pieces_without_anything_from_outside(name: str, corpora, tmp_path: Path) -> None:
    corpus = corpora[name]
    modality = catalog.modality(corpus.facts["modality"])
    pieces = [modality.to_piece(x) for x in corpus.take(corpus.numbers("train")[:3]).x]
    assert modality.sheet(pieces, tmp_path / "sheet.png").stat().st_size > 0
    assert (
        "http://" not in (html := modality.exhibit(pieces[0])).replace("http://www.w3.org", "")
        and "<script" not in html
    )


@every_kind
def test_what_means_nothing_to_it_is_refused_in_words(name: str, corpora) -> None:
    modality = catalog.modality(corpora[name].facts["modality"])
    for asked in (Asked(rules=("nonsense",)), Asked(form="nonsense"), Asked(source="nowhere")):
        with pytest.raises(MaquetteError) as error:
            modality.start(asked)
        assert len(str(error.value)) > 15


@every_kind
def test_varying_a_batch_keeps_its_shape_and_kind(name: str, corpora) -> None:
    corpus = corpora[name]
    modality = catalog.modality(corpus.facts["modality"])
    batch = next(corpus.batches(4, seed=0))
    varied = modality.augment(batch, corpus.spec.condition)
    assert varied.x.shape == batch.x.shape and varied.x.dtype == batch.x.dtype and len(varied) == 4
