"""Labels told of generated pieces beside those of training, what was asked for beside what came, and how alike a batch is."""

from __future__ import annotations

import pytest
import torch

from maquette.features import judge_of
from maquette.finding import Labels, Material, wilson
from maquette.metrics import consistency, homogeneity, representation
from maquette.page import question
from maquette.verbs.audit import assess
from maquette.verbs.telling import labels_told


def labels(told: list[int], asked: list[int] | None = None, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Labels:
    held = torch.arange(20) % 3
    wanted = None if asked is None else torch.tensor(asked)
    return Labels(
        ("ash", "birch", "cedar"), torch.tensor(told), wanted, held, held, torch.tensor(shares, dtype=torch.float64)
    )


def material(known: Labels | None, made: torch.Tensor | None = None, train: torch.Tensor | None = None) -> Material:
    n = 1 if known is None else len(known.told)
    made = torch.zeros(n, 2) if made is None else made
    train = torch.zeros(8, 2) if train is None else train
    return Material("judge", "pictures", made, train, train, torch.zeros(len(made)), torch.zeros(8), labels=known)


def test_a_label_that_is_told_too_often_is_named_and_beyond_chance() -> None:
    whole, ash, birch, cedar = representation.measure(material(labels([0] * 90 + [1] * 10)))
    assert whole.value == pytest.approx(0.4) and "ash, 90% instead of 50%" in whole.sentence
    assert whole.low <= 0.4 <= whole.high and whole.reference == pytest.approx(1 / 6, abs=0.02)
    assert (ash.name, ash.value, ash.reference) == ("share of ash", 0.9, 0.5) and "more than chance" in ash.sentence
    assert (
        (cedar.low, cedar.high) == wilson(0.0, 100) and "less than chance" in cedar.sentence and cedar.reference == 0.2
    )
    assert birch.unit == "share" and birch.direction == "near" and question(birch) == "Representation"


def test_labels_as_often_as_in_training_are_within_chance() -> None:
    whole, *each = representation.measure(material(labels([0] * 50 + [1] * 30 + [2] * 20)))
    assert whole.value == pytest.approx(0) and all("within chance" in f.sentence for f in each)


def test_without_labels_nothing_is_told_of_them() -> None:
    assert representation.measure(material(None)) == [] and consistency.measure(material(None)) == []
    assert consistency.measure(material(labels([0, 1, 2]))) == []  # labels, but none was asked for
    assert consistency.measure(material(labels([0, 1, 2], [-1, -1, -1]))) == []


def test_consistency_counts_the_pieces_that_show_what_was_asked() -> None:
    (found,) = consistency.measure(material(labels([0, 1, 2, 0, 0], [0, 1, 1, 0, -1])))
    assert found.value == 0.75 and found.n == 4 and found.reference == 1.0 and found.direction == "higher"
    assert "In 75% of 4 pictures the judge finds the label that was asked for" in found.sentence


def normal(n: int, seed: int, moved: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) + moved


def test_batches_of_equals_are_wholly_alike_and_those_of_strangers_are_not() -> None:
    assert homogeneity.alike(torch.ones(16, 6), torch.zeros(6)).tolist() == pytest.approx([1, 1])
    whole = normal(16, 0)
    rows = whole[:8] / whole[:8].norm(dim=1, keepdim=True)
    pairs = (rows @ rows.T)[~torch.eye(8, dtype=torch.bool)].mean()
    assert float(homogeneity.alike(whole, torch.zeros(6))[0]) == pytest.approx(float(pairs), abs=1e-6)
    (same,) = homogeneity.measure(material(None, normal(80, 1), normal(80, 2)))
    assert same.low < same.reference + 0.05 and abs(same.value) < 0.1
    (alike,) = homogeneity.measure(material(None, normal(80, 1, moved=3), normal(80, 2)))
    assert alike.low > 0.5 > alike.reference and question(alike) == "Diversity"


def test_a_batch_of_one_kind_each_is_more_alike_than_shuffled_real_ones_although_all_kinds_are_there() -> None:
    """What recall cannot see: over all pieces nothing is lost, and yet each batch holds one kind."""
    train = torch.cat([normal(40, k, moved=4 * (-1) ** k) for k in range(2)])
    (found,) = homogeneity.measure(material(None, train.clone(), train))
    assert found.value > 0.7 and found.reference < 0.2


def test_too_few_pieces_have_no_batches() -> None:
    assert homogeneity.measure(material(None, normal(23, 0), normal(80, 1))) == []


def test_the_judge_tells_the_labels_of_an_audit_and_what_was_asked(corpus) -> None:
    known, held = judge_of(corpus), corpus.tensor("test")
    found = assess(held.x, corpus, judge=known, noun="pictures", asked=held.condition)
    right = found.find("consistency")
    assert right.value == right.reference and right.n == len(held)  # the held-out ones themselves are asked for
    wrong = assess(held.x, corpus, judge=known, asked=1 - held.condition).find("consistency")
    assert wrong.value == pytest.approx(1 - right.value)
    circles = held.x[held.condition[:, 0] == 0]
    only = labels_told(known.judge, circles, None, corpus, 100)
    assert only.asked is None and only.names == ("circle", "square")
    assert float(only.shares.sum()) == pytest.approx(1)
    told = found.find("representation")
    assert told.value == told.reference and told.space == "judge"
