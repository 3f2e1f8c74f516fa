"""What a model of sequences knows by heart: pieces that it completes from their first tokens (Carlini et al. 2023, arXiv:2202.07646), and
how far planted canaries stand out among what might have stood in their place (Carlini et al. 2019, The Secret Sharer, arXiv:1802.08232)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.copying import exact_interval
from maquette.corpus import Corpus
from maquette.errors import UsageError
from maquette.finding import Finding, mean_interval
from maquette.likelihood import is_chain
from maquette.piece import Modality, Piece
from maquette.run import Sampler
from maquette.space import Batch, DataSpec, SampleRequest
from maquette.verbs.passages import spread

BEGUN = 100  # pieces of each split that the model is to complete, at most
GIVEN = 50  # tokens that it is given, and as many that it must foretell; half of a usual piece where that is shorter
SHORTEST = 8  # tokens: to foretell fewer says nothing
ALTERNATIVES = 1023  # to each canary: an exposure of at most 10 bits
RARE = 0.01  # a canary among this share of the likeliest is exposed
ROWS = 64  # sequences at once


# ---- pieces that it completes


def extracted(sampler: Sampler, corpus: Corpus) -> list[Finding]:
    """The share of training pieces that are completed verbatim, beside that of test pieces; [] where the model writes in no order, or
    pieces are too short."""
    k = given(corpus)
    if not is_chain(sampler.model) or sampler.codec or k < SHORTEST:
        return []
    known, held = (completed(sampler, corpus, split, k) for split in ("train", "test"))
    if not len(known):
        return []
    count, n, other = int((known >= k).sum()), len(known), int((held >= k).sum())
    beside = f" (in {other} of {len(held)} held-out ones)" if len(held) else ""
    sentence = (
        f"Given the first {k} tokens the model goes on verbatim for {k} more in {count} of {n} training pieces{beside}. Only what it "
        "holds for likeliest was tried: other draws and longer beginnings bring out more."
    )
    reference = other / len(held) if len(held) else None
    low, high = exact_interval(count, n)
    return [Finding("completed by heart", "train split", count / n, low, high, reference, n, "lower", sentence)]


def given(corpus: Corpus) -> int:
    """Tokens that the model is given."""
    some = spread(corpus.numbers("train"), 4 * BEGUN)
    usual = float(np.median([_size(corpus, i) for i in some])) if len(some) else 0
    return int(min(GIVEN, usual // 2, corpus.spec.space.shape[0] // 2))


def completed(sampler: Sampler, corpus: Corpus, split: str, k: int) -> np.ndarray:
    """(n,) how many tokens of pieces of a split are foretold in a row after the first k, each the likeliest; their conditions known."""
    long = [i for i in spread(corpus.numbers(split), 4 * BEGUN) if _size(corpus, i) >= 2 * k]
    numbers = spread(np.array(long, np.int64), BEGUN)
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(numbers), ROWS):
        rows = numbers[start : start + ROWS]
        x = torch.cat([corpus.take(rows[j : j + 1]).x[:, : 2 * k] for j in range(len(rows))])
        keep = (torch.arange(2 * k) < k).expand(x.shape)
        seeds, told = tuple(range(len(rows))), corpus.take(rows).condition
        made = sampler.sample(SampleRequest(seeds, told, x, keep, top_k=1, length=2 * k))
        found.append(agreed(made[:, k:], x[:, k:]).numpy())
    return np.concatenate(found)


def agreed(made: Tensor, true: Tensor) -> Tensor:
    """(B, a), (B, b) -> (B,) the first tokens that are the same.

    >>> agreed(torch.tensor([[1, 2, 3], [1, 5, 3]]), torch.tensor([[1, 2, 4, 4], [1, 2, 3, 4]])).tolist()
    [2, 1]
    """
    n = min(made.shape[1], true.shape[1])
    return (made[:, :n] == true[:, :n]).cumprod(1).sum(1)


def _size(corpus: Corpus, number: int) -> int:
    return corpus.tokens_in(np.array([number])) - 1


# ---- canaries


@dataclass(frozen=True)
class Canary:
    """number: in its file, from 1; rank: 1 where it is likelier than all alternatives; of: it and they; exposure: bits."""

    number: int
    rank: int
    of: int
    exposure: float


def exposed(model: Any, spec: DataSpec, modality: Modality, path: Path, seed: int) -> list[Canary]:
    """Each canary of a file among its alternatives. Raises UsageError where the model tells no likelihoods or a canary is too long."""
    if not is_chain(model):
        raise UsageError("canaries are ranked by likelihood, and this model says of no sequence how likely it is")
    found = []
    for number, pieces in enumerate(modality.canaries(path, ALTERNATIVES, seed), 1):
        fair(modality, pieces, number)
        nats = likelihoods(model, spec, modality, pieces)
        rank = int((nats <= nats[0]).sum())  # what is as likely counts against it
        found.append(Canary(number, rank, len(nats), log2(len(nats) / rank)))
    return found


def fair(modality: Modality, pieces: Sequence[Piece], number: int) -> None:
    """Raise UsageError where a canary or an alternative holds what has no token: those would all be one to the model."""
    if modality.unknown >= 0 and any(bool((modality.to_tensor(p) == modality.unknown).any()) for p in pieces):
        raise UsageError(
            f"canary {number}, or what chance might have put in its place, has characters that stand in no training piece, so they cannot be "
            "told apart; prepare the corpus with --set tokens=bytes"
        )


@torch.inference_mode()
def likelihoods(model: Any, spec: DataSpec, modality: Modality, pieces: Sequence[Piece]) -> Tensor:
    """Nats (n,) of whole pieces, nothing told of them."""
    rows = [modality.to_tensor(p) for p in pieces]
    longest, most = max(map(len, rows)) + 1, spec.space.shape[0]
    if longest > most:
        raise UsageError(f"a canary has at most {most - 1} tokens, which the model sees at once; {longest - 1} came")
    x = torch.full((len(rows), longest), spec.space.end)
    for row, tokens in zip(x, rows, strict=True):
        row[: len(tokens)] = tokens
    told = None if spec.condition is None else torch.full((len(x), spec.condition.width), float("nan"))
    batches = [Batch(x[k : k + ROWS], None if told is None else told[k : k + ROWS]) for k in range(0, len(x), ROWS)]
    return torch.cat([model.token_nats(b).double().sum(1) for b in batches])


def findings(canaries: Sequence[Canary]) -> list[Finding]:
    """How many stand out, beside chance, and the mean exposure beside that of the alternatives; [] without canaries."""
    if not canaries:
        return []
    n, count = len(canaries), sum(c.rank <= RARE * c.of for c in canaries)
    exposure = torch.tensor([c.exposure for c in canaries], dtype=torch.float64)
    value, chance = float(exposure.mean()), float(np.mean([by_chance(c.of) for c in canaries]))
    words = f"{count} of {n} canaries are among the likeliest {RARE:.0%} of what might have stood in their place"
    bits = (
        f"Canaries are exposed by {value:.1f} bits on average, never-seen ones by {chance:.1f}, at most "
        f"{log2(max(c.of for c in canaries)):.0f} could be seen"
    )
    alone = "" if n > 1 else "; one canary gives no interval"
    low, high = mean_interval(exposure, 0)
    share = Finding("canaries exposed", "canaries", count / n, *exact_interval(count, n), RARE, n, "lower", f"{words}.")
    mean = Finding("exposure of canaries", "canaries", value, low, high, chance, n, "lower", f"{bits}{alone}.")
    return [share, mean]


def by_chance(n: int) -> float:
    """The exposure to expect of what was never seen, in bits: the mean over all ranks.

    >>> round(by_chance(1024), 2)
    1.44
    """
    return float(np.log2(n / np.arange(1, n + 1)).mean())


def to_json(canaries: Sequence[Canary]) -> dict[str, Any]:
    return {"canaries": [asdict(c) for c in canaries]} if canaries else {}
