"""What models know of the world: spaces, batches, phases, and the contracts a model keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, pairwise
from math import prod
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from maquette.condition import Condition
from maquette.errors import SpaceError

Likelihood = Literal["gaussian", "bernoulli", "categorical", "multinomial"]
Rows = TypeVar("Rows", Tensor, np.ndarray)


@dataclass(frozen=True)
class Space:
    """What a piece looks like to a model.

    grid    shape (C, *axes) with 1, 2 or 3 axes; float in [-1, 1]
    tokens  shape (L,); int64 in [0, vocabulary); where a token is a number written in digits, `digits` holds the base
            of each, the lowest first, and the vocabulary is their product: codes that share a digit are akin
    vector  shape (D,); float

    end      tokens: the one that closes a piece; then pieces have any length, L is how much a model sees at once, and what
             follows the end is padding with the same token. -1 where every piece fills the shape
    periods  tokens: lengths after which places mean the same again (4 voices; 16 tokens of a beat), each a multiple of
             the one before; windows into a long piece begin at multiples of the longest
    """

    kind: Literal["grid", "tokens", "vector"]
    shape: tuple[int, ...]
    vocabulary: int = 0
    digits: tuple[int, ...] = ()
    end: int = -1
    periods: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "digits", tuple(int(n) for n in self.digits))
        object.__setattr__(self, "periods", tuple(int(n) for n in self.periods))
        ranks = {"grid": (2, 3, 4), "tokens": (1,), "vector": (1,)}
        if self.kind not in ranks or len(self.shape) not in ranks[self.kind] or min(self.shape) < 1:
            raise SpaceError(
                f"no such space: {self.kind} of shape {self.shape}; grid is (C, *axes), tokens (L,), vector (D,)"
            )
        if (self.kind == "tokens") != (self.vocabulary > 0):
            raise SpaceError(
                f"a vocabulary belongs to tokens and to nothing else; {self.kind} came with {self.vocabulary}"
            )
        if self.digits and prod(self.digits) != self.vocabulary:
            raise SpaceError(f"digits of bases {self.digits} make {prod(self.digits)} tokens, not {self.vocabulary}")
        if not -1 <= self.end < max(self.vocabulary, 0) or (self.kind != "tokens" and self.end >= 0):
            raise SpaceError(f"the end should be one of {self.vocabulary} tokens; {self.end} came")

    @property
    def ragged(self) -> bool:
        """Whether pieces have lengths of their own."""
        return self.end >= 0

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial extents of a grid, without its channels."""
        return self.shape[1:]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    def counted(self, x: Rows) -> Rows:
        """x (B, n) -> bool: the tokens of a piece with its end; not what pads after it.

        >>> Space("tokens", (5,), 4, end=0).counted(torch.tensor([[3, 1, 0, 0, 0]]))
        tensor([[ True,  True,  True, False, False]])
        """
        ends = x == self.end
        return ends.cumsum(1) == ends

    def need(self, *kinds: str, model: str) -> None:
        """Raise SpaceError in words unless this space is one of `kinds`."""
        if self.kind not in kinds:
            raise SpaceError(
                f"{model} works on {' or '.join(kinds)}, but these pieces are {self.kind} of shape {self.shape}; "
                f"`maquette show` lists the models of each space"
            )


@dataclass(frozen=True)
class DataSpec:
    """All a model is told about the data. tokens: of a ragged train split, how many there are; 0: not known"""

    space: Space
    condition: Condition | None = None
    likelihood: Likelihood = "gaussian"
    tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        space = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.space).items()}
        return {
            "space": space,
            "condition": self.condition.to_json() if self.condition else None,
            "likelihood": self.likelihood,
            "tokens": self.tokens,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> DataSpec:
        condition = Condition.from_json(data["condition"]) if data["condition"] else None
        return DataSpec(Space(**data["space"]), condition, data["likelihood"], data.get("tokens", 0))


@dataclass(frozen=True)
class Batch:
    """x (B, *space.shape); condition (B, condition.width) float with NaN for what is not known, or None;
    index (B,) int64, the numbers of the pieces in their corpus.

    Of a ragged space x is (B, n), n <= L: windows into pieces, padded with the end token, which a window holds only where its
    piece ends there. before (B,) int64: the token before each window, -1 where the piece begins; None: all begin.
    """

    x: Tensor
    condition: Tensor | None = None
    index: Tensor | None = None
    before: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*(None if t is None else change(t) for t in (self.x, self.condition, self.index, self.before)))

    def to(self, device: torch.device | str) -> Batch:
        return self.map(lambda t: t.to(device, non_blocking=True))

    def split(self, parts: int) -> list[Batch]:
        """`parts` micro-batches of (nearly) equal size."""
        bounds = [round(i * len(self) / parts) for i in range(parts + 1)]
        return [self.map(lambda t, a=a, b=b: t[a:b]) for a, b in pairwise(bounds) if b > a]


@dataclass(frozen=True)
class Losses:
    """terms are summed and learnt; logs are only written down. All are means over the batch."""

    terms: dict[str, Tensor]
    logs: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([t.float() for t in self.terms.values()]).sum()


@dataclass(frozen=True)
class Optimiser:
    """How a phase moves its parameters; a recipe may override every field."""

    name: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    lr: float = 1e-3  # per step, at its peak
    betas: tuple[float, float] = (0.9, 0.99)  # adam and adamw; sgd and muon take the first as momentum
    weight_decay: float = 0.0
    warmup: float = 0.02  # share of all steps during which the rate rises
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    floor: float = 0.0  # share of lr that is left at the last step
    clip: float = 0.0  # largest norm of the gradient; 0 leaves it alone
    muon_lr: float = 8e-3  # muon only: the rate of its matrices; `lr` is the rate of all else


@dataclass(frozen=True)
class Phase:
    """A stretch of a step in which the parameters under `players` move and all others hold still.

    players  prefixes of parameter names: ("generator",); the empty prefix ("",) is everyone
    repeats  how often within one step, each time with a fresh batch (critics)
    """

    name: str
    players: tuple[str, ...] = ("",)
    repeats: int = 1
    optimiser: Optimiser = Optimiser()

    def moves(self, parameter: str) -> bool:
        return any(p == "" or parameter == p or parameter.startswith(p + ".") for p in self.players)


class Model(nn.Module, ABC):
    """What the loop can train. A constructor takes a DataSpec and keyword-only settings; see `catalog.settings`."""

    phases: tuple[Phase, ...] = (Phase("model"),)
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # what the dial `size` sets: {"tiny": {"width": 16}, ...}
    as_codec: ClassVar[Mapping[str, Any]] = {}  # what changes where it is the codec of a pair: {"latent": "grid"}
    enters: ClassVar[
        Mapping[str, str]
    ] = {}  # parts of it that may start from a part of another model: own name -> there
    search: ClassVar[
        Mapping[str, Any]
    ] = {}  # what `tune` tries beside the sizes: [one, of, these], (from, to), or None: leave it alone
    batch_size: ClassVar[int] = 64
    concluded_on: ClassVar[int | None] = 20_000  # pieces of the train split that `conclude` sees; none: all
    bf16: ClassVar[bool] = False  # whether bf16 autocast is the default where the hardware has it
    heads: tuple[str, ...] = ()  # what decides last, as prefixes of parameter names in which * stands for anything
    teachers: ClassVar[tuple[str, ...]] = ()  # prefixes of what only teaches and makes nothing, such as a discriminator
    by_validation: ClassVar[bool] = True  # whether the validation split may say when it has learnt enough
    foretells: ClassVar[bool] = True  # whether its loss on held-out pieces says how good it is
    probed: ClassVar[bool] = False  # whether its features are probed with labels on the way, where there are any
    headed: ClassVar[bool] = False  # what is under `heads` is new, whatever the method
    perceptual: str | None = None  # a run of `pretrain` through whose eyes it compares pieces
    adaptation: Mapping[str, Any] | None = None  # what was done to it, see adapting.py

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        """The losses of `phase` on one batch; progress in [0, 1] is the share of training that is done."""

    def after_step(self, phase: str) -> None:
        """Slow followers: an EMA teacher, codebook restarts. Called after each move of `phase`."""

    def conclude(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """What is fitted once after the last step, into buffers: a density over latents, statistics of BatchNorm.

        Called on the averaged model, without gradients; `batches()` passes over (a part of) the train split once.
        It is called before sample sheets during training too, so it must be cheap and may be called again.
        """

    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device


class GenerativeModel(Model):
    alone: ClassVar[bool] = True  # whether it makes pieces from nothing; else it needs a source
    varies: ClassVar[bool] = (
        False  # whether it makes neighbours of a piece: what `vary` and `members` of a request ask for
    )

    @abstractmethod
    def sample(self, request: SampleRequest) -> Tensor:
        """(len(request.seeds), *space.shape), or (len(request.seeds), n) of a ragged space; row i depends on seed i (and row i of
        condition, source, keep) alone."""

    def interpolate(self, request: SampleRequest, positions: Sequence[float]) -> Tensor:
        """(len(positions), *space.shape): the way from request.seeds[0] (position 0) to request.seeds[1] (position 1)."""
        raise SpaceError(f"{type(self).__name__} has no latent space to walk through; gan, vae and flow have one")


@runtime_checkable
class Codec(Protocol):
    """A trained model that turns pieces into codes and back; `prepare` applies it like a cleaning step."""

    code_space: Space
    code_axes: tuple[
        int, ...
    ]  # how the codes lie over the pixels: (7, 7) for 49 tokens of a 28 x 28 picture; (1,) where each sees all

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, codes: Tensor) -> Tensor: ...


class Embedder(Protocol):
    def embed(self, x: Tensor) -> Tensor:
        """(B, *space.shape) -> features (B, D)"""
        ...


class Guide(Protocol):
    """What one piece may still become while it is written."""

    def allowed(self) -> Tensor | None:
        """(V,) bool: the tokens that may come next, at least one; None: all may."""
        ...

    def push(self, token: int) -> None:
        """`token` was written."""
        ...


class Constraint(Protocol):
    """A rule that always holds, such as a form of verse: `begin(seed)` is the guide of one piece; its chance is its own."""

    def begin(self, seed: int) -> Guide: ...


@dataclass(frozen=True)
class SampleRequest:
    """seeds: one a piece. condition (B, width), NaN where nothing is asked. source (B, *shape): the piece to vary,
    continue or infill. keep (B, *shape) bool: True where `source` must stay as it is. Of a ragged space both are (B, n).

    vary: the share of a piece that is new where it is a neighbour of another, of `source` or of the piece of its own seed; none: of a
    source as much as is usual for the model. members: which neighbour of its seed's piece each is; 0 and none: that piece itself."""

    seeds: tuple[int, ...]
    condition: Tensor | None = None
    source: Tensor | None = None
    keep: Tensor | None = None
    temperature: float = 1.0
    guidance: float = 1.0
    steps: int | None = None
    top_k: int = 0  # tokens: 0 is off
    top_p: float = 1.0  # tokens: 1 is off
    length: int | None = None  # ragged tokens: of the longest piece; none: what the model sees at once
    repetition: float = 1.0  # ragged tokens: a token of the last 64 is this many times less likely; 1 is off
    constraint: Constraint | None = None  # tokens: which may come next
    vary: float | None = None
    members: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.seeds)

    def with_(self, **changes: Any) -> SampleRequest:
        return replace(self, **changes)

    def rows(self, start: int, stop: int) -> SampleRequest:
        """The same request for pieces start..stop alone."""

        def cut(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[start:stop]

        return replace(
            self,
            seeds=self.seeds[start:stop],
            members=self.members[start:stop],
            condition=cut(self.condition),
            source=cut(self.source),
            keep=cut(self.keep),
        )

    def noise(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal (B, *shape), what pieces are made from: of a member of a series sqrt(1 - vary^2) of the noise of its seed and `vary` of
        its own, which is standard normal again."""
        first = noise(self.seeds, shape, device)
        if not any(self.members):
            return first
        own = torch.cat([noise([s], shape, device, SERIES + m) for s, m in zip(self.seeds, self.members, strict=True)])
        new = 1.0 if self.source is not None else self.vary or 0.0
        share = torch.tensor([new * bool(m) for m in self.members], device=device).view(-1, *(1,) * len(shape))
        return (1 - share.square()).sqrt() * first + share * own


SERIES = 1000  # streams of chance from which on they belong to the members of a series


def noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu", stream: int = 0) -> Tensor:
    """Standard normal (len(seeds), *shape); row i is a function of seeds[i] and `stream` alone, on any device.

    >>> torch.equal(noise([5, 9], (3,))[1], noise([9], (3,))[0])
    True
    """
    rows = [torch.randn(tuple(shape), generator=generator(seed, stream)) for seed in seeds]
    return torch.stack(rows).to(device) if rows else torch.empty(0, *shape, device=device)


def generator(seed: int, stream: int = 0) -> torch.Generator:
    """The chance of one piece: a CPU generator that is a function of its seed and a stream number alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + stream * 7_919) % (2**63 - 1))
