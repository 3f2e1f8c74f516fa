"""Altered copies are found among training pieces: mirrored, moved, cropped, brightened; grids of any number of axes go through."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maquette import catalog
from maquette.aligned import Aligned, Candidates, Parts, moved, rescored
from maquette.corpus import Corpus
from maquette.errors import CorpusError
from maquette.features import judge_of
from maquette.finding import Material
from maquette.metrics import authenticity
from maquette.neighbours import Several
from maquette.space import DataSpec, Space
from maquette.verbs import copies
from maquette.writing import CorpusWriter

TRAIN, HELD, SIDE = 150, 110, 16


def blobs(n: int, seed: int, shape: tuple[int, ...] = (1, SIDE, SIDE)) -> Tensor:
    """(n, *shape) in [-1, 1]: smooth fields, each another."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, shape[0], *[5] * (len(shape) - 1), generator=chance)
    mode = ("linear", "bilinear", "trilinear")[len(shape) - 2]
    return F.interpolate(coarse, shape[1:], mode=mode, align_corners=True) * 1.6 - 0.8


def cropped(x: Tensor, top: int, left: int) -> Tensor:
    kept = round(0.9 * SIDE)
    part = x[:, :, top : top + kept, left : left + kept]
    return F.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)


ALTERED = {
    "as it is": lambda x: x,
    "mirrored": lambda x: x.flip(-1),
    "moved": lambda x: F.pad(x, (1, 0, 0, 1), value=-1)[:, :, 1:, :SIDE],
    "cropped": lambda x: cropped(x, 1, 0),
    "mirrored and cropped": lambda x: cropped(x.flip(-1), 2, 2),
    "brighter": lambda x: (x + 0.25).clamp(-1, 1),
    "less contrast": lambda x: 0.6 * x,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpora") / "blobs"
    folder.mkdir()
    space = Space("grid", (1, SIDE, SIDE))
    writer = CorpusWriter(folder, space, np.uint8)
    for i, row in enumerate(((blobs(TRAIN + 2 * HELD, 0) + 1) * 127.5).round().to(torch.uint8).numpy()):
        facts = {"source": f"{i}.png", "license": "CC-BY-4.0", "owner": f"painter {i}"}
        writer.add(row, json.dumps(facts).encode() + b"\n")
    writer.close()
    ends = np.cumsum([0, TRAIN, HELD, HELD])
    splits = {s: np.arange(ends[k], ends[k + 1]) for k, s in enumerate(("train", "validation", "test"))}
    modality = {"name": "image", "settings": {}, "fitted": {"channels": 1, "height": SIDE, "width": SIDE}}
    facts = {"name": "blobs", "fingerprint": "blobs", "spec": DataSpec(space).to_json(), "modality": modality}
    writer.finish(splits, None, {**facts, "counts": {k: len(v) for k, v in splits.items()}})
    return Corpus.open(folder)


@pytest.fixture(scope="module")
def judge(corpus: Corpus):
    return judge_of(corpus, work=1)


@pytest.fixture(scope="module")
def told(corpus: Corpus, judge) -> dict:
    """The verdicts on four copies of each alteration and, behind them, on the test split."""
    planted = [alter(corpus.tensor("train").x[4 * k : 4 * k + 4]) for k, alter in enumerate(ALTERED.values())]
    return copies.copies(torch.cat([*planted, corpus.tensor("test").x]), corpus, judge)


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_copy_is_told_with_its_piece_its_licence_and_its_owner(told: dict, name: str) -> None:
    first = 4 * list(ALTERED).index(name)
    rows = {row["made"]: row for row in told["copies"] if row["verdict"] == "copy"}
    for k in range(first, first + 4):
        assert len(rows[k]["nearest"]) == 3
        own = rows[k]["nearest"][0]
        assert (own["source"], own["licence"], own["owner"]) == (f"{k}.png", "CC-BY-4.0", f"painter {k}")


def test_few_new_pieces_are_accused_and_the_count_has_its_interval(told: dict) -> None:
    planted = 4 * len(ALTERED)
    count = told["copied"]
    assert planted <= count["copy"] <= planted + 3 and count["n"] == planted + HELD
    assert count["low"] < count["copy"] / count["n"] < count["high"]
    assert f"{count['copy']} of {count['n']}" in copies.told(told) and "mirror images" in copies.told(told)
    assert copies.added(told) == f" {count['copy']} of them are copies of a training one, as it is or altered."
    (found,) = copies.finding(told, "pictures")
    assert found.value == count["copy"] / count["n"] and "altered or not" in found.sentence


def test_the_page_shows_each_piece_beside_three_with_licence_and_owner(corpus: Corpus, told: dict) -> None:
    made = torch.cat([corpus.tensor("train").x[:28], corpus.tensor("test").x])
    modality = catalog.modality(corpus.facts["modality"])
    widths = []
    shown = copies.section(told, made, corpus, modality, 100, lambda xs, m, n: widths.append(len(xs)) or b"")
    assert widths == [4] * copies.ROWS
    first = told["copies"][0]
    assert f"seed {100 + first['made']}: copy" in shown.body and f"painter {first['made']}" in shown.body


def test_pieces_that_are_variants_of_training_ones_do_not_calibrate(corpus: Corpus, judge) -> None:
    held = corpus.tensor("validation").x.clone()
    held[:5] = corpus.tensor("train").x[:5].flip(-1)
    found = copies.calibration(copies.near([held], corpus, judge), "validation")
    assert len(found.near.distance["aligned"]) == HELD - 5 and "5 more are variants" in found.words


def test_a_small_corpus_gets_no_verdict_but_words(corpus: Corpus, judge) -> None:
    small = corpus.narrowed(validation=np.arange(TRAIN, TRAIN + 50))
    assert copies.held(small)[1] == "test"
    none = small.narrowed(test=np.arange(TRAIN, TRAIN + 50))
    with pytest.raises(CorpusError, match="at least 99 held-out"):
        copies.calibrate(none, judge)
    assert "copies_untold" in copies.copies(corpus.tensor("test").x[:3], none, judge)


@pytest.mark.parametrize(
    "shape", [(1, 40), (2, 7), (3, 9, 12), (4, 16, 16), (1, 200, 70), (1, 6, 6, 6), (1, 5, 20, 20)]
)
def test_any_grid_finds_its_mirror_image(shape: tuple[int, ...]) -> None:
    x = blobs(30, 1, shape)
    for kind in (Aligned(Space("grid", shape)), Parts(Space("grid", shape))):
        plain = kind.plain(x)
        found = Candidates(kind.asked(kind.plain(x[:4].flip(-1))), 4, kind.kinds)
        found.see(kind.known(plain[:20]), torch.arange(20))
        found.see(kind.known(plain[20:]), torch.arange(20, 30))
        distance, index = rescored(kind, kind.plain(x[:4].flip(-1)), found, plain.__getitem__)
        assert index[:, 0].tolist() == [0, 1, 2, 3]
        assert float(distance[:, 0].max()) < 1e-3 and bool((distance.diff(dim=1) >= 0).all())


def test_a_part_that_was_taken_over_is_found_where_the_whole_is_not() -> None:
    train, made = blobs(40, 2), blobs(1, 3)
    made[:, :, :8, :8] = train[7:8, :, :8, :8]
    near = {}
    for kind in (Aligned(Space("grid", (1, SIDE, SIDE))), Parts(Space("grid", (1, SIDE, SIDE)))):
        found = Candidates(kind.asked(made), 3, kind.kinds)
        found.see(kind.known(train), torch.arange(40))
        near[kind.name] = rescored(kind, made, found, train.__getitem__)
    assert int(near["parts"][1][0, 0]) == 7 and float(near["parts"][0][0, 0]) < 1e-3
    assert float(near["aligned"][0][0, 0]) > 0.1


def test_pieces_without_content_are_far_from_all_others_and_at_home_among_themselves() -> None:
    empty, full = torch.zeros(1, 1, 8, 8), blobs(1, 4, (1, 8, 8))
    assert float(moved(empty, empty)) == 0 and float(moved(empty, full)) > 0.5


def test_what_transparency_hides_does_not_count() -> None:
    space = Space("grid", (4, 8, 8))
    x = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x[:, 3, :4] = -1
    other = x.clone()
    other[:, :3, :4] = 0.7
    assert torch.allclose(Aligned(space).plain(x), Aligned(space).plain(other), atol=1e-6)


def test_the_nearest_of_a_stream_are_those_of_a_plain_search() -> None:
    chance = torch.Generator().manual_seed(5)
    queries, rows = torch.randn(30, 6, generator=chance), torch.randn(200, 6, generator=chance)
    several = Several(queries, 4)
    for part in torch.arange(200).split(37):
        several.see(rows[part], part)
    distance, index = torch.cdist(queries, rows).topk(4, largest=False)
    assert torch.equal(several.index, index) and torch.allclose(several.distance, distance, atol=1e-5)


def material(generated: Tensor, train: Tensor, test: Tensor) -> Material:
    to, gaps = [], []
    own = torch.cdist(train, train).fill_diagonal_(torch.inf).amin(1)
    for x in (generated, test):
        distance, index = torch.cdist(x, train).min(1)
        to.append(distance)
        gaps.append(own[index])
    return Material("judge", "pieces", generated, test, train, *to, gaps=tuple(gaps))


def test_copies_are_not_authentic_and_lie_closer_to_training() -> None:
    draw = torch.randn(900, 4, generator=torch.Generator().manual_seed(6))
    train, test, fresh = draw.split(300)
    of = {name: authenticity.measure(material(x, train, test)) for name, x in (("copies", train), ("fresh", fresh))}
    copied, new = ([f.value for f in of[name]] for name in ("copies", "fresh"))
    assert copied == [0.0, 1.0]
    assert 0.4 < new[0] < 0.7 and abs(new[0] - of["fresh"][0].reference) < 0.1 and abs(new[1] - 0.5) < 0.07
