"""tune: the best settings by the validation split alone; a study goes on, is shared, and says what luck alone does."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from maquette.corpus import Corpus
from maquette.errors import CorpusError, MissingExtra, RunError, SettingError, SpaceError, UnknownName, UsageError
from maquette.models.gan import GAN
from maquette.recipe import load, make_recipe, settle
from maquette.run import Run
from maquette.verbs import judging
from maquette.verbs import tune as tune_module
from maquette.verbs.prepare import prepare
from maquette.verbs.searching import search_of, tried, usual_of
from maquette.verbs.study import Study
from maquette.verbs.train import train
from maquette.verbs.tune import tune, tuning
from maquette.verbs.tuned import Tuned


def tiny(model: str, steps: int = 4, **models):
    data = {"model": model, "size": "tiny", "models": models, "train": {"steps": steps, "batch_size": 8}}
    return make_recipe(data)


@pytest.fixture(autouse=True)
def no_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_module, "REPEATS", 0)


@pytest.fixture
def verses(tmp_path: Path) -> Corpus:
    (tmp_path / "verses").mkdir()
    for k in range(40):
        (tmp_path / "verses" / f"{k:02d}.txt").write_text(
            f"the {'cat' if k % 3 else 'dog'} number {k} sat on the mat.\n"
        )
    return prepare(tmp_path / "verses", tmp_path / "corpora" / "verses", settings={})


def trials_of(made: Tuned, question: bool = False):
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    storage = JournalStorage(JournalFileBackend(str(made.folder / "study.log")))
    return optuna.load_study(study_name="trials", storage=storage).get_trials()


def test_a_study_ends_with_a_recipe_that_train_takes(corpus: Corpus, tmp_path: Path) -> None:
    made = tune(corpus, tiny("vae"), trials=4, out=tmp_path / "study")
    trials = trials_of(made)
    assert [t.state.name for t in trials].count("COMPLETE") >= 3 and len(trials) == 4
    assert trials[0].params == usual_of(search_of(tiny("vae"), corpus), tiny("vae"))
    assert made.value == min(t.value for t in trials if t.state.name == "COMPLETE")
    run = train(corpus, load(made.best), tmp_path / "run")
    assert run.recipe.train["threads"] == 0 and run.recipe.seed == 0
    assert len(list((made.folder / "trials").glob("[0-9]*"))) == tune_module.KEPT
    report = (made.folder / "report.md").read_text()
    assert "cut short" in report and "train.lr_scale" in report and made.next in report
    assert "<script" not in made.report.read_text()


@pytest.mark.parametrize("model", ["gan", "flow", "vqvae+transformer"])
def test_every_family_of_pictures_can_be_tuned_and_leaves_no_codes_behind(
    model: str, corpus: Corpus, tmp_path: Path
) -> None:
    made = tune(corpus, tiny(model), trials=2, out=tmp_path / "study")
    assert made.value > 1 and made.usual is not None
    codes = corpus.path.with_name(f"{corpus.path.name}.codes")
    left = len(list((made.folder / "trials").glob("[0-9]*")))
    assert "+" not in model or len(list(codes.iterdir())) <= left + 8  # other tests share this corpus


def test_sequences_are_judged_by_exact_nats(verses: Corpus, tmp_path: Path) -> None:
    made = tune(verses, tiny("transformer", 20), trials=2, out=tmp_path / "study")
    assert "nats a token" in made.words and 0 < made.value < 6
    floor = tune(verses, make_recipe({"model": "ngram"}), trials=3, minutes=10, out=tmp_path / "ngram")
    assert {k for t in trials_of(floor) for k in t.params} == {"ngram.order"}


def test_what_makes_nothing_is_judged_by_its_loss(corpus: Corpus, tmp_path: Path) -> None:
    assert "loss" in tune(corpus, tiny("vqvae"), trials=1, out=tmp_path / "study").words


def test_the_test_split_is_never_read(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = Corpus.numbers

    def guarded(self: Corpus, split: str):
        assert split != "test", "the test split was asked for"
        return numbers(self, split)

    monkeypatch.setattr(Corpus, "numbers", guarded)
    tune(corpus, tiny("gan"), trials=2, out=tmp_path / "study")


def test_other_test_pieces_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    """A pair encodes the whole corpus; what it makes of the test pieces must not matter either."""
    import shutil

    other = tmp_path / corpus.path.name
    shutil.copytree(corpus.path, other)
    shutil.rmtree(other / "judge", ignore_errors=True)
    shard = np.load(other / "shard-00000.npy")
    shard[np.load(other / "test.npy")] = 255 - shard[np.load(other / "test.npy")]
    np.save(other / "shard-00000.npy", shard)
    values = [
        tune(c, tiny("vae+flow"), trials=1, out=tmp_path / c.path.parent.name).value
        for c in (corpus, Corpus.open(other))
    ]
    assert values[0] == values[1]


def test_what_is_set_is_not_searched(corpus: Corpus) -> None:
    free = make_recipe({"model": "gan"})
    assert {"gan.loss", "gan.width", "train.lr_scale", "train.batch_size"} <= search_of(free, corpus).keys()
    given = make_recipe({"model": "gan", "models": {"gan": {"loss": "hinge"}}, "train": {"lr": 1e-3}})
    assert not {"gan.loss", "train.lr_scale"} & search_of(given, corpus).keys()
    everything = {"width": 16, "latent": 32, "loss": "hinge", "gamma": 1.0, "lr": 1e-3}
    with pytest.raises(SettingError, match="is fixed by --set"):
        search_of(make_recipe({"model": "gan", "models": {"gan": everything}, "train": {"batch_size": 8}}), corpus)


@pytest.mark.parametrize("model", ["gan", "vae", "flow", "vqvae", "vae+flow", "vqvae+transformer"])
@pytest.mark.parametrize("size", ["tiny", "small", "medium"])
def test_the_usual_settings_and_all_others_are_valid(model: str, size: str, corpus: Corpus) -> None:
    recipe = make_recipe({"model": model, "size": size})
    search = search_of(recipe, corpus)
    usual = usual_of(search, recipe)
    assert settle(tried(recipe, usual)).models == settle(recipe).models
    for key, values in search.items():
        assert usual[key] in values if isinstance(values, list) else values[0] <= usual[key] <= values[1]
        for value in values:
            settle(tried(recipe, usual | {key: value}))


def test_the_same_line_goes_on_and_a_longer_one_adds_trials(corpus: Corpus, tmp_path: Path) -> None:
    first = tune(corpus, tiny("vae"), trials=2, out=tmp_path / "study")
    assert tune(corpus, tiny("vae"), trials=2, out=tmp_path / "study").value == first.value
    assert len(trials_of(tune(corpus, tiny("vae"), trials=3, out=tmp_path / "study"))) == 3
    with pytest.raises(UsageError, match=r"asks something else \(search, size\)"):
        tune(corpus, tiny("vae").model_copy(update={"size": "small"}), trials=3, out=tmp_path / "study")


def test_a_study_stopped_halfway_finds_what_a_whole_one_finds(corpus: Corpus, tmp_path: Path) -> None:
    whole = tune(corpus, tiny("vae"), trials=4, out=tmp_path / "whole")
    for trials in (1, 2, 4):
        parts = tune(corpus, tiny("vae"), trials=trials, out=tmp_path / "parts")
    assert [(t.params, t.value) for t in trials_of(parts)] == [(t.params, t.value) for t in trials_of(whole)]


def test_ctrl_c_keeps_what_was_learnt_and_the_trial_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, seen = GAN.loss, []

    def interrupting(self, batch, phase, progress):
        seen.append(progress)
        if len(seen) == 13:  # in the second trial
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, batch, phase, progress)

    monkeypatch.setattr(GAN, "loss", interrupting)
    recipe = tiny("gan", 4, gan={"critic": 1})
    events = list(tuning(corpus, recipe, trials=3, out=tmp_path / "study"))
    assert any(isinstance(e, str) and e.startswith("stopped; what was learnt is kept") for e in events)
    made = events[-1]
    assert isinstance(made, Tuned)
    assert [t.state.name for t in trials_of(made)] == ["COMPLETE", "FAIL", "WAITING"]
    half = Run.open(made.folder / "trials" / "0001").newest()
    assert half is not None and 0 < half.facts["step"] < 4
    done = trials_of(tune(corpus, recipe, trials=3, out=tmp_path / "study"))
    assert done[2].params == done[1].params and done[2].user_attrs["folder"] == "0001"
    assert sum(t.state.name in ("COMPLETE", "PRUNED") for t in done) == 3


PROCESS = (
    "import sys; from pathlib import Path; from maquette.corpus import Corpus; from maquette.recipe import make_recipe\n"
    "from maquette.verbs import tune as t\n"
    "t.REPEATS = 0\n"
    "data = {'model': 'vae', 'size': 'tiny', 'train': {'steps': int(sys.argv[3]), 'batch_size': 8}}\n"
    "t.tune(Corpus.open(sys.argv[1]), make_recipe(data), trials=6, out=Path(sys.argv[2]))\n"
)


def start(corpus: Corpus, folder: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROCESS, corpus.path, folder, str(steps)], stderr=subprocess.PIPE)


def test_two_processes_share_a_study_and_one_that_is_killed_leaves_its_trial_to_be_tried_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    with start(corpus, folder, 100_000) as killed:
        end = time.monotonic() + 60
        while not list(folder.glob("trials/.trials-*.lock")) and time.monotonic() < end:
            time.sleep(0.02)
        killed.kill()
    log = folder / "study.log"
    log.write_text(log.read_text().replace("100000", "5") + '{"half a li')  # the same question from now on
    for place in folder.glob("trials/0*/*"):
        place.unlink() if place.is_file() else None
    both = [start(corpus, folder, 5) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1].decode() for process in both]
    assert [p.returncode for p in both] == [0, 0], errors
    made = tune(corpus, tiny("vae", 5), trials=6, out=folder)
    states = [t.state.name for t in trials_of(made)]
    assert states.count("FAIL") == 1 and states.count("COMPLETE") + states.count("PRUNED") == 6 and len(states) == 7
    assert not list(folder.glob("trials/.*.lock"))


def test_hopeless_trials_are_cut_short(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen without the clock: every event tells, and the figures are given."""
    from maquette.verbs import study

    monkeypatch.setattr(study, "WHOLE", 2)
    monkeypatch.setattr("maquette.verbs.drive.time.monotonic", iter(np.arange(0, 1e6, 1.0)).__next__)
    figures = iter([1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 9.0])
    monkeypatch.setattr(judging.Likeness, "of", lambda self, model, run: next(figures))
    made = tune(corpus, tiny("vae", 10), trials=3, minutes=1e6, out=tmp_path / "study")
    trials = trials_of(made)
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert trials[2].intermediate_values == {30: 9.0} and "1 cut short" in made.words


def test_a_trial_whose_loss_breaks_is_noted_and_the_study_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maquette.errors import TrainingError

    good, count = tune_module.measured, []

    def sometimes(*args):
        count.append(1)
        if len(count) == 2:
            raise TrainingError("the loss of phase model is not finite at step 3")
        return good(*args)

    monkeypatch.setattr(tune_module, "measured", sometimes)
    made = tune(corpus, tiny("vae"), trials=3, out=tmp_path / "study")
    assert [t.state.name for t in trials_of(made)] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert "not finite" in (made.folder / "report.md").read_text()


def test_a_gain_that_does_not_survive_other_seeds_is_called_luck(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_module, "REPEATS", 2)
    usual = usual_of(search_of(tiny("vae"), corpus), tiny("vae"))

    def lucky(work, recipe, place, *_):
        plain = settle(recipe).models == settle(tiny("vae")).models
        return (
            5.0 if recipe.seed and not plain else 4.0 if recipe.seed or plain else 1.0 + recipe.train["lr_scale"] / 10
        )

    monkeypatch.setattr(tune_module, "measured", lucky)
    monkeypatch.setattr(tune_module, "_steps", lambda place: 1)
    made = tune(corpus, tiny("vae"), trials=8, out=tmp_path / "study")
    assert made.repeats == ((5.0, 5.0), (4.0, 4.0)) and made.usual == 4.0 and made.value < 2
    assert "it was luck" in made.words and made.importances
    assert settle(made.recipe).models == settle(tried(tiny("vae"), usual)).models


def test_minutes_are_the_whole_budget(corpus: Corpus, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "vae", "size": "tiny"})
    begin = time.monotonic()
    made = tune(corpus, recipe, trials=2, minutes=0.17, out=tmp_path / "study")
    assert time.monotonic() - begin < 30  # no measure of speed, only that it ends
    assert trials_of(made)[0].user_attrs["steps"] > 8


def test_wishes_that_cannot_be_are_answered_in_words(
    corpus: Corpus, verses: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(recipe, corpus=corpus, **options):
        return tune(corpus, recipe, out=tmp_path / "study", **options)

    with pytest.raises(UnknownName, match="did you mean gan"):
        ask(tiny("gann"))
    with pytest.raises(SettingError, match="trials should be >= 1; 0 came"):
        ask(tiny("gan"), trials=0)
    with pytest.raises(SettingError, match=r"below 3 s a trial says nothing; give --minutes 1.6 or fewer"):
        ask(make_recipe({"model": "gan"}), minutes=0.1)
    with pytest.raises(SpaceError, match="transformer works on tokens"):
        ask(tiny("transformer"))
    numbers = Corpus.numbers
    monkeypatch.setattr(
        Corpus, "numbers", lambda self, split: numbers(self, split)[: 9 if split == "validation" else None]
    )
    with pytest.raises(CorpusError, match="holds 9 pieces out for validation, and tuning judges by at least 10"):
        ask(tiny("gan"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("maquette.verbs.study.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'maquette\[tune\]'"):
        ask(tiny("gan"))
    assert not (tmp_path / "study").exists()


def test_a_damaged_study_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "study.log").write_text('{"no": "journal"}\n')
    with pytest.raises(RunError, match="is damaged"):
        Study(tmp_path, {})
