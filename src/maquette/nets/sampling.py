"""Writing tokens one after the other: whatever says how likely the next token is, a `Reader`, writes by the same loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.space import Guide, SampleRequest, Space, generator

Reader = Callable[[Tensor], Tensor]  # tokens (B, n), n >= 0, that follow those read before -> logits (B, V) of the next
BLOCK = 256  # tokens whose chance is drawn at once
MEMORY = 64  # tokens back that `repetition` looks


@torch.inference_mode()
def write(reader: Reader, request: SampleRequest, space: Space, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Tokens (B,), one place after the other, until every row has ended or has its length; after its end a row repeats the end.

    What `keep` marks of `source` is forced where it stands; the rest follows from what stands before it.
    """
    tokens, kept = given(request, space, device)
    length, forced = tokens.shape[1], kept.any(0).tolist()
    guides = [request.constraint.begin(seed) for seed in request.seeds] if request.constraint else []
    chance = Chance(request.seeds, device)
    ended = torch.zeros(len(request), dtype=torch.bool, device=device)
    first = min(leading(kept), length - 1)
    for i in range(first):
        _push(guides, tokens[:, i])
        yield tokens[:, i]
    logits = reader(tokens[:, :first])
    for i in range(first, length):
        if space.ragged and request.repetition > 1:
            logits = hushed(logits, tokens[:, max(0, i - MEMORY) : i], request.repetition)
        token = draw(ruled(logits, guides), chance.at(i), request)
        if forced[i]:
            token = torch.where(kept[:, i], tokens[:, i], token)
        if space.ragged:
            token = torch.where(ended, space.end, token)
            ended = ended | (token == space.end)
        tokens[:, i] = token
        yield token
        if i + 1 == length or (space.ragged and bool(ended.all())):
            return
        _push(guides, token)
        logits = reader(token.unsqueeze(1))


def collect(columns: Iterator[Tensor]) -> Tensor:
    """(B,) tokens, one place after the other -> (B, n)"""
    return torch.stack(list(columns), 1)


def in_parts(
    stream: Callable[[SampleRequest], Iterator[Tensor]], request: SampleRequest, space: Space, most: int
) -> Tensor:
    """(B, n): what `stream` writes, at most `most` pieces at once, in parts of like size; shorter ones are padded with the end."""
    rows = math.ceil(len(request) / math.ceil(len(request) / most))
    parts = [collect(stream(request.rows(a, a + rows))) for a in range(0, len(request), rows)]
    longest = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, longest - part.shape[1]), value=space.end) for part in parts])


class Chance:
    """Uniform numbers in [0, 1) for each place; those of row b are a function of seeds[b] alone."""

    def __init__(self, seeds: tuple[int, ...], device: torch.device | str):
        self.seeds, self.device, self.block = seeds, device, -1

    def at(self, i: int) -> Tensor:
        """(B,) for place i"""
        block, place = divmod(i, BLOCK)
        if block != self.block:
            rows = [torch.rand(BLOCK, generator=generator(s, 2 * block), dtype=torch.float64) for s in self.seeds]
            self.block, self.rows = block, torch.stack(rows, 1).to(self.device)
        return self.rows[place]


def _push(guides: list[Guide], column: Tensor) -> None:
    if guides:
        for guide, token in zip(guides, column.tolist(), strict=True):
            guide.push(token)


def ruled(logits: Tensor, guides: list[Guide]) -> Tensor:
    """-inf where a row's guide does not allow a token."""
    for row, guide in enumerate(guides):
        if (allowed := guide.allowed()) is not None:
            logits[row].masked_fill_(~allowed.to(logits.device), -torch.inf)
    return logits


def hushed(logits: Tensor, lately: Tensor, times: float) -> Tensor:
    """Tokens that a row wrote lately become `times` times less likely (Keskar 2019, arXiv:1909.05858, in the log domain)."""
    heard = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, lately, True)
    return torch.where(heard, logits - math.log(times), logits)


def given(request: SampleRequest, space: Space, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """(B, length) tokens to start from and where they are forced; without `keep` a source is not heeded."""
    length = (request.length or space.shape[0]) if space.ragged else space.shape[0]
    tokens = torch.zeros(len(request), length, dtype=torch.long, device=device)
    kept = torch.zeros(len(request), length, dtype=torch.bool, device=device)
    if request.source is not None and request.keep is not None:
        n = min(request.source.shape[1], length)
        tokens[:, :n] = request.source[:, :n]
        kept[:, :n] = request.keep[:, :n]
    return tokens, kept


def leading(kept: Tensor) -> int:
    """How many first positions are forced in every row.

    >>> leading(torch.tensor([[True, True, False], [True, False, True]]))
    1
    """
    return int(kept.all(0).long().cumprod(0).sum())


def draw(logits: Tensor, chance: Tensor, request: SampleRequest) -> Tensor:
    """logits (B, V), chance (B,) uniform in [0, 1) -> tokens (B,) by the inverse of the distribution function.

    >>> draw(torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([0.3]), SampleRequest((0,)))
    tensor([1])
    """
    if request.temperature == 0:
        return logits.argmax(-1)
    if request.temperature != 1:
        logits = logits / request.temperature
    if request.top_k or request.top_p < 1:
        logits = trimmed(logits, request.top_k, request.top_p)
    heights = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    found = torch.searchsorted(heights, (chance.double() * heights[:, -1]).unsqueeze(1), right=True)
    return found.squeeze(1).clamp_(max=logits.shape[-1] - 1)


def trimmed(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """-inf for all but the `top_k` likeliest tokens (0: all) and for the tail beyond mass `top_p` (Holtzman 2020, arXiv:1904.09751).

    >>> trimmed(torch.tensor([[2.0, 1.0, 0.0]]), 2, 1.0)
    tensor([[2., 1., -inf]])
    """
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        mass = ordered.softmax(-1)
        tail = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, mass.cumsum(-1) - mass >= top_p)
        logits = logits.masked_fill(tail, -torch.inf)
    return logits
