"""Copies are told from new pieces, and what cannot be told is said."""

from __future__ import annotations

import numpy as np
import pytest

from maquette.copying import c_t, exact_interval, judged
from maquette.errors import CorpusError
from maquette.finding import at_most


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


def null(rng: np.random.Generator, n: int, spaces: int, common: float, steps: int) -> dict[str, np.ndarray]:
    """Distances (n, 1) in several spaces that have a share of their chance in common; in `steps` steps where that is not 0."""
    rows = common**0.5 * rng.normal(size=n) + (1 - common) ** 0.5 * rng.normal(size=(spaces, n))
    distances = np.exp(rows) if not steps else np.ceil(steps / (1 + np.exp(-rows))) / steps
    return {f"space {k}": row[:, None] for k, row in enumerate(distances)}


@pytest.mark.parametrize("held", [99, 150])
@pytest.mark.parametrize(
    "spaces, common, steps",
    [(1, 0.0, 0), (4, 0.0, 0), (4, 0.8, 0), (8, 0.0, 0), (4, 0.0, 20), (8, 0.5, 20)],
    ids=["one", "four", "four alike", "eight", "four with ties", "eight with ties"],
)
def test_chance_calls_no_more_than_one_in_a_hundred_close_however_many_spaces(held, spaces, common, steps) -> None:
    rng, draws = np.random.default_rng([held, spaces, steps]), 800
    alarms = 0
    for _ in range(draws):  # each held-out set judges one piece, so that alarms are independent
        both = null(rng, held + 1, spaces, common, steps)
        (told,) = judged({s: d[:1] for s, d in both.items()}, {s: d[1:] for s, d in both.items()})
        alarms += told.p <= 0.01
    assert at_most(alarms - 1, draws, 0.01) < 0.999, f"{alarms} of {draws}"


def test_one_space_in_which_a_copy_is_identical_is_enough_even_for_the_fewest_held_out() -> None:
    rng = np.random.default_rng(6)
    made, held = null(rng, 50, 6, 0.0, 0), null(rng, 99, 6, 0.0, 0)
    made["space 4"][:] = 0
    assert [(v.verdict, v.p, v.space) for v in judged(made, held)] == [("copy", 0.01, "space 4")] * 50


def test_each_piece_is_judged_by_itself_however_many_come_with_it() -> None:
    rng = np.random.default_rng(7)
    made, held = null(rng, 600, 3, 0.3, 0), null(rng, 120, 3, 0.3, 0)
    alone = [judged({s: d[k : k + 1] for s, d in made.items()}, held)[0] for k in (0, 255, 256, 599)]
    assert [judged(made, held)[k] for k in (0, 255, 256, 599)] == alone


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
