"""Papers: labels, watermark, signature, ledger; and what verify says of files that were changed, forged or never ours."""

from __future__ import annotations

import io
import json
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from maquette.cli import app
from maquette.errors import MissingExtra, SettingError, Unreadable
from maquette.provenance import credentials, keys, ledger, watermark
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import inspect
from maquette.provenance.labels import label, labels_in
from maquette.verbs.verify import verify, words

FACTS = {"generator": "maquette 0", "run": "r", "run_fingerprint": "ab", "wish": {"seed": 7}, "nearest": 0.5}
needs_credentials = pytest.mark.skipif(not credentials.installed(), reason="needs the extra credentials")


def scene(k: int = 0, side: int = 128) -> np.ndarray:
    """A smooth picture with noise."""
    chance = np.random.default_rng(k)
    rough = PIL.Image.fromarray(chance.integers(40, 215, (6, 6, 3), dtype=np.uint8)).resize((side, side))
    return np.clip(np.asarray(rough) + chance.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)


def written(path: Path, marks: Marks) -> Path:
    path.write_bytes(b"words") if path.suffix == ".txt" else PIL.Image.fromarray(scene()).save(path)
    return marks.finish([path], FACTS)[0]


def flipped(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_the_ledger_finds_any_one_bit_that_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", Marks(sign=False))
    assert inspect(path).untouched
    for bit in range(40):
        flipped(path, bit)
        assert not inspect(path).untouched
        flipped(path, bit)
    assert inspect(path).untouched


def test_an_entry_that_was_not_sealed_with_the_key_is_forged(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", Marks(sign=False))
    place = path.with_name(ledger.NAME)
    entry = json.loads(place.read_text())
    place.write_text(json.dumps(entry | {"facts": {"generator": "somebody"}}) + "\n")
    found = inspect(path)
    assert found.ledger == "forged" and not found.untouched and not found.facts


def test_a_broken_ledger_vouches_for_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", Marks(sign=False))
    path.with_name(ledger.NAME).write_bytes(b'{"file": \xff\n[]\n{"file": "a.txt"}\n')
    assert inspect(path).ledger == "forged"


def test_the_secret_is_read_by_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_KEYS", str(tmp_path / "k"))
    first = keys.derived("a")
    assert first == keys.derived("a") != keys.derived("b")
    assert stat.S_IMODE((tmp_path / "k" / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("regime, found", [("eu", ["eu"]), ("cn", ["cn"]), ("both", ["eu", "cn"]), ("off", [])])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_labels_are_read_back_and_the_picture_stays(tmp_path: Path, regime: str, found: list[str], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(scene()).save(path)
    before = np.asarray(PIL.Image.open(path))
    assert label(path, regime, FACTS) == found
    with PIL.Image.open(path) as image:
        image.verify()
    assert np.array_equal(before, np.asarray(PIL.Image.open(path)))


def test_a_regime_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingError, match="eu, cn, both, off"):
        Marks(labels="us")


def test_the_watermark_survives_jpeg_and_half_size_and_another_key_sees_nothing() -> None:
    key, other, held = b"k" * 32, b"o" * 32, []
    for k in range(20):
        clean = scene(k)
        marked = watermark.embed(clean, key)
        error = ((marked.astype(float) - clean) ** 2).mean()
        assert 10 * np.log10(255**2 / error) >= 38
        image = PIL.Image.fromarray(marked)
        with io.BytesIO() as stream:
            image.resize((64, 64)).save(stream, "JPEG", quality=75)
            small = np.asarray(PIL.Image.open(stream))
        held += [watermark.p_value(small, key) < 1e-4]
        assert watermark.p_value(clean, key) > 1e-4 and watermark.p_value(marked, other) > 1e-4
    assert all(held)


@pytest.mark.parametrize("ground", [255, 0, 128])
def test_the_watermark_holds_on_a_flat_ground_behind_hard_edges(ground: int) -> None:
    clean = np.full((128, 128, 3), ground, np.uint8)
    clean[30:90, 30:100] = (250, 200, 20)
    clean[45:60, 45:60] = (0, 0, 0)
    marked = watermark.embed(clean, b"k" * 32)
    assert 10 * np.log10(255**2 / ((marked.astype(float) - clean) ** 2).mean()) >= 38
    with io.BytesIO() as stream:
        PIL.Image.fromarray(marked).resize((64, 64)).save(stream, "JPEG", quality=75)
        assert watermark.p_value(np.asarray(PIL.Image.open(stream)), b"k" * 32) < 1e-4
    assert watermark.p_value(clean, b"k" * 32) > 1e-4


def test_a_small_or_flat_picture_is_never_called_marked() -> None:
    small = scene(side=32)
    assert watermark.embed(small, b"k") is small
    assert watermark.p_value(np.full((128, 128, 3), 255, np.uint8), b"k") > 0.01


@needs_credentials
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_what_the_signature_says_is_not_taken_for_a_label(tmp_path: Path, suffix: str) -> None:
    found = inspect(written(tmp_path / f"a{suffix}", Marks(labels="off", sign=True)))
    assert found.signature == "trusted" and found.labels == []


@needs_credentials
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".tiff"])
def test_a_signature_is_trusted_until_the_picture_changes(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", Marks(sign=True))
    found = inspect(path)
    assert found.signature == "trusted" and found.untouched and found.facts["nearest"] == 0.5
    flipped(path, 8 * (path.stat().st_size - 40))
    assert not inspect(path).untouched
    assert inspect(path).signature == "invalid"


@needs_credentials
def test_a_signer_of_another_place_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_KEYS", str(tmp_path / "one"))
    path = written(tmp_path / "a.png", Marks(sign=True))
    path.with_name(ledger.NAME).unlink()
    monkeypatch.setenv("MAQUETTE_KEYS", str(tmp_path / "two"))
    assert inspect(path).signature == "unknown"
    assert stat.S_IMODE((tmp_path / "one" / "leaf.key").stat().st_mode) == 0o600


def test_signing_without_the_extra_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "find_spec", lambda name: None)
    assert not Marks().signs
    with pytest.raises(MissingExtra, match=r"maquette\[credentials\]"):
        Marks(sign=True)


def huge_png() -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    chunks = (head, body, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.png", huge_png(), "million pixels"),
        ("a.exe", b"MZ", "verify knows"),
        ("b.png", None, "there is no such file"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match=said):
        verify(tmp_path / name)


def test_a_file_of_noise_or_cut_short_is_not_untouched(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", Marks())
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:60], b"", np.random.default_rng(0).bytes(5000)):
        path.write_bytes(content)
        assert not inspect(path).untouched


def test_verify_ends_with_one_where_a_file_was_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", Marks(labels="both"))
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 0 and "untouched" in done.output and "eu, cn" in done.output
    flipped(path, 8 * (path.stat().st_size - 40))
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exit_code == 1 and "CHANGED" in done.output


def test_a_child_that_meets_its_cap_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.txt", Marks(sign=False))
    monkeypatch.setattr("maquette.verbs.verify.START", "import sys; sys.exit(9)  # {seconds} {memory}")
    with pytest.raises(Unreadable, match="cap of 2 s"):
        verify(path)


def test_words_say_what_nobody_vouches_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    said = words(inspect(tmp_path / "a.txt"))
    assert "NOT shown" in said and "none that something vouches for" in said
    assert labels_in(b"words") == []
