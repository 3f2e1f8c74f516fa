"""Ladders of harm: five steps of blur, noise and dropped digits, on which every figure that theory says must move has to move one way.

A figure is monotone on a ladder where no step goes the wrong way by more than chance (the interval of the step from paired resamples lies
wholly on the wrong side of 0) and the way from the first to the last goes the right way by more than chance. Which figures must move, and
where to, is the table MUST, written before measuring: under blur precision and density may rise, for the mean of many pieces lies among
them; noise may raise Vendi and recall, whose balls grow; dropped kinds touch neither precision nor density.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from auditing.measures import HELD, TRAIN, blurred, corpus_of, mnist, tensor
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import Untrained, judge_of
from maquette.finding import interval
from maquette.metrics.diversity import covered, recalled
from maquette.metrics.fidelity import (
    WIDEST,
    K,
    crowd,
    discrepancy,
    extrapolated,
    frechet,
    gaussian,
    kernels,
)
from maquette.metrics.kinds import MEMBERS, MOST, assigned, centres, lost
from maquette.metrics.vendi import vendi
from maquette.verbs.audit import embed

STEPS, SHOWN = 5, 1_000  # steps of a ladder, pictures on each
DRAWS, DEAR = 100, 40  # resamples; of the extrapolated distance
UP, DOWN = 1, -1
MUST = {
    "blur": {"FD": UP, "FD extrapolated": UP, "KID": UP, "recall": DOWN, "coverage": DOWN, "Vendi": DOWN},
    "noise": {"FD": UP, "FD extrapolated": UP, "KID": UP, "precision": DOWN, "density": DOWN, "coverage": DOWN},
    "dropped": {
        "FD": UP,
        "FD extrapolated": UP,
        "KID": UP,
        "recall": DOWN,
        "coverage": DOWN,
        "Vendi": DOWN,
        "lost kinds": UP,
    },
}


@dataclass(frozen=True)
class Scene:
    """One space of one ladder: rungs [(SHOWN, D)], which picture of the pool each row is, held-out and training features."""

    rungs: list[Tensor]
    numbers: list[Tensor]
    test: Tensor
    train: Tensor
    drawn: Tensor  # (DRAWS, pool): how often each picture of the pool is drawn, the same on every rung
    held: Tensor  # (DRAWS, M): the same of the held-out ones


Values = tuple[Tensor, Tensor]  # (rungs,) measured, (draws, rungs) in resamples


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    with tempfile.TemporaryDirectory() as place:
        pictures, digits = mnist(seeds[0])
        corpus = corpus_of(Path(place) / "mnist", pictures[: TRAIN + HELD])
        rows = slice(TRAIN + HELD, TRAIN + HELD + 8_000)
        return ladders(corpus, tensor(pictures[rows]), digits[rows], seeds[0])


def ladders(corpus: Corpus, pool: Tensor, digits: Tensor, seed: int) -> dict[str, Any]:
    """The share of (ladder, figure, space) that are monotone, and the share that are so without any forgiveness; the others by name."""
    wrong, strict, count, values = [], 0, 0, {}
    for name, must in MUST.items():
        for space, scene in scenes(corpus, pool, digits, name, seed).items():
            for figure, (measured, drawn) in figures(scene, seed).items():
                values[f"{name}, {figure} in {space}"] = [round(float(v), 4) for v in measured]
                if figure in must:
                    count += 1
                    strict += bool((measured.diff() * must[figure] >= 0).all())
                    why = fault(measured, drawn, must[figure])
                    wrong += [f"{name}, {figure} in {space}: {why}"] if why else []
    shares = {"ladders_monotone": round(1 - len(wrong) / count, 4), "ladders_strict": round(strict / count, 4)}
    return {**shares, "ladders_counted": count, "ladders_not_monotone": wrong, "ladders": values}


def fault(measured: Tensor, drawn: Tensor, way: int) -> str:
    """(rungs,), (draws, rungs) -> what is wrong with it, in words; "" where nothing is."""
    for k, (a, b) in enumerate(pairwise(range(len(measured)))):
        low, high = between(measured, drawn, a, b)
        if (high if way == UP else -low) < 0:
            return f"step {k + 1} goes the wrong way"
    low, high = between(measured, drawn, 0, len(measured) - 1)
    return "" if (low if way == UP else -high) > 0 else "the whole way is no more than chance"


def between(measured: Tensor, drawn: Tensor, a: int, b: int) -> tuple[float, float]:
    """The interval of the step from rung a to rung b; the bias that redrawing adds is taken off."""
    step = drawn[:, b] - drawn[:, a]
    return interval(step - step.mean() + measured[b] - measured[a])


def scenes(corpus: Corpus, pool: Tensor, digits: Tensor, name: str, seed: int) -> dict[str, Scene]:
    spaces = {"judge": judge_of(corpus).judge, "pixels": Untrained(corpus.spec.space)}
    test, train = (embed(spaces, iter([corpus.tensor(split, SHOWN).x])) for split in ("test", "train"))
    climbed = list(rungs(name, pool, digits, seed))
    made = [embed(spaces, iter([x])) for x, _ in climbed]
    chance = np.random.default_rng(seed)
    drawn, held = (torch.from_numpy(chance.poisson(1.0, (DRAWS, n))).double() for n in (len(pool), SHOWN))
    numbers = [n for _, n in climbed]
    return {s: Scene([m[s] for m in made], numbers, test[s], train[s], drawn, held) for s in spaces}


def rungs(name: str, pool: Tensor, digits: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The unharmed and five steps of growing harm: `SHOWN` pictures each, and their numbers in the pool."""
    noise = torch.randn(SHOWN, *pool.shape[1:], generator=torch.Generator().manual_seed(seed))
    first = torch.arange(SHOWN)
    for step in range(STEPS + 1):
        if name == "blur":
            yield blurred(pool[:SHOWN], 0.6 * step), first
        elif name == "noise":
            yield (pool[:SHOWN] + 0.15 * step * noise).clamp(-1, 1), first
        else:
            kept = (digits < (10, 8, 6, 4, 3, 2)[step]).nonzero().flatten()[:SHOWN]
            yield pool[kept], kept


# ---- each figure on every rung, measured and in resamples


def figures(s: Scene, seed: int) -> dict[str, Values]:
    found = {
        "FD": by_rung(s, lambda x, u, v: torch.tensor([_distance(x, s.test, *w) for w in zip(u, v, strict=True)])),
        "KID": by_rung(s, lambda x, u, v: discrepancy(*kernels(x, s.test), u, v)),
        "precision": by_rung(s, lambda x, u, v: _mean(crowd(x, s.test) > 0, u)),
        "density": by_rung(s, lambda x, u, v: _mean(crowd(x, s.test) / K, u)),
        "recall": by_rung(s, lambda x, u, v: _mean(recalled(x, s.test), v)),
        "coverage": by_rung(s, lambda x, u, v: _mean(covered(x, s.test), v)),
        "Vendi": by_rung(s, lambda x, u, v: torch.tensor([vendi(x - s.train.mean(0), w) for w in u])),
        "lost kinds": _lost(s, seed),
    }
    return found | ({"FD extrapolated": _extrapolated(s, seed)} if s.test.shape[1] <= WIDEST else {})


def by_rung(s: Scene, value: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Values:
    """value(rows, weights (R, N) of rows, weights (R, M) of held-out ones) -> (R,). Weights of 1 give what is measured."""
    ones = torch.ones(1, SHOWN).double()
    measured = torch.cat([value(x, ones, ones).double() for x in s.rungs])
    drawn = [value(x, s.drawn[:, n], s.held).double() for x, n in zip(s.rungs, s.numbers, strict=True)]
    return measured, torch.stack(drawn, 1)


def _distance(x: Tensor, test: Tensor, u: Tensor, v: Tensor) -> float:
    return frechet(gaussian(x, u), gaussian(test, v))


def _mean(scores: Tensor, weights: Tensor) -> Tensor:
    return weights @ scores.double() / weights.sum(1)


def _lost(s: Scene, seed: int) -> Values:
    middle = centres(s.train.double(), min(MOST, len(s.train) // MEMBERS), seed)
    real = assigned(s.train.double(), middle).bincount(minlength=len(middle))

    def value(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(assigned(x.double(), middle), len(middle)).double()
        return torch.stack([lost(c.round().long(), real).sum() for c in u @ one_hot])

    return by_rung(s, value)


def _extrapolated(s: Scene, seed: int) -> Values:
    """Parts cannot be weighted, so rows are drawn; on the ladders of blur and noise the same ones of each rung."""
    chance = torch.Generator().manual_seed(seed)
    picks = [[torch.randint(SHOWN, (SHOWN,), generator=chance) for _ in range(2)] for _ in range(DEAR)]
    measured = torch.tensor([extrapolated(x, s.test) for x in s.rungs])
    drawn = torch.tensor([[extrapolated(x[a], s.test[b]) for x in s.rungs] for a, b in picks])
    return measured.double(), drawn.double()
