"""Any subset of a piece given the rest: what is kept while learning, and writing in any order (Chang 2022, arXiv:2202.04200)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from maquette.nets.sampling import Chance, draw, given
from maquette.space import SampleRequest, Space

ROUNDS = 24  # in which a piece is written where the request does not say


def drawn_keep(x: Tensor, space: Space, nothing: bool) -> Tensor:
    """x (B, n) -> bool (B, n): a part of each row that is kept while the rest is asked for; chance from torch's global generator.

    A third each: single places at a random rate; all but one stretch, or one stretch alone; some voices (places of the shortest
    period), where there are any. nothing: half of the rows keep nothing, so that the chain is learnt too.
    """
    batch, n = x.shape
    device = x.device
    rate, kind = torch.rand(batch, 1, device=device), torch.randint(3, (batch, 1), device=device)
    single = torch.rand(batch, n, device=device) < rate
    ends = torch.randint(n + 1, (batch, 2), device=device).sort(1).values
    place = torch.arange(n, device=device)
    stretch = (place >= ends[:, :1]) & (place < ends[:, 1:])
    stretch = stretch ^ (torch.rand(batch, 1, device=device) < 0.5)
    period = space.periods[0] if space.periods else 1
    voices = (torch.rand(batch, period, device=device) < 0.5)[:, place % period] if period > 1 else stretch
    keep = torch.where(kind == 0, single, torch.where(kind == 1, stretch, voices))
    return keep & (torch.rand(batch, 1, device=device) < 0.5) if nothing else keep


@torch.inference_mode()
def unmask(
    logits: Callable[[Tensor, Tensor], Tensor], request: SampleRequest, space: Space, device: torch.device | str
) -> Tensor:
    """logits(tokens (B, n), hidden (B, n)) -> (B, n, V). In each round every hidden place is drawn, and those that the model is surest
    of stay; few at first, more and more by a cosine."""
    tokens, kept = given(request, space, device)
    tokens, kept = tokens[:, : space.shape[0]], kept[:, : space.shape[0]]
    hidden, rounds = ~kept, request.steps or ROUNDS
    chance = Chance(request.seeds, device)
    for k in range(rounds):
        scores = logits(tokens, hidden)
        drawn = torch.stack(
            [draw(scores[:, i], chance.at(k * tokens.shape[1] + i), request) for i in range(tokens.shape[1])], 1
        )
        sure = scores.log_softmax(-1).gather(-1, drawn.unsqueeze(-1)).squeeze(-1).masked_fill(~hidden, -torch.inf)
        left = torch.floor((~kept).sum(1) * math.cos(math.pi / 2 * (k + 1) / rounds)).long()
        rank = sure.argsort(1, descending=True).argsort(1)
        stay = hidden & (rank < (hidden.sum(1) - left).unsqueeze(1))
        tokens, hidden = torch.where(stay, drawn, tokens), hidden & ~stay
    return tokens.clone()
