"""telling: what the judge of an audit says of the labels of pieces, where it was trained on labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import BATCH, Judge, Known, Lent, Task, judge_of, labels_of, posed
from maquette.finding import Labels, wilson
from maquette.probing import Labelled, answers, best_probe, standardised

FEW = "too few held-out pieces are labelled: nothing can be told of representation and consistency"
UNSURE = "labels can hardly be told better than by chance, so nothing is said of representation and consistency"


def teller_of(known: Known | Lent, corpus: Corpus) -> Judge | None:
    """A judge that tells the labels of a corpus: the one at hand, else the audit's own; None where there are no labels to learn."""
    if isinstance(known, Known):
        return known.judge if known.judge.task.name == "labels" else None
    return judge_of(corpus).judge if labels_of(corpus) else None


@torch.inference_mode()
def labels_told(judge: Judge, generated: Tensor, asked: Tensor | None, corpus: Corpus, held: int) -> Labels | None:
    """generated (n, *space.shape); asked (n, condition.width) or None; held: pieces of the test split that are looked at. None where no held-out
    piece has one of the labels: then nobody knows how far the judge can be trusted."""
    told = torch.cat([judge.logits(x.float()).argmax(1) for x in generated.split(BATCH)])
    real, said = [], []
    for batch in corpus.once("test", BATCH, held):
        target = posed(batch, judge.task)[1]
        real.append(target[target >= 0])
        said.append(judge.logits(batch.x[target >= 0]).argmax(1))
    return (
        labels_beside(judge.task, corpus, told, asked, torch.cat(said), torch.cat(real))
        if sum(map(len, real))
        else None
    )


def labels_beside(
    task: Task, corpus: Corpus, told: Tensor, asked: Tensor | None, held_told: Tensor, held: Tensor
) -> Labels:
    """told (n,), held_told (m,), held (m,): places among the labels of the task; asked (n, condition.width): what was asked for."""
    field = next(f for f, columns in corpus.spec.condition.slices() if columns.start == task.column)  # type: ignore[union-attr]
    train = _index(corpus.conditions("train")[:, task.column], task.classes)  # type: ignore[index]
    counts = train[train >= 0].bincount(minlength=len(task.classes)).double()
    names = tuple(field.values[c] for c in task.classes)
    wanted = None if asked is None else _index(asked[:, task.column], task.classes)
    return Labels(names, told, wanted, held_told, held, counts / counts.sum())


def _index(values: Tensor, classes: tuple[int, ...]) -> Tensor:
    """(n,) numbers of labels, NaN where unknown -> (n,) places among `classes`, -1 for any other."""
    found = torch.full((len(values),), -1)
    for place, label in enumerate(classes):
        found[values == label] = place
    return found


def unlabelled(corpus: Corpus) -> str | None:
    """Why nothing is told of labels although there are some; None where there are none."""
    counts = corpus.facts.get("labels") or {}
    if len(counts) == 1:
        return (
            f"all pieces carry one label, {next(iter(counts))}: nothing can be told of representation and consistency"
        )
    if counts:
        return "fewer than two labels have ten training pieces: nothing can be told of representation and consistency"
    return None


# ---- where the judge learnt no labels: sequences


def labels_probed(
    features: Mapping[str, Tensor], numbers: Mapping[str, np.ndarray], asked: Tensor | None, corpus: Corpus
) -> Labels | str:
    """What a linear probe says of the labels of the pieces "made", or why nothing is said. features: split -> (n, D); it learns from those of
    "train", chooses its decay on "validation", and "test" tells how often it is right; numbers: of these pieces."""
    task = labels_of(corpus)
    if task is None:
        return unlabelled(corpus) or ""
    if not len(numbers["validation"]):
        return FEW
    known = {split: _labelled(features[split], _rows(corpus, split, k), task) for split, k in numbers.items()}
    if not all(len(one.labels) for one in known.values()):
        return FEW
    made = Labelled(features["made"], torch.zeros(len(features["made"])).long())
    train, validation, test, made = standardised(known["train"], known["validation"], known["test"], made)
    _, weights = best_probe(train, validation)
    found = labels_beside(task, corpus, answers(made, weights), asked, answers(test, weights), test.labels)
    return found if sure(found) else UNSURE


def sure(labels: Labels) -> bool:
    """Whether held-out pieces are told right more often than the commonest label occurs, by more than chance."""
    right = (labels.held_told == labels.held).double()
    return wilson(float(right.mean()), len(right))[0] > float(labels.shares.max())


def _labelled(features: Tensor, rows: Tensor, task: Task) -> Labelled:
    """Those whose label counts. features (n, D), rows (n, condition.width)"""
    labels = _index(rows[:, task.column], task.classes)
    return Labelled(features[labels >= 0], labels[labels >= 0])


def _rows(corpus: Corpus, split: str, numbers: np.ndarray) -> Tensor:
    """The conditions of some pieces of a split."""
    return corpus.conditions(split)[np.searchsorted(corpus.numbers(split), numbers)]  # type: ignore[index]
