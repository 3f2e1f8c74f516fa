"""The audit end to end: a judge kept beside its corpus, findings beside their floors, a page that asks nobody for anything."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError, SettingError, SpaceError
from maquette.features import Judge, Pixels, Task, Untrained, judge_of, posed, steps, task, train_judge, turns
from maquette.page import number
from maquette.recipe import make_recipe
from maquette.space import Batch, DataSpec, Space
from maquette.verbs.audit import as_written, assess, audit, write
from maquette.verbs.train import train
from maquette.writing import CorpusWriter

WORK = 300_000  # a judge of a few steps
NAMES = {
    "KID",
    "Frechet distance",
    "precision",
    "density",
    "recall",
    "coverage",
    "near copies",
    "distance to training",
    "Vendi score",
    "lost kinds",
    "C_T",
    "authenticity",
    "closer to training",
    "homogeneity",
}


def stripes(n: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """(n, *shape) uint8: a ramp along the last axis of varying slope and height, with a little noise."""
    chance = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, shape[-1]) * chance.uniform(60, 200, (n, *[1] * len(shape)))
    return (ramp + chance.uniform(0, 40, (n, *[1] * len(shape))) + chance.uniform(0, 8, (n, *shape))).astype(np.uint8)


def corpus_from(folder: Path, content: np.ndarray, held: int | None = None) -> Corpus:
    """A corpus of rows without labels; the last `held` of them are the test split."""
    n, shape = len(content), content.shape[1:]
    held = n // 5 if held is None else held
    folder.mkdir()
    writer = CorpusWriter(folder, Space("grid", shape), np.uint8)
    for i, row in enumerate(content):
        writer.add(row, json.dumps({"source": f"{i}.png"}).encode() + b"\n")
    writer.close()
    splits = {
        "train": np.arange(n - 2 * held),
        "validation": np.arange(n - 2 * held, n - held),
        "test": np.arange(n - held, n),
    }
    fitted = dict(zip(("channels", "height", "width"), shape, strict=False))
    facts = {
        "name": folder.name,
        "fingerprint": f"{folder.name}{n}",
        "spec": DataSpec(Space("grid", shape)).to_json(),
        "counts": {k: len(v) for k, v in splits.items()},
        "modality": {"name": "image", "settings": {}, "fitted": fitted},
    }
    writer.finish(splits, None, facts)
    return Corpus.open(folder)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_from(tmp_path_factory.mktemp("corpora") / "stripes", stripes(300, (1, 12, 12)))


@pytest.fixture(scope="module")
def judge(toy: Corpus):
    return judge_of(toy, work=WORK)


def test_the_judge_learns_labels_where_there_are_enough_else_turns(corpus: Corpus, toy: Corpus) -> None:
    assert task(corpus) == Task("labels", (0, 1), 0)
    assert task(toy) == Task("turns", (0, 1, 2, 3))


@pytest.mark.parametrize(
    "shape", [(1, 16), (2, 40), (3, 8, 8), (1, 8, 12), (4, 28, 28), (3, 128, 128), (1, 8, 8, 8), (1, 5, 32, 32)]
)
def test_the_judge_and_pixels_take_any_grid(shape: tuple[int, ...], tmp_path: Path) -> None:
    corpus = corpus_from(tmp_path / "grid", stripes(60, shape))
    x = corpus.tensor("test").x
    known = train_judge(corpus, work=1)
    assert known.embed(x).shape == (12, 64) and known.embed(x).isfinite().all()
    pixels = Pixels(corpus.spec.space).embed(x)
    assert pixels.shape[1] <= 256 and float(pixels.mean()) == pytest.approx(float(x.mean()), abs=0.05)
    untrained = Untrained(corpus.spec.space)
    assert untrained.embed(x).shape[1] <= 256 and untrained.embed(x).isfinite().all()
    again = Untrained(corpus.spec.space)
    assert again.hash == untrained.hash and torch.equal(again.embed(x), untrained.embed(x))


def test_the_untrained_space_hears_noise_and_blur_where_averages_do_not() -> None:
    space = Space("grid", (1, 32, 32))
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16:] = 1
    noise = 0.05 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)

    def moves(kind: type, other: torch.Tensor) -> float:
        return float((kind(space).embed(other) - kind(space).embed(x)).norm())

    assert moves(Untrained, x + noise) > 2 * moves(Pixels, x + noise)
    assert moves(Untrained, blurred) > 0 and Untrained(space).hash != Pixels(space).hash


def test_tokens_are_refused_in_words() -> None:
    with pytest.raises(SpaceError, match="tokens"):
        Judge(DataSpec(Space("tokens", (8,), 5)), Task("turns", (0, 1)))


def test_every_turn_is_another_picture_and_none_is_lost() -> None:
    x = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(64, 1, 1, 1)
    torch.manual_seed(0)
    turned, answer = posed(Batch(x), Task("turns", (0, 1, 2, 3)))
    for k in range(4):
        assert torch.equal(turned[answer == k], torch.rot90(x[answer == k], k, (2, 3)))
    assert len(turns((4, 5, 6))) == 8


def test_the_judge_tells_what_it_learnt_and_its_features_are_standard(toy: Corpus) -> None:
    known = train_judge(toy, work=1_500_000)
    assert float(known.accuracy) > 0.8
    features = known.embed(toy.tensor("train").x)
    assert torch.allclose(features.mean(0), torch.zeros(64), atol=1e-3) and torch.allclose(
        features.std(0), torch.ones(64), atol=1e-2
    )


def test_the_judge_is_a_function_of_its_seed_and_its_work_is_bounded(toy: Corpus) -> None:
    first, again, other = (train_judge(toy, seed=s, work=WORK).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["project.weight"], other["project.weight"])
    assert steps(toy, 10**12) <= 600 and steps(toy, 1) == 20


def test_the_judge_is_kept_and_taken_up_only_when_whole(toy: Corpus, judge) -> None:
    file = next((toy.path / "judge").glob("*.safetensors"))
    before = file.stat().st_mtime_ns
    assert judge_of(toy, work=WORK).hash == judge.hash and file.stat().st_mtime_ns == before
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert judge_of(toy, work=WORK).hash == judge.hash and file.stat().st_mtime_ns != before
    file.with_suffix(".json").write_text("{")
    assert judge_of(toy, work=WORK).hash == judge.hash


def test_a_judge_of_another_corpus_is_not_taken_up(toy: Corpus, judge, tmp_path: Path) -> None:
    other = corpus_from(tmp_path / "other", stripes(200, (1, 12, 12), seed=9))
    (other.path / "judge").mkdir()
    for file in (toy.path / "judge").iterdir():
        (other.path / "judge" / file.name).write_bytes(file.read_bytes())
    assert judge_of(other, work=WORK).hash != judge.hash


def test_a_corpus_that_cannot_be_written_to_is_judged_all_the_same(toy: Corpus, judge, tmp_path: Path) -> None:
    shutil.copytree(toy.path, tmp_path / "sealed", ignore=shutil.ignore_patterns("judge"))
    (tmp_path / "sealed" / "judge").write_text("in the way")
    assert judge_of(Corpus.open(tmp_path / "sealed"), work=WORK).hash == judge.hash


def test_held_out_pieces_pass_for_real_and_noise_does_not(toy: Corpus, judge) -> None:
    clean = assess(toy.tensor("validation").x, toy, judge=judge, noun="pictures")
    assert "hard to tell" in clean.verdict[0] and len(clean.verdict) == 3
    assert {(f.name, f.space) for f in clean.findings} == {(n, s) for n in NAMES for s in ("judge", "pixels")}
    noise = assess(torch.rand(60, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1, toy, judge=judge)
    assert "unlike real ones" in noise.verdict[0] and "of few kinds" in noise.verdict[1]
    for space in ("judge", "pixels"):
        assert noise.find("KID", space).low > clean.find("KID", space).high
        assert noise.find("Frechet distance", space).value > 10 * clean.find("Frechet distance", space).value


def test_copies_are_named_and_stand_first_among_the_pairs(toy: Corpus, judge) -> None:
    made = toy.tensor("validation").x.clone()
    made[40:50] = toy.tensor("train").x[:10]
    found = assess(made, toy, judge=judge, noun="pictures")
    assert {p.made for p in found.pairs[:10]} == set(range(40, 50))
    assert {p.train for p in found.pairs[:10]} == set(toy.numbers("train")[:10].tolist())
    assert "more than chance" in found.verdict[2]
    assert found.find("near copies", "pixels").low > 0.01


def test_the_same_picture_again_and_again_is_of_few_kinds(toy: Corpus, judge) -> None:
    found = assess(toy.tensor("validation").x[:1].repeat(60, 1, 1, 1), toy, judge=judge)
    assert "of few kinds" in found.verdict[1] and found.find("recall").value == 0


def test_too_few_pieces_are_said_and_the_pairs_remain(tmp_path: Path) -> None:
    corpus = corpus_from(tmp_path / "few", stripes(40, (1, 8, 8)), held=4)
    found = assess(corpus.tensor("validation").x.repeat(5, 1, 1, 1), corpus, judge=judge_of(corpus, work=1))
    assert not found.findings and "cannot be measured" in found.verdict[0] and "4 held out" in found.verdict[0]
    assert len(found.pairs) == 20 and found.notes


def test_real_twins_are_left_out_and_noted(tmp_path: Path) -> None:
    content = stripes(200, (1, 8, 8))
    content[-10:] = content[-20:-10]
    corpus = corpus_from(tmp_path / "twins", content)
    found = assess(corpus.tensor("validation").x, corpus, judge=judge_of(corpus, work=1))
    assert any("10 of 40 held-out" in note for note in found.notes)


def test_nothing_is_measured_silently_on_broken_pieces(toy: Corpus, judge) -> None:
    modality = catalog.modality(toy.facts["modality"])
    broken = toy.tensor("test").x.clone()
    broken[3, 0, 0, 0] = torch.nan
    with pytest.raises(RunError, match="1 of 60"):
        as_written(broken, modality)
    with pytest.raises(RunError, match="finite"):
        assess(broken, toy, judge=judge)
    with pytest.raises(SettingError, match="shape"):
        assess(broken[:, :, :8], toy, judge=judge)


class _Reader(HTMLParser):
    """Collects what a page points to and the tags that are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_run_is_audited_from_one_call_and_the_page_asks_nobody(corpus: Corpus, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 4, "batch_size": 8}})
    run = train(corpus, recipe, tmp_path / "<run>")
    made = audit(run)
    assert made.words.count("\n") == 2 and made.page == run.path / "audit" / "audit.html"
    facts = json.loads((made.folder / "audit.json").read_text())
    assert facts["verdict"] == list(made.evidence.verdict) and len(facts["findings"]) == len(made.findings)
    labels = {"representation", "share of circle", "share of square", "consistency"}
    assert {f["name"] for f in facts["findings"]} == (NAMES | labels) - {"lost kinds"}  # 48 pieces are too few
    assert all(f["low"] is not None and f["reference"] is not None and f["n"] == 48 for f in facts["findings"])
    assert {f["name"] for f in facts["findings"] if not f["unit"]} == {"density", "homogeneity"}  # pure numbers
    assert {f["unit"] for f in facts["findings"] if f["name"] == "precision"} == {"share"}
    assert facts["judge"]["hash"] == made.evidence.judge.hash and "untrained" in facts["pixels"]["words"]
    assert all(facts[space]["hash"] in made.page.read_text() for space in ("judge", "pixels"))
    assert (made.folder / "closest.png").read_bytes().startswith(b"\x89PNG")
    text = made.page.read_text()
    reader = _Reader()
    reader.feed(text)
    assert reader.open == [] and "script" not in reader.tags and "link" not in reader.tags
    assert reader.sources and all(s.startswith("data:image/png;base64,") for s in reader.sources)
    assert not re.search(r"url\(|@import|https?:", text) and "default-src 'none'" in text and "&lt;run&gt;" in text
    assert audit(run, samples=12, out=tmp_path / "again").folder == tmp_path / "again"


def test_an_audit_against_another_corpus_is_refused(corpus: Corpus, toy: Corpus, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 1, "batch_size": 8}})
    run = train(corpus, recipe, tmp_path / "run")
    with pytest.raises(CorpusError, match="not the corpus"):
        audit(run, toy)
    with pytest.raises(SettingError, match="samples"):
        audit(run, corpus, samples=0)
    run.facts["corpus"]["path"] = "../gone"
    with pytest.raises(CorpusError, match="no longer"):
        audit(run)


def test_planted_copies_are_told_with_the_piece_they_copy(tmp_path: Path) -> None:
    large = corpus_from(tmp_path / "large", stripes(600, (1, 12, 12)))
    known = judge_of(large, work=WORK)
    planted, others = large.tensor("train").x[:20], large.tensor("validation").x[:60]
    found = assess(torch.cat([planted, others]), large, judge=known).copies
    told = {row["made"]: row for row in found["copies"] if row["verdict"] == "copy"}
    assert set(told) == set(range(20)) and found["copied"]["copy"] == 20
    assert all(told[k]["nearest"][0]["source"] == f"{k}.png" and told[k]["p"] <= 0.01 for k in told)


def test_no_verdict_is_given_on_few_held_out_pieces(toy: Corpus, judge) -> None:
    found = assess(toy.tensor("train").x[:20], toy, judge=judge).copies
    assert found["copies"] == [] and "at least 99 held-out" in found["copies_untold"]


def test_a_pair_says_where_its_training_piece_came_from(toy: Corpus, judge, tmp_path: Path) -> None:
    modality = catalog.modality(toy.facts["modality"])
    made = toy.tensor("validation").x
    found = assess(made, toy, judge=judge, noun="pictures")
    text = write(found, made, toy, modality, tmp_path, {"run": "toy", "first_seed": 100}).page.read_text()
    nearest = found.pairs[0]
    assert f"seed {100 + nearest.made} | training {nearest.train} ({nearest.train}.png)" in text


@pytest.mark.parametrize(
    "x, text", [(0.98765, "0.988"), (123456.0, "123,000"), (-0.00308, "-0.00308"), (1e-6, "1e-06"), (2.0, "2")]
)
def test_numbers_are_written_as_people_write_them(x: float, text: str) -> None:
    assert number(x) == text


def test_what_either_space_sees_is_in_the_verdict(toy: Corpus, judge) -> None:
    real = toy.tensor("validation").x
    noisy = real + torch.randn(real.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    found = assess(noisy, toy, judge=judge)
    worst = min((f for f in found.findings if f.name == "precision"), key=lambda f: f.value / f.reference)
    assert "hard to tell" not in found.verdict[0] and f"{worst.value:.0%} look like" in found.verdict[0]
