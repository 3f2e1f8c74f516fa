"""Copies are told from new pieces, and what cannot be told is said."""

from __future__ import annotations

import numpy as np
import pytest

from maquette.copying import c_t, exact_interval, judged
from maquette.errors import CorpusError


def nearest(x: np.ndarray, train: np.ndarray, k: int = 10) -> np.ndarray:
    return np.sort(np.sqrt(((x[:, None] - train[None]) ** 2).sum(-1)), 1)[:, :k]


def drawn(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 16))


def test_planted_copies_are_found_and_few_new_pieces_are_accused() -> None:
    train = drawn(500, 0)
    made = np.concatenate([train[:20], train[20:40] + 0.05, drawn(500, 1)])
    held = nearest(drawn(500, 2), train)
    found = [v.verdict for v in judged({"a": nearest(made, train)}, {"a": held})]
    assert found[:40] == ["copy"] * 40
    assert found[40:].count("copy") <= 5


def test_the_minimum_over_spaces_keeps_its_level() -> None:
    rng = np.random.default_rng(3)
    made, held = ({s: rng.random(5000) + 1 for s in "abc"} for _ in range(2))
    assert np.mean([v.p <= 0.01 for v in judged(made, held)]) < 0.015


def test_without_further_neighbours_only_the_identical_are_copies() -> None:
    found = judged({"a": np.array([0.0, 0.5, 1.5])}, {"a": np.linspace(1, 2, 200)})
    assert [v.verdict for v in found] == ["copy", "close", "new"]


def test_what_cannot_be_calibrated_is_refused() -> None:
    for held, words in ((np.ones(9), "at least 99"), (np.zeros(120), "identical"), (np.full(120, np.nan), "finite")):
        with pytest.raises(CorpusError, match=words):
            judged({"a": np.ones(3)}, {"a": held})


def test_the_exact_interval_is_that_of_the_tables() -> None:
    assert exact_interval(0, 10) == pytest.approx((0, 0.30850), abs=1e-4)
    assert exact_interval(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-4)


def test_a_perfect_generator_passes_and_copies_do_not() -> None:
    rng = np.random.default_rng(4)
    zs = [c_t(rng.random(200), rng.random(200)) for _ in range(100)]
    assert sum(abs(z) < 2 for z in zs) >= 90
    assert c_t(rng.random(200) * 0.5, rng.random(200)) < -2
