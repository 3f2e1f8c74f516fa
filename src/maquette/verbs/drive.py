"""Driving the loop: the clock, checkpoints, sample sheets, the log, Ctrl-C, and many processes. The loop knows none of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from maquette import catalog
from maquette.corpus import Corpus
from maquette.loop import TrainState, agreed, only_here, rank, seed_everything, world
from maquette.piece import Asked
from maquette.probing import probe
from maquette.run import Run, Sampler
from maquette.space import Model, SampleRequest
from maquette.trackers import open_tracker
from maquette.verbs.generate import condition_of
from maquette.verbs.holding import Held

SHEET = 36  # pieces on a sample sheet, always of the seeds 0..35


@dataclass(frozen=True)
class Progress:
    """What training tells whoever drives it, about once a second and at every event.

    stage  the model in training; logs  "phase/term" -> value; news  a sentence, mostly empty
    state  the training itself, for who wants to look at the model on its way
    """

    stage: str
    step: int
    steps: int | None
    logs: dict[str, float]
    pieces_per_second: float
    seconds_left: float | None
    sheet: Path | None
    news: str = ""
    state: TrainState | None = None


def drive(
    run: Run,
    corpus: Corpus,
    states: Iterator[TrainState],
    held: Held,
    budget: Budget,
    interruption: Interruption,
    loggers: tuple[str, ...],
) -> Iterator[Progress]:
    """Follow the loop: freeze the number of steps, log, save, draw sheets, stop when asked."""
    keeper, probing = Keeper(run, corpus), Probing(corpus)
    told = 0.0
    started_cpu = time.process_time()
    with loggers_for(loggers, run) as write:
        for now in states:
            budget.freeze(now)
            over = held.look(now)
            news = probing.look(now)
            asked = interruption.anywhere()
            if now.done or asked or keeper.due():
                _record(run, now, write)
                keeper.keep(now)
            elif now.step % 10 == 0 or news:
                _record(run, now, write)
            if now.done or asked or news or time.monotonic() - told > 0.5:
                told = time.monotonic()
                news = "stopped and saved; the same line goes on" if asked else over or news
                yield _progress(run, now, budget, keeper, news)
            if asked:
                break
    run.facts["cpu_seconds"] = round(run.facts.get("cpu_seconds", 0.0) + time.process_time() - started_cpu, 2)
    only_here(run.note)


def _record(run: Run, now: TrainState, write: Callable[[int, dict[str, float]], None]) -> None:
    if rank() == 0:
        logs = {k: float(v) for k, v in now.logs.items()}
        run.log({"step": now.step, **logs})
        write(now.step, logs)


def _progress(run: Run, now: TrainState, budget: Budget, keeper: Keeper, news: str) -> Progress:
    logs = {k: float(v) for k, v in now.logs.items()}
    speed = now.plan.batch_size / budget.seconds_per_step if budget.seconds_per_step else 0.0
    left = budget.seconds_per_step * (now.steps - now.step) if now.steps and budget.seconds_per_step else None
    return Progress(run.stage, now.step, now.steps, logs, speed, left, keeper.sheet, news, now)


class Probing:
    """What features that are learnt without labels know of them, where there are any: at every quarter of the steps. Nothing is learnt of it."""

    LOOKS = 4
    PIECES = 4_000  # of either split

    def __init__(self, corpus: Corpus):
        self.corpus = corpus

    def look(self, now: TrainState) -> str:
        """Note `validation/linear_probe` and `validation/knn` where it is time to, and say so."""
        if not now.model.probed or not now.steps:
            return ""
        if not now.done and now.step % max(1, now.steps // self.LOOKS):
            return ""
        found = probe(now.averaged, self.corpus, limit=self.PIECES) if rank() == 0 else None
        if found is None:
            return ""
        now.logs |= {
            "validation/linear_probe": torch.tensor(found.linear),
            "validation/knn": torch.tensor(found.knn),
        }
        return f"labels told by a linear probe: {found.linear:.1%}, by nearest neighbours: {found.knn:.1%} (validation split)"


class Budget:
    """Minutes as a number of steps, to which the rates anneal: the first steps are measured and the number is set, and once more after a
    tenth of the time, for the first steps are slow."""

    LOOKS = (0.02, 0.1)  # shares of the time after which the number of steps is set

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic):
        self.seconds = minutes * 60 if minutes else None
        self.clock, self.start = clock, clock()
        self.seconds_per_step = 0.0
        self.looks = 0  # how often this process has set the number
        self._marks: list[tuple[int, float]] = []

    def freeze(self, now: TrainState) -> None:
        """Set now.steps when it is time to and at least eight steps have passed; measure the speed of the latest steps as it goes."""
        t = self.clock()
        first = self._marks[0][0] if self._marks else now.step
        self._marks = [*self._marks[-200:], (now.step, t)]
        step0, t0 = self._marks[len(self._marks) // 2 if len(self._marks) > 16 else 0]
        if now.step > step0:
            self.seconds_per_step = (t - t0) / (now.step - step0)
        given = now.steps is not None and not self.looks  # by the recipe, or by the process that began this run
        if given or self.seconds is None or self.looks == len(self.LOOKS):
            return
        spent = t - self.start
        measured = now.step - first >= 8 and self.seconds_per_step > 0
        due = spent >= self.seconds or (measured and spent > self.LOOKS[self.looks] * self.seconds)
        if agreed(int(due)):
            left = max(0.0, 0.96 * self.seconds - spent)  # checkpoints and sheets take their share
            now.steps = agreed(now.step + (int(left / self.seconds_per_step) if measured else 0))
            self.looks += 1


class Keeper:
    """Saves checkpoints and sample sheets so that both together cost at most a few hundredths of the time."""

    def __init__(self, run: Run, corpus: Corpus):
        self.run, self.corpus = run, corpus
        self.modality = catalog.modality(corpus.facts["modality"])
        self.last, self.cost = time.monotonic(), 0.0
        self.sheet: Path | None = None

    def due(self) -> bool:
        return bool(agreed(int(time.monotonic() - self.last > max(30.0, 40 * self.cost))))

    def keep(self, now: TrainState) -> None:
        """Conclude the averaged model, save, and draw the sheet."""
        start = time.monotonic()
        only_here(lambda: self._keep(now))
        self.last = time.monotonic()
        self.cost = self.last - start

    def _keep(self, now: TrainState) -> None:
        seed_everything(now.plan.seed, now.step, 0)
        with torch.no_grad():
            now.averaged.conclude(lambda: self.corpus.once("train", limit=now.model.concluded_on))
        self.run.save(now)
        self.sheet = self._draw(now.averaged, now.step) or self.sheet

    def _draw(self, model: Model, step: int) -> Path | None:
        """The sample sheet of one step; always the same seeds."""
        if not hasattr(model, "sample") or not getattr(model, "alone", True):
            return None
        codec = self.run.codec.load_model(str(model.device)) if self.run.codec else None
        sampler = Sampler(model, codec)  # type: ignore[arg-type]
        rule = self.modality.start(Asked()).constraint
        wish = condition_of(self.run, self.modality, {}, range(SHEET))
        x = sampler.sample(SampleRequest(tuple(range(SHEET)), wish, constraint=rule))
        pieces = [self.modality.to_piece(row) for row in x]
        return self.modality.sheet(pieces, self.run.path / "samples" / f"{step:08d}.png")


class Interruption:
    """SIGINT and SIGTERM as a question the driver asks after each step; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever drives it there has its own way to stop
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def anywhere(self) -> bool:
        """Whether any process was asked to stop."""
        if world() == 1:
            return self.asked
        flag = torch.tensor([int(self.asked)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        self.asked = bool(flag)
        return self.asked


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, if it did."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def nothing() -> Iterator[None]:
    yield


@contextmanager
def loggers_for(names: tuple[str, ...], run: Run) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """One function that writes a record to every tracker by name (extra `log`); log.jsonl is always written besides."""
    open_ = [open_tracker(name, run.path) for name in names] if rank() == 0 else []
    try:
        yield lambda step, logs: [tracker.add(step, logs) for tracker in open_] and None
    finally:
        for tracker in open_:
            tracker.close()
