"""README examples are run: its lines by hand and its Python, on a small folder of pictures."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from maquette import cli

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """my-pictures/ with dragons and knights, as the README has it; training is cut short by a quick clock."""
    from conftest import draw

    monkeypatch.chdir(tmp_path)
    for label, kind in (("dragon", "circle"), ("knight", "square")):
        (tmp_path / "my-pictures" / label).mkdir(parents=True)
        for k in range(12):
            draw(kind, k).save(tmp_path / "my-pictures" / label / f"{k}.png")
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def hurry(text: str) -> str:
    """The same line with seconds for minutes and small pictures."""
    return re.sub(r"(--minutes |minutes=)\d+", r"\g<1>0.03", text).replace("size=64", "size=16")


def test_the_lines_of_the_road_work_as_they_stand(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    lines = [line.split("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    typed = [line for line in lines if line.startswith("maquette ")]
    assert len(typed) == 6
    for line in typed:
        run_all(hurry(line).removeprefix("maquette "), monkeypatch, capsys)
    assert len(list((folder / "out").glob("*-dragon.png"))) == 16


@pytest.fixture
def sequences(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """poems/ of quatrains, tales/ without labels, chorales/ of four voices and tune.mid."""
    from maquette.modalities.music import Music

    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    characters = np.array(list("空山不見人但聞語響返景入深林明月光照青苔上"))
    lines = ("".join(chance.choice(characters, 5)) for _ in range(4 * 40))
    poems = [{"paragraphs": [f"{a}，{b}。", f"{c}，{d}。"]} for a, b, c, d in zip(*[lines] * 4, strict=True)]
    tales = [" ".join(chance.choice(["the", "old", "king", "slept", "well"], 12)) for _ in range(40)]
    scales = ([60, 62, 64, 65, 67, 72], [57, 59, 60, 62, 64, 69, 56])
    rolls = [
        [[int(p) + down for down in (0, -5, -12, -17)] for p in chance.choice(scales[k % 2], 32)] for k in range(16)
    ]
    for name, content in (("poems", poems), ("tales", tales), ("chorales", {"train": rolls})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.json").write_text(json.dumps(content), encoding="utf-8")
    music = Music(voices=4)
    music.restore(music.fit(pieces := list(music.read(tmp_path / "chorales" / "all.json"))))
    music.write(music.clean(pieces[0]), tmp_path / "tune.mid")
    return tmp_path


def test_the_lines_for_texts_and_music_work_as_they_stand(sequences: Path, monkeypatch, capsys) -> None:
    run_all("prepare tales -o corpora/tales --modality text", monkeypatch, capsys)
    run_all("train corpora/tales --model transformer --minutes 0.03 -o runs/tales", monkeypatch, capsys)
    lines = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert len(lines) == 7
    for line in lines:
        run_all(hurry(line).removeprefix("maquette "), monkeypatch, capsys)
    poems = list((sequences / "runs" / "poems" / "pieces" / "002").glob("*.txt"))
    assert len([p for p in poems if p.name != "sheet.txt"]) == 4
    assert {p.suffix for p in (sequences / "out").iterdir()} >= {".mid", ".musicxml", ".wav", ".png"}
    assert (sequences / "for-hugging-face" / "model.safetensors").is_file()


def run_all(words: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["maquette", *shlex.split(words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, f"{words}\n{capsys.readouterr().err}"


def test_the_python_example_works_as_it_stands(folder: Path) -> None:
    (example,) = blocks("python")
    exec(hurry(example), {})
    with PIL.Image.open(folder / "a.png") as picture:
        assert picture.size == (16, 16)
