"""Differentiable augmentation of grids, shown to the discriminator alone (Zhao 2020, arXiv:2006.10738), each change with a probability
that follows the discriminator's overfitting (ADA, Karras 2020, arXiv:2006.06676)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def augment(x: Tensor, probability: Tensor | float) -> Tensor:
    """(B, C, *axes) -> the same, each piece changed in each way with `probability`: below 0.8 the changes do not leak into the pieces made."""
    for change in (brightness, contrast, saturation, shift, cutout):
        x = _sometimes(change, x, probability)
    return x


def _sometimes(change: Callable[[Tensor], Tensor], x: Tensor, probability: Tensor | float) -> Tensor:
    chosen = uniform(x) < probability
    return torch.where(chosen, change(x), x)


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0, channels: bool = False) -> Tensor:
    """One number a piece, or one a channel of each, shaped to multiply it."""
    return torch.empty(len(x), x.shape[1] if channels else 1, *[1] * (x.dim() - 2), device=x.device).uniform_(low, high)


def brightness(x: Tensor) -> Tensor:
    return x + uniform(x, -0.5, 0.5)


def contrast(x: Tensor) -> Tensor:
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
    return mean + (x - mean) * uniform(x, 0.5, 1.5)


def saturation(x: Tensor) -> Tensor:
    """Away from or towards the mean over the channels; of one channel nothing changes."""
    mean = x.mean(1, keepdim=True)
    return mean + (x - mean) * uniform(x, 0.0, 2.0)


def shift(x: Tensor, share: float = 0.125) -> Tensor:
    """Moved along every axis by up to `share` of it; the border is repeated."""
    for dim in range(2, x.dim()):
        n = x.shape[dim]
        most = max(1, round(n * share)) if n > 1 else 0
        moves = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        places = (torch.arange(n, device=x.device) + moves).clamp(0, n - 1)
        index = places.view(len(x), *[n if d == dim else 1 for d in range(1, x.dim())])
        x = x.gather(dim, index.expand(len(x), *[n if d == dim else x.shape[d] for d in range(1, x.dim())]))
    return x


def cutout(x: Tensor, share: float = 0.5) -> Tensor:
    """A box of `share` of every axis is emptied to 0, the middle of the range."""
    keep = torch.zeros(len(x), *[1] * (x.dim() - 1), dtype=torch.bool, device=x.device)
    for dim in range(2, x.dim()):
        n = x.shape[dim]
        wide = max(1, round(n * share))
        start = torch.randint(-wide // 2, n - wide // 2 + 1, (len(x), 1), device=x.device)
        places = torch.arange(n, device=x.device)
        outside = (places < start) | (places >= start + wide)
        keep = keep | outside.view(len(x), *[n if d == dim else 1 for d in range(1, x.dim())])
    return x * keep


def follow(probability: Tensor, overfitting: Tensor, pieces: int, target: float = 0.6, span: float = 500_000) -> Tensor:
    """The next probability: it rises while `overfitting`, the mean sign of what the discriminator says of real pieces, lies above
    `target` and falls below; from 0 to 1 takes at least `span` pieces (section 3.1 of ADA)."""
    return (probability + torch.sign(overfitting - target) * pieces / span).clamp(0.0, 0.8)
