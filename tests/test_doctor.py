"""The doctor's report says what a stranger has to know: what was not taken and why, what is unusual, what to do."""

from pathlib import Path

import pytest
from test_prepare import folder, numbered, picture

from maquette.errors import ContentError
from maquette.verbs.doctor import printable, report
from maquette.verbs.prepare import prepare


def said(source: Path) -> str:
    return report(prepare(source, source.parent / "out"))


def test_the_most_frequent_reasons_of_the_quarantine_are_said(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", numbered(4))
    for name in ("a.png", "b.png", "c.png"):
        (source / name).write_text("text")
    picture(0, side=1).save(source / "dot.png")
    words = said(source)
    assert "quarantined: 4 (a.png and 2 more: its content is no PNG" in words
    assert "dot.png: 1x1 is too small" in words and "quarantine.jsonl" in words


def test_names_cannot_break_the_lines_or_colours_of_a_report(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ["Bär\n\x1b[31m/0.png", "Bär\n\x1b[31m/1.png", "b/2.png", "b/3.png"])
    words = said(source)
    assert r"labels: Bär\n\x1b[31m 2, b 2" in words
    assert printable("ü \udcff") == r"ü \udcff"


def test_a_source_whose_name_is_no_text_can_be_prepared(tmp_path: Path) -> None:
    source = folder(tmp_path / "bad\udcff", numbered(3))
    assert r"bad\xff: 3 pictures" in said(source)


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", numbered(4))
    for name in ("a.heic", "b.HEIC", "labels.csv", "README"):
        (source / name).write_text("?")
    words = said(source)
    assert "no pictures were passed over: .heic 2, files without suffix 1, .csv 1" in words
    assert "is read when it is named metadata.csv" in words


def test_a_table_that_misses_its_files_is_told_how_to_name_them(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", numbered(4))
    (source / "Metadata.CSV").write_text("file_name,text\nimages/0.png,a dog\nimages/1.png,a cat\n2.png,a cow\n")
    assert "2 rows of metadata name files that are not there" in said(source)


@pytest.mark.parametrize(
    ("head", "words"), [("file_name;text", "separate the columns by commas"), ("path,text", "rename the column")]
)
def test_a_table_without_file_names_is_told_what_to_do(tmp_path: Path, head: str, words: str) -> None:
    source = folder(tmp_path / "in", numbered(4))
    (source / "metadata.csv").write_text(f"{head}\n0.png,a dog\n")
    with pytest.raises(ContentError, match=words):
        prepare(source, tmp_path / "out")


def test_pieces_without_a_label_are_counted(tmp_path: Path) -> None:
    assert "labels: a 2, without label 4" in said(folder(tmp_path / "in", [*numbered(4), "a/5.png", "a/6.png"]))


def test_very_few_pictures_are_called_so(tmp_path: Path) -> None:
    words = said(folder(tmp_path / "in", numbered(3)))
    assert "- 1 picture to learn from" in words and "will mostly repeat what it saw" in words


def test_transparency_is_said(tmp_path: Path) -> None:
    assert "--set channels=3 lays them on white" in said(folder(tmp_path / "in", numbered(4), channels=4))


@pytest.mark.parametrize(
    ("name", "words"), [("a.heic", "1 .heic found, convert"), (None, "no file found, put at least 3 of a kind")]
)
def test_a_folder_without_pictures_says_what_to_do(tmp_path: Path, name: str | None, words: str) -> None:
    (tmp_path / "in").mkdir()
    if name:
        (tmp_path / "in" / name).write_text("?")
    with pytest.raises(ContentError, match=words):
        prepare(tmp_path / "in", tmp_path / "out")
