"""The command line computes on the idle cores, papers say on how many threads, and --like takes as many; no time is measured here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
import torch

from maquette import cli, loop, show
from maquette.errors import ContentError
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs.generate import Wish, generate, threads_of
from maquette.verbs.train import train


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 1, "batch_size": 8, "threads": 1}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Each test begins on one thread, and no other test is left with more."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """type_in(cores, "generate", ...): with so many idle cores."""
    monkeypatch.chdir(tmp_path)

    def typed(cores: int, *words: object) -> int:
        monkeypatch.setattr(loop, "idle_cores", lambda: cores)
        monkeypatch.setattr(sys, "argv", ["maquette", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return typed


def test_a_piece_is_made_on_the_idle_cores_and_again_on_as_many(type_in, run: Run) -> None:
    assert type_in(2, "generate", run.path, "-n", 1, "-o", "first", "--no-sign") == 0
    assert torch.get_num_threads() == 2 and show.papers_of(Path("first/000000.png"))["threads"] == 2
    assert type_in(1, "generate", run.path, "--like", "first/000000.png", "-n", 1, "-o", "again", "--no-sign") == 0
    assert torch.get_num_threads() == 2 and show.papers_of(Path("again/000000.png"))["threads"] == 2
    assert PIL.Image.open("again/000000.png").tobytes() == PIL.Image.open("first/000000.png").tobytes()


def test_of_older_papers_the_number_is_left_as_it_is(type_in, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type_in(2, "generate", run.path, "-n", 1, "-o", "first", "--no-sign") == 0
    facts = show.papers_of(Path("first/000000.png"))
    monkeypatch.setattr(show, "papers_of", lambda path: {k: v for k, v in facts.items() if k != "threads"})
    torch.set_num_threads(1)
    assert type_in(2, "generate", run.path, "--like", "first/000000.png", "-n", 1, "-o", "again", "--no-sign") == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "gone"),
        ("adapt", "gone", "corpus", "-o", "new"),
        ("rate", "gone"),
        ("tune", "gone"),
        ("create", "gone"),
    ],
)
def test_verbs_that_compute_take_the_idle_cores_before_anything_else(type_in, words: tuple[str, ...]) -> None:
    assert type_in(2, *words) != 0  # there is no such folder
    assert torch.get_num_threads() == 2


def test_called_from_python_the_number_stays_that_of_the_caller(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "idle_cores", lambda: 1)
    torch.set_num_threads(2)
    piece = generate(run, 1, Wish(seed=3))[0]
    assert torch.get_num_threads() == 2 and threads_of(piece.facts) == 2


@pytest.mark.parametrize("number", [0, -1, 10**9, "2", 1.5, True])
def test_a_forged_number_is_refused_in_words(number: object) -> None:
    with pytest.raises(ContentError, match="1 to 1024 are expected"):
        threads_of({"threads": number})
    assert threads_of({}) is None and threads_of({"threads": 2}) == 2
