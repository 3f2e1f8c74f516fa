"""Licences, owners, policies and opt-outs on the way into a corpus."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from maquette.errors import ContentError, RunError, SettingError, UnknownName, UsageError
from maquette.guard.policy import load
from maquette.licences import Terms, copies_in_the_way, normalised, of_text, opted_out
from maquette.verbs.doctor import report
from maquette.verbs.export import _copies
from maquette.verbs.prepare import prepare


@pytest.fixture
def pictures(tmp_path):
    for i in range(16):
        levels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        place = tmp_path / "in" / ("a" if i < 8 else "b") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(levels).save(place)
    return tmp_path / "in"


def quarantined(corpus):
    lines = (corpus.path / "quarantine.jsonl").read_text().splitlines()
    return {row["file"]: row["reason"] for row in map(json.loads, lines)}


@pytest.mark.parametrize(
    "written, name",
    [("cc-by-nc-sa 4.0", "CC-BY-NC-SA-4.0"), ("CC0", "CC0-1.0"), ("ofl-1.1", "OFL-1.1"), ("by me", "by me")],
)
def test_common_licences_get_their_spdx_names_and_others_stay(written, name):
    assert normalised(written) == name


def test_a_licence_file_is_known_by_its_line_or_its_title():
    assert of_text("# From\n\nLicence: CC BY 4.0\n") == "CC-BY-4.0"
    assert of_text("MIT License\n\nCopyright ...") == "MIT"
    assert of_text("Do what you like.") is None


def test_what_lies_nearer_wins_over_what_lies_farther(pictures, tmp_path):
    (pictures / "LICENSE").write_text("CC0-1.0\n")
    (pictures / "b" / "license.txt").write_text("SPDX-License-Identifier: MIT\n")
    (pictures / "b" / "9.png.license").write_text("SPDX-FileCopyrightText: Ada\nSPDX-License-Identifier: CC-BY-4.0\n")
    (pictures / "metadata.csv").write_text("file_name,license,author\nb/10.png,CC BY-ND 4.0,Bo\n")
    facts = prepare(pictures, tmp_path / "out").facts
    assert facts["licences"] == {"CC0-1.0": 8, "MIT": 6, "CC-BY-4.0": 1, "CC-BY-ND-4.0": 1}
    assert facts["owners"] == {"unknown": 14, "Ada": 1, "Bo": 1}


def test_a_policy_keeps_out_what_it_forbids_and_says_why(pictures, tmp_path):
    (pictures / "LICENSE").write_text("CC0-1.0\n")
    (pictures / "b" / "9.png.license").write_text("CC-BY-NC-4.0")
    (tmp_path / "policy.toml").write_text('[licences]\nforbid = ["*-NC*"]\n')
    corpus = prepare(pictures, tmp_path / "out", policy=tmp_path / "policy.toml")
    assert len(corpus) == 15 and corpus.facts["set_apart"] == {"CC-BY-NC-4.0": 1}
    assert "forbidden by the policy" in quarantined(corpus)["b/9.png"]
    assert "set apart: 1 by the policy (CC-BY-NC-4.0 1)" in report(corpus)


def test_a_licence_that_is_not_recognised_counts_as_unknown():
    assert Terms(forbid=("unknown",)).reason("ask my aunt") and Terms(forbid=("unknown",)).reason("MIT") is None
    assert "not among" in Terms(allow=("CC0-1.0",)).reason("MIT")


def test_a_record_of_a_file_has_a_licence_and_an_owner_of_its_own(tmp_path):
    texts = [f"the {a} of {b}" for a in ("sea", "moon", "hill", "owl") for b in ("rain", "wine", "snow", "song")]
    rows = [{"text": t, "licence": "cc by-nd 4.0" if k % 4 else "MIT", "author": "Ada"} for k, t in enumerate(texts)]
    rows[1]["licence"] = 7
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "poems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = prepare(tmp_path / "in", tmp_path / "out", modality="text")
    assert corpus.facts["licences"] == {"CC-BY-ND-4.0": 11, "MIT": 4} and corpus.facts["owners"] == {"Ada": 15}
    assert "should be a text" in quarantined(corpus)["poems.jsonl#1"]
    (tmp_path / "policy.toml").write_text('[licences]\nforbid = ["MIT"]\n')
    corpus = prepare(tmp_path / "in", tmp_path / "kept", modality="text", policy=tmp_path / "policy.toml")
    assert corpus.facts["licences"] == {"CC-BY-ND-4.0": 11} and corpus.facts["set_apart"] == {"MIT": 4}


def test_an_opt_out_is_honoured_and_counted(pictures, tmp_path):
    mark = hashlib.sha256((pictures / "a" / "3.png").read_bytes()).hexdigest()
    (tmp_path / "out.txt").write_text(f"# who said no\n{mark.upper()}  # by letter\n\n")
    corpus = prepare(pictures, tmp_path / "out", opt_out=tmp_path / "out.txt")
    assert len(corpus) == 15 and corpus.facts["opted_out"] == 1
    assert quarantined(corpus)["a/3.png"] == "it is on the opt-out list"
    assert "opted out: 1, by the opt-out list" in report(corpus) and "set apart" not in report(corpus)


def test_bad_lines_of_an_opt_out_list_are_named(tmp_path):
    (tmp_path / "out.txt").write_text("# fine\nabc\n" + "0" * 64 + "\nxyz\n")
    with pytest.raises(ContentError, match="line 2, 4 does not"):
        opted_out(tmp_path / "out.txt")


def test_a_typo_in_a_policy_is_answered_by_the_nearest_key(tmp_path):
    (tmp_path / "p.toml").write_text('[licences]\nforbidd = ["MIT"]\n')
    with pytest.raises(UnknownName, match="did you mean forbid"):
        load(tmp_path / "p.toml")
    (tmp_path / "p.toml").write_text('[licences]\nforbid = "MIT"\n')
    with pytest.raises(SettingError, match="list of texts"):
        load(tmp_path / "p.toml")


def test_a_licence_that_is_no_text_puts_its_piece_into_quarantine(pictures, tmp_path):
    (pictures / "metadata.jsonl").write_text('{"file_name": "a/1.png", "license": {"x": 1}}\n')
    assert "should be a text" in quarantined(prepare(pictures, tmp_path / "out"))["a/1.png"]


def test_no_place_and_no_camera_of_a_photograph_enters_a_corpus(pictures, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0xA431], exif[0x013B] = 6, "SERIAL77", "Owner Of Camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5)})
    levels = np.random.default_rng(99).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    PIL.Image.fromarray(levels).save(pictures / "a" / "photo.jpg", exif=exif)
    with PIL.Image.open(pictures / "a" / "photo.jpg") as image:
        assert image.getexif().get_ifd(0x8825)[1] == "N"
    corpus = prepare(pictures, tmp_path / "out")
    written = b"".join(p.read_bytes() for p in corpus.path.rglob("*") if p.is_file())
    assert not any(word in written for word in (b"SERIAL77", b"Owner Of Camera", b"GPS", b"52.0"))
    facts = next(f for f in map(corpus.facts_of, range(len(corpus))) if f["source"] == "a/photo.jpg")
    assert facts["pixels"] == [8, 12]  # turned upright before the orientation was dropped


def test_a_copy_of_a_forbidding_licence_stands_in_the_way_and_an_unknown_one_is_named():
    def copy(licence, verdict="copy"):
        return {"made": 7, "verdict": verdict, "nearest": [{"train": 3, "source": "x.png", "licence": licence}]}

    found = [copy("CC-BY-ND-4.0"), copy("All rights reserved"), copy(None), copy("MIT"), copy("CC-BY-NC-4.0", "close")]
    forbidden, unsure = copies_in_the_way(found)
    assert len(forbidden) == 2 and unsure == ["7 copies x.png (unknown)"]


def test_of_training_pieces_that_are_equally_near_each_counts():
    near = [{"train": k, "licence": x, "distance": d} for k, (x, d) in enumerate((("MIT", 0.0), ("CC-BY-ND-4.0", 0.0)))]
    forbidden, unsure = copies_in_the_way([{"made": 0, "verdict": "copy", "nearest": near}])
    assert forbidden == ["0 copies 1 (CC-BY-ND-4.0)"] and unsure == []
    near[1]["distance"] = 0.1
    assert copies_in_the_way([{"made": 0, "verdict": "copy", "nearest": near}]) == ([], [])


def test_an_export_with_such_a_copy_needs_a_reason(tmp_path):
    run = SimpleNamespace(path=tmp_path)
    near = [{"train": 3, "source": "x.png", "licence": "CC-BY-ND-4.0"}]
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.json").write_text(
        json.dumps({"copies": [{"made": 7, "verdict": "copy", "nearest": near}]})
    )
    with pytest.raises(UsageError, match="allow-copies"):
        _copies(run, "")
    assert "exported all the same: I asked" in _copies(run, "I asked")
    (tmp_path / "audit" / "audit.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        _copies(run, "")
