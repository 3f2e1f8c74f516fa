"""Which way is up (Gidaris 2018, arXiv:1803.07728): quarter turns of squares; of clips, volumes and all other grids which axes are mirrored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from maquette.errors import SpaceError
from maquette.nets.trunk import GridBody, Size, layers, pooled
from maquette.nets.turns import drawn_turns, turns
from maquette.pretext._practice import Exercise, Practice, cross_entropy, usual_body, width
from maquette.space import DataSpec, Losses

REFUSAL = "rotation turns grids, and these pieces are tokens: a sequence has no way up; take --task masked or contrast"


class Turned(Exercise):
    usual = "gan"

    def __init__(self, spec: DataSpec, body: str, size: Size):
        super().__init__()
        if spec.space.kind == "tokens":
            raise SpaceError(REFUSAL)
        self.body = body
        self.head = nn.Linear(width(spec, body, size), len(turns(spec.space.axes)))

    def loss(self, encoder: nn.Module, x: Tensor) -> Losses:
        x, target = drawn_turns(x)
        nats, right = cross_entropy(self.head(pooled(layers(self.body, encoder, x)[-1])), target)
        return Losses({"nats": nats}, {"right": right})


class Rotation(Practice):
    """Each piece is turned in one of a few ways; the encoder learns to tell in which. Sequences have no way up: they take `masked`."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        body: Annotated[
            GridBody | None, Field(description="the model that starts from it: vqvae, vae, gan, flow; none: gan")
        ] = None,
        size: Annotated[Size, Field(description="of that model on the dial")] = "small",
    ):
        spec.space.need("grid", "tokens", model="rotation")
        if spec.space.kind == "tokens":
            raise SpaceError(REFUSAL)
        body = usual_body(spec, body, [Turned], "rotation")
        super().__init__(spec, body, size, {"rotation": Turned(spec, body, size)})
