"""A neural model of sequences and an n-gram as one: at each place a gate says how far either is heard (`nets/blend.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.nets.blend import Duet, Gate, certainty, mixed
from maquette.nets.sampling import collect, write
from maquette.space import Batch, SampleRequest

CERTAINTIES = 2  # features of the neural model (see `certainty`)
TOKENS = 100_000  # of the validation split that the gate learns from at most


class Partners:
    """first: a transformer; second: an n-gram. Samples and judges as either does alone."""

    def __init__(self, first: Any, second: Any, gate: Gate | None = None):
        self.first, self.second, self.spec = first, second, first.spec
        self.gate = gate or Gate(CERTAINTIES + second.features)

    @property
    def device(self) -> torch.device:
        return self.first.device

    def fit(self, windows: Iterable[tuple[Batch, Tensor]]) -> float:
        """windows: (batch, counted (B, n) bool) of the validation split -> nats a token of the mixture there."""
        columns: list[list[Tensor]] = [[], [], []]
        seen = 0
        for batch, counted in windows:
            for column, part in zip(columns, self._told(batch), strict=True):
                column.append(part[counted])
            seen += int(counted.sum())
            if seen >= TOKENS:
                break
        return self.gate.fit(*(torch.cat(column) for column in columns))

    @torch.no_grad()
    def _told(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(features (B, n, F), log p and log q (B, n) of the tokens of a batch)"""
        logits = self.first.head(self.first.hidden(batch)).float()
        log_p = -F.cross_entropy(logits.transpose(1, 2), batch.x, reduction="none")
        log_q, features = self.second.score(batch.x, batch.before)
        return torch.cat([certainty(logits), features.to(logits)], -1), log_p, log_q.to(logits)

    def token_nats(self, batch: Batch) -> Tensor:
        """(B, n) nats of each token given those before it in its window."""
        features, log_p, log_q = self._told(batch)
        return -mixed(log_p, log_q, self.gate(features))

    def sample(self, request: SampleRequest) -> Tensor:
        return collect(self.stream(request))

    def stream(self, request: SampleRequest) -> Iterator[Tensor]:
        return write(self.reader(request), request, self.spec.space, self.device)

    def reader(self, request: SampleRequest) -> Duet:
        return Duet(self.first.reader(request), self.second.reader(request), self.gate)
