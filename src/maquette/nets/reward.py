"""A taste as a linear reward: logistic regression on likes and dislikes, Bradley and Terry's model (1952) on pairs, fitted by Newton's method.

How strongly weights are held back is chosen by cross-validation; so few ratings as a person gives in ten minutes are enough.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = (
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
    300.0,
)  # of the L2 penalty, of features of unit mean square
FOLDS = 5
ROUNDS = 25  # of Newton's method


class Linear(NamedTuple):
    """reward(x) = (x - centre) @ weight + bias, in log-odds of being liked. nats: of held-out ratings, by cross-validation."""

    centre: Tensor
    weight: Tensor
    bias: Tensor
    nats: float

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, D) -> (B,)"""
        return (x.double() - self.centre) @ self.weight + self.bias


def fitted(x: Tensor, liked: Tensor, pairs: Tensor, seed: int = 0) -> Linear:
    """x (N, D) features of rated pieces; liked (N,) 1, 0 or NaN where only pairs tell; pairs (P, 2) int64 (better, worse).

    Where there are pairs alone, half of the rated pieces count as liked.
    """
    centre = x.double().mean(0)
    z, axes = _principal(x.double() - centre)
    single = ~liked.isnan()
    rows = torch.cat([z[single], z[pairs[:, 0]] - z[pairs[:, 1]]])
    ones = torch.cat([torch.ones(int(single.sum())), torch.zeros(len(pairs))]).double()
    target = torch.cat([liked[single], torch.ones(len(pairs))]).double()
    held = torch.tensor([_held_out(rows, ones, target, s, seed) for s in STRENGTHS])
    strength = STRENGTHS[int(held.argmin())]
    w = newton(rows, ones, target, strength)
    bias = w[-1] if bool(single.any()) else -(z @ w[:-1]).median()
    return Linear(centre, axes @ w[:-1], bias, float(held.min()))


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, D) -> coordinates (N, R) of mean square 1 a row, in the span of the rows, and axes (D, R) so that x @ axes are they."""
    _, s, v = torch.linalg.svd(x, full_matrices=False)
    kept = s > 1e-6 * s.max().clamp_min(1e-12)
    axes = v[kept].T
    z = x @ axes
    scale = z.square().sum(1).mean().sqrt().clamp_min(1e-12)
    return z / scale, axes / scale


def newton(x: Tensor, ones: Tensor, target: Tensor, strength: float) -> Tensor:
    """x (N, D), ones (N,): 1 where the constant counts -> weights (D + 1,), the constant last; it is not held back.

    >>> w = newton(torch.tensor([[-1.0], [1.0]]).double(), torch.ones(2).double(), torch.tensor([0.0, 1.0]).double(), 0.1)
    >>> bool(w[0] > 0.5) and abs(float(w[1])) < 1e-6
    True
    """
    rows = torch.cat([x, ones[:, None]], 1)
    penalty = torch.full((rows.shape[1],), strength, dtype=rows.dtype)
    penalty[-1] = 1e-3
    w = torch.zeros(rows.shape[1], dtype=rows.dtype)
    for _ in range(ROUNDS):
        p = (rows @ w).sigmoid()
        slope = rows.T @ (p - target) + penalty * w
        curve = (rows * (p * (1 - p))[:, None]).T @ rows + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(curve, slope)
        w = w - step * (1 / step.abs().max().clamp_min(1)).clamp(max=1) if step.abs().max() > 5 else w - step
        if step.abs().max() < 1e-6:
            break
    return w


def _held_out(x: Tensor, ones: Tensor, target: Tensor, strength: float, seed: int) -> float:
    """Nats of each rating by a model that has not seen it."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    order = order[target[order].argsort(stable=True)]  # both sides in every fold
    lost = []
    for k in range(min(FOLDS, len(x))):
        out = torch.zeros(len(x), dtype=torch.bool)
        out[order[k::FOLDS]] = True
        w = newton(x[~out], ones[~out], target[~out], strength)
        logits = torch.cat([x[out], ones[out][:, None]], 1) @ w
        lost.append(F.binary_cross_entropy_with_logits(logits, target[out], reduction="sum"))
    return float(torch.stack(lost).sum() / len(x))
