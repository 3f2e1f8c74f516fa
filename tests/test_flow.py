"""The flow's mathematics on cases with a known answer: orders of the solvers, the velocity between normals, infilling."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from maquette.condition import Condition, Field
from maquette.models.flow import Flow, arc, euler_step, heun_step
from maquette.space import Batch, DataSpec, SampleRequest, Space, noise

SPEC = DataSpec(Space("grid", (1, 8, 8)))
LABELS = Condition([Field("label", "label", ("a", "b"))])


def travel(step, steps: int) -> float:
    """The error at t = 1 of dx/dt = x cos(t), whose way from 1 ends at exp(sin 1)."""
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    x = torch.ones(1, dtype=torch.float64)
    for t, after in itertools.pairwise(times):
        x = step(lambda x, t: x * math.cos(t), x, t, after)
    return abs(x.item() - math.exp(math.sin(1)))


@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (heun_step, 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(step, order: int) -> None:
    assert travel(step, 50) / travel(step, 100) == pytest.approx(2**order, rel=0.05)


def test_heun_is_exact_where_the_velocity_is_linear_in_time() -> None:
    x = heun_step(lambda x, t: torch.full_like(x, 2 * t), torch.zeros(1), 0.0, 1.0)
    assert x.item() == pytest.approx(1.0)


def test_a_straight_line_needs_one_step() -> None:
    z, x = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.allclose(euler_step(lambda a, t: x - z, z, 0.0, 1.0), x, atol=1e-6)


class Perfect(Flow):
    """A flow that knows the velocity to N(0.3, 0.1^2): E[x - z | x_t], in closed form."""

    def velocity(self, x, t, condition=None):
        t = t.view(-1, 1, 1, 1)
        spread = (1 - t) ** 2 + 0.01 * t**2
        return 0.3 + (0.01 * t - (1 - t)) / spread * (x - 0.3 * t)


def test_the_known_velocity_carries_noise_to_the_known_normal() -> None:
    made = Perfect(SPEC, width=8).sample(SampleRequest(tuple(range(40)), steps=60))
    assert made.mean().item() == pytest.approx(0.3, abs=0.01)
    assert made.std().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("foresee", ["piece", "velocity"])
def test_either_target_is_the_velocity_at_the_end(foresee: str) -> None:
    """A body of zeros foresees piece 0 or velocity 0; its loss is the mean square of what is left."""
    torch.manual_seed(0)
    model = Flow(SPEC, width=8, foresee=foresee)
    x = torch.full((512, 1, 8, 8), 0.5)
    loss = model.loss(Batch(x), "model", 0.0).total.item()
    assert loss > 0 and math.isfinite(loss)
    if foresee == "velocity":
        assert loss == pytest.approx(1.25, rel=0.03)  # E (x - z)^2 = 0.5^2 + 1


def test_what_is_kept_of_a_source_comes_back_untouched() -> None:
    source = torch.rand(2, 1, 8, 8) * 2 - 1
    keep = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = True
    model = Flow(SPEC, width=8).eval()
    made = model.sample(SampleRequest((1, 2), source=source, keep=keep, steps=4))
    assert torch.allclose(made[keep], source[keep], atol=1e-6)
    assert not torch.allclose(made[~keep], source[~keep], atol=1e-2)


def test_a_variation_at_temperature_zero_is_the_source() -> None:
    source = torch.rand(2, 1, 8, 8) * 2 - 1
    model = Flow(SPEC, width=8).eval()
    assert torch.equal(model.sample(SampleRequest((1, 2), source=source, temperature=0.0)), source)
    assert not torch.equal(model.sample(SampleRequest((1, 2), source=source, steps=4)), source)


def test_guidance_zero_ignores_the_condition_and_one_follows_it() -> None:
    torch.manual_seed(1)
    model = Flow(DataSpec(SPEC.space, LABELS), width=8).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    label = torch.tensor([[1.0]])
    at = [model.sample(SampleRequest((4,), label, guidance=g, steps=3)) for g in (0.0, 0.999999, 1.0)]
    assert torch.allclose(at[0], model.sample(SampleRequest((4,), steps=3)), atol=1e-5)
    assert torch.allclose(at[1], at[2], atol=1e-4) and not torch.allclose(at[0], at[2], atol=1e-4)


def test_pieces_stay_within_the_reach_of_the_training_pieces() -> None:
    model = Flow(SPEC, width=8)
    assert model.reach == 1
    model.loss(Batch(torch.full((2, 1, 8, 8), -3.0)), "model", 0.0)
    assert model.reach == 3
    assert model.sample(SampleRequest((1, 2), temperature=9.0, steps=3)).abs().max() <= 3


@pytest.mark.parametrize("shape", [(16, 1, 1), (4, 7, 7), (3, 33), (2, 5, 1, 9)])
def test_small_and_odd_grids_are_grids_too(shape: tuple[int, ...]) -> None:
    model = Flow(DataSpec(Space("grid", shape)), width=8)
    assert model.loss(Batch(torch.randn(2, *shape)), "model", 0.0).total.isfinite()
    assert model.sample(SampleRequest((0,), steps=2)).shape == (1, *shape)


def test_the_way_between_two_noises_keeps_the_length_of_noise() -> None:
    a, b = noise((1, 2), (400,))
    assert arc(a, b, 0.5).norm().item() == pytest.approx((a.norm() + b.norm()).item() / 2, rel=0.03)
