"""From a person's folder to a corpus: every convention, what is odd in quarantine, twins on one side, nothing lost."""

import csv
import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from data import data

from maquette import duplicates, files
from maquette.corpus import Corpus
from maquette.errors import ContentError, SettingError, StorageError, UnknownName, UsageError
from maquette.space import Space
from maquette.splitting import split_groups
from maquette.verbs.doctor import report
from maquette.verbs.prepare import encode, prepare


def picture(seed, side=16, channels=3):
    """Smooth and unlike the pictures of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), np.uint8)
    image = PIL.Image.fromarray(coarse[..., 0] if channels == 1 else coarse)
    return image.resize((side, side), PIL.Image.Resampling.BICUBIC)


def folder(path, names, **options):
    for seed, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed, **options).save(path / name)
    return path


def numbered(count, pattern="{}.png"):
    return [pattern.format(i) for i in range(count)]


def quarantine(corpus):
    lines = (corpus.path / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file"]: row["reason"] for row in map(json.loads, lines)}


def everything(corpus):
    return [corpus.facts_of(i) for i in range(len(corpus))]


# ---- the conventions


def test_a_bare_folder_becomes_a_corpus(tmp_path):
    made = prepare(folder(tmp_path / "in", numbered(20)), tmp_path / "out")
    assert made.spec.space == Space("grid", (3, 16, 16)) and made.spec.condition is None
    assert [made.size(s) for s in ("train", "validation", "test")] == [14, 3, 3]
    assert made.facts["source"] == "in" and made.facts["quarantined"] == 0
    stored = made.take(np.array([0])).x[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(stored, np.asarray(picture(0)))


def test_the_first_folder_is_the_label(tmp_path):
    names = numbered(10, "cats/{}.png") + numbered(10, "dogs/old/{}.png")
    made = prepare(folder(tmp_path / "in", names), tmp_path / "out")
    assert made.facts["labels"] == {"cats": 10, "dogs": 10}
    assert made.spec.condition.fields[0].values == ("cats", "dogs")
    for facts in everything(made):
        assert facts["label"] == facts["source"].split("/")[0]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_gives_texts_labels_licences_and_further_columns(tmp_path, kind):
    source = folder(tmp_path / "in", numbered(20))
    rows = [
        {"file_name": f"{i}.png", "text": f"a red cat {i % 2}", "label": "ab"[i % 2], "license": "CC0", "age": str(i)}
        for i in range(20)
    ]
    with (source / f"metadata.{kind}").open("w", encoding="utf-8-sig" if kind == "csv" else "utf-8") as stream:
        if kind == "csv":
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    made = prepare(source, tmp_path / "out")
    assert {f.name: f.kind for f in made.spec.condition.fields} == {
        "age": "number",
        "label": "label",
        "text": "caption",
    }
    assert made.facts["licences"] == {"CC0-1.0": 20} and "licence" not in " ".join(made.facts["advice"])
    number = next(i for i in range(20) if made.facts_of(i)["source"] == "7.png")
    assert made.facts_of(number)["text"] == "a red cat 1"
    expected = made.spec.condition.encode({"age": 7, "label": "b", "text": "a red cat 1"})
    found = made.take(np.array([number])).condition[0]
    assert torch.equal(found.nan_to_num(-9), torch.tensor(expected).nan_to_num(-9))


def test_odd_metadata_rows_go_to_quarantine_with_their_line(tmp_path):
    source = folder(tmp_path / "in", numbered(5))
    lines = ['{"file_name": "0.png", "label": "a"}', '{"file_name": "gone.png"}', "{broken", '["no object"]']
    lines += ['{"file_name": "0.png", "label": "b"}', '{"file_name": "../../etc/passwd", "label": "b"}']
    (source / "metadata.jsonl").write_text("\n".join(lines))
    reasons = quarantine(prepare(source, tmp_path / "out"))
    assert reasons["metadata.jsonl line 2"] == "names gone.png, which is not there"
    assert (
        reasons["metadata.jsonl line 3"] == reasons["metadata.jsonl line 4"] == "should be a JSON object with file_name"
    )
    assert reasons["metadata.jsonl line 5"] == "names 0.png a second time"
    assert "not there" in reasons["metadata.jsonl line 6"]


def test_values_that_are_no_values_are_not_known(tmp_path):
    source = folder(tmp_path / "in", numbered(6))
    odd = ["NaN", "1e308", "-1e308", "1" + "0" * 400, '""', "7"]
    lines = [f'{{"file_name": "{i}.png", "age": {value}, "source": "mine"}}' for i, value in enumerate(odd)]
    (source / "metadata.jsonl").write_text("\n".join([*lines, '{"file_name": "0.png", "label": "\\ud800"}']))
    made = prepare(source, tmp_path / "out")
    assert [facts.get("age") for facts in everything(made)] == [None] * 5 + [7]
    assert made.facts_of(5)["source"] == "5.png" and list(quarantine(made)) == ["metadata.jsonl line 7"]


def test_metadata_without_file_names_is_refused_in_words(tmp_path):
    source = folder(tmp_path / "in", numbered(5))
    (source / "metadata.csv").write_text("name,label\n0.png,a\n")
    with pytest.raises(ContentError, match="needs a column file_name; it has name, label"):
        prepare(source, tmp_path / "out")
    (source / "metadata.csv").write_bytes(b"file_name,label\n0.png,caf\xe9\n")
    with pytest.raises(ContentError, match=r"should be UTF-8; byte \d+ is not"):
        prepare(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_read_like_the_folder_it_holds(tmp_path, kind):
    source = folder(tmp_path / "in", [*numbered(6, "all/cats/{}.png"), *numbered(12, "all/dogs/{}.png")[6:]])
    archive = shutil.make_archive(str(tmp_path / "pictures"), {"zip": "zip", "tar.gz": "gztar"}[kind], source)
    one, other = prepare(source, tmp_path / "a"), prepare(archive, tmp_path / "b")
    assert torch.equal(one.tensor("train").x, other.tensor("train").x) and one.facts["labels"] == {"cats": 6, "dogs": 6}
    assert everything(one) == everything(other) and one.fingerprint == other.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "in", Path(archive).name]


def test_archives_in_a_folder_are_unpacked_too(tmp_path):
    for name, seeds in (("cats", range(5)), ("dogs", range(5, 10))):
        part = tmp_path / name
        part.mkdir()
        for seed in seeds:
            picture(seed).save(part / f"{seed}.png")
        shutil.make_archive(str(tmp_path / "in" / name), "zip", part)
    assert prepare(tmp_path / "in", tmp_path / "out").facts["labels"] == {"cats": 5, "dogs": 5}


def test_members_that_lead_out_of_an_archive_are_quarantined_and_written_nowhere(tmp_path):
    evil, inside = tmp_path / "in" / "evil.tar.gz", io.BytesIO()
    evil.parent.mkdir()
    picture(0).save(inside, "PNG")
    with tarfile.open(evil, "w:gz") as archive:
        for name in ("../../escaped.png", "/tmp/escaped-absolute.png", "a/../../escaped.png", "a/b/../../../x.png"):
            member = tarfile.TarInfo(name)
            member.size = len(inside.getvalue())
            archive.addfile(member, io.BytesIO(inside.getvalue()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for seed in range(4):
            stream = io.BytesIO()
            picture(seed).save(stream, "PNG")
            member = tarfile.TarInfo(f"{seed}.png")
            member.size = len(stream.getvalue())
            archive.addfile(member, io.BytesIO(stream.getvalue()))
    reasons = quarantine(prepare(evil, tmp_path / "out"))
    assert reasons.pop("link.png") == "a link or device in an archive"
    assert len(reasons) == 4 and set(reasons.values()) == {"its name leads out of the archive"}
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped-absolute.png").exists()


def test_a_member_larger_than_allowed_is_quarantined(tmp_path, monkeypatch):
    source = shutil.make_archive(str(tmp_path / "a"), "zip", folder(tmp_path / "in", numbered(4)))
    with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(3_000_000))
    monkeypatch.setattr("maquette.sources.MEMBER_BYTES", 1_000_000)
    assert "at most 0.0 GB" in quarantine(prepare(source, tmp_path / "out"))["bomb.png"]


def test_a_cut_archive_gives_what_came_before_the_cut(tmp_path):
    source = Path(shutil.make_archive(str(tmp_path / "a"), "gztar", folder(tmp_path / "in", numbered(40))))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    made = prepare(source, tmp_path / "out")
    assert 3 <= len(made) < 40 and "damaged or ends early" in quarantine(made)["a.tar.gz"]
    (tmp_path / "b.zip").write_text("no archive")
    with pytest.raises(ContentError, match=r"damaged or ends early .*; nothing in it can be used; pack it again"):
        prepare(tmp_path / "b.zip", tmp_path / "none")


def test_what_systems_hide_in_archives_is_no_content(tmp_path):
    source = shutil.make_archive(str(tmp_path / "a"), "zip", folder(tmp_path / "in", numbered(4)))
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("__MACOSX/._0.png", ".hidden/1.png", "Thumbs.db"):
            archive.writestr(name, "of the system")
    made = prepare(source, tmp_path / "out")
    assert len(made) == 4 and quarantine(made) == {} and made.facts["other_files"] == {}


@pytest.mark.parametrize("packed", [False, True])
def test_facts_that_lie_beside_generated_pieces_are_no_pieces(tmp_path, packed):
    made = folder(tmp_path / "made", ["a.png"])
    for k in range(5):
        (made / f"{k}.txt").write_text(f"the tide came in {k} times, and then it went out")
        (made / f"{k}.txt.json").write_text('{"text": "facts", "wish": {"seed": 1}}')
    (made / "a.png.json").write_text('{"text": "facts"}')
    (made / "records.json").write_text('[{"text": "a record is a piece"}, {"text": "and another is too"}]')
    source = Path(shutil.make_archive(str(made), "zip", made)) if packed else made
    corpus = prepare(source, tmp_path / "corpus", modality="text")
    assert sorted({f["source"].partition("#")[0] for f in everything(corpus)}) == [
        *(f"{k}.txt" for k in range(5)),
        "records.json",
    ]
    assert quarantine(corpus) == {} and corpus.facts["other_files"] == {".png": 1}


@pytest.mark.parametrize(("content", "name"), [({"text": "the tide"}, "text"), ([[60, 64], [62]], "music")])
def test_what_a_json_file_holds_says_its_kind(tmp_path, content, name):
    source = tmp_path / "in"
    source.mkdir()
    varied = [{"text": f"the tide came {k} times"} if name == "text" else [[60 + k, 64], [62]] * 8 for k in range(5)]
    (source / "a.json").write_text(json.dumps([content, *varied]))
    assert prepare(source, tmp_path / "out").facts["modality"]["name"] == name


def test_facts_beside_written_music_are_not_refused(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    rows = [[60 + k, 64, 67, 72] for k in range(8)]
    for k in range(4):
        (made / f"{k}.wav").write_bytes(b"RIFF")
        (made / f"{k}.wav.json").write_text('{"seed": 1}')
        (made / f"{k}.json").write_text(json.dumps([[[p + k for p in row] for row in rows]]))
    corpus = prepare(made, tmp_path / "corpus")
    assert corpus.facts["modality"]["name"] == "music" and len(corpus) == 4
    assert quarantine(corpus) == {} and corpus.facts["other_files"] == {".wav": 4}


def test_labels_of_mnist_files_in_an_archive_are_read(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    head = b"\0\0\x08\x03" + np.array(pixels.shape, ">u4").tobytes()
    (tmp_path / "in" / "train-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    head = b"\0\0\x08\x01" + np.array([20], ">u4").tobytes()
    (tmp_path / "in" / "train-labels-idx1-ubyte").write_bytes(head + bytes([3, 8] * 10))
    made = prepare(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in"), tmp_path / "out")
    assert made.facts["labels"] == {"3": 10, "8": 10} and made.facts["other_files"] == {}


def test_mnist_files_and_arrays_are_read_with_their_labels(tmp_path):
    pictures = np.stack([np.asarray(picture(i, 8, 1)) for i in range(30)])
    head = b"\0\0\x08\x03" + np.array(pictures.shape, ">u4").tobytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train-images-idx3-ubyte").write_bytes(head + pictures.tobytes())
    labels = bytes(i % 3 for i in range(30))
    (tmp_path / "in" / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x1e" + labels)
    np.savez(tmp_path / "a.npz", images=pictures, labels=list(labels))
    for source in (tmp_path / "in", tmp_path / "a.npz"):
        made = prepare(source, tmp_path / f"out-{source.name}")
        assert made.spec.space.shape == (1, 8, 8) and made.facts["labels"] == {"0": 10, "1": 10, "2": 10}
        assert made.facts_of(4)["source"].endswith("#4") and made.facts_of(4)["label"] == "1"
        assert np.array_equal(made.raw(np.arange(30))[:, 0], pictures)


# ---- what is odd


@pytest.fixture
def odd(tmp_path):
    """A folder with four good pictures and one of everything that goes wrong."""
    source = folder(tmp_path / "odd", numbered(4))
    whole = (source / "0.png").read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "empty.jpg").write_bytes(b"")
    (source / "text.png").write_text("I am a text")
    PIL.Image.new("1", (20_000, 20_000)).save(source / "huge.png")
    PIL.Image.new("L", (1, 1)).save(source / "dot.png")
    (source / "notes.txt").write_text("no picture and no matter")
    (tmp_path / "secret.png").write_bytes(whole)
    (source / "link.png").symlink_to(tmp_path / "secret.png")
    (source / "dangling.png").symlink_to(source / "nowhere.png")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.png")
    return source


def test_each_odd_file_is_in_quarantine_with_its_reason(odd, tmp_path, recwarn):
    made = prepare(odd, tmp_path / "out")
    reasons = quarantine(made)
    assert len(made) == 4 and not recwarn.list
    expected = {
        "cut.png": "truncated",
        "empty.jpg": "no PNG, JPEG",
        "text.png": "its content is no PNG, JPEG, WebP, GIF, BMP or TIFF picture",
        "huge.png": "20000x20000 is more than 64 million pixels; shrink it or raise megapixels (--set megapixels=400)",
        "dot.png": "1x1 is too small; a side has at least 2 pixels",
        "link.png": "a link out of the folder is not followed",
        "dangling.png": "a link out of the folder is not followed",
        "loop": "a link to a folder is not followed",
        "pipe.png": "no regular file",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name]
    assert "quarantined: 9" in report(made)


@contextmanager
def someone_else():
    """Root may read everything; nobody may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_files_without_permission_are_quarantined():
    place = Path(tempfile.mkdtemp())
    try:
        source = folder(place / "in", [*numbered(4), "sub/5.png"])
        (source / "0.png").chmod(0)
        (source / "sub").chmod(0)
        place.chmod(0o777)
        with someone_else():
            reasons = quarantine(prepare(source, place / "out"))
        assert "permission denied" in reasons["0.png"] and "cannot be read" in reasons["sub"]
    finally:
        (place / "in" / "sub").chmod(0o700)
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            [],
            "nothing under .* can be read: no file found, put at least 3 of a kind there .image is .png .* text is .txt",
        ),
        (["a.xyz", "b.xyz"], "2 .xyz found, convert, rename or unpack them"),
        (["a.png"], "at least 3 different pictures are needed to train, check and test; .* has 1; add more"),
    ],
)
def test_a_folder_with_too_little_is_refused_in_words(tmp_path, names, words):
    (tmp_path / "in").mkdir()
    for name in names:
        picture(0).save(tmp_path / "in" / name, "PNG")
    with pytest.raises(ContentError, match=words):
        prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists() and [p.name for p in tmp_path.iterdir()] == ["in"]


def test_when_nothing_is_left_the_reasons_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("text")
    with pytest.raises(ContentError, match=r"none of the pictures .* can be used; 1 went to quarantine \(a.png: its"):
        prepare(tmp_path / "in", tmp_path / "out")


def test_a_source_that_is_not_there_or_is_a_corpus_is_refused_in_words(tmp_path):
    with pytest.raises(ContentError, match="neither a folder nor a file"):
        prepare(tmp_path / "gone", tmp_path / "out")
    made = prepare(folder(tmp_path / "in", numbered(4)), tmp_path / "out")
    with pytest.raises(ContentError, match="is a corpus already; `maquette train"):
        prepare(made.path, tmp_path / "again")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": (0.5, 0.5, 0.0)}, SettingError, "three shares above 0 that sum to 1"),
        ({"settings": {"sise": 8}}, UnknownName, 'no setting of image "sise"; did you mean size'),
        ({"modality": "imgae"}, UnknownName, 'no modality "imgae"; did you mean image'),
        ({"settings": {"size": -3}}, SettingError, "image.size should be greater than or equal to 0; -3 came"),
    ],
)
def test_mistyped_options_are_refused_in_words(tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        prepare(folder(tmp_path / "in", numbered(4)), tmp_path / "out", **options)


# ---- twins and the split


def test_exact_copies_are_kept_once(tmp_path):
    source = folder(tmp_path / "in", numbered(6))
    shutil.copy(source / "0.png", source / "copy.png")
    made = prepare(source, tmp_path / "out")
    assert len(made) == 6 and made.facts["duplicates"]["exact"] == 1 and "1 exact copies left out" in report(made)


def test_twins_never_straddle_the_split(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(60):
        original = picture(i, 48)
        original.save(source / f"{i}-a.png")
        original.save(source / f"{i}-b.jpg", quality=60)
        original.resize((70, 70)).save(source / f"{i}-c.webp", quality=80)
    made = prepare(source, tmp_path / "out")
    sides = {}
    for name in ("train", "validation", "test"):
        for number in made.numbers(name).tolist():
            sides.setdefault(made.facts_of(number)["source"].split("-")[0], set()).add(name)
    assert all(len(side) == 1 for side in sides.values())
    assert made.facts["duplicates"]["groups"] == 60 and made.facts["duplicates"]["near"] == 120
    shares = np.array([made.size(s) for s in ("train", "validation", "test")]) / 180
    assert abs(shares - [0.7, 0.15, 0.15]).max() < 0.03


@pytest.mark.parametrize("side", [2, 4, 8])
def test_tiny_unlike_pictures_are_no_twins(side):
    pictures = np.random.default_rng(0).integers(0, 256, (3000, 1, side, side), np.uint8)
    pictures = np.unique(pictures, axis=0)
    group = duplicates.groups(duplicates.signatures([pictures]), lambda i: pictures[i])
    assert np.unique(group, return_counts=True)[1].max() <= (4 if side == 2 else 1)


def test_plain_colours_are_twins_only_when_they_are_the_same_colour():
    levels = np.array([0, 1, 60, 61, 120, 180, 240], np.uint8)
    pictures = np.broadcast_to(levels[:, None, None, None], (7, 3, 8, 8)).copy()
    same = duplicates.twins(np.array([0, 2, 0, 4]), np.array([1, 3, 2, 5]), lambda i: pictures[i])
    assert same.tolist() == [True, True, False, False]


def test_handwritten_digits_form_no_false_chains():
    raw = gzip.decompress(data("mnist", "t10k-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    group = duplicates.groups(duplicates.signatures([digits]), lambda i: digits[i])
    sizes = np.unique(group, return_counts=True)[1]
    assert sizes.max() <= 4 and len(digits) - len(sizes) < 30


@pytest.mark.parametrize("seed", range(5))
def test_the_split_keeps_groups_whole_labels_in_proportion_and_every_label_in_train(seed):
    chance = np.random.default_rng(seed)
    group = np.unique(chance.integers(0, 700, 1000), return_inverse=True)[1]
    kind = chance.choice(["a", "b", "c", "rare"], len(np.unique(group)), p=[0.5, 0.3, 0.19, 0.01])
    labels = kind[group].tolist()
    splits = split_groups(group, labels, (0.7, 0.15, 0.15), seed)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(1000))
    assert not set(group[splits["train"]]) & set(group[splits["test"]]) and not set(group[splits["validation"]]) & set(
        group[splits["test"]]
    )
    assert abs(np.array([len(s) for s in splits.values()]) - [700, 150, 150]).max() <= 6
    whole = Counter(labels)
    for name, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
        found = Counter(labels[i] for i in splits[name])
        assert all(abs(found[x] - share * whole[x]) <= 8 for x in whole)
    assert {labels[i] for i in splits["train"]} == set(whole)


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_a_tiny_corpus_has_something_in_every_split(count):
    splits = split_groups(np.arange(count), [str(i) for i in range(count)], (0.7, 0.15, 0.15), 0)
    assert min(len(s) for s in splits.values()) >= 1 and sum(len(s) for s in splits.values()) == count


def test_a_label_with_one_member_is_said_and_stays_in_train(tmp_path):
    names = [*numbered(10, "cats/{}.png"), "dragons/10.png"]
    made = prepare(folder(tmp_path / "in", names), tmp_path / "out")
    assert "labels with one member are in train only and can hardly be learnt: dragons" in report(made)
    assert "dragons" in {made.facts_of(i).get("label") for i in made.numbers("train").tolist()}


def test_a_folder_of_nothing_but_twins_is_split_all_the_same_and_says_so(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for quality in range(40, 90, 5):
        picture(0, 32).save(source / f"{quality}.jpg", quality=quality)
    made = prepare(source, tmp_path / "out")
    assert made.size("test") >= 1 and "nearly all pieces are twins" in report(made)


# ---- fingerprints, atomicity


def test_a_second_prepare_is_instant_and_the_fingerprint_follows_content_and_settings(tmp_path, monkeypatch):
    source = folder(tmp_path / "in", numbered(6))
    first = prepare(source, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("maquette.verbs.prepare._Work", None)  # nothing may be built
        assert prepare(source, tmp_path / "out").fingerprint == first.fingerprint
    os.utime(source / "0.png", (1, 1))
    assert prepare(source, tmp_path / "out").fingerprint == first.fingerprint
    prints = {first.fingerprint}
    prints.add(prepare(source, tmp_path / "out", settings={"size": 8}).fingerprint)
    prints.add(prepare(source, tmp_path / "out", seed=1).fingerprint)
    prints.add(prepare(source, tmp_path / "out", split=(0.5, 0.25, 0.25)).fingerprint)
    picture(99).save(source / "0.png")
    prints.add(prepare(source, tmp_path / "out").fingerprint)
    assert len(prints) == 5


def test_only_a_corpus_is_ever_replaced(tmp_path):
    source = folder(tmp_path / "in", numbered(4))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear diary")
    with pytest.raises(
        UsageError, match="is not empty and no corpus, so it is left alone; choose another folder with -o"
    ):
        prepare(source, tmp_path / "out")
    with pytest.raises(UsageError):
        prepare(source, source)
    with pytest.raises(UsageError, match=r"cannot be made, for .*diary.txt is a file; choose another folder with -o"):
        prepare(source, tmp_path / "out" / "diary.txt" / "corpus")
    assert (tmp_path / "out" / "diary.txt").read_text() == "dear diary"


def test_a_prepare_that_fails_leaves_the_old_corpus_and_no_rubbish(tmp_path, monkeypatch):
    source = folder(tmp_path / "in", numbered(6))
    first = prepare(source, tmp_path / "out")

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("maquette.writing.save", full)
    with pytest.raises(
        StorageError, match=r"the disk is full: .*/out could not be written; what was there before is untouched"
    ):
        prepare(source, tmp_path / "out", seed=1)
    assert Corpus.open(tmp_path / "out").fingerprint == first.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_what_a_killed_prepare_left_is_put_right_by_the_next(tmp_path):
    source = folder(tmp_path / "in", numbered(6))
    first = prepare(source, tmp_path / "out")
    dead = 2**22 - 5  # no such process
    (tmp_path / f".out.preparing-{dead}").mkdir()
    (tmp_path / "out").rename(tmp_path / f".out.replaced-{dead}")
    (source / "0.png").write_text("broken")
    for name in numbered(6)[1:]:
        (source / name).unlink()
    with pytest.raises(ContentError):
        prepare(source, tmp_path / "out")
    assert Corpus.open(tmp_path / "out").fingerprint == first.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_corpus_inside_its_source_is_no_source(tmp_path):
    source = folder(tmp_path / "in", numbered(6))
    first = prepare(source, source / "corpora" / "mine")
    assert prepare(source, source / "corpora" / "mine").fingerprint == first.fingerprint and len(first) == 6


def test_the_default_place_is_named_after_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "my-pictures", numbered(4))
    assert prepare("my-pictures").path == Path("corpora/my-pictures")


def test_progress_is_told_stage_by_stage(tmp_path):
    told = []
    prepare(folder(tmp_path / "in", numbered(4)), tmp_path / "out", progress=lambda *told_now: told.append(told_now))
    assert {stage for stage, _, _ in told} >= {"looking", "comparing"}


def test_the_advice_for_few_pictures_is_said(tmp_path):
    said = report(prepare(folder(tmp_path / "in", numbered(20), side=200), tmp_path / "out"))
    assert "14 pictures to learn from: augmentation is on; consider `flow` or a fine-tune" in said
    assert "the pictures become 64x64; --set size=128 keeps more" in said
    assert "the licence of 20 pieces is unknown" in said


# ---- codes


class Halves:
    """A codec that keeps the means of halves, as latents or as tokens."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.code_space = Space("tokens", (6,), 256) if tokens else Space("grid", (3, 2))

    def encode(self, x):
        means = x.unflatten(-1, (2, -1)).mean((2, 4))
        return ((means + 1) * 127).long().flatten(1) if self.tokens else means

    def decode(self, codes):
        return codes


@pytest.mark.parametrize("tokens", [True, False])
def test_a_corpus_of_codes_has_the_same_numbers_splits_and_conditions(tmp_path, tokens):
    made = prepare(folder(tmp_path / "in", numbered(9, "a/{}.png") + numbered(18, "b/{}.png")[9:]), tmp_path / "out")
    codec = Halves(tokens)
    codes = encode(made, codec, tmp_path / "codes", {"run": "r1"})
    for split in ("train", "validation", "test"):
        one, other = made.tensor(split), codes.tensor(split)
        assert torch.equal(one.index, other.index) and torch.equal(one.condition, other.condition)
        assert torch.allclose(codec.encode(one.x), other.x)
    assert codes.spec.likelihood == ("categorical" if tokens else "gaussian") and codes.spec.space == codec.code_space
    assert everything(codes) == everything(made) and codes.facts["codec"] == {"run": "r1"}
    assert encode(made, None, tmp_path / "codes", {"run": "r1"}).fingerprint == codes.fingerprint  # stands already
    assert encode(made, codec, tmp_path / "codes", {"run": "r2"}).fingerprint != codes.fingerprint


def test_a_corpus_has_no_pickles_and_its_facts_are_plain_json(tmp_path):
    made = prepare(folder(tmp_path / "in", numbered(5)), tmp_path / "out")
    assert files.read_json(made.path / "corpus.json") == made.facts
    for path in made.path.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_the_real_tiles_become_a_corpus_with_labels(tmp_path):
    made = prepare(data("crawl_tiles"), tmp_path / "out")
    assert made.spec.space == Space("grid", (4, 32, 32)) and len(made.facts["labels"]) == 8
    assert len(made) + made.facts["duplicates"]["exact"] + made.facts["quarantined"] == 4357
