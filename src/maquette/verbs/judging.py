"""The figure a study is judged by: taken on the validation split alone, smaller is better, the same for every trial.

Sequences  nats a token, exact: what the model pays for each token of the validation split.
Grids      how many times as far as real pieces the made ones are from the validation split: the Frechet distance over that of as many
           training pieces (so that the bias of few pieces falls out), in the judge's features and in pixels, and of both ratios
           the geometric mean. The judge alone is deaf to noise, pixels to nearly all else, and a mean of logarithms lets neither buy
           off the other by its scale. KID, which is unbiased, crosses zero near the goal and has no logarithm.
All else   the loss on the validation split (pretext tasks, heads, codecs alone).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import CorpusError
from maquette.features import BATCH, Pixels, judge_of
from maquette.likelihood import is_chain, piece_nats
from maquette.loop import TrainState, pick_device, seed_everything
from maquette.metrics.fidelity import frechet_distance
from maquette.recipe import Recipe, settle
from maquette.run import Run, Sampler, identity
from maquette.space import GenerativeModel, Model, SampleRequest
from maquette.verbs.audit import CHUNK, FEWEST, as_written, embed
from maquette.verbs.train import has_partner

REAL = 2_000  # pieces of the validation split that are compared with at most
MADE = (2 * CHUNK, 16 * CHUNK)  # pieces that are made for a figure: fewest and most
TOKENS = 100_000  # of the validation split that are foretold at most, about
SHARE = 0.05  # of the time of a trial that one figure may cost


class Yardstick(Protocol):
    """words: what the figure says; `of(model, run)` takes it of a model that is ready to sample."""

    words: str

    def of(self, model: Any, run: Run) -> float: ...


def yardstick(corpus: Corpus, recipe: Recipe, samples: Callable[[Callable[[], int]], int]) -> Yardstick:
    """The figure that fits this corpus and model. samples: keeps a number of pieces once it is found, see Likeness.

    Raises CorpusError where too little is held out to judge by.
    """
    name = judged_stage(recipe)
    kind, space = catalog.trainable(name), corpus.spec.space
    mode = settle(recipe).settings_of(name).get("mode")
    grid = space.kind == "grid" and issubclass(kind, GenerativeModel)
    least = FEWEST if grid else 1
    if corpus.size("validation") < least:
        raise CorpusError(
            f"{corpus.path} holds {corpus.size('validation')} pieces out for validation, and tuning judges by at least {least}; "
            "prepare a larger corpus, or give validation more with --split"
        )
    if grid:
        return Likeness(corpus, samples)
    if space.ragged and hasattr(kind, "token_nats") and mode != "masked":
        return Likelihood(corpus)
    return Loss(corpus)


def judged_stage(recipe: Recipe) -> str:
    """The model that is looked at on its way: the last of a pair, the first of partners."""
    return recipe.stages[0] if has_partner(recipe) else recipe.stages[-1]


@dataclass(frozen=True)
class Likelihood:
    corpus: Corpus
    words = "nats a token on the validation split, exact"

    def of(self, model: Any, run: Run) -> float:
        assert is_chain(model)
        pieces = self.corpus.size("validation")
        limit = max(1, min(pieces, round(TOKENS * pieces / max(1, self.corpus.tokens_of("validation")))))
        numbers, nats = piece_nats(model, self.corpus, "validation", limit)
        return float(nats.sum()) / self.corpus.tokens_in(numbers.numpy())


@dataclass(frozen=True)
class Loss:
    corpus: Corpus
    words = "loss on the validation split"

    @torch.no_grad()
    def of(self, model: Any, run: Run) -> float:
        total = count = 0.0
        seed_everything(0, 0, 0)
        for batch in self.corpus.once("validation", BATCH // 4, 16 * BATCH):
            total += len(batch) * float(model.loss(batch.to(model.device), model.phases[-1].name, 1.0).total)
            count += len(batch)
        return total / count


class Likeness:
    """samples: `samples(find)` gives the number of pieces of this study: every figure needs the same, for the Frechet distance of
    few pieces is biased; `find()` measures how many the time allows, and is asked once."""

    words = (
        "times as far from the validation split as real pieces are (Frechet distance; judge and pixels, geometric mean)"
    )

    def __init__(self, corpus: Corpus, samples: Callable[[Callable[[], int]], int]):
        self.corpus, self.samples = corpus, samples
        self.modality = catalog.modality(corpus.facts["modality"])
        self.spaces = {"judge": judge_of(corpus).judge, "pixels": Pixels(corpus.spec.space)}
        self.real = embed(self.spaces, (b.x for b in corpus.once("validation", BATCH, REAL)))
        self.seconds = 0.0  # of the training of a trial; 0: not known

    def of(self, model: Any, run: Run) -> float:
        sampler = Sampler(model, run.codec.load_model(str(model.device)) if run.codec else None)  # type: ignore[arg-type]
        n = self.samples(lambda: self._affordable(sampler, run))
        made = embed(self.spaces, self._made(sampler, run, n).split(BATCH))
        floors = self._floors(n)
        logs = [math.log(max(frechet_distance(made[s], self.real[s]), 1e-12) / floors[s]) for s in self.spaces]
        return math.exp(sum(logs) / len(logs))

    def _made(self, sampler: Sampler, run: Run, n: int) -> Tensor:
        seeds = [tuple(range(i, min(i + CHUNK, n))) for i in range(0, n, CHUNK)]
        made = [sampler.sample(SampleRequest(s, run.usual_condition(s))) for s in seeds]
        return as_written(torch.cat(made), self.modality)

    def _affordable(self, sampler: Sampler, run: Run) -> int:
        """As many as cost a twentieth of a trial, and no more than can be compared with as many training pieces."""
        start = time.monotonic()
        self._made(sampler, run, CHUNK)
        chunks = SHARE * self.seconds / max(1e-6, time.monotonic() - start)
        return min(self.corpus.size("train"), max(MADE[0], min(MADE[1], CHUNK * int(chunks))))

    def _floors(self, n: int) -> dict[str, float]:
        if n not in self._floor:
            train = embed(self.spaces, (b.x for b in self.corpus.once("train", BATCH, n)))
            self._floor[n] = {s: max(frechet_distance(train[s], self.real[s]), 1e-12) for s in self.spaces}
        return self._floor[n]

    @cached_property
    def _floor(self) -> dict[int, dict[str, float]]:
        return {}


def on_its_way(now: TrainState, corpus: Corpus, run: Run) -> Model:
    """The averaged weights as they would be kept now; the training itself is not touched."""
    model = copy.deepcopy(now.averaged)
    seen = Corpus.open(codes_of(corpus, run)) if run.facts.get("codec") else corpus
    seed_everything(now.plan.seed, now.step, 0)
    with torch.no_grad():
        model.conclude(lambda: seen.once("train", limit=now.model.concluded_on))
    return model.eval().requires_grad_(False)


def at_its_end(run: Run) -> Any:
    """The model of a finished run as its pieces are made with."""
    device = pick_device("auto")
    model = run.load_model(device)
    return run.partners(model) if run.partner else model


def codes_of(corpus: Corpus, run: Run) -> Path:
    """Where training put the corpus in the codes of this run's codec."""
    return corpus.path.with_name(f"{corpus.path.name}.codes") / identity(run.codec)  # type: ignore[arg-type]
