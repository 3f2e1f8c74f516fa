"""Attention with rotary positions (Su 2021, arXiv:2104.09864) and normed queries and keys (Dehghani 2023, arXiv:2302.05442)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x (..., D) divided by its root mean square and scaled by `weight` (Zhang & Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, features: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == self.weight.dtype and torch.is_grad_enabled():
            return _Normed.apply(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class _Normed(torch.autograd.Function):
    """The same with its gradient by hand: torch's own is not fused on a CPU and takes three times as long."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square().div_(x.shape[-1]).add_(eps).rsqrt_()
        h = x * inverse
        ctx.save_for_backward(h, inverse, weight)
        return h * weight

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        h, inverse, weight = ctx.saved_tensors
        product = gradient * h
        along = (product @ weight).unsqueeze(-1)
        back = torch.addcmul(gradient * weight, h, along, value=-1 / h.shape[-1]).mul_(inverse)
        return back, product.flatten(0, -2).sum(0), None


class Cache(NamedTuple):
    """Keys and values of one layer, (B, heads, longest, head width) each, filled from the left."""

    keys: Tensor
    values: Tensor


def rotations(length: int, features: int, base: float = 10_000.0) -> Tensor:
    """(2, length, features): cosines and sines; the halves of a head turn against each other, as in Llama and Qwen."""
    rates = base ** -(torch.arange(0, features, 2, dtype=torch.float64) / features)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), rates).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """x (B, heads, L, D), turns (2, L, D) -> x turned by its position."""
    a, b = x.chunk(2, -1)
    return x * turns[0].to(x.dtype) + torch.cat([-b, a], -1) * turns[1].to(x.dtype)


class Attention(nn.Module):
    """h (B, L, width), turns (2, L, head width) -> (B, L, width).

    causal: each position sees itself and what came before; else all see all, or where `other` (B, M, width) is given all of that.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, causal: bool = True):
        super().__init__()
        features = width // heads
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(features), RMSNorm(features)

    def forward(
        self, h: Tensor, turns: Tensor, cache: Cache | None = None, start: int = 0, other: Tensor | None = None
    ) -> Tensor:
        """With a cache, h stands at positions start, start + 1 ...; earlier ones are read from the cache, h is written into it.
        turns: of all positions from 0 on."""
        seen = h if other is None else other
        q = self._heads(self.q_proj(h))
        k, v = self._heads(self.k_proj(seen)), self._heads(self.v_proj(seen))
        q = rotate(self.q_norm(q), turns[:, start : start + q.shape[2]])
        k = rotate(
            self.k_norm(k), turns[:, : k.shape[2]] if other is not None else turns[:, start : start + k.shape[2]]
        )
        mask = None
        if cache is not None:
            k, v, mask = remember(cache, k, v, start)
        drop = self.dropout if self.training else 0.0
        causal = self.causal and cache is None
        attend = by_hand if q.device.type == "cpu" and v.dtype == torch.bfloat16 else F.scaled_dot_product_attention
        found = attend(q.to(v.dtype), k.to(v.dtype), v, mask, drop, causal)
        return self.o_proj(rearrange(found, "b h l d -> b l (h d)"))

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b l (h d) -> b h l d", h=self.heads)


def by_hand(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, causal: bool) -> Tensor:
    """The same as torch's scaled dot product attention, in three products: its own takes four times as long in bfloat16 on a CPU."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.mT).float()
    if causal:
        scores = scores + torch.full(scores.shape[-2:], -torch.inf, device=q.device).triu(1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    shares = F.dropout(scores.softmax(-1), dropout, dropout > 0).to(v.dtype)
    return torch.matmul(shares, v)


def remember(cache: Cache, k: Tensor, v: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Write k and v (B, heads, L, D) at `start`; everything so far, and who sees whom (None: one query sees all)."""
    stop = start + k.shape[2]
    cache.keys[:, :, start:stop] = k
    cache.values[:, :, start:stop] = v
    mask = None
    if k.shape[2] > 1:
        mask = torch.ones(k.shape[2], stop, dtype=torch.bool, device=k.device).tril(start)
    return cache.keys[:, :, :stop], cache.values[:, :, :stop], mask
