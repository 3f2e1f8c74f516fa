"""What the GAN's parts promise: losses with known values, penalties with closed forms, augmentation that reacts, bodies of any size."""

from __future__ import annotations

import math
from itertools import repeat
from pathlib import Path

import pytest
import torch

from maquette.catalog import check
from maquette.condition import Condition, Field
from maquette.errors import SpaceError
from maquette.loop import loop, make_plan
from maquette.models.gan import ADVERSARIES, GAN, certainty, slerp, steepness, straightness
from maquette.nets import adversary, augment
from maquette.recipe import load, settle
from maquette.space import Batch, DataSpec, SampleRequest, Space, noise

SHAPES = [(1, 28, 28), (3, 30, 30), (4, 7, 7), (2, 9), (1, 5, 12, 8), (3, 8, 8), (4, 64, 33), (1, 1, 1), (3, 128, 128)]
SPEC = DataSpec(Space("grid", (1, 8, 8)))


def gan(**settings) -> GAN:
    torch.manual_seed(0)
    return GAN(SPEC, **{"width": 8, "latent": 8, **settings})


def pieces(size: int = 16) -> Batch:
    return Batch(torch.linspace(-1, 1, size)[:, None, None, None].expand(-1, 1, 8, 8).contiguous())


@pytest.mark.parametrize("body", ["conv", "classic"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bodies_take_any_grid(shape, body) -> None:
    model = GAN(DataSpec(Space("grid", shape)), width=4, latent=4, body=body)
    made = model.generator(torch.randn(3, 4), None)
    assert made.shape == (3, *shape) and made.abs().max() <= 1
    assert model.discriminator(made, None).shape == (3,)


@pytest.mark.parametrize("name", ADVERSARIES)
def test_losses_want_opposite_things(name) -> None:
    """A discriminator that is right is at less of a loss than one that is wrong; the generator the other way round."""
    high, low = torch.full((4,), 0.9), torch.full((4,), -0.9)
    players = ADVERSARIES[name]
    assert players.discriminator(high, low) < players.discriminator(low, high)
    assert players.generator(low, high) < players.generator(high, low)


def test_an_undecided_discriminator_loses_what_the_papers_say() -> None:
    zero = torch.zeros(4)
    values = {name: players.discriminator(zero, zero).item() for name, players in ADVERSARIES.items()}
    expected = {
        "minimax": math.log(4),
        "non-saturating": math.log(4),
        "hinge": 2,
        "wasserstein": 0,
        "relativistic": math.log(2),
    }
    assert values == pytest.approx(expected)


def test_minimax_is_one_value_for_both_players_and_fades_where_the_discriminator_is_sure() -> None:
    fake = torch.tensor([-8.0], requires_grad=True)
    (weak,) = torch.autograd.grad(ADVERSARIES["minimax"].generator(fake, fake), fake)
    (strong,) = torch.autograd.grad(ADVERSARIES["non-saturating"].generator(fake, fake), fake)
    assert abs(weak) < 1e-3 and abs(strong) > 0.99


def test_penalties_of_a_linear_judge_have_a_closed_form() -> None:
    x = torch.randn(5, 1, 3, 3)

    def judge(x, condition):
        return 2 * x.flatten(1).sum(1)

    assert torch.allclose(steepness(judge, x, None), torch.full((5,), 36.0))
    assert straightness(judge, x, -x, None).item() == pytest.approx((6 - 1) ** 2, rel=1e-4)


def test_r1_teaches_the_discriminator_to_be_flat() -> None:
    model = gan(lazy=1, gamma=100.0)
    losses = model.loss(pieces(), "discriminator", 0.0)
    losses.terms["r1"].backward()
    assert model.discriminator.body.stem.conv.weight.grad.abs().sum() > 0


def test_gamma_falls_to_a_tenth() -> None:
    model = gan(lazy=1)
    first, last = (model._penalties(pieces().x, pieces().x, None, t)["r2"].item() for t in (0.0, 1.0))
    assert last == pytest.approx(first / 10, rel=1e-4)


def test_the_learning_rate_falls_as_networks_grow() -> None:
    rates = [
        GAN(DataSpec(Space("grid", (1, n, n))), width=width).phases[0].optimiser.lr
        for n, width in ((28, 32), (64, 32), (64, 64))
    ]
    assert rates == pytest.approx([3e-3, 7.5e-4, 3.75e-4])
    assert GAN(SPEC, lr=0.1).phases[1].optimiser.lr == 0.1


def test_gamma_grows_with_the_resolution_squared() -> None:
    assert GAN(DataSpec(Space("grid", (3, 64, 64)))).gamma == 4 * GAN(DataSpec(Space("grid", (1, 32, 32)))).gamma


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, {"adversary", "r1", "r2"}),
        ({"r2": False}, {"adversary", "r1"}),
        ({"gamma": 0.0}, {"adversary"}),
        ({"loss": "wasserstein"}, {"adversary", "penalty"}),
    ],
)
def test_settings_choose_the_penalties(settings, terms) -> None:
    assert set(gan(**settings).loss(pieces(), "discriminator", 0.5).terms) == terms


def test_a_wasserstein_critic_moves_five_times_a_step() -> None:
    assert [p.repeats for p in gan(loss="wasserstein").phases] == [5, 1]
    assert [p.repeats for p in gan().phases] == [1, 1]


@pytest.mark.parametrize("loss", ADVERSARIES)
@pytest.mark.parametrize("body", ["conv", "classic"])
def test_every_loss_trains_every_body(loss, body) -> None:
    model = gan(loss=loss, body=body)
    before = [p.clone() for p in model.parameters()]
    for now in loop(model, lambda start: repeat(pieces()), make_plan(model, {"steps": 2, "threads": 1})):
        assert all(v.isfinite() for v in now.logs.values())
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_certainty_does_not_depend_on_the_zero_of_the_logits() -> None:
    real, fake = torch.tensor([1.0, 2.0, 3.0, -9.0]), torch.tensor([0.0, -1.0, -2.0, 0.0])
    assert certainty(real, fake) == certainty(real + 50, fake + 50) == 0.5


def test_augmentation_rises_with_overfitting_and_falls_without() -> None:
    p = torch.tensor(0.2)
    assert augment.follow(p, torch.tensor(0.9), 5000) == pytest.approx(0.21)
    assert augment.follow(p, torch.tensor(0.1), 5000) == pytest.approx(0.19)
    assert augment.follow(torch.tensor(0.0), torch.tensor(0.1), 5000) == 0
    assert augment.follow(p, torch.tensor(0.9), 10**9) == pytest.approx(0.8), "above that, changes leak into the pieces"


def test_a_discriminator_that_knows_its_pieces_by_heart_is_shown_them_augmented() -> None:
    model = gan()
    model.overfitting.fill_(0.95)
    model.loss(pieces(), "discriminator", 0.0)
    assert model.augmentation > 0
    off = gan(target=1.0)
    off.overfitting.fill_(0.95)
    off.loss(pieces(), "discriminator", 0.0)
    assert off.augmentation == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_augmentation_is_differentiable_twice_and_keeps_shapes(shape) -> None:
    x = torch.randn(4, *shape, requires_grad=True)
    y = augment.augment(x, 0.8)
    assert y.shape == x.shape
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad.isfinite().all()


def test_no_augmentation_changes_nothing() -> None:
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(augment.augment(x, 0.0), x)


def test_shift_moves_each_piece_as_a_whole() -> None:
    torch.manual_seed(0)
    x = torch.arange(16.0).view(1, 1, 16).expand(8, 1, 16)
    for row in augment.shift(x)[:, 0]:
        inner = row[2:-2]
        assert torch.equal(inner - inner[0], torch.arange(12.0)) and abs(inner[0] - 2) <= 2


def test_cutout_empties_a_box() -> None:
    emptied = (augment.cutout(torch.ones(64, 2, 8, 8)) == 0).float().mean().item()
    assert 0.05 < emptied <= 0.25


def test_settling_makes_a_piece_independent_of_its_neighbours_and_typical() -> None:
    model = gan()
    model.conclude(lambda: [])
    norm = model.generator.body.norm
    seen: list[torch.Tensor] = []
    norm.register_forward_hook(lambda module, x, y: seen.append(y))
    model.generator.eval()(noise(range(2048), (8,)), None)
    assert seen[0].mean().abs() < 0.01 and seen[0].std().item() == pytest.approx(1, abs=0.02)
    assert norm.momentum == 0.1 and not norm.training


def test_conditions_fewer_than_needed_are_used_again() -> None:
    model = GAN(DataSpec(SPEC.space, Condition([Field("label", "label", ("a", "b"))])), width=8, latent=8)
    model.conclude(lambda: [Batch(pieces(2).x, torch.tensor([[0.0], [1.0]]))])
    assert model.sample(SampleRequest((1,), torch.tensor([[1.0]]))).isfinite().all()


def test_a_label_that_nobody_asks_for_is_drawn_as_often_as_the_corpus_has_it() -> None:
    model = GAN(DataSpec(SPEC.space, Condition([Field("label", "label", ("a", "b", "c"))])), width=8, latent=8)
    labels = torch.tensor([[0.0], [2.0], [2.0], [torch.nan]])
    model.conclude(lambda: [Batch(pieces(4).x, labels)])
    _, drawn = model._wish(SampleRequest(tuple(range(600))))
    shares = torch.bincount(drawn[:, 0].long(), minlength=3) / 600
    assert shares[1] == 0 and shares[2].item() == pytest.approx(2 / 3, abs=0.06)
    _, asked = model._wish(SampleRequest((1, 2), torch.tensor([[1.0], [torch.nan]])))
    assert asked[0] == 1 and asked[1] == drawn[2]


def test_the_great_circle_keeps_the_norm() -> None:
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    way = slerp(a, b, torch.linspace(0, 1, 5)[:, None])
    assert torch.allclose(way.norm(dim=1), torch.full((5,), 3.0)) and torch.allclose(
        way[[0, 4]], torch.cat([a, b]), atol=1e-6
    )


def test_it_says_that_it_cannot_vary_a_source() -> None:
    request = SampleRequest((1,), source=pieces(1).x)
    for call in (lambda: gan().sample(request), lambda: gan().interpolate(request, [0.0])):
        with pytest.raises(SpaceError, match="vae"):
            call()


def test_odd_axes_are_halved_upwards_and_doubled_back() -> None:
    levels, widths = adversary.ladder((30, 6), 32)
    assert levels == [(30, 6), (15, 6), (8, 6)] and widths == [32, 32, 64]


def test_the_classic_recipe_is_the_tutorial_s_generator_made_right() -> None:
    settled = settle(load(Path(__file__).parents[1] / "recipes/image/gan-mnist-classic.toml"))
    model = GAN(DataSpec(Space("grid", (1, 28, 28))), **check(GAN, settled.models["gan"], "gan"))
    assert model.generator.body.stem.out_features == 256 * 7 * 7
    assert model.generator.body.coarsest == (7, 7)
    losses = model.loss(Batch(torch.zeros(4, 1, 28, 28)), "discriminator", 0.0)
    losses.total.backward()
    assert all(p.grad is None for p in model.generator.parameters()), "made pieces are detached"
    assert {p.name: p.optimiser for p in model.phases}.keys() == {"discriminator", "generator"}
