"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/): momentum made orthogonal by Newton-Schulz, for matrices.

torch.optim.Muon computes in bfloat16, which takes twenty times as long on a processor without it; this one computes in
float32 there, and treats all matrices of one shape at once. Its steps are otherwise the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

FAST = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()  # whether this processor multiplies bfloat16


class Muon(torch.optim.Optimizer):
    """Moves 2-D parameters. lr is per step, for a matrix that is not taller than wide; taller ones get more."""

    def __init__(self, params: Iterable[Tensor], lr: float = 8e-3, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[tuple, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[(*p.shape, p.device)].append(p)
            for parameters in alike.values():
                self._move(parameters, group)

    def _move(self, parameters: list[Tensor], group: dict) -> None:
        """One step of matrices of one shape."""
        grads = [p.grad for p in parameters]
        for p in parameters:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        momenta = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"]))  # Nesterov
        tall = max(1, ahead.shape[1] / ahead.shape[2]) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(orthogonal(ahead).unbind()), alpha=-group["lr"] * tall)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(N, a, b) -> (N, a, b) with all singular values near 1 (between about 0.7 and 1.2), by a quintic iteration.

    >>> m = orthogonal(torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0)))
    >>> bool(((torch.linalg.svdvals(m) - 1).abs() < 0.4).all())
    True
    """
    x = matrices.bfloat16() if matrices.is_cuda or FAST else matrices
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7).view(-1, 1, 1)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x if wide else x.mT).to(matrices.dtype)
