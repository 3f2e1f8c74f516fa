"""verify on what is no file, no picture, cut, forged or made to harm its reader: a sentence each, and never a verdict too good."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from maquette.errors import Unreadable
from maquette.provenance import credentials, keys, ledger
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import BEGINNINGS, inspect
from maquette.verbs.verify import near, plain, verify, words

FACTS = {"generator": "maquette 0", "run": "r", "run_fingerprint": "ab", "wish": {"seed": 7}}
needs_credentials = pytest.mark.skipif(not credentials.installed(), reason="needs the extra credentials")


def signed(path: Path, k: int = 0, **facts: object) -> Path:
    chance = np.random.default_rng(k)
    PIL.Image.fromarray(chance.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    return Marks(sign=credentials.installed()).finish([path], {**FACTS, **facts})[0]


def alone(path: Path) -> Path:
    """Moved away from its ledger."""
    path.with_name(ledger.NAME).unlink()
    return path


@pytest.mark.parametrize("suffix", sorted(BEGINNINGS))
def test_random_bytes_are_no_file_of_their_name(tmp_path: Path, suffix: str) -> None:
    for content, said in ((b"\x00" + np.random.default_rng(0).bytes(5000), "does not begin as one"), (b"", "is empty")):
        (tmp_path / f"a{suffix}").write_bytes(content)
        with pytest.raises(Unreadable, match=f"is no {BEGINNINGS[suffix][0]}: it {said}"):
            inspect(tmp_path / f"a{suffix}")


def test_every_kind_of_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "file").write_text("words")
    for name, said in (
        ("pipe.png", "not a file but a pipe"),
        ("folder.png", "but a folder"),
        ("loop.png", "leads in a circle"),
        ("dangling.png", "there is no such file"),
        ("file/a.png", "a part of this path is no folder"),
        ("x" * 300 + ".png", "no name is so long"),
    ):
        with pytest.raises(Unreadable, match=said):
            inspect(tmp_path / name)
    with pytest.raises(Unreadable, match="a device"):
        inspect(Path("/dev/zero"))


def test_the_child_does_not_wait_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(Unreadable, match="a pipe; it was not opened"):
        verify(tmp_path / "pipe.png")


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    told = len(content) if size is None else size
    return struct.pack(">I", told) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_a_png_that_says_it_holds_a_gigabyte_is_told_in_words(tmp_path: Path) -> None:
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
    for name, size in ((b"IDAT", 1 << 30), (b"iTXt", 1 << 30), (b"caBX", 0xFFFFFFF0)):
        (tmp_path / "a.png").write_bytes(head + chunk(name, b"XML:com.adobe.xmp\0" * 9, size))
        found = inspect(tmp_path / "a.png")
        assert not found.untouched and found.signature != "trusted" and not found.facts
    bomb = zlib.compress(bytes(200 << 20))
    (tmp_path / "a.png").write_bytes(head + chunk(b"iCCP", b"n\0\0" + bomb) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert not verify(tmp_path / "a.png").untouched


def test_a_file_of_more_than_half_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(Unreadable, match="larger than 512 MB"):
        inspect(tmp_path / "a.png")


@needs_credentials
def test_a_manifest_cut_short_is_invalid_at_every_place(tmp_path: Path) -> None:
    path = alone(signed(tmp_path / "a.png"))
    whole = path.read_bytes()
    for cut in np.linspace(60, len(whole) - 30, 40).astype(int):
        path.write_bytes(whole[:cut] + whole[cut + 25 :])
        found = inspect(path)
        assert found.signature in ("invalid", "none") and not found.untouched and not found.facts


@needs_credentials
def test_a_manifest_of_another_picture_is_invalid(tmp_path: Path) -> None:
    one, two = (signed(tmp_path / f"{k}.png", k) for k in (0, 1))
    at = one.read_bytes().index(b"caBX") - 4
    size = 12 + int.from_bytes(one.read_bytes()[at : at + 4], "big")
    other = two.read_bytes()
    there = other.index(b"caBX") - 4
    length = 12 + int.from_bytes(other[there : there + 4], "big")
    forged = one.read_bytes()[:at] + other[there : there + length] + one.read_bytes()[at + size :]
    alone(one).write_bytes(forged)
    assert inspect(one).signature == "invalid" and not inspect(one).facts


@needs_credentials
def test_facts_that_were_changed_within_the_manifest_are_not_believed(tmp_path: Path) -> None:
    path = alone(signed(tmp_path / "a.png"))
    path.write_bytes(path.read_bytes().replace(b"maquette 0", b"somebody 0"))
    found = inspect(path)
    assert found.signature == "invalid" and not found.facts and "INVALID" in words(found)


@needs_credentials
def test_a_stranger_who_signs_a_changed_picture_anew_shows_nothing_until_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    monkeypatch.setenv("MAQUETTE_KEYS", str(theirs))
    path = alone(signed(tmp_path / "a.png"))
    monkeypatch.setenv("MAQUETTE_KEYS", str(mine))
    found = inspect(path)
    assert found.signature == "unknown" and not found.untouched
    assert "by the word of that signer" in words(found) and "known/" in words(found)
    (mine / "known").mkdir(parents=True)
    (mine / "known" / "friend.pem").write_bytes((theirs / "root.pem").read_bytes())
    assert inspect(path).signature == "trusted" and inspect(path).untouched
    assert keys.folder() == mine


def test_words_say_how_near_the_nearest_training_piece_is(tmp_path: Path) -> None:
    nearest = [{"train": 17, "space": "judge", "distance": 0.123456, "source": "a/b.png", "licence": None}]
    path = signed(tmp_path / "a.png", nearest=nearest, verdict="close", p=0.0312345)
    said = words(inspect(path))
    assert (
        "nearest:   train 17, space judge, distance 0.1235, source a/b.png" in said
        and "verdict:   close (p = 0.03123)" in said
    )
    assert "nearest:   not measured" in words(inspect(signed(tmp_path / "b.png")))
    assert near(0.25) == "0.25" and near({"distance": 1.0}) == "distance 1" and near([]) == "not measured"


@pytest.mark.parametrize("suffix", [".glb", ".npz", ".csv", ""])
def test_a_file_of_any_kind_is_told_by_its_ledger_or_its_signature(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"any bytes")
    with pytest.raises(Unreadable, match="verify knows"):
        inspect(path)
    Marks("both").finish([path], FACTS)
    assert inspect(path).untouched and inspect(path).labels == ["eu", "cn"]
    path.write_bytes(b"any byteS")
    assert not inspect(path).untouched


def test_the_python_door_verifies_too(tmp_path: Path) -> None:
    import maquette

    assert maquette.verify(signed(tmp_path / "a.png")).untouched


def test_a_fact_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    path = signed(tmp_path / "a.png", verdict="\x1b[2Jnew\nsignature: trusted", generator="x" * 5000)
    said = words(inspect(path))
    assert "\x1b" not in said and len(said) < 3000 and said.count("\n  signature:") == 1
    assert plain("a\tb") == "a b"


def test_files_beside_a_piece_that_are_pipes_or_folders_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("words")
    os.mkfifo(credentials.beside(path))
    os.mkfifo(tmp_path / "a.txt.json")
    os.mkfifo(tmp_path / ledger.NAME)
    found = inspect(path)
    assert found.ledger == "unlisted" and found.labels == [] and not found.untouched
