"""Train, validation and test: drawn once, stratified by label, twins never divided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "validation", "test")


def split_groups(
    group: np.ndarray, labels: Sequence[str | None], shares: Sequence[float], seed: int
) -> dict[str, np.ndarray]:
    """group (N,) and a label each -> the numbers of train, validation and test; a group is never divided.

    Stratified: what one label cannot give in whole pieces is carried over to the next. Each label is in train.
    """
    order = np.random.default_rng(seed).permutation(len(group))
    names = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    roots, first, member = np.unique(group, return_index=True, return_inverse=True)
    sizes = np.bincount(member)
    label = np.array([names[x] for x in labels])[first]  # a group goes by the label of its first piece
    place = np.full(len(roots), 0)
    owed = np.zeros(3)
    shuffled = np.unique(member[order], return_index=True)[1].argsort()
    by_label = shuffled[np.argsort(label[shuffled], kind="stable")]
    for part in np.split(by_label, np.flatnonzero(np.diff(label[by_label])) + 1):
        owed += sizes[part].sum() * np.asarray(shares)
        _deal(part, sizes, place, owed)
    _fill_empty(place, sizes)
    return {name: np.flatnonzero(place[member] == i) for i, name in enumerate(SPLITS)}


def _deal(part: np.ndarray, sizes: np.ndarray, place: np.ndarray, owed: np.ndarray) -> None:
    """Groups of one label to validation and test as far as they are owed, the rest (and the first) to train."""
    free = part[1:]
    for split in (1, 2):
        fits = free[sizes[free] <= owed[split] + 0.5]
        taken = fits[np.cumsum(sizes[fits]) <= owed[split] + 0.5]
        place[taken] = split
        owed[split] -= sizes[taken].sum()
        free = free[place[free] == 0]
    owed[0] -= sizes[part[place[part] == 0]].sum()


def _fill_empty(place: np.ndarray, sizes: np.ndarray) -> None:
    """Tiny corpora: validation and test get the smallest group of train each."""
    for split in (2, 1):
        train = np.flatnonzero(place == 0)
        if not (place == split).any() and len(train) > 1:
            place[train[np.argmin(sizes[train])]] = split
