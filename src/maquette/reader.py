"""The judge of sequences: a small encoder trained by the tool on a corpus's own train split to foresee hidden tokens from the others (BERT,
Devlin 2019, arXiv:1810.04805). It shares no weights with any generator and is kept beside its corpus, as the judge of grids is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import Known, Task, beside, standardise, threads_kept
from maquette.loop import loop, make_plan
from maquette.pretext.masked import Masked
from maquette.space import Batch, DataSpec, Losses, Model, Phase

WORK = 500_000  # tokens seen in training: about 15 s on one core
TOKENS = 512  # of a step, about
PASSES = 40  # over a small corpus
SURVEYED = 250_000  # tokens by which the features are brought to mean 0 and variance 1


class Reader(Model):
    """tokens (B, n) -> features (B, 48): the mean over a piece of what the encoder holds, each of mean 0 and variance 1 over the train split."""

    name = "judge"
    words = "a small encoder trained on the train split to foresee hidden tokens"
    task = Task("hidden", ())

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.practice = Masked(replace(spec, condition=None), size="tiny")
        self.phases = (Phase("judge", optimiser=self.practice.phases[0].optimiser),)
        self.register_buffer("mean", torch.zeros(self.practice.encoder.width))
        self.register_buffer("std", torch.ones(self.practice.encoder.width))
        self.register_buffer("accuracy", torch.tensor(0.0))  # it answers no question

    def raw(self, x: Tensor) -> Tensor:
        return torch.cat([self.practice.features(part) for part in x.split(256)])

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        return (self.raw(x) - self.mean) / self.std

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        return self.practice.loss(batch, phase, progress)


def reader_of(corpus: Corpus, *, seed: int = 0, work: int = WORK) -> Known:
    """The reader that lies beside the corpus, if it is whole and belongs to it; else a newly trained one, which is then kept."""
    settings = {"seed": seed, "work": work, "version": 1, "reader": "masked, tiny", "tokens": TOKENS, "passes": PASSES}
    return beside(
        corpus, settings, lambda task: Reader(corpus.spec), partial(train_reader, corpus, seed=seed, work=work)
    )


def train_reader(corpus: Corpus, *, seed: int = 0, work: int = WORK) -> Reader:
    """A reader for a corpus of sequences; the same seed gives the same. work: tokens it looks at, which bounds the time."""
    rows = pieces(corpus)
    plan = {
        "steps": steps(corpus, work),
        "batch_size": rows,
        "seed": seed,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
    }
    with torch.random.fork_rng(devices=[]), threads_kept():
        torch.manual_seed(seed)
        model = Reader(corpus.spec)
        for now in loop(model, partial(corpus.batches, rows, seed), make_plan(model, plan)):
            last = now
        return standardise(last.averaged, corpus, seed, surveyed(corpus))


def usual(corpus: Corpus) -> int:
    """Tokens of a window, about."""
    return max(1, min(corpus.spec.space.shape[0], corpus.tokens_of("train") // max(1, corpus.size("train"))))


def pieces(corpus: Corpus) -> int:
    """Windows of a step."""
    return max(4, min(TOKENS // usual(corpus), 32))


def steps(corpus: Corpus, work: int = WORK) -> int:
    """Bounded by the work, and by 40 passes over a small corpus."""
    return max(20, min(work, PASSES * corpus.tokens_of("train")) // (pieces(corpus) * usual(corpus)))


def shown(corpus: Corpus) -> int:
    """Windows that a reader of this corpus is shown, again and again."""
    return steps(corpus) * pieces(corpus)


def windows(corpus: Corpus) -> int:
    """Windows of the train split."""
    return max(corpus.size("train"), corpus.tokens_of("train") // usual(corpus))


def surveyed(corpus: Corpus) -> int:
    """Pieces of as many tokens as `SURVEYED`, at least a hundred."""
    return max(100, min(5_000, SURVEYED * corpus.size("train") // max(1, corpus.tokens_of("train"))))
