"""Figures with known answers: Gaussians in closed form, planted copies, and the traps that an audit falls into."""

from __future__ import annotations

import pytest
import torch

from maquette.finding import Material, mean_interval, resamples, share_interval
from maquette.metrics import copying, diversity, fidelity
from maquette.neighbours import Several, balls_around, distinct, radii


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def material(generated: torch.Tensor, test: torch.Tensor, train: torch.Tensor) -> Material:
    nearest = [Several(q) for q in (generated, test)]
    for n in nearest:
        n.see(train, torch.arange(len(train)))
    return Material("judge", "pictures", generated, test, train[: len(generated)], *(n.distance[:, 0] for n in nearest))


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    a = fidelity.Gaussian(torch.tensor([1.0, 0.0, 2.0]).double(), torch.tensor([4.0, 9.0, 1.0]).double().diag())
    b = fidelity.Gaussian(torch.tensor([0.0, 0.0, 0.0]).double(), torch.tensor([1.0, 1.0, 16.0]).double().diag())
    assert fidelity.frechet(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 1) ** 2 + (1 - 4) ** 2)


def test_the_frechet_distance_does_not_change_when_both_are_turned():
    a = fidelity.gaussian(normal(50, 4, 0) @ normal(4, 4, 1))
    b = fidelity.gaussian(normal(50, 4, 2, shift=1) @ normal(4, 4, 3))
    turn = torch.linalg.qr(normal(4, 4, 5)).Q
    turned = [fidelity.Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (a, b)]
    assert fidelity.frechet(*turned) == pytest.approx(fidelity.frechet(a, b))
    assert fidelity.frechet(a, b) == pytest.approx(fidelity.frechet(b, a))


def test_the_moments_of_weighted_rows_are_those_of_repeated_rows():
    x, weights = normal(4, 3, 0), torch.tensor([2.0, 0.0, 1.0, 3.0]).double()
    repeated = fidelity.gaussian(x.repeat_interleave(weights.long(), 0))
    assert all(torch.allclose(a, b) for a, b in zip(fidelity.gaussian(x, weights), repeated, strict=True))


def test_large_samples_of_known_gaussians_come_near_the_true_distance():
    distance = fidelity.frechet_distance(normal(20_000, 4, 0, shift=0.5), normal(20_000, 4, 1, scale=2.0))
    assert distance == pytest.approx(4 * 0.25 + 4 * 1.0, rel=0.03)


def test_the_frechet_distance_of_equals_is_biased_in_small_samples_and_kid_is_not():
    few, many = (fidelity.frechet_distance(normal(n, 32, 0), normal(n, 32, 1)) for n in (100, 2000))
    assert few > 10 * many > 0
    discrepancies = torch.tensor([fidelity.kid(normal(100, 32, 2 * i), normal(100, 32, 2 * i + 1)) for i in range(40)])
    assert abs(float(discrepancies.mean())) < 3 * float(discrepancies.std()) / 40**0.5
    assert float(discrepancies.min()) < 0 < float(discrepancies.max())


def test_too_few_pieces_for_a_frechet_distance_are_said_to_be_too_few():
    found = fidelity.measure(material(normal(60, 32, 0), normal(60, 32, 1), normal(60, 32, 2)))
    assert "too few" in next(f for f in found if f.name == "Frechet distance").sentence
    found = fidelity.measure(material(normal(64, 32, 0), normal(64, 32, 1), normal(64, 32, 2)))
    assert "too few" not in next(f for f in found if f.name == "Frechet distance").sentence


def test_kid_is_the_unbiased_formula_of_the_paper():
    x, y = normal(5, 3, 0), normal(7, 3, 1, shift=1)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) for s in (x, y)]
    across = sum(k(a, b) for a in x for b in y)
    assert fidelity.kid(x, y) == pytest.approx(within[0] / 20 + within[1] / 42 - 2 * across / 35)


@pytest.mark.parametrize(
    "interval_of, expected",
    [(fidelity.kid_interval, fidelity.kid), (fidelity.frechet_interval, fidelity.frechet_distance)],
)
def test_intervals_hold_the_expected_figure_about_as_often_as_they_say(interval_of, expected):
    pairs = [(normal(150, 4, 2 * i, shift=0.5), normal(150, 4, 2 * i + 1)) for i in range(40)]
    mean = sum(expected(*p) for p in pairs) / 40
    held = sum(low <= mean <= high for low, high in (interval_of(*p, seed) for seed, p in enumerate(pairs)))
    assert held >= 35


def test_precision_and_recall_of_a_toy_are_counted_by_hand():
    """On a line: real pieces at 0, 1, 2, 3 with balls of radius 1 to their nearest; 0.5 and 3.5 lie inside, 9 and 9.25 do not."""
    real, made = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.5], [3.5], [9.0], [9.25]])
    assert fidelity.precision(made, real, k=1) == 0.5
    assert fidelity.density(made, real, k=1) == (2 + 1) / 4
    assert diversity.covered(made, real, k=1).tolist() == [1, 1, 0, 1]
    assert diversity.recalled(made, real, k=1).tolist() == [1, 1, 1, 1]  # 0.5 and 3.5 have radius 3
    assert radii(real, 1).tolist() == [1, 1, 1, 1] and radii(real, 3).tolist() == [3, 2, 2, 3]
    assert balls_around(made, real, torch.ones(4)).tolist() == [2, 1, 0, 0]


def test_two_samples_of_the_same_gaussian_are_precise_varied_dense_and_covered():
    made, real = normal(1000, 8, 0), normal(1000, 8, 1)
    assert fidelity.precision(made, real) > 0.85
    assert float(diversity.recalled(made, real).mean()) > 0.85
    assert fidelity.density(made, real) == pytest.approx(1, abs=0.1)
    assert float(diversity.covered(made, real).mean()) == pytest.approx(1 - 0.5**5, abs=0.02)  # Naeem 2020, section 3


def test_lost_modes_lower_recall_and_coverage_and_leave_precision():
    real = torch.cat([normal(200, 4, 0, shift=-5), normal(200, 4, 1, shift=5)])
    made = normal(400, 4, 2, shift=5)
    assert fidelity.precision(made, real) > 0.8
    assert float(diversity.recalled(made, real).mean()) < 0.55 and float(diversity.covered(made, real).mean()) < 0.55


def test_density_rewards_blur_and_precision_cannot_tell():
    real, blurred = normal(500, 8, 0), normal(500, 8, 1, scale=0.3)
    assert fidelity.density(blurred, real) > 1.5 and fidelity.precision(blurred, real) > 0.99


def test_real_twins_can_never_be_covered_so_they_are_taken_out():
    """Each real piece is there six times: every radius is 0, and even perfect copies cover nothing."""
    real = normal(100, 4, 0)
    twins = real.repeat(6, 1)
    assert float(diversity.covered(real, twins).mean()) == 0
    kept = distinct(twins)
    assert kept.tolist() == list(range(100))
    assert float(diversity.covered(real, twins[kept]).mean()) == 1


def test_planted_copies_are_found_and_held_out_pieces_raise_no_alarm():
    train, test, fresh = normal(2000, 8, 0), normal(500, 8, 1), normal(500, 8, 2)
    made = fresh.clone()
    made[:25] = train[100:125] + 1e-3
    m = material(made, test, train)
    found = copying.near_copies(m.generated_to_train, m.test_to_train)
    assert found[:25].all() and float(found[25:].double().mean()) < 0.03
    share = next(f for f in copying.measure(m) if f.name == "near copies")
    assert share.low > 0.02 and share.value >= 0.05 and share.reference == 0.01
    clean = [copying.measure(material(normal(500, 8, 3 + i), test, train))[0] for i in range(10)]
    assert sum(f.low > 0.01 for f in clean) <= 1


def test_a_generator_of_nothing_but_copies_lies_at_no_distance():
    train = normal(500, 8, 0)
    share, distance, ranked = copying.measure(material(train[:200].clone(), normal(200, 8, 1), train))
    assert ranked.value < -10
    assert share.value == 1 and share.low > 0.95 and distance.value == 0


def test_the_nearest_row_of_a_stream_is_that_of_the_whole_to_the_last_digit():
    queries, rows = normal(30, 6, 0).float(), normal(500, 6, 1).float()
    rows[321] = queries[7] + 1e-6
    nearest = Several(queries)
    for block in torch.arange(500).split(64):
        nearest.see(rows[block], block)
    whole = (queries[:, None] - rows).norm(dim=2).min(1, keepdim=True)
    assert torch.equal(nearest.index, whole.indices) and torch.allclose(nearest.distance, whole.values, rtol=1e-5)
    assert nearest.index[7] == 321 and nearest.distance[7] < 1e-5


def test_intervals_of_means_are_those_of_the_normal_law_and_never_empty_for_shares():
    scores = normal(400, 1, 0)[:, 0]
    low, high = mean_interval(scores, 0)
    assert high - low == pytest.approx(2 * 1.96 * float(scores.std()) / 20, rel=0.2)
    assert share_interval(torch.zeros(50), 0)[1] > 0.05 and share_interval(torch.ones(50), 0)[0] < 0.95
    assert torch.equal(resamples(7, 3).sum(1), torch.full((200,), 7.0).double())
