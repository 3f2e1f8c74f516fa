"""A mixture of two models of the next token whose weight a small logistic gate chooses at each place (Jacobs 1991), such as a
transformer and an n-gram model: what one has seen often and the other has understood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SURE = 12.0  # the largest log-odds of a weight
ROUNDS = 100  # of L-BFGS


class Gate(nn.Module):
    """features (..., F) -> w (...) in (0, 1), the share of the first model. All numbers are buffers: `fit` sets them.

    Before `fit` it is half and half.
    """

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("weight", torch.zeros(features))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        odds = ((features - self.centre) / self.scale) @ self.weight + self.bias
        return odds.clamp(-SURE, SURE).sigmoid()

    def fit(self, features: Tensor, log_p: Tensor, log_q: Tensor) -> float:
        """features (N, F), log p and log q (N,) of the tokens that came -> nats a token of the mixture.

        Weights of standardised features with a standard normal prior, by L-BFGS from the best constant weight; the constant stays
        where nothing better is found, so that the mixture is not worse than the better of the two.
        """
        features, log_p, log_q = (t.detach().double().cpu().clone() for t in (features, log_p, log_q))
        self.centre.copy_(features.mean(0))
        self.scale.copy_(features.std(0, correction=0).clamp_min(1e-6))
        x = (features - self.centre.double().cpu()) / self.scale.double().cpu()

        def nats(weight: Tensor, bias: Tensor) -> Tensor:
            return -mixed(log_p, log_q, (x @ weight + bias).clamp(-SURE, SURE).sigmoid()).mean()

        none = torch.zeros(x.shape[1], dtype=torch.float64)
        constant = min(torch.linspace(-SURE, SURE, 49, dtype=torch.float64), key=lambda b: float(nats(none, b)))
        weight, bias = _descended(nats, none.clone(), constant.clamp(-4, 4).clone(), len(x))
        best = min([(weight, bias), (none, constant)], key=lambda found: float(nats(*found)))
        self.weight.copy_(best[0])
        self.bias.copy_(best[1])
        return float(nats(*best))


def _descended(
    nats: Callable[[Tensor, Tensor], Tensor], weight: Tensor, bias: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        weight, bias = weight.requires_grad_(), bias.requires_grad_()
        descent = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            descent.zero_grad()
            loss = nats(weight, bias) + 0.5 * weight.square().sum() / count
            loss.backward()
            return loss

        descent.step(closure)
    return weight.detach(), bias.detach()


def mixed(log_p: Tensor, log_q: Tensor, w: Tensor) -> Tensor:
    """log(w p + (1 - w) q); w broadcasts.

    >>> mixed(torch.tensor(0.5).log(), torch.tensor(0.1).log(), torch.tensor(0.25)).exp()
    tensor(0.2000)
    """
    return torch.logaddexp(log_p + w.log(), log_q + torch.log1p(-w))


def certainty(logits: Tensor) -> Tensor:
    """logits (..., V) -> (..., 2): entropy / log V and log of the largest p; what the gate asks of a neural model."""
    log_p = F.log_softmax(logits.float(), -1)
    entropy = -(log_p.exp() * log_p).sum(-1) / math.log(max(2, logits.shape[-1]))
    return torch.stack([entropy, log_p.amax(-1)], -1)


class Telling(Protocol):
    """A reader that also says how much it knows of what comes next: features (B, F)."""

    features: Tensor

    def __call__(self, tokens: Tensor) -> Tensor: ...


class Duet:
    """Two readers as one (see `nets/sampling.py`): `first` a neural model, `second` one that tells its features, mixed by the gate.

    The gate reads certainty(first) and the features of the second, in this order.
    """

    def __init__(self, first: Callable[[Tensor], Tensor], second: Telling, gate: Gate):
        self.first, self.second, self.gate = first, second, gate

    def __call__(self, tokens: Tensor) -> Tensor:
        """tokens (B, n) -> log p (B, V) of the token after them"""
        logits = self.first(tokens)
        log_q = self.second(tokens).to(logits)
        w = self.gate(torch.cat([certainty(logits), self.second.features.to(logits)], -1))
        return mixed(F.log_softmax(logits, -1), log_q, w.unsqueeze(-1))
