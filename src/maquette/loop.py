"""The one training loop: a generator that yields after each step. Whoever drives it logs, saves, samples or stops.

Chance is a function of (seed, step, rank), so resuming needs no state of any random generator.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from maquette.catalog import check
from maquette.errors import RunError, SettingError, TrainingError
from maquette.muon import Muon
from maquette.space import Batch, Model, Optimiser, Phase

AVERAGED = 4  # steps between two updates of the averaged weights


@dataclass(frozen=True)
class Plan:
    """Everything the loop is told beside the model; see `plan` for the units and defaults."""

    steps: int | None
    batch_size: int
    seed: int
    optimiser: Mapping[str, object]  # fields of Optimiser that a recipe overrides, for every phase
    lr_scale: float
    micro_batches: int
    half_life: float
    precision: Literal["fp32", "bf16"]
    compile: bool
    device: str
    threads: int


def plan(
    model: Model | None = None,
    *,
    steps: Annotated[int | None, Field(gt=0, description="steps of training; none: found from the minutes")] = None,
    batch_size: Annotated[
        int | None, Field(gt=0, description="pieces a step over all processes; none: the model's own")
    ] = None,
    seed: Annotated[int, Field(ge=0, description="the seed of weights, order and noise")] = 0,
    optimiser: Annotated[
        Literal["adamw", "adam", "sgd", "muon"] | None, Field(description="none: the phase's own")
    ] = None,
    lr: Annotated[float | None, Field(gt=0, description="learning rate at its peak; none: the phase's own")] = None,
    weight_decay: Annotated[float | None, Field(ge=0, description="none: the phase's own")] = None,
    schedule: Annotated[
        Literal["cosine", "linear", "constant"] | None, Field(description="none: the phase's own")
    ] = None,
    warmup: Annotated[float | None, Field(ge=0, lt=1, description="share of the steps; none: the phase's own")] = None,
    clip: Annotated[
        float | None, Field(ge=0, description="largest gradient norm, 0 is off; none: the phase's own")
    ] = None,
    lr_scale: Annotated[float, Field(gt=0, description="multiplies every learning rate")] = 1.0,
    micro_batches: Annotated[int, Field(gt=0, description="parts a batch is split into to save memory")] = 1,
    half_life: Annotated[
        float, Field(gt=0, lt=1, description="of the weight average, as a share of the steps done")
    ] = 0.05,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where model and hardware gain")
    ] = "auto",
    compile: Annotated[bool, Field(description="torch.compile the bodies: pays from some minutes on")] = False,
    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:1 ...")] = "auto",
    threads: Annotated[int, Field(ge=0, description="of the CPU; 0: as many as are idle when training begins")] = 0,
) -> Plan:
    """The choices of training; this signature is the [train] table of a recipe."""
    chosen = {
        "name": optimiser,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup": warmup,
        "clip": clip,
    }
    where = pick_device(device)
    return Plan(
        steps=steps,
        batch_size=batch_size or (model.batch_size if model else 64),
        seed=seed,
        optimiser={k: v for k, v in chosen.items() if v is not None},
        lr_scale=lr_scale,
        micro_batches=micro_batches,
        half_life=half_life,
        precision=_precision(precision, model, where),
        compile=compile,
        device=where,
        threads=threads or idle_cores(),
    )


def idle_cores() -> int:
    """Cores that nobody else keeps busy, at least one: threads that wait for a busy core make training many times slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number for each level of nesting
    allowed = int(first) if first.isdigit() else cores
    return max(1, min(allowed, (cores - round(os.getloadavg()[0])) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def make_plan(model: Model | None, given: Mapping[str, object]) -> Plan:
    """A Plan from a recipe's [train] table, checked. Raises UnknownName or SettingError."""
    return plan(model, **check(plan, given, "train"))


def pick_device(name: str) -> str:
    """auto -> cuda of this process's local rank where there is one, else cpu. Raises SettingError."""
    if name == "auto":
        return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(
            f'train.device should be a device of this machine; "{name}" came: {str(error).splitlines()[0]}'
        ) from None
    return name


def _precision(asked: str, model: Model | None, device: str) -> Literal["fp32", "bf16"]:
    if asked != "auto":
        return "bf16" if asked == "bf16" else "fp32"
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if fast and model is not None and model.bf16 else "fp32"


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


class Batches(Protocol):
    """`batches(start)` is the endless stream of this rank's batches from batch number `start` on."""

    def __call__(self, start: int) -> Iterator[Batch]: ...


class TrainState:
    """The model on its way: weights, averaged weights, one optimiser a phase, the step; all that a checkpoint holds.

    steps  the whole number of steps; None until the driver has measured the machine (see drive.py)
    best   (step, figure) of the best weights on the validation split, where the driver looks at it; smaller is better
    logs   what the last step wrote down: "phase/term" -> 0-d tensor
    """

    def __init__(self, model: Model, plan: Plan):
        self.plan, self.step = plan, 0
        self.steps = plan.steps if model.phases else 1  # nothing to move: what there is to fit, `conclude` fits
        self.lr_scale, self.threads = plan.lr_scale, plan.threads
        self.model = model.to(plan.device)
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.parameters, self.averages = list(self.model.parameters()), list(self.averaged.parameters())
        self.optimisers = {phase.name: optimisers(self.model, phase, plan) for phase in model.phases}
        self.logs: dict[str, Tensor] = {}
        self.best: tuple[int, float] | None = None

    @property
    def progress(self) -> float:
        """Share of training that is done, in [0, 1]; 0 while the number of steps is not known yet."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    @property
    def done(self) -> bool:
        return self.steps is not None and self.step >= self.steps

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """File name -> tensors: weights, averaged weights and the state of the optimisers."""
        names = {id(p): n for n, p in self.model.named_parameters()}
        moments = {
            f"{phase}|{names[id(p)]}|{key}": value
            for phase, group in self.optimisers.items()
            for optimiser in group
            for p, state in optimiser.state.items()
            for key, value in state.items()
        }
        return {
            "weights": dict(self.model.state_dict()),
            "averaged": dict(self.averaged.state_dict()),
            "optimiser": {k: torch.as_tensor(v) for k, v in moments.items()},
        }

    def facts(self) -> dict[str, Any]:
        """The plain numbers of a checkpoint."""
        known = ("step", "steps", "lr_scale", "threads", "best")
        return {name: getattr(self, name) for name in known}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, object]) -> None:
        """Take up what `tensors` and `facts` gave. Raises RunError where names or shapes do not fit."""
        try:
            self.model.load_state_dict(dict(tensors["weights"]))
            self.averaged.load_state_dict(dict(tensors["averaged"]))
        except RuntimeError as error:
            raise RunError(f"the checkpoint does not fit this model, was it made by another recipe? {error}") from None
        parameters = dict(self.model.named_parameters())
        for group in self.optimisers.values():
            for optimiser in group:
                optimiser.state.clear()
        owners = {
            (phase, id(p)): o
            for phase, g in self.optimisers.items()
            for o in g
            for pg in o.param_groups
            for p in pg["params"]
        }
        for key, value in tensors["optimiser"].items():
            phase, name, moment = key.split("|")
            p = parameters[name]
            owners[phase, id(p)].state[p][moment] = value.to(p.device if value.dim() else "cpu").clone()
        self.step, self.steps = int(facts["step"]), facts["steps"]  # type: ignore[arg-type]
        self.lr_scale = float(facts["lr_scale"])  # type: ignore[arg-type]
        self.best = tuple(facts["best"]) if facts.get("best") else None  # type: ignore[arg-type]
        self.threads = int(facts["threads"])  # type: ignore[call-overload]  # another number adds up in another order


def loop(
    model: Model, batches: Batches, plan: Plan, restored: tuple[Mapping, Mapping] | None = None
) -> Iterator[TrainState]:
    """Train `model` by `plan`; yields the same TrainState after each step. restored: (tensors, facts) of a checkpoint.

    The driver may set `state.steps` (minutes), stop iterating at any step, and read or save everything in between.
    Raises TrainingError naming phase and step when a loss is not finite; the state then still holds the step before.
    """
    seed_everything(plan.seed, -1, 0)
    now = TrainState(model, plan)
    if restored:
        now.restore(*restored)
    torch.set_num_threads(now.threads)
    if plan.compile:
        for body in now.model.children():
            body.compile()
    moves = sum(phase.repeats for phase in model.phases)
    stream = batches(start=now.step * moves)
    players = {phase.name: [p for n, p in model.named_parameters() if phase.moves(n)] for phase in model.phases}
    model.train()
    while not now.done:
        seed_everything(plan.seed, now.step, rank())
        logs: dict[str, Tensor] = {}
        for phase in model.phases:
            for _ in range(phase.repeats):
                logs |= move(now, phase, players[phase.name], next(stream))
                model.after_step(phase.name)
        now.step += 1
        now.logs = logs
        average(now)
        yield now


def move(now: TrainState, phase: Phase, players: list[nn.Parameter], batch: Batch) -> dict[str, Tensor]:
    """One move of one phase: its players take a step down their loss, all others hold still."""
    only(now.parameters, players)
    parts = batch.to(now.plan.device).split(now.plan.micro_batches)
    logs: dict[str, Tensor] = {}
    for part in parts:
        share = len(part) / len(batch)
        with autocast(now.plan):
            losses = now.model.loss(part, phase.name, now.progress)
        (losses.total * share).backward()
        for name, value in (losses.terms | losses.logs).items():
            key = f"{phase.name}/{name}"
            logs[key] = logs.get(key, 0) + value.detach().float() * share
    average_gradients(players)
    finite(logs, losses.terms, phase.name, now.step)
    step(now, phase, players)
    return logs


def only(everyone: list[nn.Parameter], players: list[nn.Parameter]) -> None:
    """`players` ask for gradients, every other parameter does not; old gradients are dropped."""
    for p in everyone:
        p.requires_grad_(False)
        p.grad = None
    for p in players:
        p.requires_grad_(True)


def autocast(plan: Plan):
    if plan.precision == "fp32":
        return nullcontext()
    return torch.autocast(plan.device.split(":")[0], dtype=torch.bfloat16)


def average_gradients(players: Iterable[nn.Parameter]) -> None:
    """The mean of the gradients over all processes, by hand: no wrapper hides `loss`."""
    if world() == 1:
        return
    grads = [p.grad for p in players if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world()
    for g, new in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(new.view_as(g))


def finite(logs: Mapping[str, Tensor], terms: Mapping[str, Tensor], phase: str, step: int) -> None:
    """Raise TrainingError unless every learnt term is finite (on every rank: a sum carries one rank's NaN to all)."""
    total = torch.stack([logs[f"{phase}/{name}"] for name in terms]).sum()
    if world() > 1:
        dist.all_reduce(total)
    if not math.isfinite(total.item()):
        bad = ", ".join(f"{k}={float(v):.3g}" for k, v in logs.items())
        raise TrainingError(f"the loss of phase {phase} is not finite at step {step} ({bad})")


def step(now: TrainState, phase: Phase, players: list[nn.Parameter]) -> None:
    rate = now.lr_scale * schedule(settled(phase.optimiser, now.plan), now.step, now.progress, now.steps)
    clip = settled(phase.optimiser, now.plan).clip
    if clip:
        nn.utils.clip_grad_norm_(players, clip, foreach=True)
    for optimiser in now.optimisers[phase.name]:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        optimiser.step()


def schedule(o: Optimiser, step: int, progress: float, steps: int | None) -> float:
    """Share of the peak rate: a linear rise over `warmup`, then down to `floor`.

    >>> schedule(Optimiser(warmup=0.1), 0, 0.0, 100)
    0.1
    >>> schedule(Optimiser(warmup=0.0), 100, 1.0, 100)
    0.0
    """
    rise = max(1, round(o.warmup * steps)) if steps else 100
    up = min(1.0, (step + 1) / rise) if o.warmup else 1.0
    down = {"cosine": 0.5 + 0.5 * math.cos(math.pi * progress), "linear": 1 - progress, "constant": 1.0}[o.schedule]
    return up * (o.floor + (1 - o.floor) * down)


def settled(o: Optimiser, plan: Plan) -> Optimiser:
    """A phase's optimiser with what the recipe overrides."""
    return replace(o, **plan.optimiser)  # type: ignore[arg-type]


def optimisers(model: nn.Module, phase: Phase, plan: Plan) -> list[torch.optim.Optimizer]:
    """One optimiser a phase; two for muon, which moves the matrices and leaves vectors, embeddings and heads to AdamW."""
    o = settled(phase.optimiser, plan)
    named = [(n, p) for n, p in model.named_parameters() if phase.moves(n)]
    if not named:
        raise SettingError(f"phase {phase.name} has no parameters under {phase.players}")
    if o.name != "muon":
        return [_optimiser(o, [p for _, p in named])]
    matrices = [p for n, p in named if p.ndim == 2 and not any(w in n for w in ("embed", "head", "position"))]
    rest = [p for _, p in named if not any(p is m for m in matrices)]
    muon = Muon(matrices, lr=o.muon_lr, momentum=0.95, weight_decay=o.weight_decay)
    muon.param_groups[0]["peak"] = o.muon_lr
    return [muon, *([_optimiser(replace(o, name="adamw"), rest)] if rest else [])]


def _optimiser(o: Optimiser, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Vectors do not decay. One group where nothing does."""
    matrices = [p for p in parameters if p.ndim >= 2 or not o.weight_decay]
    vectors = [p for p in parameters if p.ndim < 2 and o.weight_decay]
    groups = [
        {"params": ps, "weight_decay": decay, "peak": o.lr}
        for ps, decay in ((matrices, o.weight_decay), (vectors, 0.0))
        if ps
    ]
    if o.name == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.betas[0], nesterov=True)
    kind = torch.optim.Adam if o.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=o.lr, betas=o.betas, fused=True)  # one pass over memory, on CPU too


@torch.no_grad()
def average(now: TrainState) -> None:
    """Power-function average (Karras 2024, arXiv:2312.02696, eq. 1): its half-life is a share of the steps done, so it warms itself
    up and the initial noise leaves it at once. Taken at every AVERAGED-th step, for it costs as much as the optimiser; buffers are copied."""
    if now.step % AVERAGED and now.step > AVERAGED:
        return
    gamma = math.log(0.5) / math.log(1 - now.plan.half_life)
    keep = max(0.0, 1 - AVERAGED / now.step) ** (gamma + 1)
    if now.parameters:
        torch._foreach_lerp_(now.averages, [p.detach() for p in now.parameters], 1 - keep)
    for mine, theirs in zip(now.averaged.buffers(), now.model.buffers(), strict=True):
        mine.copy_(theirs)


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Python, NumPy and torch chance as a function of (seed, step, rank)."""
    import random

    mixed = int(np.random.SeedSequence([seed, step + 1, rank]).generate_state(1, np.uint32)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.default_generator.manual_seed(mixed)  # torch.manual_seed asks every backend: 2 ms a step
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(mixed)


def only_here(work: Callable[[], None]) -> None:
    """Run `work` on rank 0 alone and let the others wait for it."""
    if rank() == 0:
        work()
    if world() > 1:
        dist.barrier()


def agreed(number: int) -> int:
    """Rank 0's number on every rank."""
    return int(agreed_number(number))


def agreed_number(number: float) -> float:
    """Rank 0's number on every rank."""
    if world() == 1:
        return number
    shared = torch.tensor([number], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)
