"""Series: variations that share an identity, how they are made, named and made again, and whether a judge finds the identity kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import draw
from test_models_contract import FAMILIES, GenerativeModel, build, home
from test_train import tiny
from typer.testing import CliRunner

from maquette import catalog
from maquette.cli import app
from maquette.corpus import Corpus
from maquette.errors import SettingError, SpaceError, UsageError
from maquette.finding import Material
from maquette.metrics import identity
from maquette.provenance.ledger import entry_of
from maquette.run import Run
from maquette.space import SampleRequest, noise
from maquette.verbs import variations
from maquette.verbs.audit import audit
from maquette.verbs.generate import Wish, generate, like
from maquette.verbs.train import train
from maquette.verbs.verify import verify
from maquette.verbs.verify import words as told

VARYING = [n for n in FAMILIES if getattr(catalog.find("models", n), "varies", False)]


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    return {name: train(corpus, tiny(name, 4), root / name) for name in ("vae", "gan", "vqvae+transformer")}


def pixels(pieces) -> torch.Tensor:
    return torch.stack([torch.as_tensor(np.array(p.content)).float() for p in pieces])


def stirred(name: str) -> GenerativeModel:
    """Fresh networks say little; these say more."""
    torch.manual_seed(1)
    model = build(name, home(name)).eval()
    assert isinstance(model, GenerativeModel)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model


def test_noise_of_a_member_is_normal_and_as_near_to_that_of_its_seed_as_was_asked() -> None:
    seeds = tuple(range(400))
    first = noise(seeds, (50,))
    for vary in (0.0, 0.3, 1.0):
        z = SampleRequest(seeds, vary=vary, members=(2,) * 400).noise((50,))
        assert abs(float(z.std()) - 1) < 0.03
        near = float((z * first).mean() / first.square().mean())
        assert abs(near - (1 - vary**2) ** 0.5) < 0.03
    assert torch.equal(SampleRequest(seeds, vary=0.5, members=(0,) * 400).noise((50,)), first)
    assert torch.equal(SampleRequest(seeds).noise((50,)), first)


def test_the_families_that_vary_are_those_with_a_latent_space() -> None:
    assert set(VARYING) == {"gan", "vae", "flow"}


@pytest.mark.parametrize("name", VARYING)
def test_a_member_is_a_function_of_its_seed_and_place_alone_and_its_first_is_the_piece_of_the_seed(name: str) -> None:
    model = stirred(name)
    row = model.sample(SampleRequest((7, 7, 7, 8), vary=0.3, members=(0, 1, 2, 1)))
    assert torch.allclose(row[:1], model.sample(SampleRequest((7,))), atol=1e-5)
    alone = model.sample(SampleRequest((7,), vary=0.3, members=(2,)))
    assert torch.allclose(row[2:3], alone, atol=1e-5) and not torch.allclose(row[1], row[2], atol=1e-3)


@pytest.mark.parametrize("name", VARYING)
def test_more_that_is_new_is_farther(name: str) -> None:
    model = stirred(name)
    seeds = tuple(range(40))
    first = model.sample(SampleRequest(seeds)).flatten(1)
    far = [
        float((model.sample(SampleRequest(seeds, vary=v, members=(1,) * 40)).flatten(1) - first).norm(dim=1).mean())
        for v in (0.1, 0.4, 1.0)
    ]
    assert far[0] < far[1] < far[2]


def test_a_series_says_which_it_is_and_each_piece_can_be_made_again(runs: dict[str, Run]) -> None:
    run = runs["vae"]
    pieces = generate(run, 2, Wish(seed=5, series=3, vary=0.4))
    told = [p.facts["series"] for p in pieces]
    assert told == [{"seed": s, "position": k, "of": 3, "vary": 0.4} for s in (5, 6) for k in (1, 2, 3)]
    assert torch.equal(pixels(pieces[::3]), pixels(generate(run, 2, Wish(seed=5))))
    for piece in pieces:
        again = generate(run, 1, like(piece.facts, run))
        assert torch.equal(pixels(again), pixels([piece]))
    assert "series" not in generate(run, 1)[0].facts and "member" not in generate(run, 1)[0].facts["wish"]


def test_a_file_is_varied_as_far_as_is_asked(runs: dict[str, Run], tmp_path: Path) -> None:
    source = tmp_path / "mine.png"
    draw("circle", 3).save(source)
    pieces = {v: generate(runs["vae"], 3, Wish(source=str(source), vary=v)) for v in (0.0, 0.2, 0.9)}
    assert pieces[0.2][1].facts["series"] == {"source": "mine.png", "position": 2, "of": 3, "vary": 0.2}
    spread = [float(pixels(p).std(0).mean()) for p in pieces.values()]
    assert spread[0] < 0.5 and spread[0] < spread[1] < spread[2]
    usual = generate(runs["vae"], 1, Wish(source=str(source)))
    assert "series" not in usual[0].facts


def test_the_command_line_makes_series_a_row_each(runs: dict[str, Run], tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["generate", str(runs["gan"].path), "-n", "2", "--series", "3", "--vary", "0.2", "-o", str(out)]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    names = sorted(p.name for p in out.glob("0*.png"))
    assert names == [f"{s:06d}-{k}of3.png" for s in (0, 1) for k in (1, 2, 3)]
    with PIL.Image.open(out / "sheet.png") as sheet:
        assert sheet.width > sheet.height
    assert entry_of(out / "sheet.png")["facts"]["series"] == {"of": 3, "vary": 0.2}
    assert "piece 2 of 3 that share an identity (seed 0), 0.2 of each new" in told(verify(out / names[1]))
    assert "rows of 3 that share an identity" in told(verify(out / "sheet.png"))
    again = tmp_path / "again"
    line = ["generate", str(runs["gan"].path), "-n", "1", "--like", str(out / names[1]), "-o", str(again)]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    assert (again / "000000-variation1.png").is_file()


def test_what_cannot_be_a_series_is_refused_in_words(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="makes no series; gan, vae and flow"):
        generate(runs["vqvae+transformer"], 1, Wish(series=2))
    for settings, error, words in (
        ({"series": 1}, SettingError, "series should be from 2"),
        ({"vary": 1.5, "series": 2}, SettingError, r"vary should be in \[0, 1\]"),
        ({"vary": 0.2}, UsageError, "with --series, of a file with --source"),
        ({"series": 2, "source": "a.png"}, UsageError, "drop --series"),
        ({"vary": 0.2, "source": "a.png", "keep": "m.png"}, UsageError, "ask for one of them"),
        ({"series": 2, "liked": True}, UsageError, "drop --series"),
    ):
        with pytest.raises(error, match=words):
            Wish(**settings)
    line = ["generate", str(runs["vae"].path), "--series", "2", "--interpolate", "1", "2"]
    with pytest.raises(UsageError, match="drop --new, --like"):
        CliRunner().invoke(app, line, catch_exceptions=False)


# ---- what a judge finds of it


def material(first: torch.Tensor, series: torch.Tensor) -> Material:
    rows, empty = first[:0], first.new_zeros(0)
    return Material("judge", "pictures", first, rows, rows, empty, empty, series=series, vary=0.3)


def points(k: int, m: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    first = torch.randn(k, 8, generator=chance)
    return first, first[:, None] + spread * torch.randn(k, m, 8, generator=chance)


def test_identity_is_kept_near_by_and_at_chance_far_off() -> None:
    near, far = (identity.measure(material(*points(40, 4, spread))) for spread in (0.1, 1000.0))
    assert near[0].value == 1.0 and near[0].reference == 1 / 40 and near[0].low < 1.0
    assert abs(far[0].value - 1 / 40) < 0.05 and far[0].low <= 1 / 40 <= far[0].high
    assert near[1].value < 0.2 and far[1].value > 10


def test_who_copies_keeps_every_identity_and_is_told_to_vary_nothing() -> None:
    kept, variety = identity.measure(material(*points(20, 3, 0.0)))
    assert (kept.value, variety.value) == (1.0, 0.0)
    assert "says little" in kept.sentence and "all the same" in variety.sentence


def test_where_all_pieces_are_one_no_identity_is_found() -> None:
    kept, variety = identity.measure(material(torch.zeros(20, 4), torch.zeros(20, 3, 4)))
    assert kept.value == 0.0 and variety.value == 0.0


def test_unrelated_pieces_have_a_variety_of_one() -> None:
    chance = torch.Generator().manual_seed(3)
    kept, variety = identity.measure(
        material(torch.randn(60, 8, generator=chance), torch.randn(60, 3, 8, generator=chance))
    )
    assert kept.low <= 1 / 60 <= kept.high and variety.low < 1 < variety.high


def test_few_series_tell_nothing_and_none_are_no_finding() -> None:
    assert identity.measure(material(*points(9, 3, 0.1))) == []
    assert identity.measure(replace(material(*points(20, 3, 0.1)), series=None)) == []


def test_the_interval_of_kept_identity_covers_what_is_true() -> None:
    """Series of which each is kept whole or lost whole: variations are no independent draws."""
    inside = 0
    for trial in range(60):
        chance = torch.Generator().manual_seed(trial)
        kept = torch.rand(40, generator=chance) < 0.7
        first = 100.0 * torch.eye(40)  # none is near another
        series = torch.where(kept[:, None], first, first.roll(1, 0))[:, None].repeat(1, 5, 1)
        found = identity.measure(material(first, series))[0]
        inside += found.low <= 0.7 <= found.high
    assert inside >= 53


def test_the_audit_of_a_run_that_varies_says_whether_identity_is_kept(
    runs: dict[str, Run], corpus: Corpus, tmp_path: Path
) -> None:
    made = audit(runs["vae"], out=tmp_path / "audit", samples=48)
    found = {(f.name, f.space): f for f in made.findings}
    for space in ("judge", "pixels"):
        kept, variety = found["identity kept", space], found["variety of a series", space]
        assert 0 <= kept.low <= kept.value <= kept.high <= 1 and kept.reference == 1 / 40 and kept.n == 120
        assert variety.value > 0 and variety.low <= variety.value <= variety.high
    page = made.page.read_text()
    assert "<h2>Series</h2>" in page and "identity kept" in page
    assert made.evidence.series.shape == (40, 4, *corpus.spec.space.shape)


def test_of_a_run_that_does_not_vary_the_audit_says_nothing_of_series(runs: dict[str, Run]) -> None:
    run = runs["vqvae+transformer"]
    modality = catalog.modality(run.facts["corpus"]["modality"])
    assert variations.made_of(run, 10, modality, 0, "cpu") is None
    assert variations.section(None, modality, lambda *_: b"") == []
