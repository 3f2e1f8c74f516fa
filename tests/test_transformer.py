"""The transformer over tokens: small theorems about attention, the memory, the draw and the forced positions."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from maquette.condition import Condition, Field
from maquette.errors import SettingError, SpaceError
from maquette.loop import loop, make_plan
from maquette.models.transformer import Reader, Transformer
from maquette.muon import Muon, orthogonal
from maquette.nets.attention import RMSNorm, rotate, rotations
from maquette.nets.decoding import Step
from maquette.nets.sampling import draw, leading, trimmed
from maquette.space import Batch, DataSpec, SampleRequest, Space

LABEL = Condition([Field("label", "label", ("low", "high"))])


def build(length: int = 10, vocabulary: int = 7, condition: Condition | None = None, **settings) -> Transformer:
    torch.manual_seed(0)
    settings = {"width": 32, "layers": 2, "head_width": 16} | settings
    model = Transformer(DataSpec(Space("tokens", (length,), vocabulary), condition), **settings)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))  # what starts at zero would hide mistakes
    return model.eval()


def tokens(model: Transformer, batch: int = 4) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randint(model.vocabulary, (batch, model.length), generator=chance)


def test_no_position_sees_what_comes_after_it():
    model = build()
    x = tokens(model)
    changed = x.clone()
    changed[:, 6:] = (x[:, 6:] + 1) % model.vocabulary
    before, after = model.logits(x[:, :-1]), model.logits(changed[:, :-1])
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-5)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


def test_an_untrained_model_knows_nothing_and_says_so():
    torch.manual_seed(0)
    model = Transformer(DataSpec(Space("tokens", (5,), 11)), width=32, head_width=16)
    with torch.no_grad():
        nats = model.loss(Batch(torch.randint(11, (3, 5))), "model", 0.0).terms["nats_per_token"]
    assert float(nats) == pytest.approx(math.log(11), abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_the_memory_gives_what_reading_everything_gives(tied: bool):
    model = build(tied=tied)
    x = tokens(model)
    whole = model.logits(x[:, :-1])
    caches = model.model.caches(len(x))
    with torch.no_grad():
        parts = [model.model(x[:, :3], None, caches)]
        parts += [model.model(x[:, i : i + 1], None, caches, i + 1) for i in range(3, model.length - 1)]
    assert torch.allclose(model.head(torch.cat(parts, 1)), whole, atol=1e-4)


KINDS = {
    "plain": {},
    "tied": {"tied": True},
    "relative": {"absolute": False},
    "digits": {"space": Space("tokens", (12,), 12, digits=(3, 4))},
    "periods": {"space": Space("tokens", (12,), 7, end=0, periods=(2, 4))},
}


def kind(name: str, condition: Condition | None) -> Transformer:
    settings = dict(KINDS[name])
    space = settings.pop("space", Space("tokens", (12,), 7))
    torch.manual_seed(0)
    model = Transformer(DataSpec(space, condition), width=32, layers=2, head_width=16, **settings)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("condition", [None, LABEL], ids=["unsteered", "steered"])
@torch.inference_mode()
def test_the_folded_step_gives_the_logits_of_the_model(name: str, condition: Condition | None):
    model = kind(name, condition)
    x, wish = tokens(model, 3), torch.tensor([[0.0], [1.0], [torch.nan]])
    whole, context = model.logits(x[:, :-1], wish), model._context(wish, 3)
    caches = model.model.caches(3)
    model.model(x[:, :4], context, caches)
    step = Step(model.model, model.table.rows, caches, context)
    for i in range(4, model.length - 1):
        assert torch.allclose(step(x[:, i], i + 1), whole[:, i + 1], atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_what_the_folded_step_writes_is_what_the_model_writes(name: str, monkeypatch: pytest.MonkeyPatch):
    model = kind(name, LABEL)
    ask = SampleRequest(tuple(range(6)), torch.tensor([[0.0], [1.0]]).repeat(3, 1), guidance=1.5, length=40)
    made = model.sample(ask)
    with torch.inference_mode():
        assert model.reader(ask).foldable
    monkeypatch.setattr(Reader, "foldable", False)
    assert torch.equal(made, model.sample(ask))


def test_many_pieces_are_the_same_as_few(monkeypatch: pytest.MonkeyPatch):
    model = kind("periods", LABEL)
    ask = SampleRequest(tuple(range(7)), torch.tensor([[1.0]]).repeat(7, 1), length=30)
    whole = model.sample(ask)
    monkeypatch.setattr(Transformer, "_at_once", lambda self, request: 3)
    assert torch.equal(model.sample(ask), whole)


def test_likelihoods_of_all_sequences_sum_to_one():
    model = build(length=3, vocabulary=4)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    assert float(model.log_likelihood(every).exp().sum().detach()) == pytest.approx(1, abs=1e-4)


def test_samples_follow_the_likelihood():
    model = build(length=2, vocabulary=3)
    made = model.sample(SampleRequest(tuple(range(4000))))
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    shares = torch.stack([(made == e).all(1).float().mean() for e in every])
    assert torch.allclose(shares, model.log_likelihood(every).exp(), atol=0.03)


def test_kept_positions_are_forced_and_the_rest_is_as_if_they_had_been_drawn():
    model = build()
    source = tokens(model, 3)
    keep = torch.zeros_like(source, dtype=torch.bool)
    keep[0, :5], keep[1, :3], keep[2, 4:8] = True, True, True
    made = model.sample(SampleRequest((1, 2, 3), source=source, keep=keep))
    assert torch.equal(made[keep], source[keep])
    free = model.sample(SampleRequest((1, 2, 3)))
    again = model.sample(SampleRequest((1, 2, 3), source=free, keep=keep))
    assert torch.equal(again, free)


def test_everything_kept_comes_back():
    model = build()
    source = tokens(model, 2)
    keep = torch.ones_like(source, dtype=torch.bool)
    assert torch.equal(model.sample(SampleRequest((1, 2), source=source, keep=keep)), source)


def test_guidance_one_is_the_condition_and_zero_is_none():
    model = build(condition=LABEL)
    wish = torch.tensor([[1.0]] * 8)
    ask = SampleRequest(tuple(range(8)), wish)
    writer_free = model.sample(SampleRequest(tuple(range(8))))
    assert torch.equal(model.sample(ask.with_(guidance=0.0)), writer_free)
    assert torch.equal(model.sample(ask.with_(guidance=1.0)), model.sample(ask))
    assert not torch.equal(model.sample(ask), writer_free)


def test_temperature_zero_is_the_likeliest_token():
    model = build()
    cold = model.sample(SampleRequest((1, 2), temperature=0.0))
    assert torch.equal(cold[0], cold[1])
    assert torch.equal(model.logits(cold[:, :-1]).argmax(-1), cold)


def test_top_k_and_top_p_keep_the_likeliest():
    p = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log()
    assert trimmed(p, 2, 1.0).isfinite().tolist() == [[True, False, True, False]]
    assert trimmed(p, 0, 0.75).isfinite().tolist() == [[True, False, True, False]]
    assert trimmed(p, 0, 0.4).isfinite().tolist() == [[True, False, False, False]]


def test_the_draw_is_the_inverse_of_the_distribution():
    logits = torch.tensor([0.2, 0.3, 0.5]).log().expand(3, 3)
    chance = torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)
    assert draw(logits, chance, SampleRequest((0,) * 3)).tolist() == [0, 1, 2]


def test_leading_counts_what_all_rows_share():
    kept = torch.tensor([[True, True, False, True], [True, True, True, True]])
    assert leading(kept) == 2


def test_turns_know_only_distances():
    turns = rotations(12, 8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    near = (rotate(q, turns[:, 3:4]) * rotate(k, turns[:, 1:2])).sum()
    far = (rotate(q, turns[:, 11:12]) * rotate(k, turns[:, 9:10])).sum()
    assert float(near) == pytest.approx(float(far), abs=1e-4)


def test_the_gradient_of_the_norm_is_torchs_own():
    norm = RMSNorm(6)
    x = torch.randn(3, 4, 6, requires_grad=True)
    weigh = torch.randn(3, 4, 6)
    mine = torch.autograd.grad((norm(x) * weigh).sum(), [x, norm.weight])
    theirs = torch.autograd.grad((F.rms_norm(x, (6,), norm.weight, 1e-6) * weigh).sum(), [x, norm.weight])
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_muon_moves_as_torchs_does():
    torch.manual_seed(0)
    start = [torch.randn(8, 20), torch.randn(20, 8), torch.randn(8, 20)]
    mine, theirs = ([torch.nn.Parameter(p.clone()) for p in start] for _ in range(2))
    a, b = Muon(mine, 0.02, 0.95, 0.1), torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1)
    for _ in range(3):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, s in zip(mine, theirs, start, strict=True):
        assert (p - q).norm() < 0.05 * (q - s).norm()  # torch computes in bfloat16


def test_muon_leaves_no_direction_out():
    found = torch.linalg.svdvals(orthogonal(torch.randn(3, 16, 40)))
    assert float(found.min()) > 0.5 and float(found.max()) < 1.4


def test_it_learns_what_the_label_says():
    model = build(length=6, vocabulary=4, condition=LABEL)

    def batches(start: int):
        while True:
            chance = torch.Generator().manual_seed(start)
            label = torch.randint(2, (32, 1), generator=chance)
            yield Batch(2 * label + torch.randint(2, (32, 6), generator=chance), label.float())
            start += 1

    *_, now = islice(loop(model, batches, make_plan(None, {"steps": 80})), 80)
    wish = torch.tensor([[0.0], [1.0]]).repeat(20, 1)
    made = now.averaged.sample(SampleRequest(tuple(range(40)), wish))
    assert ((made >= 2) == (wish == 1)).float().mean() > 0.97
    assert float(now.logs["model/nats_per_token"]) < 0.85  # ln 2 is the least


def test_bad_wishes_are_refused_in_words():
    with pytest.raises(SpaceError, match="transformer works on tokens"):
        Transformer(DataSpec(Space("grid", (1, 8, 8))))
    with pytest.raises(SettingError, match="head_width"):
        Transformer(DataSpec(Space("tokens", (8,), 4)), width=40, head_width=16)
