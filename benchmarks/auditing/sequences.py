"""Texts and music as features: a perfect generator, and ladders of harm, on Tang poems and Bach's chorales, by the audit's own reader and by
untrained n-grams.

poems     5,000 poems, 2,100 of which train; held-out ones stand for generated and for held-out ones alike
chorales  382 chorales in sixteenths, 44 / 28 / 28

tokens    a share of the tokens is replaced by others of the corpus
moved     a share of the tokens of a piece change places with each other
dropped   of five kinds (poems: of how many characters a line has and how long they are; chorales: how many notes begin) ever fewer are made

Which figures must move, and where to, is MUST. One is monotone on a ladder where no step goes the wrong way by more than 5 % of the whole way
and the whole way goes the right way. Replaced tokens may raise recall and Vendi as noise does. A first ladder was given up when it was seen:
stretches of ever fewer tokens in another order, which are not ever farther from a piece.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from auditing.passages import chorales, poems, taken
from torch import Tensor

from maquette import catalog
from maquette.copying import c_t
from maquette.corpus import Corpus
from maquette.metrics.diversity import covered, recalled
from maquette.metrics.fidelity import crowd, frechet_distance, kid
from maquette.metrics.vendi import vendi
from maquette.neighbours import distinct
from maquette.piece import Piece
from maquette.verbs.sensing import Spaces, nearest, sense, spaces_of

DRAWS, LIMIT = 100, 2  # draws of a perfect generator, of |C_T|
SHARE = 0.9  # of its floor, that precision and coverage of a perfect generator have to reach
LOST = "the whole way is no way"
SLACK = 0.05  # of the whole way, that a step may go back
UP, DOWN = 1, -1
WORSE = {"Frechet distance": UP, "KID": UP, "precision": DOWN, "coverage": DOWN}
MUST = {
    "tokens": WORSE,
    "moved": WORSE,
    "dropped": {"Frechet distance": UP, "KID": UP, "recall": DOWN, "coverage": DOWN, "Vendi score": DOWN},
}
STEPS = (0.0, 0.05, 0.1, 0.2, 0.4)  # share of tokens replaced or moved
SHOWN = {"poems": 400, "chorales": 45}  # pieces on a rung
Rows = dict[str, Tensor]


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("poems", poems), ("chorales", chorales)):
            found[name] = one(name, make(Path(folder) / name, seeds[0]), seeds[0])
    return {"sequences": found, **told(found)}


def told(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same in a few figures: the worst over corpora and spaces, and the shares of (ladder, figure, space)."""
    count = sum(len(row["ladders"]) for row in found.values())
    wrong = [f"{name}, {f}" for name, row in found.items() for f in row["not_monotone"]]
    return {
        "sequences_perfect_within": min(min(row["perfect_within"].values()) for row in found.values()),
        "sequences_perfect_gates_failed": sum(len(row["perfect_gates_failed"]) for row in found.values()),
        "sequences_seconds": max(row["seconds_of_judge"] + row["seconds"] for row in found.values()),
        "sequences_counted": count,
        "sequences_monotone": round(1 - len(wrong) / count, 4),
        "sequences_whole_way": round(1 - sum(LOST in f for f in wrong) / count, 4),
        "sequences_not_monotone": wrong,
    }


def one(name: str, corpus: Corpus, seed: int) -> dict[str, Any]:
    modality, begun = catalog.modality(corpus.facts["modality"]), time.process_time()
    spaces = spaces_of(corpus, modality)
    trained = time.process_time() - begun
    pool, held = taken(corpus, modality, "validation", 900), taken(corpus, modality, "test", 1_000)
    begun = time.process_time()
    whole = sense(pool[:200], corpus, modality, judge=spaces.judge, seed=seed)
    seconds = time.process_time() - begun
    gates = [
        f"{f.name} in {f.space}: {f.value:.3g} of {f.reference:.3g}"
        for f in whole.findings
        if f.name in ("precision", "coverage") and f.value < SHARE * f.reference
    ]
    values = ladders(name, spaces, pool, held, seed)
    wrong = [f"{f}: {why}" for f, (row, way) in values.items() if (why := fault(row, way))]
    return {
        "seconds_of_judge": round(trained, 1),
        "seconds": round(seconds, 1),
        "perfect_within": within(spaces, corpus, pool, held, seed),
        "perfect_gates_failed": gates,
        "ladders": {f: [round(v, 4) for v in row] for f, (row, _) in values.items()},
        "not_monotone": wrong,
    }


def within(spaces: Spaces, corpus: Corpus, pool: list[Piece], held: list[Piece], seed: int) -> dict[str, int]:
    """Space -> of `DRAWS` draws of a third of all held-out pieces, how many have a C_T within `LIMIT` beside the others."""
    rows, train = spaces.embed([*pool, *held]), spaces.embed(taken(corpus, spaces.modality, "train", 10_000))
    found, chance = dict.fromkeys(rows, 0), np.random.default_rng(seed)
    for space in rows:
        distance = nearest(rows[space], train[space])[0].numpy()
        for _ in range(DRAWS):
            order = chance.permutation(distance)
            found[space] += abs(c_t(order[: len(order) // 3], order[len(order) // 3 :])) < LIMIT
    return found


# ---- ladders


def ladders(
    name: str, spaces: Spaces, pool: list[Piece], held: list[Piece], seed: int
) -> dict[str, tuple[list[float], int]]:
    """ "harm, figure in space" -> its values on every rung, and the way it must go."""
    test, found = spaces.embed(held), {}
    test = {space: rows[distinct(rows)] for space, rows in test.items()}
    for harm, must in MUST.items():
        made = [spaces.embed(pieces) for pieces in rungs(harm, name, spaces, pool, seed)]
        for space in test:
            rows = [figures(m[space], test[space]) for m in made]
            found |= {f"{harm}, {f} in {space}": ([row[f] for row in rows], way) for f, way in must.items()}
    return found


def figures(made: Tensor, test: Tensor) -> dict[str, float]:
    return {
        "Frechet distance": frechet_distance(made, test),
        "KID": kid(made, test),
        "precision": float((crowd(made, test) > 0).double().mean()),
        "recall": float(recalled(made, test).mean()),
        "coverage": float(covered(made, test).mean()),
        "Vendi score": vendi(made),
    }


def fault(values: Sequence[float], way: int) -> str:
    """What is wrong with the values of a ladder, in words; "" where nothing is.

    >>> fault([1, 2, 1.97, 3], UP), fault([3, 1, 2, 0], DOWN), fault([1, 2, 1], UP)
    ('', 'step 2 goes the wrong way', 'the whole way is no way')
    """
    moved = np.diff(values) * way
    if moved.sum() <= 0:
        return LOST
    wrong = np.flatnonzero(moved < -SLACK * moved.sum())
    return f"step {wrong[0] + 1} goes the wrong way" if len(wrong) else ""


def rungs(harm: str, name: str, spaces: Spaces, pool: list[Piece], seed: int) -> Iterator[list[Piece]]:
    shown, chance = pool[: SHOWN[name]], np.random.default_rng(seed)
    if harm == "dropped":
        kinds = KINDS[name](pool)
        yield from ([p for p, k in zip(pool, kinds, strict=True) if k < kept][: SHOWN[name]] for kept in (5, 4, 3, 2))
        return
    tokens = [spaces.modality.to_tensor(piece).numpy()[: spaces.length] for piece in shown]
    others = np.concatenate(tokens)
    change = replaced if harm == "tokens" else moved
    for step in STEPS:
        yield [spaces.modality.to_piece(torch.from_numpy(change(row, step, others, chance))) for row in tokens]


def replaced(row: np.ndarray, share: float, others: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return np.where(chance.random(len(row)) < share, chance.choice(others, len(row)), row)


def moved(row: np.ndarray, share: float, others: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    row, places = row.copy(), np.flatnonzero(chance.random(len(row)) < share)
    row[places] = row[chance.permutation(places)]
    return row


def by_line(pool: list[Piece]) -> np.ndarray:
    """Of poems: five parts of as many, ordered by characters of the first line and then of all."""
    return fifths([(len(p.content.split("\n")[0]), len(p.content)) for p in pool])


def by_notes(pool: list[Piece]) -> np.ndarray:
    """Of chorales: the same, ordered by notes a step."""
    return fifths([len(p.content.notes) / p.content.steps for p in pool])


def fifths(keys: Sequence[Any]) -> np.ndarray:
    found = np.empty(len(keys), np.int64)
    found[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys)) * 5 // len(keys)
    return found


KINDS: dict[str, Callable[[list[Piece]], np.ndarray]] = {"poems": by_line, "chorales": by_notes}
