"""What every task head is: a network that sees pieces (`body`), fresh or cut out of another run, and what decides from it (`head`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maquette import catalog
from maquette.condition import Condition, Field
from maquette.errors import SettingError
from maquette.nets.standing import foundation, headless, vector
from maquette.nets.trunk import Size, fitting, trunk
from maquette.space import Batch, DataSpec, Model, Optimiser, Phase

SOMETHING = Condition(  # stands for what a start was told: that it was told something is all that counts
    [Field("label", "label", ("a", "b")), Field("number", "number"), Field("text", "caption", ("", "a"), length=1)]
)
LIKE = {"label": "a `label` column or a subfolder for each label", "tags": "a `tags` column"} | {
    "number": "a column of numbers",
    "caption": "a `text`, `caption`, `title` or `keywords` column",
}


class TaskHead(Model):
    """body: the network it stands on; head: what is new. A frozen body (method head) computes no gradients and drops nothing out.

    needs: kinds of columns that it can be asked about; field, columns: the one that it learns
    """

    sizes: ClassVar[Mapping] = {size: {"size": size} for size in ("tiny", "small", "medium", "large")}
    needs: ClassVar[tuple[str, ...]] = ()
    usual: ClassVar[str] = "gan"  # network of grids where nothing is said
    heads: tuple[str, ...] = ("head",)
    headed: ClassVar[bool] = True  # what is under `heads` is new, whatever the method
    phases = (Phase("model", optimiser=Optimiser("adamw", lr=1e-3, warmup=0.05, weight_decay=1e-3, clip=1.0)),)

    def __init__(
        self,
        spec: DataSpec,
        column: str | None,
        body: str | None,
        size: Size,
        built: Mapping[str, Any],
        whole: bool = False,
    ):
        super().__init__(spec)
        spec.space.need("grid", "tokens", model=self.task)
        self.batch_size = 32 if spec.space.kind == "tokens" else 64  # type: ignore[misc]
        if self.needs:
            self.field, self.columns = asked_of(spec, column, self.needs, self.task)
        network, part = self._network(body, size, built)
        self.body = network if whole else headless(network)
        self.enters = {"body": part}  # type: ignore[misc]

    @property
    def task(self) -> str:
        return type(self).__name__.lower()

    def _network(self, body: str | None, size: Size, built: Mapping[str, Any]) -> tuple[nn.Module, str]:
        """A fresh one, or the one of a start, rebuilt by what its recipe said; with the name of that part there."""
        space = self.spec.space
        if not built:
            return trunk(DataSpec(space), fitting(space, body, self.usual, self.task), size), "encoder"
        bare = DataSpec(space, SOMETHING if built["told"] else None, self.spec.likelihood, self.spec.tokens)
        return foundation(catalog.trainable(built["model"])(bare, **built["settings"]), built["model"])

    @property
    def frozen(self) -> bool:
        return not any(phase.moves(f"body.{name}") for phase in self.phases for name, _ in self.body.named_parameters())

    def train(self, mode: bool = True) -> TaskHead:
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """x (B, *shape), of a ragged space (B, n) of any n -> (B, D), with gradients where the body moves."""
        return vector(self.body, x, self.spec.space)

    def read(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> what the head says, (B, out)"""
        return self.head(self.features(x), self.frozen)  # type: ignore[operator]

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """The same without gradients, in parts that fit into memory."""
        return torch.cat([self.features(part) for part in x.split(256)])

    def validation(self, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        """How well it does on a split; the first figure decides which weights are kept, and smaller is better."""
        raise NotImplementedError

    def asked(self, batch: Batch) -> Tensor:
        """(B, width of the field): what is to be said of each piece, NaN where it is not known."""
        if batch.condition is None:
            return torch.full((len(batch), self.field.width), torch.nan, device=batch.x.device)
        return batch.condition[:, self.columns]


class Readout(nn.Module):
    """features (B, D) -> (B, out): standardised, then dense layers.

    still: the features come from a frozen network, and so have one mean and deviation over all pieces; those of a network that moves are
    standardised within each piece, for figures that lag behind it would tell early stopping lies.
    """

    def __init__(self, features: int, hidden: int, out: int, dropout: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.register_buffer("still", torch.tensor(False))  # as it was while learning: a loaded model is free to move
        between = [nn.Linear(features, hidden), nn.GELU(), nn.Dropout(dropout)] if hidden else [nn.Dropout(dropout)]
        self.layers = nn.Sequential(*between, nn.Linear(hidden or features, out))

    def forward(self, h: Tensor, still: bool) -> Tensor:
        if self.training:
            self.still.fill_(still)
        return self.layers(self._over_pieces(h.float()) if self.still else F.layer_norm(h.float(), h.shape[1:]))

    def _over_pieces(self, h: Tensor) -> Tensor:
        learning, seen = self.training and len(h) > 1, self.norm.num_batches_tracked
        if learning:
            seen += 1
        share = max(0.01, 1 / max(1, int(seen)))  # the mean of all batches so far
        return F.batch_norm(h, self.norm.running_mean, self.norm.running_var, training=learning, momentum=share)


def width_of(model: TaskHead) -> int:
    """How many features a piece has."""
    space = model.spec.space
    x = torch.zeros(1, *space.shape, dtype=torch.long if space.kind == "tokens" else torch.float32)
    with torch.no_grad():
        return model.features(x).shape[1]


def asked_of(spec: DataSpec, column: str | None, kinds: tuple[str, ...], task: str) -> tuple[Field, slice]:
    """The column asked for, or the first of these kinds. Raises SettingError in words."""
    slices = spec.condition.slices() if spec.condition else []
    known = ", ".join(f"{f.name} ({f.kind})" for f, _ in slices) or "none"
    fits = [(f, s) for f, s in slices if f.kind in kinds and column in (None, f.name)]
    if fits:
        return fits[0]
    wanted = " or ".join(LIKE[k] for k in kinds)
    if column is not None:
        raise SettingError(
            f"{task} learns {wanted}; {column!r} is none that varies in this corpus; its columns: {known}"
        )
    raise SettingError(
        f"{task} learns {wanted} that takes at least two values in the training pieces; this corpus has the columns: {known}. "
        "Name pieces in metadata.csv, or sort them into subfolders, and prepare it again"
    )
