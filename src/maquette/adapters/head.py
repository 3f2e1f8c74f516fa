"""What decides last moves and all before it holds still: the layers a model names in `heads`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maquette.adapting import restrict, under
from maquette.errors import SettingError
from maquette.space import Model


class Head:
    """The layers that decide last move; all before them hold still."""

    def __init__(
        self,
        *,
        pace: Annotated[float, Field(gt=0, description="share of the model's own learning rates")] = 1.0,
    ):
        self.pace = pace

    def apply(self, model: Model) -> None:
        """Raises SettingError where the model names no heads."""
        if not model.heads:
            raise SettingError(f"{type(model).__name__.lower()} names no heads; adapt it with method full or lora")
        restrict(model, "head", vars(self).copy(), lambda name: under(name, model.heads), pace=self.pace)
