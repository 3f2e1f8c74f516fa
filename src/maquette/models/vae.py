"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) with a learnt shared variance (Rybkin 2021, arXiv:2006.13202)
and a density fitted to its latents after training, from which it is sampled (Ghosh 2020, arXiv:1903.12436)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from maquette.errors import UsageError
from maquette.nets.condition import ConditionEmbedding, drop_condition
from maquette.nets.conv import Decoder, Encoder, depth
from maquette.nets.dense import FromVector, ToVector
from maquette.nets.density import Mixture
from maquette.nets.perception import seen
from maquette.space import (
    Batch,
    DataSpec,
    GenerativeModel,
    Losses,
    Optimiser,
    Phase,
    SampleRequest,
    Space,
    generator,
)

FITTED = 60_000  # latents the density is fitted to: what a few seconds allow
CONTEXT = 64  # width of the condition's embedding
NEAR = 0.5  # share of a latent that is new where a source is varied and nothing else is asked


class VAE(GenerativeModel):
    sizes = {
        "tiny": {"width": 16, "dense": 128},
        "small": {},
        "medium": {"width": 64, "dense": 1024, "blocks": 2},
        "large": {"width": 128, "dense": 2048, "blocks": 3},
    }
    search = {"blocks": None, "latent_size": [None, 8, 32], "beta": (0.3, 3.0)}
    batch_size = 32
    concluded_on = 50_000
    bf16 = True
    heads = ("decoder.head", "decoder.blocks", "decoder.up", "embed_condition")
    varies = True
    as_codec = {"latent": "auto", "density": "normal"}
    enters = {"encoder": "encoder"}
    codec_share = 0.7  # of the time of a pair: a flow on few latents learns fast, pictures are no better than the codec

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Field(ge=4, description="channels of the first layer")] = 32,
        blocks: Annotated[int, Field(ge=0, description="residual blocks at the coarsest grid")] = 1,
        dense: Annotated[int, Field(gt=0, description="features of the dense layers around a vector")] = 512,
        latent: Annotated[
            Literal["vector", "grid", "auto"],
            Field(description="vector: dense layers, best alone; grid: convolutions; auto: grid above 32 pixels"),
        ] = "vector",
        latent_size: Annotated[
            int | None,
            Field(gt=0, description="numbers in the vector or channels of the grid; none: 24 (16 as a codec) or 4"),
        ] = None,
        sigma: Annotated[
            float | None, Field(gt=0, description="standard deviation of the pixels in [-1, 1]; none: learnt")
        ] = None,
        beta: Annotated[float, Field(ge=0, description="weight of the KL divergence; 1 is the bound")] = 1.0,
        free_bits: Annotated[float, Field(ge=0, description="nats of each latent number that cost nothing")] = 0.0,
        density: Annotated[
            Literal["mixture", "normal"], Field(description="what is sampled from: fitted to the latents, or N(0, I)")
        ] = "mixture",
        components: Annotated[int, Field(gt=0, description="Gaussians of the mixture")] = 200,
        drop: Annotated[float, Field(ge=0, le=1, description="share of pieces whose condition is forgotten")] = 0.15,
        perceptual: Annotated[
            str | None,
            Field(description="a run of `pretrain` through whose eyes pieces are compared too; none: pixels alone"),
        ] = None,
        perceptual_weight: Annotated[float, Field(ge=0, description="of that comparison beside the pixels")] = 0.25,
    ):
        super().__init__(spec)
        spec.space.need("grid", model="vae")
        if latent == "auto":
            latent = "grid" if max(spec.space.axes) > 32 else "vector"
        usual = 24 if density == "mixture" else 16  # a mixture is at ease with more numbers than a flow or N(0, I)
        latent_size = latent_size or {"vector": usual, "grid": 4}[latent]
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.latent = latent
        self.sigma, self.beta, self.free_bits, self.drop, self.density = sigma, beta, free_bits, drop, density
        channels, axes = spec.space.shape[0], spec.space.axes
        ones, context = (1,) * len(axes), CONTEXT if spec.condition else 0
        body: dict[str, int] = {"width": width, "blocks": blocks, "context": context}
        self.embed_condition = ConditionEmbedding(spec.condition, CONTEXT)
        if latent == "vector":
            self.encoder = ToVector(channels, axes, 2 * latent_size, dense=dense, **body)
            self.decoder = FromVector(latent_size, channels, axes, dense=dense, **body)
            grid = ones
        else:
            body["levels"] = min(3, depth(axes))
            self.encoder = Encoder(channels, axes, 2 * latent_size, **body)
            self.decoder = Decoder(latent_size, channels, axes, **body)
            grid = self.encoder.grid
        self.code_space = Space("grid", (latent_size, *grid))
        self.code_axes = grid
        self.label = _first_label(spec)
        groups = 2 + len(self.label[1].values) if self.label else 1 + bool(spec.condition)
        self.mixture = Mixture(self.code_space.elements, groups, components if density == "mixture" else 1)
        self.register_buffer("code_mean", torch.zeros(latent_size, *ones))
        self.register_buffer("code_std", torch.ones(latent_size, *ones))
        self.phases = (Phase("model", optimiser=Optimiser("adam", lr=2e-3)),)

    def posterior(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, *space.shape), condition (B, width) or None -> mean and log variance, both (B, *code_space.shape)"""
        h = self.encoder(x, self._context(condition, len(x)))
        mean, logvar = h.view(len(x), -1, *self.code_space.axes).chunk(2, 1)
        return mean, logvar.clamp(-20, 10)

    def picture(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """z (B, *code_space.shape) -> the mean of p(x | z, condition), (B, *space.shape) in [-1, 1]"""
        z = z.flatten(1) if self.latent == "vector" else z
        return self.decoder(z, self._context(condition, len(z))).tanh()

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        """The negative evidence lower bound in nats a piece, and its two parts."""
        condition = drop_condition(batch.condition, self.drop)
        mean, logvar = self.posterior(batch.x, condition)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        made = self.picture(z, condition)
        error = (made - batch.x).float().square().mean()
        kl = normal_kl(mean.float(), logvar.float())
        terms = {
            "distance": gaussian_nats(error, batch.x[0].numel(), self.sigma),
            "kl": self.beta * kl.mean(0).clamp_min(self.free_bits).sum(),
        }
        if self.perceptual:
            terms["perceptual"] = self.perceptual_weight * seen(self, made, batch.x)
        return Losses(terms, {"rmse": error.detach().sqrt(), "kl_nats": kl.detach().mean(0).sum()})

    @torch.no_grad()
    def conclude(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Fit the density, and the scale of the codes, to draws from the posteriors, with and without their condition."""
        latents, groups, seen = [], [], 0
        chance = torch.Generator().manual_seed(0)
        for batch in batches():
            for condition in (batch.condition, None) if batch.condition is not None else (None,):
                mean, logvar = self.posterior(batch.x, condition)
                eps = torch.randn(mean.shape, generator=chance).to(mean)
                latents.append(mean + eps * (0.5 * logvar).exp())
                groups.append(self._group(condition, len(mean)))
            seen += len(batch)
            if seen >= FITTED:
                break
        z = torch.cat(latents)
        self.code_mean.copy_(z.mean((0, *range(2, z.ndim))).view_as(self.code_mean))
        self.code_std.copy_(z.std((0, *range(2, z.ndim)), correction=0).clamp_min(1e-4).view_as(self.code_std))
        if self.density == "mixture":
            self.mixture.fit(z.flatten(1), torch.cat(groups))

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """New pieces; with `source` its variations, at temperature 0 its reconstruction."""
        _refuse_keep(request)
        return self.picture(self._latents(request), request.condition)

    @torch.no_grad()
    def interpolate(self, request: SampleRequest, positions: Sequence[float]) -> Tensor:
        """From the first to the second latent along a great circle."""
        a, b = self._latents(request.rows(0, 2))
        z = torch.stack([slerp(a, b, t) for t in positions])
        condition = request.condition
        if condition is not None:
            condition = condition[[round(min(max(t, 0), 1)) for t in positions]]
        return self.picture(z, condition)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """x (B, *space.shape) -> codes (B, *code_space.shape) of mean 0 and variance 1 a channel"""
        return (self.posterior(x)[0] - self.code_mean) / self.code_std

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes (B, *code_space.shape) -> x (B, *space.shape) in [-1, 1]"""
        return self.picture(codes * self.code_std + self.code_mean)

    def embed(self, x: Tensor) -> Tensor:
        """(B, *space.shape) -> means of the posterior, flat (B, D)"""
        return self.posterior(x)[0].flatten(1)

    def _latents(self, request: SampleRequest) -> Tensor:
        """A latent for each seed: drawn, or near `source`."""
        eps = request.temperature * request.noise((self.code_space.elements,), self.device)
        group = self._group(request.condition, len(request))
        if request.source is None:
            chance = torch.cat([torch.rand(1, generator=generator(s, 1)) for s in request.seeds]).to(self.device)
            return self.mixture.draw(chance, eps, group).view(-1, *self.code_space.shape)
        mean = self.posterior(request.source, request.condition)[0]
        strength = NEAR if request.vary is None else request.vary
        strength = strength if request.temperature else 0.0
        return self.mixture.vary(mean.flatten(1), eps, group, strength).view_as(mean)

    def _group(self, condition: Tensor | None, rows: int) -> Tensor:
        """The group of the density each row belongs to: 0 nothing known, 1 something known, 2 + i label i known."""
        if condition is None:
            return torch.zeros(rows, dtype=torch.long, device=self.device)
        known = ~torch.isnan(condition).all(1)
        if self.label is None:
            return known.long()
        label = condition[:, self.label[0]]
        return torch.where(torch.isnan(label), known.long(), 2 + torch.nan_to_num(label).long())

    def _context(self, condition: Tensor | None, rows: int) -> Tensor | None:
        return self.embed_condition(condition, rows) if self.spec.condition else None


def _first_label(spec: DataSpec):
    """(column, field) of the first label of the condition; None where it has none."""
    slices = spec.condition.slices() if spec.condition else []
    return next(((columns.start, f) for f, columns in slices if f.kind == "label"), None)


def _refuse_keep(request: SampleRequest) -> None:
    if request.keep is not None:
        raise UsageError("vae varies a whole source; `keep` came, which flow and transformer can fill around")


def gaussian_nats(error: Tensor, elements: int, sigma: float | None) -> Tensor:
    """Mean squared error -> negative log likelihood in nats a piece under a Gaussian of one shared standard deviation.

    sigma None: the one that is best for the batch, sigma^2 = error (Rybkin 2021, eq. 4), never under that of 8-bit rounding.
    """
    if sigma is None:
        variance = error + (2 / 255) ** 2 / 12
        return 0.5 * elements * (variance.log() + math.log(2 * math.pi) + 1)
    return 0.5 * elements * (error / sigma**2 + math.log(2 * math.pi * sigma**2))


def normal_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, of each number."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a (t = 0) to b (t = 1) along the great circle, the length going evenly from one to the other (Shoemake 1985)."""
    one, two = a.norm().clamp_min(1e-8), b.norm().clamp_min(1e-8)
    angle = (a / one * (b / two)).sum().clamp(-1, 1).acos().clamp_min(1e-4)
    way = (torch.sin((1 - t) * angle) * a / one + torch.sin(t * angle) * b / two) / torch.sin(angle)
    return way * torch.lerp(one, two, t)
