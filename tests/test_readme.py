"""README examples are run: its lines by hand and its Python, on a small folder of pictures."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

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
        monkeypatch.setattr(sys, "argv", shlex.split(hurry(line)))
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code, f"{line}\n{capsys.readouterr().err}"
    assert len(list((folder / "out").glob("*-dragon.png"))) == 16


def test_the_python_example_works_as_it_stands(folder: Path) -> None:
    (example,) = blocks("python")
    exec(hurry(example), {})
    with PIL.Image.open(folder / "a.png") as picture:
        assert picture.size == (16, 16)
