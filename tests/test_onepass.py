"""The train split goes by once in an audit, is embedded once in each space, and the figures are those of plain searches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.errors import RunError, StorageError
from maquette.features import Known, Untrained, judge_of
from maquette.finding import Finding, Material
from maquette.neighbours import Several, distinct
from maquette.verbs import onepass
from maquette.verbs.audit import assess, measure
from maquette.verbs.onepass import Kept, View, gaps, go_by


@pytest.fixture(scope="module")
def judge(corpus: Corpus) -> Known:
    return judge_of(corpus, work=1)


def made(corpus: Corpus) -> Tensor:
    """Two training pieces and noisy ones."""
    x = torch.cat([corpus.tensor("train").x[:2], corpus.tensor("validation").x])
    return (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


def far(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def plainly(generated: Tensor, corpus: Corpus, space: str, embed) -> list[Finding]:
    """All at once and without blocks."""
    train, test, mine = (embed(x) for x in (corpus.tensor("train").x, corpus.tensor("test").x, generated))
    to = [far(x, train).min(1) for x in (mine, test)]
    own = far(train, train).fill_diagonal_(torch.inf).amin(1)
    some = train[torch.arange(len(mine)) * len(train) // len(mine)]
    gap = tuple(own[t.indices] for t in to)
    return measure(Material(space, "pieces", mine, test[distinct(test)], some, *(t.values for t in to), gaps=gap))


def test_the_figures_are_those_of_plain_searches(corpus: Corpus, judge: Known) -> None:
    found = assess(made(corpus), corpus, judge=judge)
    for space, embedder in (("judge", judge.judge), ("pixels", Untrained(corpus.spec.space))):
        for plain in plainly(made(corpus), corpus, space, embedder.embed):
            mine = found.find(plain.name, space)
            values = mine.value, mine.low, mine.high, mine.reference
            assert values == pytest.approx((plain.value, plain.low, plain.high, plain.reference), abs=1e-5), plain.name


def test_an_audit_reads_the_train_split_once_and_embeds_each_piece_once(
    corpus: Corpus, judge: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = made(corpus)
    passes: list[int | None] = []
    rows = {"judge": 0, "pixels": 0}
    once = Corpus.once

    def counted(self: Corpus, split: str, batch_size: int = 256, limit: int | None = None):
        passes.extend([limit] if split == "train" else [])
        return once(self, split, batch_size, limit)

    def counting(space: str, kind: type) -> None:
        embed = kind.embed

        def seen(self, x: Tensor) -> Tensor:
            rows[space] += len(x)
            return embed(self, x)

        monkeypatch.setattr(kind, "embed", seen)

    monkeypatch.setattr(Corpus, "once", counted)
    counting("judge", type(judge.judge))
    counting("pixels", Untrained)
    assess(generated, corpus, judge=judge)
    asked = len(generated) + corpus.size("test")
    assert passes == [None]
    assert rows["pixels"] == corpus.size("train") + asked
    assert rows["judge"] == corpus.size("train") + asked + asked  # pieces that are asked about are seen for copies, too


def test_views_of_one_embedder_share_what_it_says(corpus: Corpus) -> None:
    pixels, calls = Untrained(corpus.spec.space), []

    def embed(x: Tensor) -> Tensor:
        calls.append(len(x))
        return pixels.embed(x)

    kept = [Kept(corpus.size("train")) for _ in range(2)]
    go_by(corpus, [View("pixels", embed, k) for k in kept])
    assert sum(calls) == corpus.size("train")
    assert torch.equal(kept[0].rows, pixels.embed(corpus.tensor("train").x)) and torch.equal(*(k.rows for k in kept))
    assert torch.equal(kept[0].numbers, corpus.tensor("train").index)
    assert torch.equal(kept[0].spread(7), pixels.embed(corpus.tensor("train", 7).x))


def test_training_features_that_are_no_numbers_are_refused(corpus: Corpus) -> None:
    view = View("judge", lambda x: torch.full((len(x), 2), torch.inf), Kept(corpus.size("train")))
    with pytest.raises(RunError, match="features in judge are not all finite"):
        go_by(corpus, [view])


def test_what_is_too_large_to_be_kept_in_memory_lies_in_a_file_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(40, 60)
    small, large = Kept(20), Kept(20, largest=100)
    for kept in (small, large):
        for part in torch.arange(20).split(7):
            kept.see(rows[part], numbers[part])
    assert torch.equal(small.rows, rows) and torch.equal(large.rows, rows)
    assert torch.equal(gaps(small, numbers), gaps(large, numbers)) and not list(tmp_path.iterdir())


def test_a_full_disk_is_named_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onepass, "_reserve", full)
    with pytest.raises(StorageError, match="features of 20 training pieces need 480 bytes"):
        Kept(20, largest=100).see(torch.zeros(7, 6), torch.arange(7))


def test_the_gap_of_a_training_piece_is_to_its_nearest_other_one(corpus: Corpus, judge: Known) -> None:
    rows = judge.judge.embed(corpus.tensor("train").x)
    rows[7] = rows[30]  # twins lie at no distance from each other
    numbers = torch.arange(len(rows)).flip(0) + 100  # of no particular order
    kept = Kept(len(rows))
    kept.see(rows, numbers)
    place = torch.tensor([3, 83, 3, 0, 7, 30])
    own = far(rows, rows).fill_diagonal_(torch.inf).amin(1)
    assert torch.allclose(gaps(kept, numbers[place]), own[place], atol=1e-4)
    assert gaps(kept, numbers[place])[4:].tolist() == [0, 0]


def test_a_search_finds_the_nearest_training_piece(corpus: Corpus) -> None:
    pixels = Untrained(corpus.spec.space)
    found = Several(pixels.embed(corpus.tensor("train").x[:5]))
    go_by(corpus, [View("pixels", pixels.embed, found)])
    assert found.index[:, 0].tolist() == corpus.tensor("train").index[:5].tolist()
    assert found.distance[:, 0].tolist() == [0.0] * 5


@pytest.mark.parametrize("k", [1, 3])
def test_of_rows_equally_far_the_one_that_came_first_stands_first(k: int) -> None:
    several = Several(torch.zeros(1, 2), k)
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [3.0, 3.0]])
    for part in torch.arange(5).split(2):
        several.see(rows[part], part + 10)
    assert several.index.tolist() == [[11, 12, 13][:k]] and several.distance.tolist() == [[1.0] * k]
