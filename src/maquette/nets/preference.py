"""Losses that teach a model of sequences what is liked, from its log-probabilities and those of the model it began as (the reference).

Pairs: DPO (Rafailov 2023, arXiv:2305.18290). Likes and dislikes alone: KTO (Ethayarajh 2024, arXiv:2402.01306). log p is of whole pieces, in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def dpo(better: Tensor, worse: Tensor, beta: float) -> Tensor:
    """better, worse (P,): log p - reference log p of both pieces of a pair -> the mean loss (eq. 7); log 2 at the start.

    >>> round(float(dpo(torch.zeros(1), torch.zeros(1), 0.1)), 4)
    0.6931
    """
    return -F.logsigmoid(beta * (better - worse)).mean()


def kto(gain: Tensor, liked: Tensor, distance: Tensor, beta: float) -> Tensor:
    """gain (B,): log p - reference log p; liked (B,) bool; distance (): KL from the reference in nats a piece -> mean loss in [0, 1].

    Eq. 8, both sides of the same weight however many there are of each; a side that is empty is left out.

    >>> round(float(kto(torch.zeros(2), torch.tensor([True, False]), torch.zeros(()), 0.1)), 4)
    0.5
    """
    lost = torch.sigmoid(torch.where(liked, distance - gain, gain - distance) * beta)
    sides = [lost[side].mean() for side in (liked, ~liked) if bool(side.any())]
    return torch.stack(sides).mean()


def token_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """logits (..., V) of both -> KL(model || reference) in nats (...): how far the foretelling of each token has moved.

    >>> float(token_kl(torch.zeros(3), torch.zeros(3)))
    0.0
    """
    p, q = logits.float().log_softmax(-1), reference.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def damping(distance: Tensor, limit: float) -> Tensor:
    """How far a preference is still heard: wholly below the limit, not at all at its double."""
    return (2 - distance.detach() / limit).clamp(0, 1)
