"""The VAE's mathematics on cases with a known answer: KL, the shared variance, the mixture, the way between latents."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from maquette.condition import Condition, Field
from maquette.errors import UsageError
from maquette.models.vae import VAE, gaussian_nats, normal_kl, slerp
from maquette.nets.density import Gaussians, Mixture, em, posterior
from maquette.space import Batch, DataSpec, SampleRequest, Space

SPEC = DataSpec(Space("grid", (1, 8, 8)))


def test_the_kl_divergence_is_that_of_two_normals() -> None:
    mean, logvar = torch.randn(50), torch.randn(50)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    assert torch.allclose(normal_kl(mean, logvar), expected, atol=1e-5)


def test_a_fixed_sigma_gives_the_nats_of_a_normal() -> None:
    x, mean = torch.randn(4, 9), torch.randn(4, 9)
    expected = -Normal(mean, 0.3).log_prob(x).sum(1).mean()
    assert torch.allclose(gaussian_nats((x - mean).square().mean(), 9, 0.3), expected, rtol=1e-4)


def test_the_learnt_sigma_is_the_best_of_all_fixed_ones() -> None:
    error = torch.tensor(0.04)
    learnt = gaussian_nats(error, 64, None)
    fixed = [gaussian_nats(error, 64, s).item() for s in torch.linspace(0.05, 1, 400).tolist()]
    assert learnt.item() == pytest.approx(min(fixed), abs=0.01)


def test_em_finds_the_mixture_that_made_the_points() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[-4.0, 0.0], [4.0, 1.0], [0.0, 5.0]])
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.5]])
    which = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 6000, replacement=True)
    z = means[which] + torch.randn(6000, 2) @ factor.T
    found = em(z, torch.zeros(6000, dtype=torch.long), 1, 3)
    order = torch.cdist(means, found.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert torch.allclose(found.means[order], means, atol=0.12)
    assert torch.allclose(found.weights[0, order], torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    covariances = found.factors @ found.factors.mT
    assert torch.allclose(covariances, (factor @ factor.T).expand(3, 2, 2), atol=0.12)


def test_em_never_makes_its_points_less_likely() -> None:
    torch.manual_seed(1)
    z, group = torch.randn(400, 3).exp(), torch.zeros(400, dtype=torch.long)
    nats = [posterior(em(z, group, 1, 4, rounds), z, group)[1].mean().item() for rounds in (0, 5, 20)]
    assert nats[0] < nats[1] < nats[2] + 1e-3


def test_posterior_is_the_density_of_torch() -> None:
    torch.manual_seed(2)
    factors = torch.randn(2, 3, 3).tril(-1) + torch.diag_embed(torch.rand(2, 3) + 0.5)
    g = Gaussians(torch.tensor([[0.3, 0.7]]), torch.randn(2, 3), factors)
    z = torch.randn(5, 3)
    parts = [MultivariateNormal(m, scale_tril=f).log_prob(z).exp() for m, f in zip(g.means, factors, strict=True)]
    expected = (0.3 * parts[0] + 0.7 * parts[1]).log()
    assert torch.allclose(posterior(g, z, torch.zeros(5, dtype=torch.long))[1], expected, atol=1e-4)


def test_each_group_is_drawn_from_its_own_part_of_the_mixture() -> None:
    torch.manual_seed(3)
    group = torch.arange(2000) % 2
    z = torch.randn(2000, 2) * 0.3 + torch.where(group[:, None] == 1, 3.0, -3.0)
    mixture = Mixture(2, groups=2, components=4)
    mixture.fit(z, group)
    drawn = mixture.draw(torch.rand(1000), torch.randn(1000, 2), torch.arange(1000) % 2)
    assert (drawn[0::2].mean(0) + 3).abs().max() < 0.15
    assert (drawn[1::2].mean(0) - 3).abs().max() < 0.15


def test_a_mixture_of_few_points_in_many_dimensions_is_finite() -> None:
    mixture = Mixture(100, components=20)
    z = torch.randn(12, 100)
    mixture.fit(z, torch.zeros(12, dtype=torch.long))
    assert mixture.draw(torch.rand(4), torch.randn(4, 100), torch.zeros(4, dtype=torch.long)).isfinite().all()
    assert mixture.log_prob(z, torch.zeros(12, dtype=torch.long)).isfinite().all()


def test_nothing_new_is_the_latent_itself() -> None:
    torch.manual_seed(4)
    mixture, z, group = Mixture(3, components=5), torch.randn(300, 3), torch.zeros(300, dtype=torch.long)
    mixture.fit(z, group)
    assert torch.allclose(mixture.vary(z, torch.randn(300, 3), group, 0.0), z, atol=1e-4)


def test_slerp_keeps_to_the_circle() -> None:
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    assert torch.allclose(slerp(a, b, 0.5), torch.full((2,), 3 / math.sqrt(2)), atol=1e-5)
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-6) and torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)


def test_at_temperature_zero_a_source_comes_back_as_its_reconstruction() -> None:
    model = VAE(SPEC, width=8, latent_size=4).eval()
    x = torch.rand(3, 1, 8, 8) * 2 - 1
    model.conclude(lambda: [Batch(torch.rand(64, 1, 8, 8) * 2 - 1)])
    again = model.sample(SampleRequest((0, 1, 2), source=x, temperature=0.0))
    assert torch.allclose(again, model.decode(model.encode(x)), atol=1e-4)
    varied = model.sample(SampleRequest((0, 1, 2), source=x))
    assert not torch.allclose(varied, again, atol=1e-3)


@pytest.mark.parametrize("latent", ["vector", "grid"])
def test_its_codes_have_mean_zero_and_variance_one(latent: str) -> None:
    torch.manual_seed(5)
    x = torch.rand(200, 1, 16, 16) * 2 - 1
    model = VAE(DataSpec(Space("grid", (1, 16, 16))), width=8, latent=latent, latent_size=3).eval()
    model.conclude(lambda: [Batch(x)])
    assert model.code_space.shape == ((3, 1, 1) if latent == "vector" else (3, 8, 8))
    codes = model.encode(x)
    assert codes.mean((0, 2, 3)).abs().max() < 0.2 and codes.std((0, 2, 3)).max() < 1.1


def test_a_label_is_drawn_as_asked_after_the_density_is_fitted() -> None:
    spec = DataSpec(Space("grid", (1, 8, 8)), Condition([Field("label", "label", ("a", "b"))]))
    model = VAE(spec, width=8, latent_size=4)
    assert model._group(None, 2).tolist() == [0, 0]
    assert model._group(torch.tensor([[torch.nan], [0.0], [1.0]]), 3).tolist() == [0, 2, 3]


def test_a_part_that_must_stay_is_refused_in_words() -> None:
    model, x = VAE(SPEC, width=8), torch.zeros(1, 1, 8, 8)
    with pytest.raises(UsageError, match="flow"):
        model.sample(SampleRequest((0,), source=x, keep=x.bool()))
