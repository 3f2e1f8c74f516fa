"""train: the same line resumes, a signal saves, a bad loss goes back once, two processes agree; each family end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import accumulate, chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maquette.corpus import Corpus
from maquette.errors import RunError, SettingError, TrainingError, UnknownName
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.trackers import TRACKERS
from maquette.verbs.drive import Budget
from maquette.verbs.generate import Wish, generate
from maquette.verbs.train import choose, train, training, usual_place

FAMILIES = ["gan", "vae", "flow", "vqvae+transformer", "vae+flow"]


def tiny(model: str, steps: int = 6, **settings):
    return make_recipe(
        {"model": model, "size": "tiny", "train": {"steps": steps, "batch_size": 8, "threads": 1, **settings}}
    )


def weights(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    checkpoint = run.newest()
    assert checkpoint is not None
    return checkpoint.tensors


def same(a: Run, b: Run) -> bool:
    return all(torch.equal(t, weights(b)[file][name]) for file, ts in weights(a).items() for name, t in ts.items())


@pytest.mark.parametrize("model", FAMILIES)
def test_every_family_goes_from_a_corpus_to_pieces(model: str, corpus: Corpus, tmp_path: Path) -> None:
    run = train(corpus, tiny(model), tmp_path / "run")
    pieces = generate(run, 3, Wish(seed=5, condition={"label": "circle"}))
    assert [p.content.shape for p in pieces] == [(16, 16, 1)] * 3
    assert (run.path / "samples" / "00000006.png").is_file()
    assert [json.loads(line)["step"] for line in (run.path / "log.jsonl").read_text().splitlines()] == [6]
    alone = generate(run, 1, Wish(seed=6, condition={"label": "circle"}))[0]
    assert abs(alone.content.astype(int) - pieces[1].content.astype(int)).max() <= 1


def test_the_same_line_resumes_and_ends_with_the_same_weights(corpus: Corpus, tmp_path: Path) -> None:
    whole = train(corpus, tiny("vae", 12), tmp_path / "whole")
    events = training(corpus, tiny("vae", 12), tmp_path / "halves")
    next(events)
    os.kill(os.getpid(), signal.SIGTERM)
    assert "stopped and saved" in list(events)[-1].news
    stopped = Run.open(tmp_path / "halves").newest()
    assert stopped is not None and stopped.facts["step"] < 12
    assert same(whole, train(corpus, tiny("vae", 12), tmp_path / "halves"))
    assert (tmp_path / "halves" / "log.jsonl").read_text().splitlines()[-1] == (
        tmp_path / "whole" / "log.jsonl"
    ).read_text().splitlines()[-1]


def test_killed_at_any_moment_it_goes_on_to_the_same_weights(corpus: Corpus, tmp_path: Path) -> None:
    """The short version of benchmarks/resume.py."""
    whole = train(corpus, tiny("vae", 40), tmp_path / "whole")
    code = (
        "import sys; from pathlib import Path; from maquette.corpus import Corpus; from maquette.recipe import make_recipe\n"
        "from maquette.verbs import drive; from maquette.verbs.train import train\n"
        "drive.Keeper.due = lambda self: True\n"
        "data = {'model': 'vae', 'size': 'tiny', 'train': {'steps': 40, 'batch_size': 8, 'threads': 1}}\n"
        "train(Corpus.open(sys.argv[1]), make_recipe(data), Path(sys.argv[2]))"
    )
    saved = tmp_path / "killed" / "checkpoints"
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", code, corpus.path, tmp_path / "killed"]) as process:
            before = set(saved.glob("0*"))
            wait_for(lambda before=before: set(saved.glob("0*")) - before)
            process.kill()
    assert same(whole, train(corpus, tiny("vae", 40), tmp_path / "killed"))


def wait_for(something, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not something() and time.monotonic() < end:
        time.sleep(0.01)
    assert something()


def test_the_number_of_steps_follows_the_machine_when_its_first_steps_were_slow() -> None:
    times = chain([0.0], accumulate(chain([1.0] * 20, repeat(0.1))))
    budget = Budget(10.0, clock=lambda: next(times))
    now = SimpleNamespace(step=0, steps=None)
    seen = []
    while now.steps is None or now.step < now.steps:
        now.step += 1
        budget.freeze(now)
        seen.append(now.steps)
    first, last = next(s for s in seen if s), seen[-1]
    assert first < 700 and 4000 < last < 6000  # 600 seconds at a step a second, and at ten
    resumed = SimpleNamespace(step=5, steps=first)
    Budget(10.0, clock=lambda: next(times)).freeze(resumed)
    assert resumed.steps == first  # a run that goes on keeps its number


def test_minutes_are_kept(corpus: Corpus, tmp_path: Path) -> None:
    start = time.monotonic()
    run = train(
        corpus, make_recipe({"model": "vae", "size": "tiny", "minutes": 0.05, "train": {"threads": 1}}), tmp_path / "r"
    )
    checkpoint = run.newest()
    assert checkpoint is not None and checkpoint.facts["step"] == checkpoint.facts["steps"] >= 8
    assert time.monotonic() - start < 60  # no measure of speed, only that it ends


def test_a_bad_loss_goes_back_once_with_half_the_rate_then_stops_in_words(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maquette.models.vae import VAE

    good = VAE.loss

    def bad(self, batch, phase, progress):
        losses = good(self, batch, phase, progress)
        losses.terms["kl"] = losses.terms["kl"] * (float("nan") if progress >= 0.5 else 1)
        return losses

    monkeypatch.setattr(VAE, "loss", bad)
    news: list[str] = []
    with pytest.raises(TrainingError, match=r"phase model is not finite at step 3 .*half the rate; lower train.lr"):
        for event in training(corpus, tiny("vae"), tmp_path / "run"):
            news.append(event.news)
    assert sum("at half the rate" in n for n in news) == 1


def test_another_recipe_or_corpus_is_refused_and_nothing_is_lost(corpus: Corpus, tmp_path: Path) -> None:
    run = train(corpus, tiny("vae"), tmp_path / "run")
    before = weights(run)
    with pytest.raises(RunError, match=r"another recipe \(models.vae.beta: 1.0 -> 2.0\)"):
        train(corpus, tiny("vae").model_copy(update={"models": {"vae": {"beta": 2.0}}}), tmp_path / "run")
    assert all(torch.equal(t, before["weights"][n]) for n, t in weights(run)["weights"].items())


def test_wishes_that_cannot_be_are_answered_in_words(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean gan"):
        train(corpus, tiny("gann"), tmp_path / "a")
    with pytest.raises(SettingError, match="gan is no codec"):
        train(corpus, tiny("gan+flow"), tmp_path / "b")
    run = train(corpus, tiny("vae"), tmp_path / "c")
    with pytest.raises(UnknownName, match="did you mean circle"):
        generate(run, 1, Wish(condition={"label": "circel"}))
    with pytest.raises(UnknownName, match="no condition"):
        generate(run, 1, Wish(condition={"lable": "circle"}))
    with pytest.raises(RunError, match="half of a pair"):
        generate(train(corpus, tiny("vqvae"), tmp_path / "d"), 1)
    assert not (tmp_path / "a" / "run.json").exists() and not (tmp_path / "b" / "run.json").exists()


def test_a_model_outside_the_package_is_trained_by_path(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_model.py").write_text("from maquette.models.vae import VAE\nclass MyModel(VAE):\n    sizes = {}\n")
    monkeypatch.chdir(tmp_path)
    run = train(corpus, tiny("./my_model.py", 2), Path("runs/mine"))
    assert len(generate(Run.open(run.path), 2)) == 2


def test_auto_says_why(corpus: Corpus) -> None:
    recipe, reason = choose(make_recipe({}), corpus)
    assert recipe.model in reason and "because" in reason


def test_two_processes_end_with_the_same_weights(corpus: Corpus, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, hashlib, torch; from pathlib import Path; from maquette.corpus import Corpus\n"
        "from functools import partial; from maquette import loop as l; from maquette.models.vae import VAE\n"
        "from maquette.verbs.drive import processes\n"
        "with processes():\n"
        "    corpus = Corpus.open(sys.argv[1]); l.seed_everything(0, -1, 0); model = VAE(corpus.spec, width=8)\n"
        "    plan = l.make_plan(model, {'steps': 4, 'batch_size': 8, 'threads': 1})\n"
        "    batches = partial(corpus.batches, 8, 0, rank=l.rank(), world=l.world())\n"
        "    *_, now = l.loop(model, batches, plan)\n"
        "    digest = hashlib.sha256(b''.join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()\n"
        "    (Path(sys.argv[2]) / str(l.rank())).write_text(digest)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, script, corpus.path, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()


def test_where_nobody_says_a_place_another_recipe_gets_its_own(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = usual_place(corpus, tiny("vae"))
    train(corpus, tiny("vae"), first)
    assert first == Path("runs/shapes-vae") == usual_place(corpus, tiny("vae"))
    assert usual_place(corpus, tiny("vae", 7)) == Path("runs/shapes-vae-2")
    assert usual_place(corpus, make_recipe({})).name.startswith("shapes-vae")


def test_an_unknown_tracker_is_refused_before_anything_is_trained(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean tensorboard"):
        train(corpus, tiny("vae"), tmp_path / "run", loggers=("tensorbord",))
    assert not (tmp_path / "run").exists()


def test_trackers_get_what_the_log_gets(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[str]]] = []

    class Listener:
        def __init__(self, folder: Path):
            self.folder = folder

        def add(self, step: int, logs: dict[str, float]) -> None:
            seen.append((step, sorted(logs)))

        def close(self) -> None:
            seen.append((-1, []))

    monkeypatch.setitem(TRACKERS, "listener", Listener)
    train(corpus, tiny("vae"), tmp_path / "run", loggers=("listener",))
    assert [step for step, _ in seen] == [6, -1] and "model/kl" in seen[0][1]
