"""What every file of tasks/ keeps, and what each of them learns: names, numbers, words, and what is whole."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from maquette import catalog
from maquette.condition import Condition, Field
from maquette.errors import SettingError, SpaceError
from maquette.loop import TrainState, loop, make_plan, move
from maquette.space import Batch, DataSpec, Space

TASKS = catalog.names("tasks")
SPACES = {
    "grid of 2 axes": Space("grid", (1, 8, 8)),
    "grid of 3 channels": Space("grid", (3, 16, 16)),
    "grid of 1 axis": Space("grid", (2, 16)),
    "grid of 3 axes": Space("grid", (1, 4, 8, 6)),
    "tokens": Space("tokens", (12,), 8),
    "ragged tokens": Space("tokens", (12,), 8, end=7),
}
CONDITION = Condition(
    [
        Field("label", "label", ("left", "right")),
        Field("weight", "number", mean=5.0, std=2.0),
        Field("text", "caption", ("", "bright", "is", "left", "right"), length=4),
    ]
)
SAID = torch.tensor([[0.0, -1.0, 3.0, 2.0, 1.0, torch.nan], [1.0, 1.0, 4.0, 2.0, 1.0, torch.nan]])
each_task = pytest.mark.parametrize("name", TASKS)
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def build(name: str, space: Space, condition: Condition | None = CONDITION, **given):
    kind = catalog.find("tasks", name)
    torch.manual_seed(0)
    return kind(DataSpec(space, condition), **catalog.check(kind, {**kind.sizes["tiny"], **given}, name))


def pattern(space: Space) -> Tensor:
    if space.kind == "tokens":
        x = torch.arange(space.shape[0]) % 2 + torch.tensor([[0], [2]])
        if space.ragged:
            x[:, -2:] = space.end
        return x
    first = torch.full(space.shape, -0.8)
    first[..., space.shape[-1] // 2 :] = 0.8
    return torch.stack([first, -first])


def toy(space: Space, size: int = 32) -> Iterator[Batch]:
    """An endless stream of two patterns; of one row nothing is known."""
    for k in itertools.count():
        chance = torch.Generator().manual_seed(k)
        which = torch.arange(size) % 2
        x = pattern(space)[which]
        if space.kind != "tokens":
            x = (x + 0.05 * torch.randn(x.shape, generator=chance)).clamp(-1, 1)
        condition = SAID[which].clone()
        condition[k % size] = torch.nan
        yield Batch(x, condition, torch.arange(size))


def batches(space: Space):
    return lambda start: itertools.islice(toy(space), start, None)


def figure(model) -> float:
    found = copy.deepcopy(model).eval().validation(lambda: itertools.islice(toy(model.spec.space), 2))
    return next(iter(found.values()))


@each_task
def test_its_sizes_are_settings_it_has_and_each_says_what_it_is(name: str) -> None:
    kind = catalog.find("tasks", name)
    assert set(kind.sizes) == {"tiny", "small", "medium", "large"}
    assert all(row["description"] for row in catalog.table(kind))


@each_task
@each_space
def test_it_learns_a_toy(name: str, space: Space) -> None:
    model = build(name, space)
    before = figure(model)
    for now in loop(model, batches(space), make_plan(None, {"steps": 120, "batch_size": 32, "lr": 3e-3})):
        if now.step % 20 == 0 and figure(now.averaged) < 0.4 * before:
            return
    pytest.fail(f"{before} before, {figure(now.averaged)} after")


@each_task
def test_vectors_are_refused_in_words(name: str) -> None:
    with pytest.raises(SpaceError, match=f"{name} works on grid or tokens"):
        build(name, Space("vector", (6,)))


@each_task
@pytest.mark.parametrize("space", [SPACES["grid of 2 axes"], SPACES["tokens"]], ids=["grid", "tokens"])
@pytest.mark.parametrize("frozen", [False, True], ids=["whole", "head alone"])
def test_every_learnable_number_moves_and_a_frozen_body_does_not(name: str, space: Space, frozen: bool) -> None:
    given = {"kind": "inpaint"} if name == "restore" and space.kind == "grid" else {}
    model = build(name, space, **given)
    if frozen:
        catalog.find("adapters", "head")().apply(model)
    own = {k for k, _ in model.named_parameters() if model.phases[0].moves(k)}
    assert model.frozen == (frozen and not any(k.startswith("body.") for k in own))
    now = TrainState(model, make_plan(model, {"steps": 10}))
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    stream = toy(space)
    for _ in range(4):
        move(now, model.phases[0], [p for k, p in model.named_parameters() if k in own], next(stream))
    assert {k for k, p in model.named_parameters() if not torch.equal(before[k], p)} == own
    if not frozen:
        assert own == set(before)


@each_task
def test_stopping_and_going_on_is_bit_exact(name: str) -> None:
    space, plan = SPACES["grid of 2 axes"], make_plan(None, {"steps": 4, "batch_size": 16})
    for now in loop(build(name, space), batches(space), plan):
        if now.step == 2:
            kept = {f: load(save({k: v.clone() for k, v in t.items()})) for f, t in now.tensors().items()}, now.facts()
    for again in loop(build(name, space), batches(space), plan, kept):  # noqa: B007
        pass
    for mine, theirs in ((now.model, again.model), (now.averaged, again.averaged)):
        for key, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[key]), key


@pytest.mark.parametrize("name", ["classify", "regress", "caption"])
def test_a_missing_column_is_said_in_words(name: str) -> None:
    with pytest.raises(SettingError, match="has the columns: none"):
        build(name, SPACES["grid of 2 axes"], None)
    with pytest.raises(SettingError, match="'colour' is none that varies in this corpus; its columns: label"):
        build(name, SPACES["grid of 2 axes"], column="colour")


@pytest.mark.parametrize("kind", ["denoise", "inpaint", "enlarge"])
@pytest.mark.parametrize("body", ["flow", "vqvae", "vae", "gan"])
def test_what_is_there_stays_and_an_untrained_network_changes_nothing(kind: str, body: str) -> None:
    model = build("restore", SPACES["grid of 2 axes"], None, kind=kind, body=body).eval()
    x = next(toy(SPACES["grid of 2 axes"])).x
    with torch.no_grad():
        left, hidden = model.damaged(x)
        made = model.restored(left, hidden)
    assert torch.allclose(made, left, atol=1e-6)
    if hidden is not None:
        assert hidden.flatten(1).any(1).all() and torch.equal(made[~hidden.expand_as(x)], x[~hidden.expand_as(x)])
