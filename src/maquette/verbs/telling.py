"""telling: what the judge of an audit says of the labels of pieces, where it was trained on labels."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import BATCH, Judge, Known, Lent, Task, judge_of, labels_of
from maquette.finding import Labels


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
    said, rows = [], []
    for batch in corpus.once("test", BATCH, held):
        said.append(judge.logits(batch.x).argmax(1))
        rows.append(batch.condition)
    return labels_beside(judge.task, corpus, told, asked, torch.cat(said), torch.cat(rows)) if rows else None


def labels_beside(
    task: Task, corpus: Corpus, told: Tensor, asked: Tensor | None, held_told: Tensor, held: Tensor
) -> Labels | None:
    """told (n,) and held_told (m,): places among the labels of the task; asked (n, condition.width) or None, held (m, condition.width): what they
    should be."""
    field = next(f for f, columns in corpus.spec.condition.slices() if columns.start == task.column)  # type: ignore[union-attr]
    real, train = (_index(rows[:, task.column], task.classes) for rows in (held, corpus.conditions("train")))  # type: ignore[index]
    known = real >= 0
    if not bool(known.any()):
        return None
    counts = train[train >= 0].bincount(minlength=len(task.classes)).double()
    names = tuple(field.values[c] for c in task.classes)
    wanted = None if asked is None else _index(asked[:, task.column], task.classes)
    return Labels(names, told, wanted, held_told[known], real[known], counts / counts.sum())


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
