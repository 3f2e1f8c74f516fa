"""LoRA (Hu 2021, arXiv:2106.09685) on the layers of a model: a few per cent of its numbers move, and are saved alone."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field
from torch import nn

from maquette.adapting import need_adaptable, restrict, under
from maquette.errors import SettingError
from maquette.nets.lora import CONVS, KINDS, TABLES, most, thin
from maquette.space import Model

USUAL = 4  # alpha / rank: B, which begins at zero, learns so much faster than A (Hayou 2024, arXiv:2402.12354)


class Lora:
    """Thin matrices beside the weights move, and are saved alone; what only teaches (a discriminator) moves whole."""

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(gt=0, description="of what is added to each weight; small layers get less")] = 4,
        alpha: Annotated[
            float | None, Field(gt=0, description="what is added counts alpha / rank; none: 4 times the rank")
        ] = None,
        targets: Annotated[
            str, Field(description="regular expression of layers to adapt, searched in their names; empty: all")
        ] = "",
        conv: Annotated[bool, Field(description="convolutions too, not linear layers alone")] = True,
        tables: Annotated[bool, Field(description="embeddings and heads of token models too")] = True,
        pace: Annotated[float, Field(gt=0, description="times the model's own learning rates")] = 2.0,
    ):
        self.rank, self.alpha, self.targets, self.conv, self.tables = rank, alpha, targets, conv, tables
        self.pace = pace

    def apply(self, model: Model) -> None:
        """Raises SettingError where no layer matches, the rank is beyond all that do, or the model is adapted already."""
        need_adaptable(model)
        layers = self._chosen(model)
        for layer in layers.values():
            thin(layer, min(self.rank, most(layer)), (self.alpha or USUAL * self.rank) / self.rank)
        own = {f"{name}.{part}" for name in layers for part in ("lora_A", "lora_B")}
        own |= {name for name, _ in model.named_parameters() if under(name, _new(model))}
        restrict(model, "lora", vars(self).copy(), own.__contains__, pace=self.pace, adam=True)

    def _chosen(self, model: Model) -> dict[str, nn.Module]:
        kinds = (nn.Linear, *(CONVS * self.conv), *(TABLES * self.tables))
        whole = (*model.teachers, *_new(model))
        known = {n: m for n, m in model.named_modules() if type(m) in KINDS and not under(n, whole)}
        found = {n: m for n, m in known.items() if type(m) in kinds and self._searched(n)}
        if not found:
            some = ", ".join(list(known)[:6]) or "none"
            raise SettingError(
                f"adapter.targets should match layers of the model; {self.targets!r} matches none of: {some} ..."
            )
        if self.rank > (limit := max(map(most, found.values()))):
            raise SettingError(
                f"adapter.rank should be at most {limit}, the rank of the largest layer; {self.rank} came"
            )
        return found

    def _searched(self, name: str) -> bool:
        try:
            return re.search(self.targets, name) is not None
        except re.error as error:
            raise SettingError(
                f"adapter.targets should be a regular expression; {self.targets!r} came: {error}"
            ) from None


def _new(model: Model) -> tuple[str, ...]:
    """What a task head puts on the network of a start: it knows nothing yet, and so moves whole."""
    return model.heads if model.headed else ()
