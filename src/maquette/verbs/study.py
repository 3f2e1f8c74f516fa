"""A study on disk: Optuna's journal (Akiba 2019, arXiv:1907.10902), one line a change, which several processes append to in turn.

corpora/mine.tune/gan/study.log     all trials, and the repeats at the end
                      trials/0007/  the run of a trial; only those of the best stay
                      *.lock        held by living processes: a trial whose lock is free was left half-done

Locks are flock's: the system lets go of them when a process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np

from maquette.errors import MissingExtra, RunError, UsageError
from maquette.files import full_disk_in_words

ATTEMPTS = 3  # at a trial that is interrupted again and again
WHOLE = 4  # trials that end before any is cut short


def need_optuna() -> None:
    if find_spec("optuna") is None:
        raise MissingExtra("tuning", "tune")


class JournalLock:
    """What Optuna asks of a lock; on taking it, half a line that a crash left is cut off."""

    def __init__(self, journal: Path):
        self.journal, self.file = journal, journal.with_name(f".{journal.name}.lock")
        self.stream: IO[Any] | None = None

    def acquire(self) -> bool:
        self.stream = self.file.open("a")
        fcntl.flock(self.stream, fcntl.LOCK_EX)
        with self.journal.open("rb+") as journal:
            content = journal.read() if not _ends_well(journal) else b""
            if content:
                journal.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        assert self.stream is not None
        self.stream.close()


def _ends_well(journal: IO[bytes]) -> bool:
    """Whether a file is empty or ends with a line; leaves the stream at its beginning."""
    size = journal.seek(0, os.SEEK_END)
    journal.seek(max(0, size - 1))
    well = journal.read(1) in (b"", b"\n")
    journal.seek(0)
    return well


class Study:
    """question: what is asked, plain data; a study answers one question only. Raises UsageError where another is asked."""

    def __init__(self, folder: Path, question: Mapping[str, Any]):
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.held = Path(folder), {}
        with full_disk_in_words(self.folder):
            (self.folder / "trials").mkdir(parents=True, exist_ok=True)
        journal = self.folder / "study.log"
        with self.alone():
            backend = JournalFileBackend(str(journal), lock_obj=JournalLock(journal))  # type: ignore[arg-type]
            self.storage = _whole(lambda: JournalStorage(backend), journal)
            pruner = optuna.pruners.MedianPruner(n_startup_trials=WHOLE)
            self.trials = self._open("trials", pruner)
            self.repeats = self._open("repeats", optuna.pruners.NopPruner())
            self._same(question)

    def _open(self, name: str, pruner: Any) -> Any:
        import optuna

        return optuna.create_study(
            study_name=name, storage=self.storage, pruner=pruner, direction="minimize", load_if_exists=True
        )

    def _same(self, question: Mapping[str, Any]) -> None:
        known = self.trials.user_attrs.get("question")
        if known is None:
            self.trials.set_user_attr("question", dict(question))
        elif known != question:
            changed = sorted(k for k in known.keys() | question.keys() if known.get(k) != question.get(k))
            raise UsageError(
                f"the study at {self.folder} asks something else ({', '.join(changed)}); choose another folder with -o"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Between asking and holding no other process may look."""
        with (self.folder / ".study.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def fixed(self, name: str, find: Callable[[], Any]) -> Any:
        """A fact of the whole study, found by whoever needs it first."""
        if name not in self.trials.user_attrs:
            value = find()
            with self.alone():
                if name not in self.trials.user_attrs:
                    self.trials.set_user_attr(name, value)
        return self.trials.user_attrs[name]

    # trials

    def ask(self, search: Mapping[str, Any], usual: Mapping[str, Any], most: int, seed: int) -> Any | None:
        """The next trial, the usual settings first; None where there are `most`. Its chance is that of (seed, trials so far)."""
        import optuna

        with self.alone():
            self.sweep()
            seen = self.trials.get_trials(deepcopy=False)
            if not seen:
                self.trials.enqueue_trial(dict(usual))
            if sum(t.state.name in ("COMPLETE", "PRUNED", "RUNNING") for t in seen) >= most:
                return None
            mixed = int(np.random.SeedSequence([seed, len(seen)]).generate_state(1)[0])
            self.trials.sampler = optuna.samplers.TPESampler(
                seed=mixed, n_startup_trials=max(3, min(10, most // 3)), constant_liar=True
            )
            return self._hold(self.trials, self.trials.ask(_distributions(search)))

    def repeat(self, params: Mapping[str, Any], seed: int) -> Any | None:
        """A repeat of these settings with another seed; None where there is one."""
        with self.alone():
            self.sweep()
            wanted = {"params": dict(params), "seed": seed}
            if any(t.user_attrs == wanted and t.state.name != "FAIL" for t in self.repeats.get_trials(deepcopy=False)):
                return None
            trial = self._hold(self.repeats, self.repeats.ask())
            for name, value in wanted.items():
                trial.set_user_attr(name, value)
            return trial

    def _hold(self, study: Any, trial: Any) -> Any:
        stream = self._lock_of(study, trial.number).open("a")
        fcntl.flock(stream, fcntl.LOCK_EX)
        self.held[study.study_name, trial.number] = stream
        return trial

    def _lock_of(self, study: Any, number: int) -> Path:
        return self.folder / "trials" / f".{study.study_name}-{number:04d}.lock"

    def tell(self, trial: Any, value: float | None) -> None:
        """A whole trial, or with None one that was cut short."""
        state = None if value is not None else _state("PRUNED")
        with self.alone():
            trial.study.tell(trial, value, state=state)
            self._let_go(trial.study, trial.number)

    def put_back(self, trial: Any) -> None:
        """A half-done trial is marked as failed, and its settings wait to be tried again, from where its run stopped."""
        with self.alone():
            self._put_back(trial.study, trial.number)

    def _put_back(self, study: Any, number: int) -> None:
        found = study.get_trials(deepcopy=False)[number]
        attempt = found.user_attrs.get("attempt", 1)
        again = study.study_name == "trials" and attempt < ATTEMPTS
        study.tell(number, state=_state("FAIL" if again or study.study_name == "repeats" else "PRUNED"))
        if again and found.params:
            self.trials.enqueue_trial(found.params, user_attrs={"folder": folder_of(found), "attempt": attempt + 1})
        self._let_go(study, number)

    def _let_go(self, study: Any, number: int) -> None:
        self._lock_of(study, number).unlink(missing_ok=True)
        if stream := self.held.pop((study.study_name, number), None):
            stream.close()

    def sweep(self) -> None:
        """Put back the trials of processes that are no more."""
        for study in (self.trials, self.repeats):
            for trial in study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
                if not self._alive(study, trial.number):
                    self._put_back(study, trial.number)

    def _alive(self, study: Any, number: int) -> bool:
        with self._lock_of(study, number).open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @property
    def best(self) -> Any | None:
        whole = [t for t in self.trials.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
        return min(whole, key=lambda t: t.value, default=None)


def folder_of(trial: Any) -> str:
    """The name of the folder of a trial's run: its own number, or that of the trial it goes on with."""
    return trial.user_attrs.get("folder", f"{trial.number:04d}")


def _distributions(search: Mapping[str, Any]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(values: Any) -> Any:
        if isinstance(values, list):
            return CategoricalDistribution(values)
        low, high = values
        wide = low > 0 and high / low >= 10
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(low, high, log=wide)

    return {key: one(values) for key, values in search.items()}


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _whole(read: Callable[[], Any], journal: Path) -> Any:
    try:
        return read()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{journal} is damaged ({error}); remove it to begin the study anew, or choose another with -o"
        ) from None
