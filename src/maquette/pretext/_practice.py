"""What every pretext task is: an encoder that others start from, and exercises that teach it. Labels and conditions are never looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.nets.trunk import Size, fitting, layers, pooled, trunk
from maquette.space import Batch, DataSpec, Losses, Model, Optimiser, Phase

TOKENS = Optimiser("muon", lr=6e-3, muon_lr=2e-2, warmup=0.02, schedule="linear", clip=1.0)  # as the transformer's
GRIDS = Optimiser("adamw", lr=2e-3, warmup=0.05, weight_decay=1e-4, clip=5.0)


class Exercise(nn.Module, ABC):
    """A question about pieces that only somebody who knows their like can answer, with what it needs besides the encoder."""

    usual: ClassVar[str]  # the body that gains most from it
    pieces: ClassVar[int] = 64  # of a grid, at a step

    @abstractmethod
    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        """x (B, *shape) -> what `encoder` answers wrongly."""


class Practice(Model):
    """encoder: what others start from; exercises: task -> what teaches it."""

    sizes: ClassVar[Mapping] = {size: {"size": size} for size in ("tiny", "small", "medium", "large")}
    bf16 = True
    probed: ClassVar[bool] = True  # whether its features are probed with labels on the way, where there are any

    def __init__(self, spec: DataSpec, body: str, size: Size, exercises: Mapping[str, Exercise]):
        super().__init__(spec)
        self.body = body
        self.encoder = trunk(spec, body, size)
        self.exercises = nn.ModuleDict(exercises)
        tokens = spec.space.kind == "tokens"
        self.batch_size = 32 if tokens else max(e.pieces for e in exercises.values())
        self.phases = (Phase("model", optimiser=TOKENS if tokens else GRIDS),)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        found = {name: exercise.loss(self.encoder, batch.x) for name, exercise in self.exercises.items()}
        one = len(found) == 1
        terms = {k if one else f"{name}.{k}": v for name, losses in found.items() for k, v in losses.terms.items()}
        logs = {k if one else f"{name}.{k}": v for name, losses in found.items() for k, v in losses.logs.items()}
        return Losses(terms, logs)

    def layers(self, x: Tensor) -> list[Tensor]:
        """x (B, *shape) -> what the encoder holds of it, from fine to coarse, with gradients."""
        return layers(self.body, self.encoder, x)

    def features(self, x: Tensor) -> Tensor:
        """x (B, *shape), of a ragged space (B, n) of any n -> (B, D), with gradients."""
        if self.spec.space.kind == "tokens":
            return read(self.encoder, x, self.spec)
        return pooled(self.layers(x)[-1])

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """The same without gradients, in parts that fit into memory."""
        return torch.cat([self.features(part) for part in x.split(256)])


def read(encoder: nn.Module, x: Tensor, spec: DataSpec, hidden: Tensor | None = None) -> Tensor:
    """tokens (B, n) -> (B, D): the mean over a piece with its end, in windows as long as the encoder sees at once."""
    space = spec.space
    counted = space.counted(x) if space.ragged else torch.ones_like(x, dtype=torch.bool)
    hidden = torch.zeros_like(counted) if hidden is None else hidden
    total: Tensor | float = 0.0
    for part, mine, unseen in zip(*(t.split(space.shape[0], 1) for t in (x, counted, hidden)), strict=True):
        if bool(mine.any()):
            total = total + (encoder(part, unseen) * mine.unsqueeze(2)).sum(1)
    return total / counted.sum(1, keepdim=True)


def usual_body(spec: DataSpec, body: str | None, exercises: list[type[Exercise]], task: str) -> str:
    """The body asked for; else, of several tasks, that of the last. Raises SpaceError in words."""
    return fitting(spec.space, body, exercises[-1].usual, task)


def output(spec: DataSpec, body: str, size: Size) -> tuple[int, ...]:
    """The shape of the coarsest layer of one piece of a grid: (C, *axes) or (D,); nothing is computed."""
    with torch.device("meta"):
        encoder = trunk(spec, body, size).to("meta")  # transformers, once imported, makes some tensors elsewhere
        return tuple(layers(body, encoder, torch.zeros(1, *spec.space.shape))[-1].shape[1:])


def width(spec: DataSpec, body: str, size: Size) -> int:
    """How many features a piece has."""
    with torch.device("meta"):
        if spec.space.kind == "tokens":
            return trunk(spec, body, size).width  # type: ignore[return-value]
        return pooled(torch.zeros(1, *output(spec, body, size))).shape[1]


def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(nats, share of right answers)"""
    return F.cross_entropy(logits.float(), target), (logits.argmax(1) == target).float().mean()
