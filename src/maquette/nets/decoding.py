"""One token more through a decoder on a CPU: the numbers of `nets/transformer.py` (to 1e-4) in a fraction of its time.

What a single token costs there is calls, not arithmetic. So matrices that read the same are one, the weights of norms are in the matrices
behind them, and what is computed on the way has its place for good (`out=`): no call allocates, slices or transposes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.nets.attention import Cache
from maquette.nets.transformer import Block, Decoder


class Layer(NamedTuple):
    """A block, folded: matrices (in, out); cosines and sines (L, 2 heads, head width) with the weights of the norms of queries and keys;
    of FiLM scale (B, width) of what `up` reads and shift (B, 2 inner) of what it gives."""

    qkv: Tensor
    out: Tensor
    up: Tensor
    down: Tensor
    cosines: Tensor
    sines: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def fold(block: Block, turns: Tensor, context: Tensor | None) -> Layer:
    """turns (2, L, head width) of the decoder, context (B, features) or None of the pieces"""
    attention, mlp = block.self_attn, block.mlp
    qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    film: tuple[Tensor, ...] = ()
    if block.film is not None and context is not None:
        scale, shift = block.film(context).chunk(2, -1)
        film = (1 + scale, shift @ up.t())
    return Layer(
        (qkv * block.input_layernorm.weight).t().contiguous(),
        attention.o_proj.weight.t().contiguous(),
        (up * block.post_attention_layernorm.weight).t().contiguous(),
        mlp.down_proj.weight.t().contiguous(),
        *_turns(turns, torch.cat([n.weight.expand(attention.heads, -1) for n in (attention.q_norm, attention.k_norm)])),
        *film,
    )


def _turns(turns: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """weights (2 heads, head width). The sines meet the other half of a head: they have its weights, and the sign of `rotate`."""
    half = weights.shape[1] // 2
    sign = torch.ones_like(weights)
    sign[:, :half] = -1
    return turns[0].unsqueeze(1) * weights, turns[1].unsqueeze(1) * (sign * weights.roll(half, -1))


class Step:
    """`step(tokens (B,), i)`: what stands at position i > 0 -> logits (B, V) of the token after it.

    caches: of `Decoder.caches`, filled up to position i - 1 by whatever read them; the step fills in position i. rows (V, width) of the head.
    To be made and called in inference mode.
    """

    def __init__(self, decoder: Decoder, rows: Tensor, caches: list[Cache], context: Tensor | None = None):
        self.layers = [fold(block, decoder.turns, context) for block in decoder.layers]
        self.embedding = decoder.embed_tokens.rows
        self.head = (rows * decoder.norm.weight).t().contiguous()
        self.places = decoder.placed(self.embedding.new_zeros(1, decoder.length, decoder.width))[0]
        self.caches, self.eps = caches, self.embedding.new_full((1, 1, 1), decoder.norm.eps)
        self._make_room(len(caches[0].keys), decoder.width, decoder.heads, self.layers[0].down.shape[0])

    def _make_room(self, batch: int, width: int, heads: int, inner: int) -> None:
        """Places for what is computed on the way, and views of them."""
        new, features = self.embedding.new_empty, width // heads
        self.x, self.h, self.inverse = new(batch, width), new(batch, width), new(batch, 1, 1)
        self.x_row, self.x_column, self.inverse_column = self.x[:, None], self.x[:, :, None], self.inverse[:, 0]
        self.qkv = new(batch, 3 * width)
        self.qk, self.v = self.qkv.view(batch, 3 * heads, features).split(2 * heads, 1)
        self.swapped, self.turned, self.lengths = new(self.qk.shape), new(self.qk.shape), new(batch, 2 * heads, 1)
        halves = [x.chunk(2, -1) for x in (self.swapped, self.qk)]
        self.swaps = list(zip(halves[0], halves[1][::-1], strict=True))
        self.q, self.k = self.turned[:, :heads].unsqueeze(2), self.turned[:, heads:]
        self.both, self.act = new(batch, 2 * inner), new(batch, inner)
        self.gate, self.up = self.both.chunk(2, -1)

    def __call__(self, tokens: Tensor, i: int) -> Tensor:
        torch.index_select(self.embedding, 0, tokens, out=self.x).add_(self.places[i])
        for layer, cache in zip(self.layers, self.caches, strict=True):
            self._attend(layer, cache, i)
            self._think(layer)
        return self._normed() @ self.head

    def _normed(self) -> Tensor:
        """x over its root mean square"""
        torch.baddbmm(self.eps, self.x_row, self.x_column, alpha=1 / self.x.shape[1], out=self.inverse).rsqrt_()
        return torch.mul(self.x, self.inverse_column, out=self.h)

    def _attend(self, layer: Layer, cache: Cache, i: int) -> None:
        torch.mm(self._normed(), layer.qkv, out=self.qkv)
        norm = torch.linalg.vector_norm(self.qk, 2, -1, True, out=self.lengths)
        torch.addcmul(self.eps, norm, norm, value=1 / self.qk.shape[-1], out=norm)
        self.qk.mul_(norm.rsqrt_())
        for half, other in self.swaps:
            half.copy_(other)
        torch.mul(self.qk, layer.cosines.select(0, i), out=self.turned)
        self.turned.addcmul_(self.swapped, layer.sines.select(0, i))
        cache.keys.select(2, i).copy_(self.k)
        cache.values.select(2, i).copy_(self.v)
        seen, known = cache.keys.narrow(2, 0, i + 1), cache.values.narrow(2, 0, i + 1)
        self.x.addmm_(F.scaled_dot_product_attention(self.q, seen, known).reshape(self.x.shape), layer.out)

    def _think(self, layer: Layer) -> None:
        h = self._normed()
        if layer.scale is None:
            torch.mm(h, layer.up, out=self.both)
        else:
            torch.addmm(layer.shift, h.mul_(layer.scale), layer.up, out=self.both)
        torch.mul(F.silu(self.gate, inplace=True), self.up, out=self.act)
        self.x.addmm_(self.act, layer.down)
