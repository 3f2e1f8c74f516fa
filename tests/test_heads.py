"""A task on a run, from end to end: what it stands on, what it answers, what its audit says, and what is refused in words."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import draw
from data import data
from test_train import same, tiny
from typer.testing import CliRunner

from maquette.api import open_run
from maquette.corpus import Corpus
from maquette.errors import RunError, SettingError, SpaceError, UnknownName, UsageError
from maquette.recipe import load
from maquette.run import Run
from maquette.verbs.adapt import adapt, adapting
from maquette.verbs.audit import audit
from maquette.verbs.generate import generate
from maquette.verbs.heads import head_recipe
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

STEPS = {"steps": 40, "given": {"batch_size": 16, "threads": 1}}
FEW = {"steps": 4, "given": {"batch_size": 8, "threads": 1}}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures with a label, how dark they are, and what they show in words."""
    root = tmp_path_factory.mktemp("told") / "told"
    root.mkdir()
    with (root / "metadata.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file_name", "label", "dark", "text"])
        for k in range(120):
            kind = ("circle", "square")[k % 2]
            picture = draw(kind, k)
            picture.save(root / f"{k:03d}.png")
            dark = 255 - float(np.asarray(picture).mean())
            size = "large" if dark > 70 else "small"
            rows.writerow([f"{k:03d}.png", kind, f"{dark:.2f}", f"a {size} {kind}"])
    return root


@pytest.fixture(scope="module")
def columns(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepare(told, tmp_path_factory.mktemp("corpora") / "told", settings={})


@pytest.fixture(scope="module")
def starts(columns: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of other kinds on the same pieces, some told what is known of them and some not."""
    root = tmp_path_factory.mktemp("runs")
    bare = columns.unconditioned()
    models = {"vae": columns, "vqvae": bare, "gan": columns, "flow": columns, "contrast": columns, "masked": bare}
    made = {name: train(corpus, tiny(name, 4), root / name) for name, corpus in models.items()}
    return made | {"vqvae+transformer": train(columns, tiny("vqvae+transformer", 4), root / "pair")}


@pytest.mark.parametrize("start", ["vae", "vqvae", "gan", "flow", "contrast", "masked", "vqvae+transformer"])
@pytest.mark.parametrize("task", ["classify", "restore"])
def test_a_head_stands_on_any_run_and_takes_all_of_its_network(
    task: str, start: str, starts: dict[str, Run], columns: Corpus, tmp_path: Path
) -> None:
    run = adapt(starts[start], columns, tmp_path / "run", task=task, method="full", **FEW)
    body = [n for n, _ in run.build().body.named_parameters()]
    assert {f"body.{n}" for n in body} <= set(run.facts["start"]["taken"])
    assert load(run.path / "recipe.toml") == run.recipe
    before = starts[start].codec or starts[start]
    frozen = adapt(starts[start], columns, tmp_path / "frozen", task=task, **FEW)
    model, network = frozen.load_model(), before.load_model().state_dict()
    part = next(iter(model.enters.values()))
    heads = tuple(model.heads)
    kept = {n: p for n, p in model.named_parameters() if n.startswith("body.") and not n.startswith(heads)}
    assert kept
    assert all(torch.equal(p, network[f"{part}.{n.removeprefix('body.')}"]) for n, p in kept.items())


def test_thin_matrices_move_beside_a_whole_head(starts: dict[str, Run], columns: Corpus, tmp_path: Path) -> None:
    run = adapt(starts["vqvae"], columns, tmp_path / "thin", task="classify", method="lora", steps=4, given={"rank": 2})
    moving = [n for n, _ in run.build().named_parameters() if run.build().phases[0].moves(n)]
    assert any(n.startswith("head.layers.0.weight") for n in moving) and any(
        "body" in n and "lora_A" in n for n in moving
    )
    assert audit(run).findings


def test_stopping_and_going_on_is_bit_exact_and_the_run_stands_alone(
    starts: dict[str, Run], columns: Corpus, tmp_path: Path
) -> None:
    whole = adapt(starts["contrast"], columns, tmp_path / "whole", task="classify", **FEW)
    events = adapting(starts["contrast"], columns, tmp_path / "halves", task="classify", **FEW)
    for event in events:
        if event.step >= 1:
            events.close()
            break
    assert same(whole, adapt(starts["contrast"], columns, tmp_path / "halves", task="classify", **FEW))
    starts["contrast"].path.rename(tmp_path / "away")
    try:
        assert open_run(whole.path).answer(_picture(tmp_path)).facts["answer"]["label"] in ("circle", "square")
    finally:
        (tmp_path / "away").rename(starts["contrast"].path)


def _picture(folder: Path, kind: str = "circle", k: int = 900) -> Path:
    path = folder / f"{kind}-{k}.png"
    draw(kind, k).save(path)
    return path


def test_names_are_learnt_kept_at_their_best_answered_and_audited(columns: Corpus, tmp_path: Path) -> None:
    run = train(
        columns,
        tiny("classify", 80, batch_size=32).model_copy(update={"models": {"classify": {"sure": 0.9}}}),
        tmp_path / "run",
    )
    log = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert any("validation/accuracy" in row for row in log) and run.best() is not None
    found = audit(run)
    accuracy = next(f for f in found.findings if f.name == "accuracy")
    assert (accuracy.value > accuracy.reference + 0.2 and accuracy.low < accuracy.value < 1) or accuracy.value == 1
    facts = json.loads((run.path / "audit" / "audit.json").read_text())
    assert sum(map(sum, facts["confusion"]["true_by_said"])) == accuracy.n
    assert "What is taken for what" in found.page.read_text()
    right = 0
    for k in range(10):
        kind = ("circle", "square")[k % 2]
        answer = open_run(run.path).answer(_picture(tmp_path, kind, 900 + k))
        right += answer.facts["answer"]["label"] == kind
        assert abs(sum(answer.facts["answer"]["probabilities"].values()) - 1) < 1e-4
    assert right >= 8


def test_numbers_are_learnt_and_judged_beside_their_mean(
    starts: dict[str, Run], columns: Corpus, tmp_path: Path
) -> None:
    run = adapt(
        starts["gan"],
        columns,
        tmp_path / "run",
        task="regress",
        method="full",
        steps=80,
        given={"batch_size": 32, "threads": 1},
    )
    found = {f.name: f for f in audit(run).findings}
    assert found["RMSE"].value < 0.7 * found["RMSE"].reference and found["R2"].value > 0.4
    answer = open_run(run.path).answer(_picture(tmp_path, "square", 950))
    dark = 255 - float(np.asarray(PIL.Image.open(tmp_path / "square-950.png")).mean())
    assert abs(answer.facts["answer"]["dark"] - dark) < 4 * found["RMSE"].value and "dark" in answer.words


def test_captions_are_written(columns: Corpus, tmp_path: Path) -> None:
    recipe = tiny("caption", 80, batch_size=32, lr=3e-3)
    run = train(columns, recipe, tmp_path / "run")
    found = {f.name: f for f in audit(run).findings}
    assert found["nats a word"].value < found["nats a word"].reference
    assert found["words met"].value > 0.6
    words = open_run(run.path).answer(_picture(tmp_path)).facts["answer"]["text"].split()
    assert words[0] == "a" and set(words) <= {"a", "small", "large", "circle", "square"}
    free = {
        open_run(run.path).answer(_picture(tmp_path), seed=k, temperature=3.0).facts["answer"]["text"] for k in range(5)
    }
    assert len(free) > 1


@pytest.mark.parametrize("kind", ["denoise", "inpaint", "enlarge"])
def test_restored_pieces_are_nearer_than_damaged_ones(kind: str, corpus: Corpus, tmp_path: Path) -> None:
    recipe = tiny("restore", 80, batch_size=32, lr=3e-3).model_copy(update={"models": {"restore": {"kind": kind}}})
    run = train(corpus, recipe, tmp_path / "run")
    found = {f.name: f for f in audit(run).findings}
    assert found["error left"].value < 0.8 and found["PSNR"].low < found["PSNR"].value < found["PSNR"].high
    answering = open_run(run.path)
    if kind != "inpaint":
        answer = answering.answer(_picture(tmp_path))
        assert answer.piece.content.shape == (16, 16, 1)
        with pytest.raises(UsageError, match="changes the whole piece"):
            answering.answer(_picture(tmp_path), keep=str(_picture(tmp_path)))
        return
    mask = np.full((16, 16), 255, np.uint8)
    mask[4:8, 4:8] = 0
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    answer = answering.answer(_picture(tmp_path), keep=str(tmp_path / "mask.png"))
    before = np.asarray(PIL.Image.open(_picture(tmp_path)))
    assert np.array_equal(answer.piece.content[..., 0][mask == 255], before[mask == 255])
    with pytest.raises(UsageError, match="say with --keep what stays"):
        answering.answer(_picture(tmp_path))


def test_the_command_line_answers(starts: dict[str, Run], columns: Corpus, tmp_path: Path) -> None:
    from maquette.cli import app

    def said(*line: object) -> str:
        done = CliRunner().invoke(app, [str(x) for x in line], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    run = tmp_path / "judge"
    more = ["--set", "train.steps=4", "--set", "sure=0.99", "--set", "threads=1"]
    said("adapt", starts["masked"].path, columns.path, "--task", "classify", "-o", run, *more)
    assert "held-out pieces are named rightly" in said("audit", run)
    told = said("generate", run, "--source", _picture(tmp_path), "-o", tmp_path / "out")
    assert "unsure; label" in told
    assert json.loads((tmp_path / "out" / "answer.json").read_text())["answer"]["abstains"] is True
    assert "classify" in said("show", run) and "abstains" in said("show", "classify")


def test_texts_are_named_and_what_is_missing_of_them_is_written(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    for kind, line in (("sea", "the waves of the sea and a ship"), ("wood", "an old oak in the dark wood")):
        (root / kind).mkdir(parents=True)
        for k in range(30):
            (root / kind / f"{k}.txt").write_text(f"{line} number {k} " * (1 + k % 3))
    corpus = prepare(root, tmp_path / "corpus", settings={"tokens": "characters"})
    for model, settings in (("transformer", {}), ("masked", {})):
        start = train(corpus, tiny(model, 4).model_copy(update={"models": {model: settings}}), tmp_path / model)
        run = adapt(start, corpus, tmp_path / f"{model}-judge", task="classify", method="full", **STEPS)
        assert {f.name: f for f in audit(run).findings}["accuracy"].value > 0.9
    (tmp_path / "new.txt").write_text("a ship on the sea")
    assert open_run(run.path).answer(tmp_path / "new.txt").facts["answer"]["label"] == "sea"
    whole = adapt(
        start,
        corpus,
        tmp_path / "whole",
        task="restore",
        method="full",
        steps=40,
        given={"batch_size": 16, "lr": 5e-3, "threads": 1},
    )
    told = audit(whole).findings[0]
    assert told.value > told.reference
    with pytest.raises(SpaceError, match="not from a chain"):
        adapt(Run.open(tmp_path / "transformer"), corpus, tmp_path / "no", task="restore", **FEW)


def test_what_cannot_be_learnt_is_refused_in_words(starts: dict[str, Run], columns: Corpus, tmp_path: Path) -> None:
    start = starts["contrast"]
    with pytest.raises(UnknownName, match="no task"):
        head_recipe(start, columns, "classifi")
    with pytest.raises(SettingError, match="'mood' is none that varies"):
        head_recipe(start, columns, "classify", given={"column": "mood"})
    with pytest.raises(SettingError, match="a column of numbers"):
        head_recipe(start, _small(tmp_path / "a", ["a"] * 8 + ["b"] * 8), "regress")
    with pytest.raises(SettingError, match="takes at least two values"):
        head_recipe(start, _small(tmp_path / "b", ["a"] * 12), "classify")
    with pytest.raises(SettingError, match="one training piece alone has the label b"):
        head_recipe(start, _small(tmp_path / "c", ["a"] * 12 + ["b"]), "classify")
    with pytest.raises(SettingError, match=r"learns from 4 training pieces or more .* has 3"):
        head_recipe(start, _small(tmp_path / "d", ["a", "b", "a", "b", "a"]), "classify")
    with pytest.raises(SettingError, match="a task makes nothing"):
        head_recipe(start, columns, "classify", given={"prior": 0.5})
    with pytest.raises(SettingError, match="denoise, inpaint or enlarge; impute came"):
        head_recipe(start, columns, "restore", given={"kind": "impute"})
    with pytest.raises(SpaceError, match="fits a corpus of the same kind"):
        head_recipe(start, _small(tmp_path / "e", ["a"] * 8 + ["b"] * 8, 24), "classify")
    fitted = adapt(start, _small(tmp_path / "f", ["a"] * 8 + ["b"] * 8, 24), tmp_path / "run", task="classify", **FEW)
    assert fitted.spec.space == start.spec.space
    with pytest.raises(RunError, match="answers about a piece"):
        generate(fitted, 1)
    with pytest.raises(UsageError, match="which makes pieces"):
        open_run(start.path).answer(_picture(tmp_path))


def _small(root: Path, labels: list[str], side: int = 16) -> Corpus:
    for k, label in enumerate(labels):
        (root / "x" / label).mkdir(parents=True, exist_ok=True)
        draw("circle", 300 + k, side).save(root / "x" / label / f"{k}.png")
    return prepare(root / "x", root / "corpus", settings={})


def test_digits_are_told_from_what_a_vae_saw(tmp_path: Path) -> None:
    """800 digits of MNIST; a start of a few seconds and a frozen body."""
    (tmp_path / "digits").mkdir()
    for name, head in (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8)):
        raw = bytearray(gzip.decompress(data("mnist", name).read_bytes()))
        raw[4:8] = (800).to_bytes(4, "big")
        (tmp_path / "digits" / name).write_bytes(gzip.compress(bytes(raw[: head + 800 * (784 if head == 16 else 1)])))
    corpus = prepare(tmp_path / "digits", tmp_path / "corpus", settings={})
    start = train(corpus, tiny("vae", 60, batch_size=32), tmp_path / "vae")
    run = adapt(start, corpus, tmp_path / "run", task="classify", steps=100, given={"lr": 3e-3, "threads": 1})
    found = {f.name: f for f in audit(run).findings}
    assert found["accuracy"].value > 0.7 > 0.2 > found["accuracy"].reference
