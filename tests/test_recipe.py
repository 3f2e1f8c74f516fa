"""Recipes: TOML in and out, dotted and plain overrides, errors that name the nearest word."""

from __future__ import annotations

from pathlib import Path

import pytest

from maquette.errors import SettingError, UnknownName, UsageError
from maquette.recipe import differences, load, make_recipe, override, parse_assignment, settle, to_toml

RECIPES = sorted((Path(__file__).parent.parent / "recipes").rglob("*.toml"))


def test_a_settled_recipe_survives_toml_and_says_every_default(tmp_path: Path) -> None:
    settled = settle(make_recipe({"model": "vae", "models": {"vae": {"beta": 2.0}}, "train": {"batch_size": 8}}))
    (tmp_path / "r.toml").write_text(to_toml(settled))
    again = settle(load(tmp_path / "r.toml"))
    assert again == settled and differences(again, settled) == []
    assert "half_life = 0.05" in to_toml(settled) and "beta = 2.0" in to_toml(settled)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_at_hand_is_valid(path: Path) -> None:
    settle(load(path))


def test_overrides_find_their_table() -> None:
    recipe = override(
        make_recipe({"model": "vqvae+transformer"}), ["transformer.dropout=0.2", "batch_size=16", "seed=4"]
    )
    assert recipe.models == {"transformer": {"dropout": 0.2}}
    assert recipe.train == {"batch_size": 16} and recipe.seed == 4


@pytest.mark.parametrize(
    ("assignment", "error", "words"),
    [
        ("bta=2", UnknownName, "did you mean beta"),
        ("vea.beta=2", UnknownName, "did you mean vae"),
        ("beta", UsageError, "key=value"),
    ],
)
def test_a_mistyped_override_is_answered_in_words(assignment: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        override(make_recipe({"model": "vae"}), [assignment])


def test_wrong_values_say_what_was_expected_and_what_came() -> None:
    with pytest.raises(SettingError, match=r"vae\.beta should be greater than or equal to 0; -1 came"):
        settle(make_recipe({"model": "vae", "models": {"vae": {"beta": -1}}}))
    with pytest.raises(UnknownName, match="did you mean gan"):
        settle(make_recipe({"model": "gann"}))
    with pytest.raises(SettingError, match="size should be"):
        make_recipe({"size": "huge"})


def test_values_are_toml_or_text() -> None:
    assert parse_assignment("a=1e-3") == ("a", 0.001)
    assert parse_assignment("a=[1, 2]") == ("a", [1, 2])
    assert parse_assignment("a=true") == ("a", True)
    assert parse_assignment("a=hinge") == ("a", "hinge")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("model = ")
    with pytest.raises(UsageError, match=r"r.toml is not TOML"):
        load(tmp_path / "r.toml")
    with pytest.raises(UsageError, match="no recipe at"):
        load(tmp_path / "none.toml")
