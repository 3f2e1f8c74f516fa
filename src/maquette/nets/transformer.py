"""A causal transformer in the manner of Qwen3: pre-norm blocks of attention and SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.nets.attention import Attention, Cache, RMSNorm, rotations

FEW = ((200_000, 0.2), (1_000_000, 0.1))  # tokens of the train split below which dropout helps, and how much of it


class Table(nn.Module):
    """One row of `weight` a token, (V, width), read as an embedding or as a head.

    With digits (see Space) a row is the sum of a row of its own and one for each digit: what is learnt of one code serves
    all that share a digit with it, which a short training on few pieces gains most of.
    """

    def __init__(self, vocabulary: int, width: int, digits: Sequence[int] = (), scale: float = 0.0):
        super().__init__()
        own = 0.1 * scale if digits else scale
        self.weight = nn.Parameter(own * torch.randn(vocabulary, width))
        self.digits = nn.Parameter(scale / math.sqrt(len(digits)) * torch.randn(sum(digits), width)) if digits else None
        places = [prod(digits[:i]) for i in range(len(digits))]
        offsets = [sum(digits[:i]) for i in range(len(digits))]
        parts = [torch.arange(vocabulary) // p % n + o for p, n, o in zip(places, digits, offsets, strict=True)]
        self.register_buffer("parts", torch.stack(parts) if parts else None, persistent=False)

    @property
    def rows(self) -> Tensor:
        """(V, width)"""
        return self.weight if self.digits is None else self.weight + self.digits[self.parts].sum(0)


class MLP(nn.Module):
    """h (..., width) -> (..., width)"""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Block(nn.Module):
    """h (B, L, width), context (B, features) or None, other (B, M, width) or None -> (B, L, width)

    context scales and shifts what the second half reads (FiLM, Perez 2018, arXiv:1709.07871); it starts without effect.
    crossed: between the halves it reads `other`, the hidden vectors of an encoder.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        features: int,
        causal: bool = True,
        crossed: bool = False,
    ):
        super().__init__()
        self.input_layernorm = RMSNorm(width)
        self.self_attn = Attention(width, heads, dropout, causal)
        self.cross_layernorm = RMSNorm(width) if crossed else None
        self.cross_attn = Attention(width, heads, dropout, causal=False) if crossed else None
        self.post_attention_layernorm = RMSNorm(width)
        self.mlp = MLP(width, inner)
        self.film = nn.Linear(features, 2 * width) if features else None
        self.dropout = nn.Dropout(dropout)
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(
        self,
        h: Tensor,
        turns: Tensor,
        context: Tensor | None,
        cache: Cache | None = None,
        start: int = 0,
        other: Tensor | None = None,
    ) -> Tensor:
        h = h + self.dropout(self.self_attn(self.input_layernorm(h), turns, cache, start))
        if self.cross_attn is not None and other is not None:
            h = h + self.dropout(self.cross_attn(self.cross_layernorm(h), turns, start=start, other=other))
        g = self.post_attention_layernorm(h)
        if self.film is not None and context is not None:
            scale, shift = self.film(context).unsqueeze(1).chunk(2, -1)
            g = torch.addcmul(shift, g, 1 + scale)
        return h + self.dropout(self.mlp(g))


class Stack(nn.Module):
    """Blocks between a door and a last norm: what Decoder and Encoder share. Positions are rotary; `periods` gives each place
    within a period (the voice, the beat) a learnt vector too, `absolute` each place at all, which fixed grids of codes gain from."""

    def __init__(
        self,
        length: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        features: int,
        absolute: bool,
        periods: Sequence[int],
        causal: bool,
        crossed: bool = False,
    ):
        super().__init__()
        self.width, self.heads, self.length, self.periods = width, heads, length, tuple(periods)
        self.position = nn.Parameter(torch.zeros(length, width)) if absolute else None
        self.places = nn.ParameterList([torch.zeros(p, width) for p in periods])
        inner = 32 * math.ceil(width * 8 / 3 / 32)
        blocks = [Block(width, heads, inner, dropout, features, causal, crossed) for _ in range(layers)]
        self.layers = nn.ModuleList(blocks)
        self.norm = RMSNorm(width)
        self.register_buffer("turns", rotations(length, width // heads), persistent=False)
        self.apply(self._initial)

    def _initial(self, module: nn.Module) -> None:
        """What returns into the residual stream starts smaller with depth (GPT-2)."""
        if isinstance(module, Block):
            for last in (module.self_attn.o_proj, module.mlp.down_proj):
                nn.init.normal_(last.weight, std=(2 * len(self.layers) * last.in_features) ** -0.5)

    def placed(self, h: Tensor, start: int = 0) -> Tensor:
        """h (B, n, width) at positions start ... with the vectors of their places."""
        stop = start + h.shape[1]
        if self.position is not None:
            h = h + self.position[start:stop]
        for place, period in zip(self.places, self.periods, strict=True):
            h = h + place[torch.arange(start, stop, device=h.device) % period]
        return h

    def through(
        self,
        h: Tensor,
        context: Tensor | None,
        caches: list[Cache] | None = None,
        start: int = 0,
        other: Tensor | None = None,
    ) -> Tensor:
        for i, layer in enumerate(self.layers):
            h = layer(h, self.turns, context, caches[i] if caches else None, start, other)
        return self.norm(h)


class Decoder(Stack):
    """Hidden vectors in, hidden vectors out; embedding included, head not.

    Position 0 is what stands before: the token `before`, or where a piece begins the start (a learnt vector plus the context);
    position i > 0 holds token i - 1. Position i foretells token i, and `periods` counts so.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        features: int = 0,
        absolute: bool = True,
        digits: Sequence[int] = (),
        periods: Sequence[int] = (),
        scale: float = 0.5,
        crossed: bool = False,
    ):
        body = {"width": width, "layers": layers, "heads": heads, "dropout": dropout, "features": features}
        super().__init__(length, **body, absolute=absolute, periods=periods, causal=True, crossed=crossed)
        self.embed_tokens = Table(vocabulary, width, digits, scale)
        self.start = nn.Parameter(torch.zeros(width))

    def forward(
        self,
        tokens: Tensor,
        context: Tensor | None = None,
        caches: list[Cache] | None = None,
        start: int = 0,
        before: Tensor | None = None,
        other: Tensor | None = None,
    ) -> Tensor:
        """tokens (B, n) -> (B, n + 1, width), the start included; going on from `start` > 0 with caches, (B, n, width)."""
        rows = self.embed_tokens.rows
        h = F.embedding(tokens, rows)
        if start == 0:
            h = torch.cat([self.first(rows, len(tokens), context, before), h], 1)
        return self.through(self.placed(h, start), context, caches, start, other)

    def first(self, rows: Tensor, batch: int, context: Tensor | None, before: Tensor | None) -> Tensor:
        """(B, 1, width): what stands before token 0."""
        first = self.start.expand(batch, -1)
        first = first if context is None else first + context
        if before is not None:
            first = torch.where((before >= 0).unsqueeze(1), F.embedding(before.clamp_min(0), rows), first)
        return first.unsqueeze(1)

    def caches(self, batch: int) -> list[Cache]:
        """Empty room for `batch` sequences of full length."""
        like = self.layers[0].self_attn.q_proj.weight
        shape = (batch, self.heads, self.length, self.width // self.heads)
        return [Cache(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.layers]


class Encoder(Stack):
    """tokens (B, n), hidden (B, n) bool -> (B, n, width): every position sees all that is not hidden."""

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        features: int = 0,
        absolute: bool = False,
        digits: Sequence[int] = (),
        periods: Sequence[int] = (),
        scale: float = 0.5,
    ):
        body = {"width": width, "layers": layers, "heads": heads, "dropout": dropout, "features": features}
        super().__init__(length, **body, absolute=absolute, periods=periods, causal=False)
        self.embed_tokens = Table(vocabulary, width, digits, scale)
        self.mask = nn.Parameter(0.02 * torch.randn(width))

    def forward(self, tokens: Tensor, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        h = F.embedding(tokens, self.embed_tokens.rows)
        h = torch.where(hidden.unsqueeze(2), self.mask if context is None else self.mask + context.unsqueeze(1), h)
        return self.through(self.placed(h), context)


def usual_dropout(tokens: int) -> float:
    """The rate of dropout that helps on so many tokens of training; 0 where their number is not known.

    >>> usual_dropout(70_000), usual_dropout(10_000_000), usual_dropout(0)
    (0.2, 0.0, 0.0)
    """
    return next((rate for most, rate in FEW if 0 < tokens < most), 0.0)
