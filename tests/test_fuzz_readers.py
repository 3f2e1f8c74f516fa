"""Whatever bytes come, the readers answer with pieces or with a sentence: no crash, no hang, no file elsewhere."""

import contextlib
import gzip
import io
import json
import struct
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette.errors import MaquetteError, Unreadable
from maquette.modalities.image import Image
from maquette.verbs.prepare import prepare

QUICK = settings(max_examples=25, deadline=10_000, derandomize=True, suppress_health_check=list(HealthCheck))
FORMATS = ["png", "jpeg", "webp", "gif", "bmp", "tiff"]


def encoded(kind):
    stream = io.BytesIO()
    content = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    PIL.Image.fromarray(content).save(stream, kind)
    return stream.getvalue()


SEEDS = {kind: encoded(kind) for kind in FORMATS}
SEEDS["idx3-ubyte"] = b"\0\0\x08\x03" + struct.pack(">III", 3, 5, 5) + bytes(75)
SEEDS["npz"] = (lambda s: (np.savez(s, images=np.zeros((3, 5, 5), np.uint8), labels=[1, 2, 3]), s.getvalue())[1])(
    io.BytesIO()
)

damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=8)), max_size=4)


def damaged(content, changes, end):
    content = bytearray(content)
    for place, new in changes:
        at = int(place * len(content))
        content[at : at + len(new)] = new
    return bytes(content[: int(end * len(content)) + 1])


def read_all(path):
    """At most a hundred pieces: a header may honestly promise millions of pixels that are there."""
    found = []
    with contextlib.suppress(Unreadable):
        for piece in Image(megapixels=1).read(path):
            assert piece.content.dtype == np.uint8 and piece.content.ndim == 3 and piece.content.shape[2] in (1, 3, 4)
            found.append(piece)
            if len(found) == 100:
                break
    return found


@pytest.mark.parametrize("kind", SEEDS)
@given(changes=damage, end=st.floats(0.0, 1.0))
@QUICK
def test_a_damaged_file_is_read_or_refused_in_words(kind, changes, end):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{kind}")
        path.write_bytes(damaged(SEEDS[kind], changes, end))
        read_all(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npz", "-idx3-ubyte", "-idx3-ubyte.gz"])
@given(content=st.binary(max_size=300))
@QUICK
def test_any_bytes_at_all_are_refused_in_words(suffix, content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(content)
        read_all(path)


@given(counts=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), zipped=st.booleans())
@QUICK
def test_an_idx_head_that_promises_the_moon_takes_no_memory(counts, zipped):
    with tempfile.TemporaryDirectory() as folder:
        content = b"\0\0\x08\x03" + struct.pack(">III", *counts) + bytes(100)
        path = Path(folder, "a-idx3-ubyte" + (".gz" if zipped else ""))
        path.write_bytes(gzip.compress(content) if zipped else content)
        read_all(path)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20) | st.sampled_from(
    ["../x", "/tmp/maquette-fuzz", "a/../../x", "..", ".", "a" * 300, "metadata.csv", "C:\\x", "..\\x", "a//b", "a"]
)


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def try_prepare(source, folder):
    """Prepare, or a sentence; either way nothing but the corpus is new."""
    before = everything_below(folder)
    with contextlib.suppress(MaquetteError):
        prepare(source, Path(folder, "out"))
    assert [p for p in everything_below(folder) if p.split("/")[0] != "out"] == before
    assert not Path("/tmp/maquette-fuzz.png").exists()


@given(
    members=st.lists(st.tuples(names, st.sampled_from([".png", "", "/b.png"])), max_size=5),
    kind=st.sampled_from(["zip", "tar"]),
)
@QUICK
def test_no_name_in_an_archive_leads_out_of_the_folder(members, kind):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.zip" if kind == "zip" else "a.tar.gz")
        named = [f"good{i}.png" for i in range(3)] + [name + suffix for name, suffix in members]
        with write_archive(source, kind) as write:
            for i, name in enumerate(named):
                write(name, damaged(SEEDS["png"], [], 1.0) + bytes([i]))
        try_prepare(source, folder)


@contextlib.contextmanager
def write_archive(path, kind):
    if kind == "zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")  # of names that come twice, as they should here
            yield lambda name, content: archive.writestr(zipfile.ZipInfo(name), content)
        return

    def add(name, content):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        yield add


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@given(changes=damage, end=st.floats(0.0, 1.0))
@QUICK
def test_a_damaged_archive_is_used_as_far_as_it_goes(kind, changes, end):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"a.{kind}")
        with write_archive(source, kind) as write:
            for i in range(4):
                write(f"{i}.bmp", damaged(SEEDS["bmp"], [(0.5, bytes([i]) * 8)], 1.0))
        source.write_bytes(damaged(source.read_bytes(), changes, end))
        try_prepare(source, folder)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
columns = st.sampled_from(["file_name", "label", "text", "tags", "license", "age", "source", "x"]) | st.text(max_size=5)


@given(rows=st.lists(st.dictionaries(columns, json_values, max_size=4), max_size=6))
@QUICK
def test_any_json_beside_the_pictures_is_metadata_or_quarantine(rows):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for i in range(4):
            (source / f"{i}.bmp").write_bytes(damaged(SEEDS["bmp"], [(0.5, bytes([i]) * 8)], 1.0))
        for row in rows:  # a licence that is no text puts its piece into quarantine; see test_licences
            row |= {"license": str(row["license"])} if "license" in row else {}
        lines = [json.dumps({"file_name": f"{i % 5}.bmp", **row}) for i, row in enumerate(rows)]
        (source / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        made = prepare(source, Path(folder, "out"))
        assert len(made) == 4 and all(made.facts_of(i) for i in range(4))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: ("file_name," + t).encode()))
@QUICK
def test_any_csv_beside_the_pictures_is_metadata_or_a_sentence(content):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        for i in range(3):
            (source / f"{i}.bmp").write_bytes(damaged(SEEDS["bmp"], [(0.5, bytes([i]) * 8)], 1.0))
        (source / "metadata.csv").write_bytes(content)
        try_prepare(source, folder)
