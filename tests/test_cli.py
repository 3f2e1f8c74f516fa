"""The command line as a person types it: the README's road, and what is said when something is mistyped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from maquette import cli

QUICK = ["--size", "tiny", "--set", "steps=4", "--set", "batch_size=8", "--set", "threads=1"]


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    """type_in("train", ...) -> (exit status, what was printed, what was complained of), in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maquette", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_the_whole_road_by_hand(type_in, pictures: Path, tmp_path: Path) -> None:
    status, out, err = type_in("prepare", pictures, "-o", "corpora/mine")
    assert status == 0 and "120 pictures" in out, err
    status, out, err = type_in("train", "corpora/mine", "--model", "vae", "-o", "runs/mine", *QUICK)
    assert status == 0 and "run: runs/mine" in out, err
    status, out, err = type_in(
        "generate", "runs/mine", "-n", 4, "--condition", "label=circle", "--seed", 7, "-o", "out"
    )
    assert status == 0 and "pieces: 4 in out" in out, err
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "000007-circle.png",
        "000008-circle.png",
        "000009-circle.png",
        "000010-circle.png",
        "ledger.jsonl",
        "sheet.png",
    ]
    status, out, err = type_in("audit", "runs/mine")
    assert status == 0 and "report:" in out, err
    status, out, err = type_in("show")
    assert status == 0 and "corpora/mine" in out and "runs/mine" in out and "transformer" in out, err


def test_the_split_is_a_choice(type_in, pictures: Path) -> None:
    status, _, err = type_in("prepare", pictures, "-o", "corpora/mine", "--split", "0.5,0.2,0.3", "--seed", 3)
    counts = json.loads(Path("corpora/mine/corpus.json").read_text())["counts"]
    assert status == 0 and np.allclose(list(counts.values()), [60, 24, 36], atol=3), err  # twins stay together
    first = Path("corpora/mine/train.npy").read_bytes()
    type_in("prepare", pictures, "-o", "corpora/mine", "--split", "0.5,0.2,0.3", "--seed", 4)
    assert Path("corpora/mine/train.npy").read_bytes() != first


def test_create_needs_one_line(type_in, pictures: Path) -> None:
    status, out, err = type_in("create", pictures, "--minutes", "0.05", "--model", "vae", "--size", "tiny", "-n", 4)
    assert status == 0, err
    for word in ("pieces: 4 in", "sheet:", "report:"):
        assert word in out
        line = next(x for x in out.splitlines() if x.startswith(word.split(":")[0]))
        assert Path(line.split(" in ")[-1].split(": ")[-1].strip()).exists()


def quick_run(corpus, model: str, folder: Path) -> Path:
    from maquette.recipe import make_recipe
    from maquette.verbs.train import train

    recipe = make_recipe({"model": model, "size": "tiny", "train": {"steps": 4, "batch_size": 8, "threads": 1}})
    return train(corpus, recipe, folder).path


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(corpus, "vae", tmp_path_factory.mktemp("runs") / "shapes")


def test_a_piece_restores_all_that_made_it(type_in, trained: Path) -> None:
    type_in("generate", trained, "-n", 3, "--seed", 20, "--temperature", 0.8, "-o", "first")
    status, _, err = type_in("generate", trained, "--like", "first/000021.png", "-n", 1, "-o", "again")
    assert status == 0, err
    assert PIL.Image.open("again/000021.png").tobytes() == PIL.Image.open("first/000021.png").tobytes()
    status, out, _ = type_in("show", "first/000021.png")
    papers = json.loads(out)
    assert papers["wish"]["seed"] == 21 and papers["wish"]["temperature"] == 0.8 and papers["recipe"]["model"] == "vae"


def test_a_way_between_two_seeds(type_in, trained: Path) -> None:
    status, out, err = type_in("generate", trained, "--interpolate", 3, 17, "--frames", 5, "-o", "way")
    assert status == 0 and "animation: way/way.gif" in out, err
    assert len(list(Path("way").glob("3-to-17-*.png"))) == 5


def test_what_a_mask_keeps_stays(type_in, corpus, pictures: Path) -> None:
    run = quick_run(corpus, "flow", Path("runs/flow"))
    source = pictures / "circle" / "000.png"
    mask = PIL.Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 16, 8))
    mask.save("mask.png")
    status, _, err = type_in("generate", run, "--source", source, "--keep", "mask.png", "-n", 2, "-o", "out")
    assert status == 0, err
    made, given = (PIL.Image.open(p).convert("L").crop((0, 0, 16, 8)).tobytes() for p in ("out/000000.png", source))
    assert made == given


def test_a_source_is_varied(type_in, trained: Path, pictures: Path) -> None:
    status, _, err = type_in("generate", trained, "--source", pictures / "circle" / "000.png", "-n", 2, "-o", "out")
    assert status == 0, err
    status, _, err = type_in(
        "generate", trained, "--source", pictures / "circle" / "000.png", "--keep", pictures / "circle" / "001.png"
    )
    assert status == 2 and "flow" in err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["train", "nowhere"], 1, "is not a corpus"),
        (["generate", "nowhere"], 1, "no run at nowhere"),
        (["generate"], 2, "which run?"),
        (["show", "flw"], 2, "did you mean flow"),
        (["create", "empty"], 1, "empty"),
        (["prepare", "missing"], 1, "missing"),
        (["prepare", "empty", "--split", "0.7,a"], 2, "0.7,0.15,0.15"),
        (["prepare", "empty", "--split", "0.7,0.15"], 2, "three shares above 0 that sum to 1"),
        (["generate", "RUN", "--condition", "label=circel"], 2, "did you mean circle"),
        (["generate", "RUN", "--condition", "circle"], 2, "name=value"),
        (["generate", "RUN", "--keep", "a.png"], 2, "--source"),
        (["generate", "RUN", "--source", "a.png"], 1, "no file a.png"),
        (["generate", "RUN", "--temperature", "0"], 2, "temperature should be > 0"),
        (["generate", "--like", "a.png"], 1, "no file a.png"),
    ],
)
def test_what_is_mistyped_is_answered_in_one_sentence(
    type_in, trained: Path, words: list[str], status: int, said: str
) -> None:
    Path("empty").mkdir()
    got, _, err = type_in(*(trained if w == "RUN" else w for w in words))
    assert (got, said in err) == (status, True), err
    assert "Traceback" not in err and err.startswith("maquette: ")


def test_a_mistyped_option_offers_the_right_one(type_in) -> None:
    status, _, err = type_in("train", "corpora/mine", "--modle", "gan")
    assert status == 2 and "--model" in err


def test_settings_are_described(type_in) -> None:
    status, out, _ = type_in("show", "vae")
    assert status == 0 and "beta" in out and "weight of the KL" in out
