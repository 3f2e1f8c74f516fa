"""What the validation split says while a model learns: the best weights are kept, and training ends where it only learns by heart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from maquette.corpus import Corpus
from maquette.errors import RunError
from maquette.features import Pixels
from maquette.likelihood import is_chain, piece_nats
from maquette.loop import TrainState, agreed_number, only_here, pick_device, rank, seed_everything
from maquette.metrics.fidelity import kid
from maquette.run import Run
from maquette.space import Batch, GenerativeModel, Model, SampleRequest
from maquette.starting import source_of

CHANCE = 2**31  # the step whose chance every look has, so that looks differ by the weights alone


class Held:
    """Of most trainings the validation split says nothing: what a model makes is best at the end of its schedule."""

    LOOKS = 20  # over the whole training
    PATIENCE = 6  # looks without a better one

    def __init__(self, run: Run, corpus: Corpus):
        self.run, self.corpus = run, corpus
        self.begun: tuple[int, float] | None = None  # of the weights it began from

    def begin(self, now: TrainState) -> None:
        """The weights of a start are the first that may be the best."""
        if self.possible(now):
            self.weighed(now, self._agreed(now))
            self.begun = now.best

    def look(self, now: TrainState) -> str:
        """Note the figure where it is time to; a sentence where training is over, and then `now.steps` is the present step."""
        if not self.possible(now) or not now.steps or not self.due(now):
            return ""
        now.best = now.best or self.begun
        return self.weighed(now, self._agreed(now))

    def _agreed(self, now: TrainState) -> float:
        figures = self.figures(now) if rank() == 0 else {}
        now.logs |= {f"validation/{name}": torch.tensor(value) for name, value in figures.items()}
        return agreed_number(next(iter(figures.values()), math.inf))

    def possible(self, now: TrainState) -> bool:
        return False

    def figures(self, now: TrainState) -> dict[str, float]:
        """Of the averaged weights; the first counts, and smaller is better."""
        raise NotImplementedError

    def due(self, now: TrainState) -> bool:
        return now.step % max(1, now.steps // self.LOOKS) == 0  # type: ignore[operator]

    def weighed(self, now: TrainState, figure: float) -> str:
        """Keep the weights where the figure is the smallest so far; end training where it long was not."""
        if figure < (now.best[1] if now.best else math.inf):
            now.best = (now.step, figure)
            only_here(lambda: self.run.keep_best(now))
        if now.best is None or not now.steps or now.done:
            return ""
        if now.step - now.best[0] < self.PATIENCE * max(1, now.steps // self.LOOKS):
            return ""
        now.steps = now.step
        return (
            f"the validation split was foretold best at step {now.best[0]}; those weights are kept, and training ends"
        )


class Sequences(Held):
    """The exact nats a token, for models of sequences."""

    TOKENS = 20_000  # of the validation split that are looked at

    def possible(self, now: TrainState) -> bool:
        model = now.model
        return bool(self.corpus.size("validation") and model.phases and is_chain(model) and model.by_validation)

    def figures(self, now: TrainState) -> dict[str, float]:
        pieces, nats = piece_nats(now.averaged, self.corpus, "validation", self._pieces)  # type: ignore[arg-type]
        return {"nats_per_token": float(nats.sum()) / self.corpus.tokens_in(pieces.numpy())}

    @property
    def _pieces(self) -> int:
        size = self.corpus.size("validation")
        return max(1, min(size, round(size * self.TOKENS / max(1, self.corpus.tokens_of("validation")))))


class Heads(Held):
    """Task heads, by the figures that each of them has for it."""

    PIECES = 1_000  # of the validation split that are looked at
    PATIENCE = 8

    def begin(self, now: TrainState) -> None:
        """A head that knows nothing yet is no start."""

    def possible(self, now: TrainState) -> bool:
        return self.corpus.size("validation") > 0

    def due(self, now: TrainState) -> bool:
        return super().due(now) or now.done

    def figures(self, now: TrainState) -> dict[str, float]:
        return now.averaged.validation(self._batches)  # type: ignore[operator]

    def _batches(self) -> Iterator[Batch]:
        device = pick_device(self.run.recipe.train["device"])
        for batch in self.corpus.once("validation", limit=self.PIECES):
            yield batch.to(device)


class Few(Held):
    """Grids and codes that start from other weights and have few pieces of their own: their loss on held-out pieces with the same noise at
    every look; of adversaries, whose losses say nothing, how far pieces of the same seeds lie from held-out ones (KID), in the features
    of the start where it has any and else in pixels."""

    MOST = 2_000  # training pieces of which one may still say that they are few
    FEWEST = 4  # held-out pieces
    PIECES = 256  # that are looked at; where there are fewer, each is several times

    def __init__(self, run: Run, corpus: Corpus):
        super().__init__(run, corpus)
        self.eyes: Callable[[Tensor], Tensor] | None = None

    def possible(self, now: TrainState) -> bool:
        few = self.corpus.size("train") <= self.MOST and self.corpus.size("validation") >= self.FEWEST
        return bool(few and self.run.recipe.start and now.model.phases and now.model.by_validation)

    @torch.no_grad()
    def figures(self, now: TrainState) -> dict[str, float]:
        seed_everything(now.plan.seed, CHANCE, 0)
        now.averaged.conclude(lambda: self.corpus.once("train", limit=now.model.concluded_on))
        seed_everything(now.plan.seed, CHANCE, 0)
        if now.model.foretells:
            return {"loss": self._loss(now)}
        return {"kid": self._distance(now.averaged)}  # type: ignore[arg-type]

    def _loss(self, now: TrainState) -> float:
        total, count = 0.0, 0
        while count < self.PIECES:
            for batch in self.corpus.once("validation", limit=self.PIECES):
                found = now.averaged.loss(batch.to(now.plan.device), now.model.phases[-1].name, 1.0)
                total, count = total + float(found.total) * len(batch), count + len(batch)
        return total / count

    def _distance(self, model: GenerativeModel) -> float:
        seeds = tuple(range(self.PIECES))
        wish = self.run.usual_condition(seeds)
        made = model.sample(SampleRequest(seeds, None if wish is None else wish.to(model.device)))
        self.eyes = self.eyes or eyes_of(self.run, model)
        real = [b.x.to(model.device) for b in self.corpus.once("validation", limit=self.PIECES)]
        return kid(self.eyes(made), torch.cat([self.eyes(x) for x in real]))


def eyes_of(run: Run, model: Model) -> Callable[[Tensor], Tensor]:
    """The features of the start as they were, for those of a network in training move; pixels where it has none."""
    pixels = Pixels(model.spec.space).embed
    try:
        start = source_of(Run.open(run.recipe.start), run.stage).load_model(str(model.device))  # type: ignore[arg-type]
    except RunError:  # it is gone since: pixels will do
        return pixels
    fits = start.spec.space == model.spec.space
    return getattr(start, "eyes", getattr(start, "embed", pixels)) if fits else pixels


def held_by(run: Run, corpus: Corpus, model: Model) -> Held:
    if model.headed:
        return Heads(run, corpus)
    return (Sequences if corpus.spec.space.ragged else Few)(run, corpus)
