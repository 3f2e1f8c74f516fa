"""A clean piece from a damaged one: noise taken away, holes filled, blocks enlarged; of tokens what is missing. No column is needed:
the damage is drawn anew for every piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.errors import SettingError, SpaceError
from maquette.nets import damage
from maquette.nets.conv import Unpatch
from maquette.nets.standing import Ladder, headless, seen
from maquette.nets.transformer import Encoder, Table
from maquette.nets.trunk import GridBody, Size
from maquette.nets.unet import UNet
from maquette.nets.unmasking import drawn_keep, unmask
from maquette.space import Batch, DataSpec, Losses, SampleRequest
from maquette.tasks._head import TaskHead

Kind = Literal["denoise", "inpaint", "enlarge", "impute"]
WIDTH = 32  # channels of the way up from a network that has none


class Restore(TaskHead):
    """Gives damaged pieces back whole. A start that is a flow keeps its way up; any other network gets a new one beside all it holds."""

    usual = "flow"

    def __init__(
        self,
        spec: DataSpec,
        *,
        kind: Annotated[
            Kind | None,
            Field(description="of damage: noise, holes, blocks; impute: missing tokens; none: denoise, impute"),
        ] = None,
        noise: Annotated[
            float, Field(gt=0, le=2, description="denoise: largest deviation, where black is -1 and white 1")
        ] = 0.5,
        share: Annotated[float, Field(gt=0, lt=1, description="inpaint: about how much is missing")] = 0.25,
        factor: Annotated[int, Field(ge=2, description="enlarge: places along each axis that became one")] = 2,
        body: Annotated[GridBody | None, Field(description="network of grids without a start; none: flow")] = None,
        size: Annotated[Size, Field(description="of that network on the dial")] = "small",
        built: Annotated[
            dict[str, Any], Field(description="how the network of a start is rebuilt; filled in by adapt")
        ] = {},  # noqa: B006
    ):
        super().__init__(spec, None, body, size, built, whole=True)
        self.kind = settled(kind, spec)
        self.noise, self.share, self.factor = noise, share, factor
        if self.kind == "impute":
            if not isinstance(self.body, Encoder):
                raise SpaceError("restore fills in tokens from both sides; start it from `masked`, not from a chain")
            self.head = Table(spec.space.vocabulary, self.body.width, spec.space.digits)
            return
        channels, *axes = spec.space.shape
        self.carries = isinstance(self.body, UNet) and isinstance(self.body.head, Unpatch)
        self.nearby = not (self.carries and built)  # whether the network gives what is missing, or the piece itself
        if self.kind == "inpaint":
            self.unknown = nn.Parameter(torch.zeros(channels, *[1] * len(axes)))  # stands where nothing is there
        if self.carries:
            self.heads = ("body.up", "body.after", "body.norm", "body.head", "unknown")
        else:
            self.body = headless(self.body)
            with torch.no_grad():
                shapes = [h.shape[1:] for h in seen(self.body, torch.zeros(1, *spec.space.shape))]
            self.head = Ladder(shapes, channels, axes, WIDTH)
            self.heads = ("head", "unknown")

    # ---- grids

    def damaged(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, C, *axes) -> what is left of it, and what is missing (B, 1, *axes) bool; chance from torch's global generator."""
        if self.kind == "denoise":
            return damage.noisy(x, self.noise), None
        if self.kind == "enlarge":
            return damage.blocks(x, self.factor), None
        hidden = damage.holes(x, self.share)
        return torch.where(hidden, 0.0, x), hidden

    def restored(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """What is left (B, C, *axes) and what is missing -> whole pieces in [-1, 1]; what was there stays to the last bit."""
        if self.kind == "enlarge":
            x = damage.blocks(x, self.factor)
        given = x if hidden is None or self.kind != "inpaint" else torch.where(hidden, self.unknown, x)
        change = self._through(given)
        piece = given + change if self.nearby else change.tanh()
        return piece if hidden is None else torch.where(hidden, piece, x)

    def _through(self, x: Tensor) -> Tensor:
        """x (B, C, *axes) down the network and up again"""
        if self.carries:
            return self.body(x, torch.ones(len(x), device=x.device))
        return self.head(seen(self.body, x))

    def plain(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """The same without learning: a median, a bicubic enlargement, holes grown shut."""
        if self.kind == "enlarge":
            return damage.smooth(x, self.factor)
        return damage.median(x) if hidden is None else damage.grown(x, hidden)

    # ---- tokens

    def logits(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """tokens, hidden (B, n) -> (B, n, V)"""
        return F.linear(self.body(tokens, hidden), self.head.rows).float()

    def missing(self, x: Tensor) -> Tensor:
        """x (B, n) -> bool (B, n): the tokens to say; at least one of each piece."""
        counted = self.spec.space.counted(x) if self.spec.space.ragged else torch.ones_like(x, dtype=torch.bool)
        hidden = ~drawn_keep(x, self.spec.space, nothing=False) & counted
        return torch.where(hidden.any(1, keepdim=True), hidden, counted)

    def imputed(self, request: SampleRequest) -> Tensor:
        """(B, n): what `keep` marks of `source` stays, all else is written around it."""
        return unmask(self.logits, request, self.spec.space, self.device)

    # ---- learning

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        if self.kind == "impute":
            hidden = self.missing(batch.x)
            logits, target = self.logits(batch.x, hidden)[hidden], batch.x[hidden]
            right = (logits.argmax(1) == target).float().mean()
            return Losses({"nats_per_token": F.cross_entropy(logits, target)}, {"right": right})
        left, hidden = self.damaged(batch.x)
        error = damage.squared(self.restored(left, hidden), batch.x, hidden).float()
        before = damage.squared(left, batch.x, hidden)
        return Losses({"squared": error.mean()}, {"of_before": (error.sum() / before.sum().clamp_min(1e-9)).detach()})

    @torch.no_grad()
    def validation(self, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """With damage that is the same at every look."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.kind == "impute":
                found = [self.loss(batch, "model", 1.0) for batch in batches()]
                return {
                    "nats_per_token": sum(float(f.total) for f in found) / max(1, len(found)),
                    "right": sum(float(f.logs["right"]) for f in found) / max(1, len(found)),
                }
            error = torch.cat([self._error(batch.x) for batch in batches()])
        return {"squared": float(error.mean()), "psnr": float(damage.decibels(error).mean())}

    def _error(self, x: Tensor) -> Tensor:
        left, hidden = self.damaged(x)
        return damage.squared(self.restored(left, hidden).clamp(-1, 1), x, hidden)


def settled(kind: Kind | None, spec: DataSpec) -> Kind:
    """The kind asked for, else what is usual. Raises SettingError for one of another space."""
    tokens = spec.space.kind == "tokens"
    found: Kind = kind or ("impute" if tokens else "denoise")
    if (found == "impute") != tokens:
        raise SettingError(
            f"restore.kind of {'tokens' if tokens else 'grids'} is {'impute' if tokens else 'denoise, inpaint or enlarge'}; {found} came"
        )
    return found
