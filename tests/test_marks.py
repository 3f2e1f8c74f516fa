"""What a piece gets on its way into a file, whichever door it takes: the command line, `create`, Python."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

import maquette
from maquette.cli import app
from maquette.errors import SettingError, StorageError, UsageError
from maquette.provenance import credentials, keys, ledger, visible, watermark
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import inspect

KEY = b"k" * 32


def scene(k: int = 0, side: int = 128, channels: int = 3) -> np.ndarray:
    """A smooth picture with noise."""
    chance = np.random.default_rng(k)
    rough = PIL.Image.fromarray(chance.integers(40, 215, (6, 6, 3), dtype=np.uint8)).resize((side, side))
    grain = chance.normal(0, 4, (side, side, 3))
    made = np.clip(np.asarray(rough) + grain, 0, 255).astype(np.uint8)
    return np.concatenate([made] * 2, -1)[..., :channels]


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from maquette.recipe import make_recipe
    from maquette.verbs.train import train

    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 4, "batch_size": 8, "threads": 1}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "mine").path


@pytest.mark.parametrize("side", [64, 128, 300, 1000])
@pytest.mark.parametrize("regime, letters", [("eu", 2), ("both", 4)])
def test_a_mark_is_seen_in_a_corner_and_nowhere_else(side: int, regime: str, letters: int) -> None:
    clean = scene(side=side)
    marked = visible.shown(clean, regime)
    rows, columns = np.nonzero((marked != clean).any(-1))
    tall, broad = side - rows.min(), side - columns.min()
    ink = (marked > 230).all(-1) & ~(clean > 230).all(-1)
    written = np.ptp(np.nonzero(ink)[0]) + 1
    assert written >= 0.05 * side * 0.9 and tall >= 8 and broad <= 0.45 * side * letters
    assert tall <= max(20, 0.1 * side) and marked.shape == clean.shape and marked.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mark_is_legible_on_white_and_on_black(channels: int) -> None:
    for ground in (0, 255):
        marked = visible.shown(np.full((96, 96, channels), ground, np.uint8), "eu")[..., 0].astype(int)
        corner = marked[-20:, -20:]
        assert corner.max() - corner.min() > 150


def test_a_picture_too_small_for_the_longer_mark_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="28x28; drop --visible, or use --labels eu"):
        visible.shown(scene(side=28), "cn")
    assert not np.array_equal(visible.shown(scene(side=28), "eu"), scene(side=28))


@pytest.mark.parametrize(
    "regime, first",
    [("eu", "[AI-generated]"), ("cn", "[AI生成]"), ("both", "[AI生成 · AI-generated]"), ("off", "[AI-generated]")],
)
def test_a_text_begins_with_its_mark(regime: str, first: str) -> None:
    assert visible.shown("A line", regime) == f"{first}\n\nA line"


def test_what_cannot_show_a_mark_is_refused() -> None:
    with pytest.raises(UsageError, match="drop --visible"):
        visible.shown(object(), "eu")


def test_the_watermark_is_found_under_the_visible_mark() -> None:
    for k in range(5):
        marked = visible.shown(watermark.embed(scene(k), KEY), "both")
        assert watermark.p_value(marked, KEY) < 1e-4


def test_pieces_of_the_python_door_have_the_papers_of_the_command_line(run: Path, tmp_path: Path) -> None:
    made = maquette.open_run(run).generate(2, seed=5)
    plain = made[0].save(tmp_path / "a.png")
    marked = maquette.generate(run, 1, marks=Marks("both", sign=False))[0].save(tmp_path / "b.png")
    found, other = inspect(plain), inspect(marked)
    assert found.labels == ["eu"] and found.ledger == "untouched" and found.facts["wish"]["seed"] == 5
    assert found.signature == ("trusted" if credentials.installed() else "unread")
    assert other.labels == ["eu", "cn"] and other.facts["labels"] == "both" and other.signature != "trusted"


def test_a_way_between_two_pieces_has_papers_too(run: Path, tmp_path: Path) -> None:
    (first, *_) = maquette.open_run(run).interpolate(1, 2, 3, marks=Marks("cn", sign=False))
    assert inspect(first.save(tmp_path / "a.png")).labels == ["cn"]


def test_sheets_and_films_have_papers_with_every_seed(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["generate", str(run), "--interpolate", "1", "2", "--frames", "3", "-o", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    for name in ("sheet.png", "way.gif"):
        found = inspect(tmp_path / name)
        assert found.untouched and found.labels == ["eu"] and found.facts["seeds"] == [1, 2]


def test_a_sheet_does_not_take_the_verdict_on_one_piece_for_its_own(run: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from maquette.verbs.generate import sheet

    piece = maquette.generate(run, 1)[0]
    piece = replace(piece, facts={**piece.facts, "verdict": "new", "nearest": [{"train": 1}], "p": 0.5})
    facts = inspect(sheet([piece], tmp_path, piece.marks)).facts
    assert facts["seeds"] == [0] and not {"verdict", "nearest", "p"} & set(facts)


def test_a_label_of_no_regime_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["create", str(tmp_path / "nowhere"), "--labels", "us"])
    assert isinstance(done.exception, SettingError) and "eu, cn, both, off" in str(done.exception)


def test_the_first_use_says_that_signing_is_on_and_where_the_key_lies(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQUETTE_KEYS", str(tmp_path / "keys"))
    said = [CliRunner().invoke(app, ["generate", str(run), "-n", "1", "-o", str(tmp_path / k)]).output for k in "ab"]
    assert f"Your key is made now in {tmp_path / 'keys'}" in said[0] and "Your key" not in said[1]
    assert ("signed by C2PA" in said[0]) == credentials.installed()
    for place in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_keys_are_never_made_within_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_KEYS", str(run / "deep" / "keys"))
    with pytest.raises(SettingError, match="runs are handed on"):
        keys.secret()
    assert not (run / "deep").exists()


def test_keys_that_cannot_be_written_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MAQUETTE_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(StorageError, match="set MAQUETTE_KEYS"):
        keys.secret()


def test_an_empty_text_is_entered_in_the_ledger_and_not_signed(tmp_path: Path) -> None:
    file = tmp_path / "0.txt"
    file.write_bytes(b"")
    Marks(labels="off").finish([file], {"seed": 0})
    assert file.read_bytes() == b"" and not (tmp_path / "0.txt.c2pa").exists()
    assert inspect(file).untouched


def test_the_ledger_goes_on_after_half_a_line(tmp_path: Path) -> None:
    marks, place = Marks("off", sign=False), tmp_path / ledger.NAME
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
        marks.finish([tmp_path / f"{name}.txt"], {"n": name})
        place.write_bytes(place.read_bytes() + b'{"file": "b.txt", "sum"')
    assert [inspect(tmp_path / f"{name}.txt").ledger for name in ("a", "b")] == ["untouched", "untouched"]
    (tmp_path / "a.txt").write_text("a, again")
    marks.finish([tmp_path / "a.txt"], {"n": "again"})
    assert inspect(tmp_path / "a.txt").facts == {"n": "again"}
    assert len([line for line in place.read_text().splitlines() if _whole(line)]) == 3


def _whole(line: str) -> bool:
    try:
        return bool(json.loads(line))
    except ValueError:
        return False
