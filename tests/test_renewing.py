"""What is a copy is drawn again, with the next seeds; where copies cannot be told it is said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import maquette
from maquette.errors import CorpusError, RunError, UsageError
from maquette.piece import Piece
from maquette.recipe import make_recipe
from maquette.verbs.generate import Wish
from maquette.verbs.renewing import checked, renewed
from maquette.verbs.train import train

COPIES = {0, 3, 4}  # seeds


def draw(seed: int, count: int) -> list[Piece]:
    return [Piece(seed + k, {"wish": {"seed": seed + k}}) for k in range(count)]


def facts(pieces: Sequence[Piece]) -> list[dict]:
    return [{"verdict": "copy" if p.content in COPIES else "new", "nearest": []} for p in pieces]


def test_copies_are_drawn_again_with_the_seeds_behind_the_others() -> None:
    found = renewed(draw, facts, 3, seed=0)
    assert [p.content for p in found.pieces] == [5, 1, 2] and found.draws == (4, 1, 1)
    assert found.pieces[0].facts == {"wish": {"seed": 5}, "verdict": "new", "nearest": [], "draws": 4}
    assert found.words == "new: 1 of 3 were copies of training pieces at first and were drawn again, 3 times in all"
    assert "none of 2" in renewed(draw, facts, 2, seed=1).words


def test_a_run_that_only_copies_is_given_up_in_words() -> None:
    with pytest.raises(RunError, match="1 of 2 pieces were copies of training pieces in all 2 draws"):
        renewed(
            draw, lambda pieces: [{"verdict": "new" if p.content == 4 else "copy"} for p in pieces], 2, seed=3, tries=2
        )


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory):
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 1, "batch_size": 8}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "shapes")


def test_a_corpus_that_is_too_small_is_named(run) -> None:
    with pytest.raises(CorpusError, match="at least 99 held-out pieces"):
        maquette.generate(run.path, 2, new=True)


def test_what_cannot_be_told_is_refused(run) -> None:
    with pytest.raises(UsageError, match="--liked"):
        checked(run, Wish(liked=True))
    assert checked(run, Wish()).fingerprint == run.facts["corpus"]["fingerprint"]
    run.facts["corpus"]["path"] = "../gone"
    with pytest.raises(CorpusError, match="no longer"):
        checked(run, Wish())
