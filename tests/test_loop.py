"""The loop: phases, the average, schedules, resume; small theorems with known answers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from maquette.errors import SettingError, TrainingError, UnknownName
from maquette.loop import average, loop, make_plan, schedule
from maquette.space import Batch, DataSpec, Losses, Model, Optimiser, Phase, Space


class Two(Model):
    """Two players on vectors: `a` moves twice a step, `b` once."""

    phases = (Phase("first", ("a",), repeats=2), Phase("second", ("b",), optimiser=Optimiser("adam", lr=0.01)))

    def __init__(self) -> None:
        super().__init__(DataSpec(Space("vector", (4,))))
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.calls: list[tuple[str, float]] = []

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        self.calls.append((phase, progress))
        noisy = batch.x + 0.01 * torch.randn_like(batch.x)
        return Losses({"error": (self.b(self.a(noisy)) - batch.x).square().mean()})


def batches(start: int):
    while True:
        yield Batch(torch.randn(8, 4, generator=torch.Generator().manual_seed(start)))
        start += 1


def run(model: Model, steps: int, restored=None, **settings):
    plan = make_plan(model, {"steps": steps, **settings})
    return list(loop(model, batches, plan, restored))[-1]


def test_each_phase_moves_its_own_players_as_often_as_it_says() -> None:
    model = Two()
    states = loop(model, batches, make_plan(model, {"steps": 1}))
    before = copy.deepcopy(model.state_dict())
    next(states)
    assert [phase for phase, _ in model.calls] == ["first", "first", "second"]
    assert all(not torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "muon"])
def test_stopping_anywhere_and_going_on_gives_the_same_weights_to_the_last_bit(optimiser: str) -> None:
    torch.manual_seed(3)
    model = Two()
    again = copy.deepcopy(model)
    plan = make_plan(model, {"steps": 9, "optimiser": optimiser})
    for now in loop(model, batches, plan):
        if now.step == 4:
            stopped = copy.deepcopy(now.tensors()), now.facts()
    *_, resumed = loop(again, batches, plan, stopped)
    for file, tensors in now.tensors().items():
        assert tensors.keys() == resumed.tensors()[file].keys()
        assert all(torch.equal(t, resumed.tensors()[file][name]) for name, t in tensors.items()), file


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    class Still(Two):
        def loss(self, batch, phase, progress):
            return Losses({"error": (self.b(self.a(batch.x)) - batch.x).square().mean()})

    torch.manual_seed(0)
    one = Still()
    two = copy.deepcopy(one)
    run(one, 3)
    run(two, 3, micro_batches=4)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_a_loss_that_is_not_finite_names_phase_and_step_and_leaves_the_step_before() -> None:
    class Bad(Two):
        def loss(self, batch, phase, progress):
            losses = super().loss(batch, phase, progress)
            return Losses({"error": losses.terms["error"] * (math.nan if phase == "second" and progress >= 0.5 else 1)})

    model = Bad()
    with pytest.raises(TrainingError, match="phase second is not finite at step 5"):
        run(model, 10)
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_average_forgets_the_initial_weights_at_once_and_has_the_half_life_it_was_given() -> None:
    model = Two()
    plan = make_plan(model, {"steps": 400, "half_life": 0.1})
    from maquette.loop import TrainState

    now = TrainState(model, plan)
    with torch.no_grad():
        for step in range(1, 401):
            now.step = step
            for p in model.parameters():
                p.fill_(float(step > 360))  # the newest tenth of all steps
            average(now)
            if step == 1:
                assert all((p == 0).all() for p in now.averaged.parameters())
    weight = next(now.averaged.parameters()).flatten()[0].item()
    assert abs(weight - (1 - 0.9 ** (1 + math.log(0.5) / math.log(0.9)))) < 0.02


def test_rates_rise_and_fall() -> None:
    o = Optimiser(warmup=0.1, schedule="linear", floor=0.2)
    assert schedule(o, 4, 0.0, 100) == pytest.approx(0.5)
    assert schedule(o, 50, 0.5, 100) == pytest.approx(0.6)
    assert schedule(o, 100, 1.0, 100) == pytest.approx(0.2)


def test_a_plan_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnknownName, match="did you mean lr"):
        make_plan(None, {"lrr": 1})
    with pytest.raises(SettingError, match=r"train.batch_size should be greater than 0; -4 came"):
        make_plan(None, {"batch_size": -4})
    with pytest.raises(SettingError, match="should be a device of this machine"):
        make_plan(None, {"device": "abacus"})


def test_the_steps_may_be_set_while_the_loop_runs() -> None:
    model = Two()
    steps = 0
    for now in loop(model, batches, make_plan(model, {})):
        assert now.progress == (now.step / now.steps if now.steps else 0)
        if now.step == 3:
            now.steps = 7
        steps += 1
    assert steps == 7
