"""The Vendi score on features whose answer is known."""

from __future__ import annotations

import pytest
import torch

from maquette.finding import Material
from maquette.metrics import vendi


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
    assert found.low <= found.value <= found.high and found.reference == pytest.approx(vendi.vendi(x[1]))


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
    assert found.value == pytest.approx(5) and found.reference == pytest.approx(5) and found.n == 5
