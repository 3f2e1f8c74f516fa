"""VQ-VAE (van den Oord 2017, arXiv:1711.00937): pieces become a short sentence of codes, and codes become pieces.

Finite scalars (Mentzer 2023, arXiv:2309.15505) by default. It makes nothing new itself: a transformer learns which sentences
occur (`vqvae+transformer`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from maquette.errors import SettingError
from maquette.nets.adversary import NORM, settle
from maquette.nets.cells import FromCells, ToCells
from maquette.nets.perception import seen
from maquette.nets.quantize import FSQ, Codebook, Quantised, perplexity
from maquette.nets.trunk import coarseness
from maquette.space import Batch, DataSpec, Losses, Model, Optimiser, Phase, Space

LEAST_ERROR = (2 / 255) ** 2 / 12  # squared, of 8-bit rounding in [-1, 1]
RAMP = 0.3  # share of training during which the adversary comes up to its weight


class VQVAE(Model):
    """x (B, C, *axes) <-> codes (B, L), one a cell of the coarsest grid, row by row."""

    sizes = {
        "tiny": {"width": 16},
        "small": {"width": 64},
        "medium": {"width": 96, "blocks": 1},
        "large": {"width": 128, "blocks": 2},
    }
    search = {"blocks": [0, 1]}
    batch_size = 32
    enters: ClassVar[Mapping[str, str]] = {"encoder.0": "encoder"}
    heads = ("decoder.head", "decoder.rises")
    teachers = ("discriminator",)
    codec_share: ClassVar[float] = 0.28  # of the time of both stages: the prior has more to learn

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Field(ge=4, description="channels of the first layer")] = 64,
        blocks: Annotated[int, Field(ge=0, description="residual blocks at the coarsest grid")] = 0,
        downsampling: Annotated[
            int | None,
            Field(gt=0, description="pixels a code, along each axis: 1, 2, 4 ...; none: found from the size"),
        ] = None,
        codebook: Annotated[
            Literal["fsq", "learned"], Field(description="finite scalars, or vectors that follow the data")
        ] = "fsq",
        levels: Annotated[
            list[int] | None,
            Field(description="fsq: levels of each number; none: 8 6 5, and 8 5 5 5 for colour or beyond 64 pixels"),
        ] = None,
        codes: Annotated[int, Field(gt=1, description="learned: size of the codebook")] = 256,
        adversarial: Annotated[
            float,
            Field(ge=0, description="weight of a patch discriminator; 0 is off, 1 sharpens pictures of 64 px and more"),
        ] = 0.0,
        perceptual: Annotated[
            str | None,
            Field(description="a run of `pretrain` through whose eyes pieces are compared too; none: pixels alone"),
        ] = None,
        perceptual_weight: Annotated[float, Field(ge=0, description="of that comparison beside the pixels")] = 0.25,
    ):
        super().__init__(spec)
        spec.space.need("grid", model="vqvae")
        channels, axes = spec.space.shape[0], spec.space.axes
        halvings = coarseness(spec.space) if downsampling is None else exponent(downsampling)
        self.quantiser = Codebook(codes) if codebook == "learned" else FSQ(settled_levels(levels, spec.space))
        features = self.quantiser.features
        body = {"width": width, "halvings": halvings, "blocks": blocks}
        self.encoder = nn.Sequential(  # the norm spreads the codes over the codebook from the first step on
            ToCells(channels, axes, features, **body), NORM[len(axes) - 1](features, affine=False)
        )
        self.decoder = FromCells(features, axes, channels, **body)
        self.code_axes = self.encoder[0].grid
        digits = () if codebook == "learned" else self.quantiser.levels.tolist()
        self.code_space = Space("tokens", (math.prod(self.code_axes),), self.quantiser.size, digits)
        self.adversarial, self.perceptual, self.perceptual_weight = adversarial, perceptual, perceptual_weight
        learner = Phase("model", ("encoder", "decoder"), optimiser=Optimiser("adam", lr=4e-3, clip=1.0))
        self.phases = (learner,)
        if adversarial:
            self.discriminator = ToCells(channels, axes, 1, width=width, halvings=min(2, halvings), blocks=0)
            judge = Phase("discriminator", ("discriminator",), optimiser=Optimiser("adam", lr=5e-4, betas=(0.5, 0.99)))
            self.phases = (judge, learner)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        if phase == "discriminator":
            with torch.no_grad():
                made = self._draw(self._quantise(batch.x).vectors)
            real, fake = self.discriminator(batch.x), self.discriminator(made)
            return Losses({"adversary": (softplus(-real) + softplus(fake)).mean()})
        found = self._quantise(batch.x)
        made = self._draw(found.vectors)
        error = (made - batch.x).square().mean().clamp(min=LEAST_ERROR)
        elements = self.spec.space.elements
        steepness = 0.5 * elements / error.detach()  # nats for each unit of squared error
        terms = {"distance": 0.5 * elements * (2 * math.pi * math.e * error).log()}
        if isinstance(self.quantiser, Codebook):
            terms["commitment"] = 0.25 * steepness * found.commitment
        if self.adversarial:
            terms["adversary"] = steepness * self._adversary(made, error, progress)
        if self.perceptual:
            terms["perceptual"] = self.perceptual_weight * seen(self, made, batch.x)
        use, spread = perplexity(found.codes, self.quantiser.size)
        return Losses(terms, {"error": error, "codes_used": use, "perplexity": spread})

    def _adversary(self, made: Tensor, error: Tensor, progress: float) -> Tensor:
        """What the discriminator says, with the weight that makes its pull on the last layer equal to the distance's
        (Esser 2021, arXiv:2012.09841, eq. 7), at most 1, and rising over the first part of training."""
        verdict = softplus(-self.discriminator(made)).mean()
        moving = (p for p in reversed(list(self.decoder.parameters())) if p.requires_grad and p.ndim > 1)
        last = next(moving, made)
        near, fool = (torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (error, verdict))
        balance = (near / (fool + 1e-6)).clamp(0, 1)
        return self.adversarial * min(1.0, progress / RAMP) * balance * verdict

    def after_step(self, phase: str) -> None:
        if phase == "model":
            self.quantiser.settle()

    @torch.no_grad()
    def conclude(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Fit the statistics of the norm before the codes to these very weights."""
        settle(self.encoder, ((batch.x.to(self.device),) for batch in islice(batches(), 16)))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, *axes) -> codes (B, L) int64"""
        return torch.cat([self._quantise(part).codes for part in x.split(256)])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(B, L) -> (B, C, *axes) in [-1, 1]"""
        return torch.cat([self._draw(self.quantiser.lookup(part)) for part in codes.split(256)])

    def reconstruct(self, x: Tensor) -> Tensor:
        """What is left of a piece after its codes."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """(B, C, *axes) -> (B, D): what the codes stand for, before rounding."""
        return self.encoder(x).flatten(1)

    def _quantise(self, x: Tensor) -> Quantised:
        return self.quantiser(rearrange(self.encoder(x), "b d ... -> b (...) d"))

    def _draw(self, vectors: Tensor) -> Tensor:
        """(B, L, D) -> (B, C, *axes)"""
        grid = rearrange(vectors, "b l d -> b d l").unflatten(2, self.code_axes)
        return self.decoder(grid).tanh()


def exponent(downsampling: int) -> int:
    if downsampling & (downsampling - 1):
        raise SettingError(f"vqvae.downsampling should be a power of two; {downsampling} came")
    return downsampling.bit_length() - 1


def settled_levels(levels: Sequence[int] | None, space: Space) -> Sequence[int]:
    """Colours need a fourth number: the error of 32-pixel RGBA tiles falls by a seventh."""
    if levels is None:
        return [8, 6, 5] if max(space.axes) <= 64 and space.shape[0] < 3 else [8, 5, 5, 5]
    if not levels or min(levels) < 2:
        raise SettingError(f"vqvae.levels should be numbers from 2 on; {list(levels)} came")
    return levels
