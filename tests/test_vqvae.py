"""The codec of discrete codes: rounding, the learnt codebook, layouts of codes, the adversary; small cases with known answers."""

from __future__ import annotations

import math
from itertools import count, islice

import pytest
import torch

from maquette.errors import SettingError, SpaceError
from maquette.loop import loop, make_plan
from maquette.models.vqvae import VQVAE, coarseness
from maquette.nets.quantize import FSQ, Codebook, perplexity
from maquette.space import Batch, Codec, DataSpec, Space


def build(shape: tuple[int, ...] = (1, 16, 16), **settings) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(DataSpec(Space("grid", shape)), **({"width": 16} | settings))


def squares(start: int = 0, size: int = 32, side: int = 16):
    """Endless batches of one bright square on black."""
    for k in count(start):
        chance = torch.Generator().manual_seed(k)
        x = torch.full((size, 1, side, side), -1.0)
        for row, (i, j) in zip(x, torch.randint(side - 6, (size, 2), generator=chance).tolist(), strict=True):
            row[0, i : i + 6, j : j + 6] = 1.0
        yield Batch(x)


def fit(model: VQVAE, steps: int, **settings):
    *_, now = islice(loop(model, squares, make_plan(None, {"steps": steps, "batch_size": 32} | settings)), steps)
    now.averaged.conclude(lambda: islice(squares(900), 4))
    return now


def test_every_code_of_finite_scalars_comes_back():
    fsq = FSQ([8, 6, 5])
    every = torch.arange(240)
    vectors = fsq.lookup(every)
    assert len(torch.unique(vectors, dim=0)) == 240
    assert vectors.min() == -1 and vectors.max() == 1
    found = fsq(torch.logit((vectors + 1) / 2 * (fsq.levels - 1) / fsq.levels + 0.5 / fsq.levels) / 1.6)
    assert torch.equal(found.codes, every)


def test_the_lowest_digit_of_a_code_is_the_first_number():
    fsq = FSQ([4, 3])
    assert torch.equal(fsq.lookup(torch.tensor([1]))[0] - fsq.lookup(torch.tensor([0]))[0], torch.tensor([2 / 3, 0.0]))


def test_a_normal_number_fills_the_levels_evenly_and_the_gradient_passes():
    fsq = FSQ([7])
    z = torch.randn(20_000, 1, requires_grad=True)
    found = fsq(z)
    shares = torch.bincount(found.codes, minlength=7) / len(z)
    assert shares.min() > 0.08 and shares.max() < 0.2
    found.vectors.sum().backward()
    assert z.grad is not None and z.grad.abs().min() > 0


def test_a_learnt_codebook_finds_the_clusters_and_leaves_no_code_dead():
    torch.manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(8, 4), dim=-1)
    book = Codebook(24, 4, decay=0.9)
    for _ in range(150):
        rows = centres[torch.randint(8, (256,))] + 0.02 * torch.randn(256, 4)
        book(rows.requires_grad_())
        book.settle()
    nearest = (centres @ book.vectors.T).max(1)
    assert nearest.values.min() > 0.99
    assert len(nearest.indices.unique()) == 8
    assert book.counts.min() > 1


def test_a_codebook_notes_nothing_while_it_only_looks():
    book = Codebook(8, 4)
    before = {k: v.clone() for k, v in book.state_dict().items()}
    with torch.no_grad():
        book(torch.randn(30, 4))
    book.eval()(torch.randn(30, 4))
    assert all(torch.equal(v, before[k]) for k, v in book.state_dict().items())


def test_use_and_perplexity_of_known_codes():
    use, spread = perplexity(torch.arange(4).repeat(5), 16)
    assert (float(use), float(spread)) == pytest.approx((0.25, 4.0))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 30), (2, 33), (1, 5, 9, 7), (4, 1, 12)])
@pytest.mark.parametrize("codebook", ["fsq", "learned"])
def test_any_extents_go_to_codes_and_back(shape: tuple[int, ...], codebook: str):
    model = build(shape, codebook=codebook).eval()
    x = torch.rand(3, *shape) * 2 - 1
    codes = model.encode(x)
    assert codes.shape == (3, *model.code_space.shape) == (3, math.prod(model.code_axes))
    assert codes.min() >= 0 and codes.max() < model.code_space.vocabulary
    assert model.decode(codes).shape == x.shape and model.decode(codes).abs().max() <= 1
    assert model.embed(x).ndim == 2


def test_a_code_stands_for_its_own_corner():
    model = build((1, 32, 32), downsampling=8).eval()
    assert model.code_axes == (4, 4) and isinstance(model, Codec)
    x = torch.zeros(1, 1, 32, 32)
    changed = x.clone()
    changed[..., :4, :4] = 1.0
    moved = (model.embed(x) - model.embed(changed)).view(-1, 16).abs().sum(0)
    near = torch.tensor([0, 1, 4, 5])
    moved[near] /= 5  # the norms carry a little everywhere
    assert set(moved.topk(4).indices.tolist()) == set(near.tolist())


@pytest.mark.parametrize("codebook", ["fsq", "learned"])
def test_it_learns_to_give_squares_back(codebook: str):
    now = fit(build(codebook=codebook), 150)
    x = next(squares(1000)).x
    assert (now.averaged.reconstruct(x) - x).square().mean() < 0.1 * x.var()
    assert now.logs["model/perplexity"] > 4
    assert 0 < now.logs["model/codes_used"] <= 1


def test_the_adversary_moves_in_a_phase_of_its_own_and_rises_from_nothing():
    model = build(adversarial=1.0)
    assert [p.name for p in model.phases] == ["discriminator", "model"]
    batch = next(squares())
    model.requires_grad_(True)
    assert float(model.loss(batch, "model", 0.0).terms["adversary"].detach()) == 0
    assert float(model.loss(batch, "model", 0.5).terms["adversary"].detach()) > 0
    now = fit(model, 20)
    assert all(v.isfinite() for v in now.logs.values())


def test_how_coarse_the_codes_lie_follows_from_the_size():
    assert coarseness(Space("grid", (1, 28, 28))) == 3
    assert build((3, 128, 128)).code_space.vocabulary == 1000
    assert build((1, 28, 28)).code_space.digits == (8, 6, 5)


def test_bad_wishes_are_refused_in_words():
    with pytest.raises(SpaceError, match="vqvae works on grid"):
        VQVAE(DataSpec(Space("vector", (5,))))
    with pytest.raises(SettingError, match="power of two"):
        build(downsampling=6)
    with pytest.raises(SettingError, match="from 2 on"):
        build(levels=[8, 1])
