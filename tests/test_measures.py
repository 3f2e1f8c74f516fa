"""The Vendi score, the extrapolated Frechet distance and lost kinds on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maquette.finding import Material, at_most, fewer
from maquette.metrics import fidelity, kinds, vendi


def material(generated, train):
    zeros = torch.zeros(len(generated))
    return Material("judge", "pieces", generated, train, train, zeros, zeros)


def test_equals_are_worth_one_and_orthogonal_pieces_their_number():
    assert vendi.vendi(torch.ones(20, 3)) == pytest.approx(1, abs=1e-6)
    assert vendi.vendi(torch.eye(7).repeat(3, 1)) == pytest.approx(7, abs=1e-6)


def test_the_score_is_that_of_the_whole_matrix_of_similarities():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = x / x.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(rows @ rows.T / 30).clamp_min(1e-300)
    assert vendi.vendi(x) == pytest.approx(float((-(values * values.log()).sum()).exp()), abs=1e-6)


def test_the_score_falls_with_every_kind_that_is_dropped():
    kinds = torch.eye(6).repeat_interleave(20, 0)
    scores = [vendi.vendi(kinds[: 20 * k]) for k in (6, 5, 4, 3, 2)]
    assert scores == sorted(scores, reverse=True) and scores[-1] == pytest.approx(2, abs=1e-6)


def test_the_finding_stands_beside_its_floor_within_its_interval():
    x = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(1))
    (found,) = vendi.measure(material(x[0], x[1]))
    assert found.low <= found.value <= found.high and found.reference == pytest.approx(vendi.vendi(x[1] - x[1].mean(0)))


def test_the_score_does_not_depend_on_where_nought_lies():
    x = torch.randn(2, 100, 8, generator=torch.Generator().manual_seed(1)).double()
    (here,), (far,) = (vendi.measure(material(x[0] + at, x[1] + at)) for at in (0.0, 50.0))
    assert far.value == pytest.approx(here.value) and far.reference == pytest.approx(here.reference)
    assert vendi.vendi(x[0] + 50) < 1.1  # from afar any two are alike


def test_dropping_a_kind_in_the_middle_of_the_others_lowers_the_score():
    around = torch.eye(6).double().repeat_interleave(20, 0) + 3
    middle = around.mean(0) + 0.3 * torch.randn(120, 6, generator=torch.Generator().manual_seed(0)).double()
    train = torch.cat([around, middle])
    (whole,), (dropped,) = (vendi.measure(material(x, train)) for x in (train, around))
    assert vendi.vendi(around) > vendi.vendi(train)
    assert dropped.value < whole.value


def test_the_score_is_the_published_one_on_a_case_worked_by_hand():
    """Two equals and one orthogonal to them: K / 3 has the eigenvalues 2/3 and 1/3, so exp(2/3 ln 3/2 + 1/3 ln 3)."""
    x = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    assert vendi.vendi(x) == pytest.approx((3 / 2) ** (2 / 3) * 3 ** (1 / 3), abs=1e-9)
    assert vendi.vendi(x) == pytest.approx(1.8898815748, abs=1e-9)


def test_pieces_without_direction_are_one_kind_of_their_own():
    assert vendi.vendi(torch.zeros(20, 3)) == pytest.approx(1, abs=1e-9)
    assert vendi.vendi(torch.cat([torch.zeros(10, 3), torch.ones(10, 3)])) == pytest.approx(2, abs=1e-9)
    (found,) = vendi.measure(material(torch.zeros(20, 3), torch.ones(20, 3)))
    assert found.value == pytest.approx(1, abs=1e-9) and found.low <= found.value <= found.high


def test_fewer_real_ones_are_compared_with_as_few_generated():
    (found,) = vendi.measure(material(torch.eye(8), torch.eye(8)[:5]))
    assert found.n == 5  # which span four directions
    assert found.value == pytest.approx(4) and found.reference == pytest.approx(4)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_extrapolated_distance_is_nearer_the_truth_than_the_plain_one():
    """Gaussians a known way apart: 0 for equals; with one mean moved by 1, and the other scaled by 1.5, 1 + 16 * 0.5**2 = 5."""
    for truth, scale, moved in ((0.0, 1.0, 0.0), (5.0, 1.5, 1.0)):
        for seed in range(3):
            a, b = normal(400, 16, 2 * seed) * scale, normal(400, 16, 2 * seed + 1)
            a[:, 0] += moved
            plain, further = fidelity.frechet_distance(a, b), fidelity.extrapolated(a, b)
            assert abs(further - truth) < abs(plain - truth)


def test_sizes_are_equally_far_apart_in_one_over_n_and_none_is_too_small():
    assert fidelity.sizes(480, 16) == [480, 240, 160, 120, 96, 80, 68, 60]
    assert fidelity.sizes(480, 64) == [480, 240, 160]
    assert fidelity.sizes(60, 64) == []


def test_the_extrapolated_distance_holds_the_truth_and_is_left_out_where_pieces_are_few():
    a, b = normal(200, 8, 1), normal(200, 8, 2)
    low, high = fidelity.extrapolated_interval(a, b, 0)
    assert low < 0 < high
    names = [f.name for f in fidelity.measure(material(a, b))]
    assert "Frechet distance, extrapolated" in names
    assert "Frechet distance, extrapolated" not in [f.name for f in fidelity.measure(material(a[:20], b[:20]))]


def heaps(counts, seed):
    """counts[i] pieces around the i-th corner"""
    middle = 20 * torch.eye(len(counts), dtype=torch.float64)
    return torch.cat([middle[i] + normal(n, len(counts), seed + i) for i, n in enumerate(counts)])


def test_a_kind_that_is_gone_is_found_and_held_out_pieces_lose_none():
    train, made, test = heaps([40] * 6, 0), heaps([48, 48, 48, 48, 48, 0], 50), heaps([40] * 6, 100)
    zeros = torch.zeros(240)
    (found,) = kinds.measure(Material("judge", "pieces", made, test, train, zeros, zeros))
    assert found.value >= 1 and found.reference == 0 and found.low <= found.value <= found.high
    (real,) = kinds.measure(Material("judge", "pieces", test, test, train, zeros, zeros))
    assert real.value == 0


def test_a_kind_is_lost_only_beyond_chance():
    real = torch.tensor([500, 250, 250])
    assert kinds.lost(torch.tensor([60, 40, 0]), real).tolist() == [False, False, True]
    assert kinds.lost(torch.tensor([55, 30, 15]), real).tolist() == [False, False, False]
    assert kinds.lost(torch.tensor([5, 3, 0]), real).tolist() == [False, False, False]
    assert (
        kinds.lost(torch.tensor([60, 40, 0]), torch.tensor([4, 2, 2])).tolist() == [False] * 3
    )  # too few real ones to say


def test_of_equals_a_kind_is_called_lost_in_at_most_one_of_a_hundred():
    """Both samples are drawn from the same twenty kinds, 500 pieces each."""
    chance = np.random.default_rng(0)
    alarms, draws = 0, 1000
    for _ in range(draws):
        shares = chance.dirichlet(np.full(20, 8.0))
        made, real = (torch.from_numpy(chance.multinomial(500, shares)) for _ in range(2))
        alarms += bool(kinds.lost(made, real).any())
    assert alarms <= 0.015 * draws


def test_the_chance_of_so_few_is_counted_exactly():
    assert fewer(0, 2, 2, 2) == pytest.approx(1 / 6)
    assert fewer(1, 1, 2, 2) == pytest.approx(5 / 6)
    assert fewer(3, 2, 10, 10) == pytest.approx(1 - fewer(1, 4, 10, 10))  # the two samples change places


def test_the_tail_of_the_binomial_is_exact():
    assert at_most(0, 10, 0.3) == pytest.approx(0.7**10)
    assert at_most(10, 10, 0.3) == pytest.approx(1.0)
