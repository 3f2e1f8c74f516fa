"""A decoder over tokens (Vaswani 2017, arXiv:1706.03762) in Qwen3's dress: the prior over codes, and the writer of sequences."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maquette.errors import SettingError
from maquette.nets.attention import Cache
from maquette.nets.condition import ConditionEmbedding, drop_condition
from maquette.nets.transformer import Decoder, Table
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, Optimiser, Phase, SampleRequest, generator


class Transformer(GenerativeModel):
    """Each token from those before it and the condition; the loss is nats per token."""

    phases = (Phase("model", optimiser=Optimiser("muon", lr=6e-3, muon_lr=2e-2, warmup=0.02, clip=1.0)),)
    sizes = {
        "tiny": {"width": 48, "layers": 2},
        "small": {"width": 96, "layers": 3},
        "medium": {"width": 192, "layers": 6},
        "large": {"width": 512, "layers": 12, "head_width": 64},
    }
    batch_size = 32
    bf16 = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Field(gt=0, description="features of each position; a multiple of head_width")] = 96,
        layers: Annotated[int, Field(gt=0, description="blocks of attention and SwiGLU")] = 3,
        head_width: Annotated[int, Field(gt=0, multiple_of=2, description="features of each head")] = 48,
        dropout: Annotated[float, Field(ge=0, lt=1, description="0.1 to 0.3 helps where the corpus is small")] = 0.0,
        condition_dropout: Annotated[
            float, Field(ge=0, lt=1, description="share of pieces whose condition is hidden, for guidance")
        ] = 0.1,
        tied: Annotated[bool, Field(description="whether the head is the embedding, transposed")] = False,
        absolute: Annotated[
            bool, Field(description="learnt positions beside the rotary ones: better for grids of codes")
        ] = True,
    ):
        super().__init__(spec)
        spec.space.need("tokens", model="transformer")
        if width % head_width:
            raise SettingError(f"transformer.width should be a multiple of head_width {head_width}; {width} came")
        self.condition_dropout = condition_dropout
        self.length, self.vocabulary = spec.space.shape[0], spec.space.vocabulary
        features = width if spec.condition else 0
        self.condition = ConditionEmbedding(spec.condition, width)
        self.model = Decoder(
            self.vocabulary,
            self.length,
            width=width,
            layers=layers,
            heads=width // head_width,
            dropout=dropout,
            features=features,
            absolute=absolute,
            digits=spec.space.digits,
            scale=0.02 if tied else 0.5,
        )
        self.lm_head = None if tied else Table(self.vocabulary, width, spec.space.digits)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        known = drop_condition(batch.condition, self.condition_dropout)
        logits = self.logits(batch.x[:, :-1], known)
        return Losses({"nats_per_token": F.cross_entropy(logits.flatten(0, 1).float(), batch.x.flatten())})

    def logits(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n + 1, V) of every token and of the one that follows."""
        return self.head(self.model(tokens, self._context(condition, len(tokens))))

    def head(self, h: Tensor) -> Tensor:
        """h (..., width) -> logits (..., V)"""
        return F.linear(h, (self.lm_head or self.model.embed_tokens).rows)

    def log_likelihood(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, L) -> nats (B,), exact: the sum over the tokens of a piece."""
        logits = self.logits(x[:, :-1], condition).float()
        return -F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(1)

    def _context(self, condition: Tensor | None, batch: int) -> Tensor | None:
        found = self.condition(condition, batch)
        return found if isinstance(found, Tensor) else None

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """(B, L) int64. What `keep` marks of `source` is forced; the rest follows from what stands before it."""
        chance = torch.stack(
            [torch.rand(self.length, generator=generator(s), dtype=torch.float64) for s in request.seeds]
        )
        chance = chance.to(self.device)
        tokens, kept = given(request, self.length, self.device)
        writer = Writer(self, request)
        first = min(leading(kept), self.length - 1)
        logits = writer(tokens[:, :first], 0)
        for i in range(first, self.length):
            drawn = draw(logits, chance[:, i], request)
            tokens[:, i] = torch.where(kept[:, i], tokens[:, i], drawn)
            if i + 1 < self.length:
                logits = writer(tokens[:, i : i + 1], i + 1)
        return tokens


class Writer:
    """The model with its memory: `writer(tokens (B, n), start)` -> logits (B, V) of the token after them.

    With guidance every piece is read twice, with its condition and without (Ho & Salimans 2022, arXiv:2207.12598).
    """

    def __init__(self, transformer: Transformer, request: SampleRequest):
        self.of, self.guidance = transformer, request.guidance
        self.guided = request.guidance != 1 and request.condition is not None
        batch = len(request)
        self.context = transformer._context(request.condition, batch)
        if self.guided:
            self.context = torch.cat([self.context, transformer._context(None, batch)])
        self.caches: list[Cache] = transformer.model.caches(batch * (1 + self.guided))

    def __call__(self, tokens: Tensor, start: int) -> Tensor:
        if self.guided:
            tokens = tokens.repeat(2, 1)
        h = self.of.model(tokens, self.context, self.caches, start)[:, -1]
        logits = self.of.head(h).float()
        if self.guided:
            asked, free = logits.chunk(2)
            return free + self.guidance * (asked - free)
        return logits


def given(request: SampleRequest, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, L) tokens to start from and where they are forced; without `keep` a source is not heeded."""
    shape = (len(request), length)
    if request.source is None or request.keep is None:
        return torch.zeros(shape, dtype=torch.long, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
    return request.source.long().clone().to(device), request.keep.to(device)


def leading(kept: Tensor) -> int:
    """How many first positions are forced in every row.

    >>> leading(torch.tensor([[True, True, False], [True, False, True]]))
    1
    """
    return int(kept.all(0).long().cumprod(0).sum())


def draw(logits: Tensor, chance: Tensor, request: SampleRequest) -> Tensor:
    """logits (B, V), chance (B,) uniform in [0, 1) -> tokens (B,) by the inverse of the distribution function.

    >>> draw(torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([0.3]), SampleRequest((0,)))
    tensor([1])
    """
    if request.temperature == 0:
        return logits.argmax(-1)
    logits = trimmed(logits.double() / request.temperature, request.top_k, request.top_p)
    heights = logits.softmax(-1).cumsum(-1)
    found = torch.searchsorted(heights, (chance.double() * heights[:, -1]).unsqueeze(1), right=True)
    return found.squeeze(1).clamp(max=logits.shape[-1] - 1)


def trimmed(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """-inf for all but the `top_k` likeliest tokens (0: all) and for the tail beyond mass `top_p` (Holtzman 2020, arXiv:1904.09751).

    >>> trimmed(torch.tensor([[2.0, 1.0, 0.0]]), 2, 1.0)
    tensor([[2., 1., -inf]])
    """
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        tail = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(tail, -torch.inf)
    return logits
