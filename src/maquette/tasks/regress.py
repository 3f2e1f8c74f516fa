"""How much: squared error on a column of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maquette.nets.trunk import GridBody, Size
from maquette.space import Batch, DataSpec, Losses
from maquette.tasks._head import Readout, TaskHead, width_of


class Regress(TaskHead):
    """Says a number of a piece, by what it learnt from a column of numbers."""

    needs: ClassVar[tuple[str, ...]] = ("number",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        column: Annotated[str | None, Field(description="of numbers; none: the first there is")] = None,
        body: Annotated[GridBody | None, Field(description="network of grids without a start; none: gan")] = None,
        size: Annotated[Size, Field(description="of that network on the dial")] = "small",
        built: Annotated[
            dict[str, Any], Field(description="how the network of a start is rebuilt; filled in by adapt")
        ] = {},  # noqa: B006
        hidden: Annotated[int, Field(ge=0, description="features between the network and the answer; 0: none")] = 128,
        dropout: Annotated[float, Field(ge=0, lt=1, description="of those features while learning")] = 0.0,
    ):
        super().__init__(spec, column, body, size, built)
        self.head = Readout(width_of(self), hidden, 1, dropout)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        """In units of the column's standard deviation."""
        squared, known = self.judged(batch)
        mean = (squared * known).sum() / known.sum().clamp_min(1)
        return Losses({"squared": mean}, {"rmse": self.field.std * mean.detach().sqrt()})

    def judged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) each: squared error in standard deviations, whether the number is known."""
        asked = self.asked(batch)[:, 0]
        known = ~asked.isnan()
        return (self.read(batch.x)[:, 0] - torch.nan_to_num(asked)).square(), known

    @torch.no_grad()
    def numbers(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B,), in the units of the column"""
        return self.read(x)[:, 0] * self.field.std + self.field.mean

    @torch.no_grad()
    def validation(self, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        squared, known = (torch.cat(part) for part in zip(*map(self.judged, batches()), strict=True))
        return {"rmse": self.field.std * float(squared[known].mean().sqrt())} if known.any() else {}

    def answer(self, x: Tensor) -> Mapping[str, Any]:
        """x (1, *shape) -> {column: number}"""
        return {self.field.name: float(self.numbers(x)[0])}
