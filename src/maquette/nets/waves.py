"""A time in [0, 1] as a row of sines and cosines (Vaswani 2017, arXiv:1706.03762)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Waves(nn.Module):
    """t (B,) -> (B, features): sines and cosines of octaves (Vaswani 2017), for times in [0, 1]."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("rates", torch.exp(torch.linspace(0.0, math.log(1000.0), features // 2)), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.rates
        return torch.cat([angle.sin(), angle.cos()], 1)
