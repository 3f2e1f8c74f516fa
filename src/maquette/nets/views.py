"""Two views of a piece that show the same thing: warped, shifted, dimmed, noisy, with a part erased; of a sequence with tokens hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.nets.augment import uniform


def view(x: Tensor, warp: float, erase: float, light: float, noise: float, mirror: bool) -> Tensor:
    """x (B, C, *axes) -> another view of each piece; chance from torch's global generator.

    warp   how far axes are stretched, sheared and turned, and pieces moved: 0.2 is 11 degrees, a fifth of the size
    erase  share of each axis of a box that is emptied in every second piece
    light  how far brightness and contrast of each channel go
    noise  standard deviation, in [-1, 1]
    """
    x = warped(x, warp, mirror) if warp or mirror else x
    if light:
        x = x * uniform(x, 1 - light, 1 + light, channels=True) + uniform(x, -light, light, channels=True) / 2
    if noise:
        x = x + noise * torch.randn_like(x)
    return torch.where(box(x, erase) & (uniform(x) < 0.5), 0.0, x) if erase else x


def warped(x: Tensor, warp: float, mirror: bool) -> Tensor:
    """x (B, C, *axes) under a small affine map of its last two axes, and one stretch of the first of three (time is not space)."""
    flat = x.ndim == 3
    x = x.unsqueeze(2) if flat else x  # a line is a picture of height 1
    maps = affine(len(x), x.shape[2:], warp, mirror, x.device).to(x.dtype)
    made = F.grid_sample(x, F.affine_grid(maps, list(x.shape), align_corners=False), "bilinear", "border", False)
    return made.squeeze(2) if flat else made


def affine(batch: int, axes: Sequence[int], warp: float, mirror: bool, device: torch.device) -> Tensor:
    """(B, N, N + 1): maps near the identity, the last axis first, as affine_grid wants them; mirror: the last axis turns in half of them."""
    n = len(axes)
    change = torch.empty(batch, n, n + 1, device=device).uniform_(-warp, warp)
    if n == 3:  # x and y mix, the first axis keeps to itself
        change[:, 2, :2] = 0
        change[:, :2, 2] = 0
    still = torch.tensor([extent == 1 for extent in reversed(axes)], device=device)
    change[:, still] = 0
    change[:, :, :n][:, :, still] = 0
    maps = torch.eye(n, n + 1, device=device) + change
    if mirror:
        side = torch.where(torch.rand(batch, 1, device=device) < 0.5, -1.0, 1.0)
        maps[:, :, 0] = maps[:, :, 0] * side
    return maps


def box(x: Tensor, share: float) -> Tensor:
    """(B, 1, *axes) bool: in each piece a box of half to all of `share` along every axis longer than 1."""
    inside = torch.ones(len(x), *[1] * (x.ndim - 1), dtype=torch.bool, device=x.device)
    for dim in range(2, x.ndim):
        n = x.shape[dim]
        if n == 1:
            continue
        wide = n * share * torch.empty(len(x), 1, device=x.device).uniform_(0.5, 1)
        start = torch.rand(len(x), 1, device=x.device) * (n - wide)
        place = torch.arange(n, device=x.device) + 0.5
        along = (place >= start) & (place < start + wide)
        inside = inside & along.view(len(x), *[n if d == dim else 1 for d in range(1, x.ndim)])
    return inside
