"""How much features know of labels that they never saw: a linear probe (Alain & Bengio 2017, arXiv:1610.01644) and weighted nearest
neighbours (Wu 2018, arXiv:1805.01978). What either is free to choose is chosen on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maquette.features import Task, labels_of, posed
from maquette.space import Embedder

MEMBERS = 10  # of a label in the train split, for it to count
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  # weights of the squared length of the probe
NEIGHBOURS = (1, 5, 10, 20)
SHARPNESS = 0.07  # temperature of the neighbours' votes
ITERATIONS = 100  # of LBFGS
CHUNK = 512


@dataclass(frozen=True)
class Labelled:
    """features (N, D) and labels (N,) in 0..classes - 1"""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Probed:
    """Shares of right answers, and what was chosen for them on the validation split."""

    linear: float
    knn: float
    decay: float
    neighbours: int


def probe(embedder: Embedder, corpus: Any, judged: str = "validation", limit: int | None = None) -> Probed | None:
    """Features of the train split, answers about the `judged` one; None where there are no labels. limit: most pieces of either."""
    question = labels_of(corpus, MEMBERS)
    if question is None or not corpus.size("validation") or not corpus.size(judged):
        return None
    train, validation = (gather(embedder, corpus, split, question, limit) for split in ("train", "validation"))
    return compare(
        train, validation, validation if judged == "validation" else gather(embedder, corpus, judged, question, limit)
    )


def compare(train: Labelled, validation: Labelled, judged: Labelled) -> Probed:
    """Both figures of features that were gathered before; standardised by the train split."""
    train, validation, judged = standardised(train, validation, judged)
    decay, linear = linear_probe(train, validation, judged)
    neighbours, near = knn(train, validation, judged)
    return Probed(linear, near, decay, neighbours)


@torch.no_grad()
def gather(embedder: Embedder, corpus: Any, split: str, question: Task, limit: int | None = None) -> Labelled:
    """The features of a split, of the pieces whose label counts."""
    rows, labels = [], []
    device = getattr(embedder, "device", torch.device("cpu"))
    for batch in corpus.once(split, limit=limit):
        target = posed(batch, question)[1]
        known = target >= 0
        if bool(known.any()):
            rows.append(embedder.embed(batch.x[known].to(device)).cpu().float())
            labels.append(target[known])
    return Labelled(torch.cat(rows), torch.cat(labels)) if rows else Labelled(torch.zeros(0, 1), torch.zeros(0).long())


def standardised(train: Labelled, *others: Labelled) -> list[Labelled]:
    """Mean 0 and deviation 1 by the train split; what does not vary there is left out."""
    mean, std = train.features.mean(0), train.features.std(0)
    alive = std > 1e-6
    return [Labelled(((one.features - mean) / std)[:, alive], one.labels) for one in (train, *others)]


def linear_probe(train: Labelled, validation: Labelled, judged: Labelled) -> tuple[float, float]:
    """(decay chosen on the validation split, share of right answers about `judged`): multinomial logistic regression by LBFGS."""
    decay, weights = best_probe(train, validation)
    return decay, right(answers(judged, weights), judged)


def best_probe(train: Labelled, validation: Labelled) -> tuple[float, Tensor]:
    """(decay, weights (D + 1, classes)) of most right answers about the validation split."""
    found = []
    start = torch.zeros(train.features.shape[1] + 1, int(train.labels.max()) + 1)
    for decay in sorted(DECAYS, reverse=True):  # each from the one before: the way is short
        start = fitted(train, decay, start)
        found.append((right(answers(validation, start), validation), decay, start))
    return max(found, key=lambda f: f[0])[1:]


def fitted(train: Labelled, decay: float, start: Tensor) -> Tensor:
    """(D + 1, classes): weights and, in the last row, biases"""
    weights = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([weights], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = torch.addmm(weights[-1], train.features, weights[:-1])
        loss = F.cross_entropy(logits, train.labels) + decay / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    return weights.detach()


def answers(asked: Labelled, weights: Tensor) -> Tensor:
    return torch.addmm(weights[-1], asked.features, weights[:-1]).argmax(1)


def right(answer: Tensor, asked: Labelled) -> float:
    return float((answer == asked.labels).double().mean())


def knn(train: Labelled, validation: Labelled, judged: Labelled) -> tuple[int, float]:
    """(neighbours chosen on the validation split, share of right answers about `judged`): votes weighted by the cosine."""
    chosen = {k: right(voted(train, validation, k), validation) for k in _possible(train)}
    best = max(chosen, key=lambda k: chosen[k])
    return best, chosen[best] if judged is validation else right(voted(train, judged, best), judged)


def _possible(train: Labelled) -> list[int]:
    return [k for k in NEIGHBOURS if k <= len(train.labels)]


def voted(train: Labelled, asked: Labelled, k: int) -> Tensor:
    """(N,): the label that the k nearest of the train split vote for

    >>> one = Labelled(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    >>> voted(one, Labelled(torch.tensor([[0.9, 0.2]]), torch.tensor([0])), 1)
    tensor([0])
    """
    known = F.normalize(train.features, dim=1)
    classes, found = int(train.labels.max()) + 1, []
    for part in F.normalize(asked.features, dim=1).split(CHUNK):
        near, which = (part @ known.T).topk(k, 1)
        votes = torch.zeros(len(part), classes).scatter_add_(1, train.labels[which], ((near - 1) / SHARPNESS).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)
