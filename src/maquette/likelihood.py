"""How likely a model holds real sequences, exactly: nats by the chain rule, in windows that slide."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.space import Batch


class Chain(Protocol):
    """A model of sequences that says how likely each token is."""

    def token_nats(self, batch: Batch) -> Tensor:
        """(B, n) nats of each token given those before it in its window."""
        ...


def is_chain(model: Any) -> bool:
    return hasattr(model, "token_nats") and getattr(model, "mode", "") != "masked"


@torch.inference_mode()
def piece_nats(model: Chain, corpus: Corpus, split: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """(number of the piece (N,), nats of the whole piece with its end (N,) float64), the pieces in their order."""
    numbers, nats = [], []
    for batch, counted in corpus.sliding(split, limit=limit):
        numbers.append(batch.index)
        nats.append((model.token_nats(batch).double() * counted).sum(1))
    pieces, place = torch.cat(numbers).unique(return_inverse=True)
    return pieces, torch.zeros(len(pieces), dtype=torch.float64).index_add_(0, place, torch.cat(nats))
