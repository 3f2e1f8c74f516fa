"""What is missing: tokens from those around them (BERT, Devlin 2019, arXiv:1810.04805), patches of a grid from the others (He 2022,
arXiv:2111.06377). What was learnt so can also fill in: `generate --source x.png --keep mask.png`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.errors import UsageError
from maquette.nets.cells import FromCells
from maquette.nets.conv import crop
from maquette.nets.dense import FromVector
from maquette.nets.transformer import Table
from maquette.nets.trunk import SIZES, GridBody, Size, coarseness, layers
from maquette.nets.unmasking import drawn_keep, unmask
from maquette.pretext._practice import Exercise, Practice, output, usual_body, width
from maquette.space import DataSpec, GenerativeModel, Losses, SampleRequest, noise

CELLS = 8  # parts of each axis that are hidden or shown as one
STEPS = 20  # from noise to what was hidden, where the body is a flow's


class Hidden(Exercise):
    """A grid with hidden patches -> the patches, by a light decoder that is thrown away."""

    usual = "vqvae"

    def __init__(self, spec: DataSpec, body: str, size: Size, share: float):
        super().__init__()
        self.space, self.body, self.share = spec.space, body, share
        channels, *axes = spec.space.shape
        self.unknown = nn.Parameter(torch.zeros(channels, *[1] * len(axes)))  # stands where nothing is seen
        self.decoder = decoder(spec, body, size)

    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        hidden = drawn_patches(x, self.share)
        error = (self.filled(encoder, x, hidden) - x).float().square() * hidden
        return Losses({"error": error.sum() / (hidden.sum().clamp_min(1) * x.shape[1])})

    def filled(self, encoder: nn.Module, x: Tensor, hidden: Tensor) -> Tensor:
        """x (B, C, *axes), hidden broadcastable bool -> a whole piece in [-1, 1], foreseen from what is shown"""
        return self.decoder(layers(self.body, encoder, torch.where(hidden, self.unknown, x))[-1]).tanh()

    def fill(self, encoder: nn.Module, request: SampleRequest) -> Tensor:
        source, keep = wanted(request)
        return torch.where(keep, source, self.filled(encoder, source, ~keep))


class Carried(Exercise):
    """The body of a flow carries noise to what is hidden while the rest stands still (Lipman 2023, arXiv:2210.02747, on a part of the piece);
    of a quarter of the pieces all is hidden, so that it makes pieces alone too."""

    usual = "flow"

    def __init__(self, spec: DataSpec, share: float):
        super().__init__()
        self.space, self.share = spec.space, share

    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        every = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) < 0.25
        hidden = drawn_patches(x, self.share) | every
        t = torch.randn(len(x), device=x.device).sigmoid()
        at = t.view(-1, *[1] * (x.ndim - 1))
        x_t = torch.where(hidden, torch.lerp(torch.randn_like(x), x, at), x)
        error = ((encoder(x_t, t).tanh() - x) / (1 - at).clamp_min(0.05)).float().square() * hidden
        return Losses({"velocity": error.sum() / (hidden.sum().clamp_min(1) * x.shape[1])})

    def fill(self, encoder: nn.Module, request: SampleRequest) -> Tensor:
        """By Euler's steps; what is kept stands where it will stand from the beginning."""
        z = request.temperature * noise(request.seeds, self.space.shape, next(encoder.parameters()).device)
        source, keep = (z, torch.zeros_like(z, dtype=torch.bool)) if request.source is None else wanted(request)
        x = torch.where(keep, source, z)
        for t, after in pairwise(torch.linspace(0, 1, 1 + (request.steps or STEPS)).tolist()):
            piece = encoder(x, torch.full((len(x),), t, device=x.device)).tanh()
            x = torch.where(keep, source, torch.lerp(x, piece, (after - t) / (1 - t)))
        return x


class Spoken(Exercise):
    """Hidden tokens from all others: of half of the sequences single places, of the others stretches and voices too."""

    usual = "transformer"

    def __init__(self, spec: DataSpec, size: Size, share: float):
        super().__init__()
        self.space, self.share = spec.space, share
        self.lm_head = Table(spec.space.vocabulary, width(spec, "transformer", size), spec.space.digits)

    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        single = torch.rand(x.shape, device=x.device) < self.share
        other = ~drawn_keep(x, self.space, nothing=False)
        hidden = torch.where(torch.rand(len(x), 1, device=x.device) < 0.5, single, other)
        counted = self.space.counted(x) if self.space.ragged else torch.ones_like(hidden)
        asked = hidden & counted if bool((hidden & counted).any()) else counted
        logits = F.linear(encoder(x, asked)[asked], self.lm_head.rows)
        return Losses({"nats_per_token": F.cross_entropy(logits.float(), x[asked])})

    def fill(self, encoder: nn.Module, request: SampleRequest) -> Tensor:
        def logits(tokens: Tensor, hidden: Tensor) -> Tensor:
            return F.linear(encoder(tokens, hidden), self.lm_head.rows).float()

        return unmask(logits, request, self.space, self.lm_head.weight.device)


def exercise(spec: DataSpec, body: str, size: Size, share: float | None = None) -> Exercise:
    if spec.space.kind == "tokens":
        return Spoken(spec, size, share or 0.3)
    return Carried(spec, share or 0.5) if body == "flow" else Hidden(spec, body, size, share or 0.5)


class Masked(Practice, GenerativeModel):
    """Hidden parts of a piece are foreseen from the others. Of a source and what to keep of it, it fills in the rest."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        body: Annotated[
            GridBody | None, Field(description="the model that starts from it: vqvae, vae, gan, flow; none: vqvae")
        ] = None,
        size: Annotated[Size, Field(description="of that model on the dial")] = "small",
        share: Annotated[
            float | None, Field(gt=0, lt=1, description="of a piece that is hidden; none: 0.5, of tokens 0.3")
        ] = None,
    ):
        body = usual_body(spec, body, [Hidden], "masked")
        super().__init__(spec, body, size, {"masked": exercise(spec, body, size, share)})
        self.alone = body in ("flow", "transformer")  # type: ignore[misc]

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """What `keep` marks of `source` stays, the rest is filled in. Bodies of a flow and of tokens make pieces from nothing too."""
        return self.exercises["masked"].fill(self.encoder, request)


def wanted(request: SampleRequest) -> tuple[Tensor, Tensor]:
    """Source and keep. Raises UsageError where either is missing."""
    if request.source is None or request.keep is None:
        raise UsageError(
            "masked fills in what is hidden of a piece: give one with --source and say what stays with --keep; it makes nothing alone"
        )
    return request.source, request.keep


def decoder(spec: DataSpec, body: str, size: Size) -> nn.Module:
    """Light: what it cannot do the encoder must."""
    channels, *axes = spec.space.shape
    features = output(spec, body, size)[0]
    if body == "vqvae":
        narrow = max(8, SIZES[body][size]["width"] // 2)
        return FromCells(features, axes, channels, width=narrow, halvings=coarseness(spec.space), blocks=0)
    return FromVector(features, channels, axes, width=16, blocks=0, dense=128)


def drawn_patches(x: Tensor, share: float) -> Tensor:
    """x (B, C, *axes) -> bool (B, 1, *axes): each patch is hidden with a chance of its piece's own, around `share`; one patch at least."""
    axes = x.shape[2:]
    sides = [-(-n // CELLS) for n in axes]
    cells = [-(-n // side) for n, side in zip(axes, sides, strict=True)]
    chance = torch.rand(len(x), math.prod(cells), device=x.device)
    rate = share + min(share, 1 - share) * (torch.rand(len(x), 1, device=x.device) - 0.5)
    hidden = (chance < rate) | (chance == chance.amin(1, keepdim=True))
    return enlarged(hidden.view(len(x), 1, *cells), sides, axes)


def enlarged(cells: Tensor, sides: Sequence[int], axes: Sequence[int]) -> Tensor:
    """(B, 1, *cells) -> (B, 1, *axes): each cell `sides` places long along its axis

    >>> enlarged(torch.tensor([[[True, False]]]), [2], [3])
    tensor([[[ True,  True, False]]])
    """
    for dim, side in enumerate(sides, start=2):
        cells = cells.repeat_interleave(side, dim)
    return crop(cells, axes)
