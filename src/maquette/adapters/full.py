"""Full fine-tuning: every number moves on from where it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maquette.adapting import restrict
from maquette.space import Model


class Full:
    """Every number moves on from where it is."""

    def __init__(
        self,
        *,
        pace: Annotated[float, Field(gt=0, description="share of the model's own learning rates")] = 1.0,
    ):
        self.pace = pace

    def apply(self, model: Model) -> None:
        restrict(model, "full", vars(self).copy(), lambda name: True, pace=self.pace)
