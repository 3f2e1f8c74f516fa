"""What every file of models/ keeps, whichever family it is: the suite lists the folder, so a new file is under contract at once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from maquette import catalog
from maquette.condition import Condition, Field
from maquette.errors import MaquetteError, SpaceError
from maquette.loop import TrainState, loop, make_plan, move
from maquette.space import Batch, Codec, DataSpec, GenerativeModel, Model, SampleRequest, Space

LENT = {"borrowed"}  # the weights are somebody else's and nothing is learnt: tests/test_borrowed.py
FAMILIES = [name for name in catalog.names("models") if name not in LENT]
SPACES = {
    "grid of 2 axes": Space("grid", (1, 8, 8)),
    "grid of 3 channels": Space("grid", (3, 16, 16)),
    "grid of 1 axis": Space("grid", (2, 16)),
    "grid of 3 axes": Space("grid", (1, 4, 8, 6)),
    "tokens": Space("tokens", (12,), 8),
    "vector": Space("vector", (6,)),
}
CONDITION = Condition([Field("label", "label", ("first", "second"))])
MOST_STEPS = 400  # of the toy; most families need far fewer


def build(name: str, space: Space, condition: Condition | None = CONDITION) -> Model:
    kind = catalog.find("models", name)
    torch.manual_seed(0)
    return kind(DataSpec(space, condition), **catalog.check(kind, kind.sizes["tiny"], name))


def takes(name: str, space: Space) -> bool:
    try:
        build(name, space)
    except SpaceError:
        return False
    return True


@cache
def home(name: str) -> Space:
    """The first space of the list that the family takes."""
    return next(space for space in SPACES.values() if takes(name, space))


def pattern(space: Space) -> Tensor:
    """What the two labels look like, (2, *shape): one half bright and then the other; tokens 0 1 0 1 and then 2 3 2 3."""
    if space.kind == "tokens":
        return torch.arange(space.shape[0]) % 2 + torch.tensor([[0], [2]])
    first = torch.full(space.shape, -0.8)
    first[..., space.shape[-1] // 2 :] = 0.8
    return torch.stack([first, -first])


def toy(space: Space, size: int = 32) -> Iterator[Batch]:
    """An endless stream of noisy patterns; one row of each batch has no label."""
    for k in itertools.count():
        chance = torch.Generator().manual_seed(k)
        label = torch.arange(size) % 2
        x = pattern(space)[label]
        if space.kind != "tokens":
            x = (x + 0.05 * torch.randn(x.shape, generator=chance)).clamp(-1, 1)
        condition = label[:, None].float()
        condition[k % size] = torch.nan
        yield Batch(x, condition, torch.arange(size))


def batches(space: Space):
    return lambda start: itertools.islice(toy(space), start, None)


def concluded(model: Model) -> Model:
    model.eval()
    with torch.no_grad():
        model.conclude(lambda: itertools.islice(toy(model.spec.space), 4))
    return model


@cache
def trained(name: str) -> Model:
    """The family after a few steps on the toy of its home, as the driver leaves it."""
    space = home(name)
    states = loop(build(name, space), batches(space), make_plan(None, {"steps": 3, "batch_size": 32}))
    return concluded(list(states)[-1].averaged)


def error(model: Model) -> float:
    """How far its pieces of either label are from the pattern; of a codec alone, how far what comes back is; of what only counts and
    heeds no label, how far they are from the nearer pattern."""
    label = torch.arange(16) % 2
    aim = pattern(model.spec.space)[label]
    if isinstance(model, GenerativeModel):
        made = model.sample(SampleRequest(tuple(range(16)), label[:, None].float()))
    else:
        made = model.decode(model.encode(aim))
    if not model.phases:
        return (made[:, None] != aim[:2]).float().mean(2).amin(1).mean().item()
    return ((made != aim) if model.spec.space.kind == "tokens" else (made - aim).abs()).float().mean().item()


def generative(name: str) -> bool:
    return issubclass(catalog.find("models", name), GenerativeModel)


MAKERS = [name for name in FAMILIES if generative(name)]
every_family = pytest.mark.parametrize("name", FAMILIES)
every_maker = pytest.mark.parametrize("name", MAKERS)


@every_family
def test_its_sizes_are_settings_it_has(name: str) -> None:
    kind = catalog.find("models", name)
    assert set(kind.sizes) == {"tiny", "small", "medium", "large"}
    counts = [
        sum(p.numel() for p in kind(DataSpec(home(name)), **catalog.check(kind, given, name)).parameters())
        for given in kind.sizes.values()
    ]
    assert counts == sorted(counts)
    assert catalog.table(kind), "a family has settings"
    assert all(row["description"] for row in catalog.table(kind)), "each setting says what it is"


@every_family
def test_an_impossible_space_is_refused_in_words(name: str) -> None:
    refused = [space for space in SPACES.values() if not takes(name, space)]
    assert refused
    for space in refused:
        with pytest.raises(SpaceError, match=name):
            build(name, space)


@every_family
def test_a_family_that_takes_grids_takes_all_their_axes(name: str) -> None:
    if not takes(name, SPACES["grid of 2 axes"]):
        pytest.skip("takes no grids")
    for space in (space for space in SPACES.values() if space.kind == "grid"):
        model = build(name, space)
        batch = next(toy(space, 8))
        for phase in model.phases:
            assert model.loss(batch, phase.name, 0.5).total.isfinite()
        if isinstance(model, GenerativeModel):
            made = concluded(model).sample(SampleRequest((1, 2)))
            assert made.shape == (2, *space.shape) and made.abs().max() <= 1


@every_family
@pytest.mark.parametrize("condition", [None, CONDITION], ids=["unsteered", "steered"])
def test_every_learnable_number_moves_in_exactly_one_phase(name: str, condition: Condition | None) -> None:
    model = build(name, home(name), condition)
    for parameter, _ in model.named_parameters():
        assert [p.name for p in model.phases if p.moves(parameter)].__len__() == 1, parameter
    now = TrainState(model, make_plan(model, {"steps": 10}))
    stream = toy(home(name))
    moved: set[str] = set()
    for _ in range(4):  # what starts at zero lets no gradient through in the first moves
        for phase in model.phases:
            before = {k: p.detach().clone() for k, p in model.named_parameters()}
            players = [p for k, p in model.named_parameters() if phase.moves(k)]
            batch = next(stream)
            move(now, phase, players, batch if condition else Batch(batch.x))
            changed = {k for k, p in model.named_parameters() if not torch.equal(before[k], p)}
            assert all(phase.moves(k) for k in changed), f"{phase.name} moved what is not its own"
            moved |= changed
            model.after_step(phase.name)
    assert moved == {k for k, _ in model.named_parameters()}


@every_family
def test_it_learns_a_toy(name: str) -> None:
    space = home(name)
    model = build(name, space)
    before = error(concluded(copy.deepcopy(model)) if model.phases else model)
    for now in loop(model, batches(space), make_plan(None, {"steps": MOST_STEPS, "batch_size": 32})):
        if (now.done or now.step % 40 == 0) and error(concluded(copy.deepcopy(now.averaged))) < 0.4 * before:
            return
    pytest.fail(f"after {MOST_STEPS} steps its pieces are no nearer to the pattern than {error(now.averaged)}")


@every_family
def test_stopping_and_going_on_is_bit_exact(name: str) -> None:
    space, plan = home(name), make_plan(None, {"steps": 4, "batch_size": 16})
    if not build(name, space).phases:
        pytest.skip("takes no steps")
    for now in loop(build(name, space), batches(space), plan):
        if now.step == 2:
            kept = {f: load(save({k: v.clone() for k, v in t.items()})) for f, t in now.tensors().items()}, now.facts()
    for again in loop(build(name, space), batches(space), plan, kept):  # noqa: B007
        pass
    for mine, theirs in ((now.model, again.model), (now.averaged, again.averaged)):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key


@every_family
def test_weights_alone_give_the_model_back(name: str) -> None:
    model = trained(name)
    again = build(name, home(name)).eval()
    again.load_state_dict(load(save({k: v.contiguous() for k, v in model.state_dict().items()})))
    assert error(again) == error(model) == error(copy.deepcopy(model))


@every_family
def test_concluding_twice_is_concluding_once(name: str) -> None:
    model = copy.deepcopy(trained(name))
    before = copy.deepcopy(model.state_dict())
    concluded(model)
    for key, value in model.state_dict().items():
        assert torch.allclose(value, before[key], atol=1e-5), key


@every_maker
def test_row_i_depends_on_seed_i_alone(name: str) -> None:
    model = trained(name)
    label = torch.tensor([[0.0], [1.0], [torch.nan]])
    three = model.sample(SampleRequest((3, 5, 9), label))
    for i in range(3):
        alone = model.sample(SampleRequest((3, 5, 9), label).rows(i, i + 1))
        assert torch.allclose(three[i : i + 1].float(), alone.float(), atol=1e-4)
    others = model.sample(SampleRequest((4, 6, 7, 8), label[:1].repeat(4, 1)))
    assert any(not torch.equal(three[0], other) for other in others)


@every_maker
def test_no_condition_and_a_row_of_nan_are_the_same_wish(name: str) -> None:
    model = trained(name)
    nothing = model.sample(SampleRequest((3, 5)))
    unknown = model.sample(SampleRequest((3, 5), torch.full((2, 1), torch.nan)))
    assert torch.allclose(nothing.float(), unknown.float(), atol=1e-4)
    guided = model.sample(SampleRequest((3, 5), torch.tensor([[0.0], [1.0]]), guidance=2.0))
    assert guided.shape == nothing.shape


@every_maker
def test_a_model_without_conditions_makes_pieces(name: str) -> None:
    space = home(name)
    model = build(name, space, condition=None)
    for phase in model.phases:
        model.loss(Batch(next(toy(space)).x), phase.name, 0.0)
    assert model.eval().sample(SampleRequest((1,))).shape == (1, *space.shape)


@every_maker
def test_the_way_between_two_pieces_begins_and_ends_at_them(name: str) -> None:
    model, request = trained(name), SampleRequest((3, 5))
    if type(model).interpolate is GenerativeModel.interpolate:
        with pytest.raises(MaquetteError):
            model.interpolate(request, [0.0, 1.0])
        return
    way = model.interpolate(request, [0.0, 0.5, 1.0])
    assert torch.allclose(way[[0, 2]], model.sample(request), atol=1e-3)


@every_family
def test_a_codec_turns_pieces_into_codes_of_its_space_and_back(name: str) -> None:
    model = trained(name)
    if not isinstance(model, Codec):
        pytest.skip("is no codec")
    x = next(toy(home(name), 6)).x
    codes = model.encode(x)
    assert codes.shape == (6, *model.code_space.shape)
    if model.code_space.kind == "tokens":
        assert codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < model.code_space.vocabulary
    back = model.decode(codes)
    assert back.shape == x.shape and back.abs().max() <= 1
