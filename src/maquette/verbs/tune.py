"""tune: a corpus and a model in, a study out: many short trainings, judged on the validation split, and a recipe of the best.

The test split is never read. The same line goes on with the same study; several processes may run it at once.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from maquette.corpus import Corpus
from maquette.errors import MaquetteError, RunError, SettingError, TrainingError
from maquette.recipe import Recipe
from maquette.run import Run
from maquette.verbs.judging import Likeness, Yardstick, at_its_end, codes_of, judged_stage, on_its_way, yardstick
from maquette.verbs.searching import rounded, search_of, tried, usual_of
from maquette.verbs.study import Study, folder_of, need_optuna
from maquette.verbs.train import choose, training
from maquette.verbs.tuned import Tuned, summary

LOOKS = (0.3, 0.6)  # shares of a trial after which it may be cut short
TRIALS_SHARE = 0.8  # of the time; the rest is for repeats with other seeds
TRAINING_SHARE = 0.8  # of a trial's time; the rest is for judging
LEAST = 3.0  # seconds of training below which a trial says nothing
REPEATS = 3  # other seeds at most
KEPT = 2  # runs of the best trials that stay
BROKEN = (TrainingError, RunError, SettingError, torch.OutOfMemoryError, MemoryError)  # a trial's own fault


def tune(corpus: Corpus, recipe: Recipe, **options: Any) -> Tuned:
    """`tuning` without anybody listening."""
    *_, last = tuning(corpus, recipe, **options)
    assert isinstance(last, Tuned)
    return last


def tuning(
    corpus: Corpus, recipe: Recipe, *, trials: int = 20, minutes: float = 30.0, out: Path | None = None
) -> Iterator[str | Tuned]:
    """Search the settings that the recipe leaves open; yields a sentence at every event, and last the Tuned study.

    trials   of the whole study, over all processes
    minutes  of this process; each trial gets its share, what trials that were cut short leave goes to repeats
    Raises UsageError, SettingError, CorpusError, MissingExtra.
    """
    end = time.monotonic() + 60 * minutes
    need_optuna()
    _sensible(recipe, trials, minutes)
    recipe, reason = choose(recipe, corpus)
    if reason:
        yield reason
    work = _open(corpus, recipe, trials, end, out)
    yield work.words
    stopped = yield from _interruptible(_trials(work, trials))
    if not stopped:
        stopped = yield from _interruptible(_repeats(work))
    work.clear()
    if work.study.best is None:
        raise RunError(
            f"no trial of {work.study.folder} came to its end yet; the same line goes on, with more --minutes where they were too few"
        )
    if stopped:
        yield "stopped; what was learnt is kept, and the same line goes on"
    yield summary(work.study, corpus, recipe, work.usual, work.yardstick.words)


def _sensible(recipe: Recipe, trials: int, minutes: float) -> None:
    if trials < 1:
        raise SettingError(f"trials should be >= 1; {trials} came")
    if not minutes > 0:
        raise SettingError(f"minutes should be > 0; {minutes} came")
    share = 60 * minutes * TRIALS_SHARE * TRAINING_SHARE / trials
    if share < LEAST and not recipe.train.get("steps") and not recipe.minutes:
        needed = LEAST * trials / (60 * TRIALS_SHARE * TRAINING_SHARE)
        raise SettingError(
            f"{minutes:g} minutes leave {share:.1g} s of training to each of {trials} trials, and below {LEAST:g} s a trial says nothing; "
            f"give --minutes {needed:.1f} or fewer --trials"
        )


@dataclass
class Work:
    """What one process needs: the study, what is searched, the figure, and its clock."""

    study: Study
    corpus: Corpus
    recipe: Recipe
    search: dict[str, Any]
    usual: dict[str, Any]
    yardstick: Yardstick
    minutes: float | None  # of training a trial; None: train.steps decides
    end: float
    spent: list[float] = field(default_factory=list)  # seconds of each whole trial

    @property
    def words(self) -> str:
        length = f"{60 * self.minutes:.0f} s of training" if self.minutes else f"{self.recipe.train['steps']} steps"
        return (
            f"each trial: {length} on one thread; searched: {', '.join(self.search)}; judged by {self.yardstick.words}"
        )

    def has_time(self) -> bool:
        """For one more trial, as far as those before tell."""
        usual = 60 * self.minutes / TRAINING_SHARE if self.minutes else 0.0
        return self.end - time.monotonic() >= 0.9 * max([usual, *self.spent[-3:]])

    def trial_recipe(self, params: dict[str, Any], seed: int) -> Recipe:
        """One thread, so that trials are alike however many processes there are."""
        recipe = tried(self.recipe, rounded(params))
        train = {"threads": 1, **recipe.train}
        return recipe.model_copy(update={"train": train, "seed": seed, "minutes": self.minutes})

    def clear(self) -> None:
        """Delete all runs but those of the best trials, of trials that go on elsewhere and of those that wait to go on."""
        with self.study.alone():
            found = self.study.trials.get_trials(deepcopy=False)
            whole = sorted((t for t in found if t.state.name == "COMPLETE"), key=lambda t: t.value)
            going = [t for t in found if t.state.name in ("RUNNING", "WAITING")]
            kept = {folder_of(t) for t in [*whole[:KEPT], *going]}
        for place in (self.study.folder / "trials").glob("[0-9]*"):
            if place.name not in kept:
                forget(place, self.corpus)


def _open(corpus: Corpus, recipe: Recipe, trials: int, end: float, out: Path | None) -> Work:
    search = search_of(recipe, corpus)
    yard = yardstick(
        corpus, recipe, lambda find: study.fixed("samples", find)
    )  # its judge is trained before a trial's share is known
    folder = Path(out) if out else usual_folder(corpus, recipe)
    study = Study(folder, _question(corpus, recipe, search))
    minutes = recipe.minutes
    if not recipe.train.get("steps") and not minutes:
        left = (end - time.monotonic()) / 60
        minutes = study.fixed("minutes", lambda: max(LEAST / 60, left * TRIALS_SHARE * TRAINING_SHARE / trials))
    if isinstance(yard, Likeness):
        yard.seconds = 60 * (minutes or 0.0)
    return Work(study, corpus, recipe, search, usual_of(search, recipe), yard, minutes, end)


def usual_folder(corpus: Corpus, recipe: Recipe) -> Path:
    """corpora/mine.tune/gan"""
    stem = "+".join(Path(stage).stem for stage in recipe.stages)
    return corpus.path.with_name(f"{corpus.path.name}.tune") / stem


def _question(corpus: Corpus, recipe: Recipe, search: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for trials to be comparable; plain data that JSON gives back as it was."""
    asked = recipe.model_dump(mode="json", include={"model", "size", "minutes", "seed", "start", "models", "train"})
    return {**asked, "corpus": corpus.fingerprint, "search": {k: list(v) for k, v in search.items()}}


def _interruptible(events: Iterator[str]) -> Iterator[str]:
    """The same events; returns whether Ctrl-C ended them."""
    try:
        yield from events
    except KeyboardInterrupt:
        return True
    return False


def _trials(work: Work, most: int) -> Iterator[str]:
    while work.has_time():
        trial = work.study.ask(work.search, work.usual, most, work.recipe.seed)
        if trial is None:
            return
        yield _in_words(work, trial, _try(work, trial), most)
        work.clear()
    yield "the time is used; the same line goes on"


def _try(work: Work, trial: Any) -> float | None:
    """One trial from beginning to end; None where it was cut short or broke."""
    place = work.study.folder / "trials" / folder_of(trial)
    start = time.monotonic()
    recipe = work.trial_recipe(trial.params, work.recipe.seed)

    def hopeless(percent: int, value: float) -> bool:
        trial.report(value, percent)
        return trial.should_prune()

    try:
        value = measured(work, recipe, place, hopeless)
        steps = _steps(place)
    except BROKEN as error:
        if trial.number == 0 and not isinstance(error, TrainingError):  # the usual settings: it is no matter of luck
            work.study.put_back(trial)
            raise
        value, steps = None, 0
        trial.set_user_attr("broke", str(error).splitlines()[0])
    except BaseException:  # Ctrl-C, a full disk: what is half done waits
        work.study.put_back(trial)
        raise
    trial.set_user_attr("steps", steps)
    trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
    if value is not None:
        work.spent.append(time.monotonic() - start)
    work.study.tell(trial, value)
    return value


def measured(
    work: Work, recipe: Recipe, place: Path, hopeless: Callable[[int, float], bool] = lambda percent, value: False
) -> float | None:
    """Train a run, or go on with it, and take its figure; None where `hopeless` cut it short. Raises KeyboardInterrupt when asked to stop."""
    looks, stage = list(LOOKS), judged_stage(recipe)
    with closing(training(work.corpus, recipe, place)) as events:  # type: ignore[type-var]
        for event in events:
            if event.news.startswith("stopped"):
                raise KeyboardInterrupt
            done = event.step / event.steps if event.steps else 0.0
            if event.state is None or event.stage != stage or done >= 1 or not looks or done < looks[0]:
                continue
            percent = round(100 * max(look for look in looks if look <= done))
            looks = [look for look in looks if look > done]
            run = Run.open(place)
            if hopeless(percent, work.yardstick.of(on_its_way(event.state, work.corpus, run), run)):
                return None
    run = Run.open(place)
    return work.yardstick.of(at_its_end(run), run)


def _steps(place: Path) -> int:
    newest = Run.open(place).newest(())
    return newest.facts["step"] if newest else 0


def _in_words(work: Work, trial: Any, value: float | None, most: int) -> str:
    frozen = work.study.trials.get_trials(deepcopy=False)[trial.number]
    best = work.study.best
    said = f"{value:.4g}" if value is not None else frozen.user_attrs.get("broke") or "cut short"
    settings = ", ".join(f"{k.split('.')[-1]} {plain(v)}" for k, v in rounded(trial.params).items())
    usual = " (the usual settings)" if trial.params == work.usual else ""
    so_far = f"; best {best.value:.4g}" if best else ""
    return f"trial {trial.number + 1} of {most}: {said}{so_far}; {settings}{usual}"


def plain(value: Any) -> str:
    return "usual" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _repeats(work: Work) -> Iterator[str]:
    """The usual settings and the best ones with other seeds, in turn, as far as the time allows: what luck alone does."""
    for seed in range(work.recipe.seed + 1, work.recipe.seed + 1 + REPEATS):
        for params in _candidates(work):
            if not work.has_time():
                return
            if trial := work.study.repeat(params, seed):
                value = _again(work, trial, params, seed)
                which = "usual" if params == rounded(work.usual) else "best"
                yield f"the {which} settings with seed {seed}: {'broke' if value is None else f'{value:.4g}'}"


def _candidates(work: Work) -> list[dict[str, Any]]:
    best, usual = work.study.best, rounded(work.usual)
    if best is None:
        return []
    return [usual] if rounded(best.params) == usual else [usual, rounded(best.params)]


def _again(work: Work, trial: Any, params: dict[str, Any], seed: int) -> float | None:
    place = work.study.folder / "trials" / f"repeat-{trial.number:04d}"
    try:
        value = measured(work, work.trial_recipe(params, seed), place)
    except BROKEN:
        value = None
    except BaseException:
        work.study.put_back(trial)
        raise
    finally:
        forget(place, work.corpus)
    work.study.tell(trial, value)
    return value


def forget(place: Path, corpus: Corpus) -> None:
    """Delete a run, and the codes that were made for it alone."""
    with suppress(MaquetteError, OSError):
        if Run.exists(place) and (run := Run.open(place)).facts.get("codec"):
            shutil.rmtree(codes_of(corpus, run), ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
