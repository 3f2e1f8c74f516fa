"""Flow matching (Lipman 2023, arXiv:2210.02747): a network learns the velocity that carries noise to pieces along straight lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from maquette.loop import world
from maquette.nets.condition import ConditionEmbedding, drop_condition
from maquette.nets.dense import VectorField
from maquette.nets.unet import UNet
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, Optimiser, Phase, SampleRequest, noise

Velocity = Callable[[Tensor, float], Tensor]  # x (B, ...), t -> dx/dt (B, ...)
FRESH = 0.6  # share of the way that a variation of `source` at temperature 1 goes back towards noise
NEAR = 0.05  # 1 - t is not let below this in a division


class Flow(GenerativeModel):
    """x_t = (1 - t) z + t x from noise z to piece x; the network foresees x, and the loss is on the velocity (x - x_t) / (1 - t)."""

    sizes = {
        "tiny": {"width": 16, "blocks": 1, "dense": 128},
        "small": {},
        "medium": {"width": 64, "blocks": 3, "dense": 1024},
        "large": {"width": 128, "blocks": 4, "dense": 2048},
    }
    phases = (Phase("model", optimiser=Optimiser("adamw", lr=2e-3, clip=1.0)),)
    bf16 = True
    varies = True
    enters = {"body": "encoder"}
    heads = ("body.head", "body.norm", "body.after", "embed_condition", "*.film")

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Field(ge=8, description="channels of the first layer")] = 64,
        blocks: Annotated[int, Field(ge=0, description="residual blocks at the coarsest grid")] = 1,
        dense: Annotated[int, Field(gt=0, description="features of the layer that sees the whole grid")] = 512,
        features: Annotated[int, Field(gt=0, description="width of time and condition")] = 128,
        patch: Annotated[int, Field(gt=0, description="pixels along each axis that become channels, a power of 2")] = 4,
        foresee: Annotated[
            Literal["piece", "velocity", "auto"],
            Field(description="what the network gives; auto: velocity where pieces are one vector, else piece"),
        ] = "auto",
        solver: Annotated[Literal["heun", "euler"], Field(description="of the way from noise to piece")] = "heun",
        solver_steps: Annotated[int, Field(gt=0, description="to the piece; a request may ask for others")] = 20,
        drop: Annotated[float, Field(ge=0, le=1, description="share of pieces whose condition is forgotten")] = 0.15,
    ):
        super().__init__(spec)
        spec.space.need("grid", model="flow")
        self.batch_size = 64 if spec.space.elements > 256 else 256  # few numbers a piece: a larger batch is almost free
        if foresee == "auto":
            foresee = "velocity" if math.prod(spec.space.axes) == 1 else "piece"
        self.foresee, self.solver, self.solver_steps, self.drop = foresee, solver, solver_steps, drop
        channels, axes = spec.space.shape[0], spec.space.axes
        if math.prod(axes) == 1:
            self.body = VectorField(channels, dense=dense, blocks=blocks + 2, features=features)
        else:
            self.body = UNet(channels, axes, width=width, blocks=blocks, dense=dense, features=features, patch=patch)
        self.embed_condition = ConditionEmbedding(spec.condition, features)
        self.register_buffer("reach", torch.ones(()))  # largest value seen: 1 of pictures, more of codes

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, *shape) at times t (B,) -> dx/dt (B, *shape)"""
        out = self.body(x, t, self.embed_condition(condition, len(x)))
        if self.foresee == "velocity":
            return out
        piece = self.reach * torch.tanh(out / self.reach)
        return (piece - x) / (1 - t).clamp_min(NEAR).view(-1, *(1,) * (x.ndim - 1))

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        """The mean squared error of the velocity at times t = sigmoid(N(0, 1)) (Esser 2024, arXiv:2403.03206)."""
        x, z = batch.x, torch.randn_like(batch.x)
        self.reach.copy_(torch.maximum(self.reach, x.detach().abs().max()))
        t = torch.randn(len(x), device=x.device).sigmoid()
        at = t.view(-1, *(1,) * (x.ndim - 1))
        x_t = torch.lerp(z, x, at)
        v = self.velocity(x_t, t, drop_condition(batch.condition, self.drop))
        aim = (x - z) if self.foresee == "velocity" else (x - x_t) / (1 - at).clamp_min(NEAR)
        return Losses({"velocity": (v - aim).float().square().mean()})

    @torch.no_grad()
    def after_step(self, phase: str) -> None:
        """The reach is the same in every process."""
        if world() > 1:
            dist.all_reduce(self.reach, dist.ReduceOp.MAX)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """New pieces; with `source` its variations, or with `keep` what fits around that part of it."""
        z = request.temperature * request.noise(self.spec.space.shape, self.device)
        if request.source is None:
            return self._solve(z, request, 0.0)
        if request.keep is None:
            start = 1 - (FRESH if request.vary is None else request.vary) * min(1.0, request.temperature)
            return self._solve(torch.lerp(z, request.source, start), request, start)

        def known(x: Tensor, t: float) -> Tensor:
            """What is kept follows its own straight line (Lugmayr 2022, arXiv:2201.09865)."""
            return torch.where(request.keep, torch.lerp(z, request.source, t), x)

        return self._solve(z, request, 0.0, known)

    @torch.no_grad()
    def interpolate(self, request: SampleRequest, positions: Sequence[float]) -> Tensor:
        """Pieces from noise on the great circle between the noise of two seeds."""
        a, b = noise(request.seeds[:2], self.spec.space.shape, self.device) * request.temperature
        z = torch.stack([arc(a, b, t) for t in positions])
        if request.condition is not None:
            nearest = [round(min(max(t, 0.0), 1.0)) for t in positions]
            request = request.with_(condition=request.condition[nearest])
        return self._solve(z, request, 0.0)

    def _solve(self, x: Tensor, request: SampleRequest, start: float, known=lambda x, t: x) -> Tensor:
        """From time `start` to 1. The last step is Euler's: at t = 1 the velocity is not learnt."""
        if start >= 1:
            return x
        step = {"heun": heun_step, "euler": euler_step}[self.solver]
        count = request.steps or self.solver_steps
        times = torch.linspace(start, 1.0, count + 1).tolist()
        velocity = self._guided(request.condition, request.guidance)
        for i, (t, after) in enumerate(pairwise(times), start=1):
            x = known((step if i < count else euler_step)(velocity, x, t, after), after)
        return x.clamp(-self.reach, self.reach)

    def _guided(self, condition: Tensor | None, guidance: float) -> Velocity:
        """The velocity under a condition, pushed away from that without (Ho & Salimans 2022, arXiv:2207.12598, eq. 6)."""

        def steered(x: Tensor, t: float) -> Tensor:
            return self.velocity(x, x.new_full((len(x),), t), condition)

        def pushed(x: Tensor, t: float) -> Tensor:
            free = self.velocity(x, x.new_full((len(x),), t))
            return torch.lerp(free, steered(x, t), guidance)

        return steered if guidance == 1 or condition is None else pushed


def euler_step(velocity: Velocity, x: Tensor, t: float, after: float) -> Tensor:
    """One step of order 1 of dx/dt = velocity(x, t).

    >>> euler_step(lambda x, t: x, torch.ones(1), 0.0, 0.1).item().__round__(4)
    1.1
    """
    return x + (after - t) * velocity(x, t)


def heun_step(velocity: Velocity, x: Tensor, t: float, after: float) -> Tensor:
    """One step of order 2: the mean of the velocities at both ends.

    >>> heun_step(lambda x, t: x, torch.ones(1), 0.0, 0.1).item().__round__(4)
    1.105
    """
    v = velocity(x, t)
    ahead = velocity(x + (after - t) * v, after)
    return x + (after - t) * 0.5 * (v + ahead)


def arc(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a (t = 0) to b (t = 1) along the circle that keeps the length of noise (Shoemake 1985)."""
    cosine = (a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-8)
    angle = cosine.clamp(-1, 1).acos().clamp_min(1e-4)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
