"""Which of a few names a piece has: cross-entropy on a column of labels, or on each of its tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maquette.nets.trunk import GridBody, Size
from maquette.space import Batch, DataSpec, Losses
from maquette.tasks._head import Readout, TaskHead, width_of


class Classify(TaskHead):
    """Names a piece by what it learnt from a column of labels (one of them holds) or of tags (any may)."""

    needs: ClassVar[tuple[str, ...]] = ("label", "tags")

    def __init__(
        self,
        spec: DataSpec,
        *,
        column: Annotated[str | None, Field(description="of labels or tags; none: the first there is")] = None,
        body: Annotated[GridBody | None, Field(description="network of grids without a start; none: gan")] = None,
        size: Annotated[Size, Field(description="of that network on the dial")] = "small",
        built: Annotated[
            dict[str, Any], Field(description="how the network of a start is rebuilt; filled in by adapt")
        ] = {},  # noqa: B006
        hidden: Annotated[int, Field(ge=0, description="features between the network and the answer; 0: none")] = 128,
        dropout: Annotated[float, Field(ge=0, lt=1, description="of those features while learning")] = 0.1,
        sure: Annotated[float, Field(ge=0, le=1, description="probability below which it abstains")] = 0.5,
    ):
        super().__init__(spec, column, body, size, built)
        self.sure, self.names = sure, self.field.values
        self.head = Readout(width_of(self), hidden, len(self.names), dropout)

    @property
    def single(self) -> bool:
        """Whether one name holds; else any may."""
        return self.field.kind == "label"

    def logits(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B, names)"""
        return self.read(x)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        nats, right, known = self.judged(batch)
        count = known.sum().clamp_min(1)
        return Losses({"nats": (nats * known).sum() / count}, {"accuracy": (right * known).sum() / count})

    def judged(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(B,) each: nats of the right answer (the mean over tags), share that was right, whether it is known."""
        asked, logits = self.asked(batch), self.logits(batch.x)
        known = ~asked.isnan().any(1)
        target = torch.nan_to_num(asked)
        if self.single:
            target = target[:, 0].long()
            return F.cross_entropy(logits, target, reduction="none"), (logits.argmax(1) == target).float(), known
        nats = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        return nats, ((logits > 0) == (target > 0.5)).float().mean(1), known

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B, names); they sum to 1 where one name holds."""
        logits = self.logits(x)
        return logits.softmax(1) if self.single else logits.sigmoid()

    @torch.no_grad()
    def validation(self, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        nats, right, known = (torch.cat(part) for part in zip(*map(self.judged, batches()), strict=True))
        if not known.any():
            return {}
        return {"nats": float(nats[known].mean()), "accuracy": float(right[known].mean())}

    def answer(self, x: Tensor) -> Mapping[str, Any]:
        """x (1, *shape) -> {label | tags, probability, abstains, probabilities}"""
        found = self.probabilities(x)[0].tolist()
        told = dict(zip(self.names, (round(p, 6) for p in found), strict=True))
        if self.single:
            best = max(told, key=lambda name: told[name])
            return {
                self.field.name: best,
                "probability": told[best],
                "abstains": told[best] < self.sure,
                "probabilities": told,
            }
        chosen = [name for name, p in told.items() if p >= 0.5]
        unsure = [name for name, p in told.items() if max(p, 1 - p) < max(self.sure, 0.5)]
        return {self.field.name: chosen, "unsure": unsure, "abstains": len(unsure) == len(told), "probabilities": told}
