"""What every file of pretext/ keeps, and what each is for: a start with the names and shapes of its model, features, filling in, judging, seeing."""

from __future__ import annotations

import itertools
import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from maquette import catalog
from maquette.api import to_recipe
from maquette.condition import Condition, Field
from maquette.errors import MaquetteError, RunError, SettingError, SpaceError, UnknownName, UsageError
from maquette.features import train_judge
from maquette.loop import TrainState, loop, make_plan, move
from maquette.models.flow import Flow
from maquette.models.gan import GAN
from maquette.models.transformer import Transformer
from maquette.models.vae import VAE
from maquette.models.vqvae import VQVAE
from maquette.nets.trunk import trunk
from maquette.nets.turns import drawn_turns, turned, turns
from maquette.nets.views import box, view
from maquette.probing import Labelled, compare, knn, linear_probe, probe
from maquette.recipe import make_recipe
from maquette.run import Run, identity
from maquette.space import Batch, DataSpec, Model, SampleRequest, Space
from maquette.verbs.adapt import adapt
from maquette.verbs.audit import audit
from maquette.verbs.generate import Wish, generate
from maquette.verbs.pretrain import recipe_for
from maquette.verbs.train import train, training

TASKS = catalog.names("pretext")
BODIES = {"vqvae": VQVAE, "vae": VAE, "gan": GAN, "flow": Flow}
GRIDS = {
    "2 axes": Space("grid", (1, 16, 16)),
    "3 channels": Space("grid", (3, 12, 12)),
    "1 axis": Space("grid", (2, 16)),
    "3 axes": Space("grid", (1, 4, 8, 6)),
}
TOKENS = {
    "tokens": Space("tokens", (12,), 8),
    "digits": Space("tokens", (12,), 12, (4, 3)),
    "ragged": Space("tokens", (12,), 8, end=0, periods=(2,)),
}
SPACES = GRIDS | TOKENS
LABELS = Condition([Field("label", "label", ("first", "second"))])
every_task = pytest.mark.parametrize("task", TASKS)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
every_body = pytest.mark.parametrize("body", BODIES)


def build(task: str, space: Space, condition: Condition | None = LABELS, **settings) -> Model:
    kind = catalog.trainable(task)
    torch.manual_seed(0)
    return kind(DataSpec(space, condition), **catalog.check(kind, {"size": "tiny", **settings}, task))


def takes(task: str, space: Space) -> bool:
    return space.kind == "grid" or task != "rotation"


def toy(space: Space, size: int = 32):
    """An endless stream of bars that lie, or of tokens that count up, at chance's places; some rows have labels."""
    for k in itertools.count():
        chance = torch.Generator().manual_seed(k)
        condition = torch.where(torch.rand(size, 1, generator=chance) < 0.5, torch.nan, 1.0)
        if space.kind == "tokens":
            first = torch.randint(space.vocabulary, (size, 1), generator=chance)
            yield Batch((first + torch.arange(space.shape[0])) % space.vocabulary, condition)
            continue
        x = torch.full((size, *space.shape), -0.8)
        place = torch.randint(space.shape[-1] // 3, (size,), generator=chance)
        for row, i in zip(x, place.tolist(), strict=True):
            row[..., i : i + space.shape[-1] // 3] = 0.8
        yield Batch(x + 0.05 * torch.randn(x.shape, generator=chance), condition)


def batches(space: Space):
    return lambda start: itertools.islice(toy(space), start, None)


def stepped(task: str, space: Space, steps: int, **settings) -> TrainState:
    plan = make_plan(None, {"steps": steps, "batch_size": 32, "threads": 1})
    for now in loop(build(task, space, **settings), batches(space), plan):
        last = now
    return last


# ---- the contract of the wing


@every_task
@every_space
def test_a_task_gives_features_of_every_space_it_takes(task: str, space: Space) -> None:
    if not takes(task, space):
        with pytest.raises(SpaceError, match="no way up; take --task masked"):
            build(task, space)
        return
    model = build(task, space)
    x = next(toy(space, 8)).x
    losses = model.loss(Batch(x), "model", 0.5)
    assert losses.total.isfinite()
    found = model.embed(x)
    assert found.ndim == 2 and len(found) == 8 and not found.requires_grad
    assert model.features(x).requires_grad
    assert torch.allclose(model.eval().embed(x)[:1], model.embed(x[:1]), atol=1e-5)


@every_task
def test_what_is_no_grid_and_no_sequence_is_refused_in_words(task: str) -> None:
    with pytest.raises(SpaceError, match=task):
        build(task, Space("vector", (6,)))
    with pytest.raises(SpaceError, match="places beside each other"):
        build(task, Space("grid", (6, 1)))


@every_task
@every_space
def test_every_learnable_number_moves_and_labels_move_nothing(task: str, space: Space) -> None:
    if not takes(task, space):
        pytest.skip("refused")
    states = []
    for labelled in (True, False):
        now = TrainState(build(task, space), make_plan(None, {"steps": 10}))
        torch.manual_seed(1)
        stream = toy(space)
        before = {k: p.detach().clone() for k, p in now.model.named_parameters()}
        for _ in range(4):
            batch = next(stream)
            move(now, now.model.phases[0], list(now.model.parameters()), batch if labelled else Batch(batch.x))
        states.append(now.model.state_dict())
        still = {k for k, p in now.model.named_parameters() if torch.equal(before[k], p)}
        assert not still, f"{still} never moved"
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@every_task
@pytest.mark.parametrize("kind", ["2 axes", "ragged"])
def test_it_learns_a_toy(task: str, kind: str) -> None:
    space = SPACES[kind]
    if not takes(task, space):
        pytest.skip("refused")

    def loss(model: Model) -> float:
        torch.manual_seed(7)
        return model.eval().loss(next(toy(space, 128)), "model", 0.0).total.item()

    share = {"contrast": 0.98, "joint": 0.98}.get(task, 0.9)  # 256 numbers cannot all vary where pieces differ in one
    assert loss(stepped(task, space, 60).averaged) < share * loss(build(task, space))


@every_task
@pytest.mark.parametrize("kind", ["2 axes", "ragged"])
def test_stopping_and_going_on_is_bit_exact(task: str, kind: str) -> None:
    space = SPACES[kind]
    if not takes(task, space):
        pytest.skip("refused")
    plan = make_plan(None, {"steps": 4, "batch_size": 16, "threads": 1})
    for now in loop(build(task, space), batches(space), plan):
        if now.step == 2:
            kept = {f: load(save({k: v.clone() for k, v in t.items()})) for f, t in now.tensors().items()}, now.facts()
    for again in loop(build(task, space), batches(space), plan, kept):  # noqa: B007
        pass
    for key, value in now.averaged.state_dict().items():
        assert torch.equal(value, again.averaged.state_dict()[key]), key


@every_task
def test_its_sizes_and_settings_are_described(task: str) -> None:
    kind = catalog.trainable(task)
    assert set(kind.sizes) == {"tiny", "small", "medium", "large"}
    assert all(row["description"] for row in catalog.table(kind))


# ---- a start: the names and shapes of the models


def fits(start: Model, own: dict[str, Tensor], prefix: str) -> list[str]:
    """The names under `prefix` of a model that the encoder holds too, in the same shape."""
    encoder = start.encoder.state_dict()
    mine = {k.removeprefix(f"{prefix}."): v.shape for k, v in own.items() if k.startswith(f"{prefix}.")}
    assert all(mine.get(k) == v.shape for k, v in encoder.items()), {
        k: (v.shape, mine.get(k)) for k, v in encoder.items() if mine.get(k) != v.shape
    }
    return sorted(set(mine) - set(encoder))


@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large"])
@pytest.mark.parametrize("space", [Space("grid", (1, 28, 28)), Space("grid", (3, 12, 12))], ids=["28", "12 x 3"])
def test_weights_match_those_of_the_models_by_name_and_shape(size: str, space: Space) -> None:
    spec = DataSpec(space, LABELS)
    left = {"vqvae": ["head.bias", "head.weight"], "vae": ["head.4.bias", "head.4.weight"], "gan": [], "flow": []}
    prefixes = {"vqvae": "encoder.0", "vae": "encoder", "gan": "discriminator.body", "flow": "body"}
    for body, kind in BODIES.items():
        own = kind(spec, **catalog.check(kind, kind.sizes[size], body)).state_dict()
        with torch.device("meta"):
            start = catalog.trainable("masked")(spec, body=body, size=size)
        assert fits(start, own, prefixes[body]) == left[body]


@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large"])
@pytest.mark.parametrize("space", TOKENS.values(), ids=TOKENS)
def test_so_do_those_of_transformers(size: str, space: Space) -> None:
    with torch.device("meta"):
        settings = catalog.check(Transformer, {**Transformer.sizes[size], "mode": "encoder-decoder"}, "transformer")
        model = Transformer(DataSpec(space), **settings)
        start = catalog.trainable("masked")(DataSpec(space), size=size)
    assert fits(start, model.state_dict(), "encoder") == []
    mine = {k.removeprefix("model.") for k in model.state_dict() if k.startswith("model.")}
    assert {k for k in start.encoder.state_dict() if k not in mine} == {"mask"}


def test_chance_of_weights_does_not_depend_on_what_is_only_measured() -> None:
    torch.manual_seed(3)
    alone = trunk(DataSpec(GRIDS["2 axes"]), "gan", "tiny").state_dict()
    torch.manual_seed(3)
    again = catalog.trainable("contrast")(DataSpec(GRIDS["2 axes"]), size="tiny").encoder.state_dict()
    assert alone.keys() == again.keys()


# ---- views and turns


def test_turning_there_and_back_is_nothing() -> None:
    x = torch.randn(4, 1, 6, 6)
    quarters = turned(turned(x, torch.tensor([0, 1, 2, 3])), torch.tensor([0, 3, 2, 1]))
    assert torch.equal(quarters, x)
    assert len(turns((20, 1))) == 2, "along an axis of 1 nothing is mirrored"
    torch.manual_seed(0)
    made, target = drawn_turns(x)
    assert torch.equal(made, turned(x, target))


@pytest.mark.parametrize("space", GRIDS.values(), ids=GRIDS)
def test_a_view_without_changes_is_the_piece_and_with_them_another(space: Space) -> None:
    x = torch.rand(6, *space.shape) * 2 - 1
    assert torch.equal(view(x, warp=0, erase=0, light=0, noise=0, mirror=False), x)
    torch.manual_seed(0)
    made = view(x, warp=0.2, erase=0.25, light=0.1, noise=0.05, mirror=True)
    assert made.shape == x.shape and made.isfinite().all() and not torch.allclose(made, x)


def test_a_box_is_no_larger_than_asked() -> None:
    torch.manual_seed(0)
    inside = box(torch.zeros(50, 1, 20, 20), 0.5).flatten(1).double().mean(1)
    assert inside.min() > 0 and inside.max() <= 0.25


def test_labels_are_no_part_of_what_a_bare_task_knows() -> None:
    bare, known = build("contrast", GRIDS["2 axes"], None), build("contrast", GRIDS["2 axes"])
    assert bare.state_dict().keys() == known.state_dict().keys()


# ---- filling in


@every_body
def test_masked_fills_in_what_is_hidden_and_keeps_the_rest(body: str) -> None:
    space = GRIDS["2 axes"]
    model = stepped("masked", space, 150, body=body).averaged.eval()
    x = next(toy(space, 8)).x
    keep = torch.ones(8, *space.shape, dtype=torch.bool)
    keep[:, :, :8] = False
    made = model.sample(SampleRequest(tuple(range(8)), source=x, keep=keep, steps=10))
    assert torch.equal(made[keep], x[keep])
    blank = (x.mean() - x)[~keep].abs().mean()
    assert (made - x)[~keep].abs().mean() < 0.6 * blank, "bars go on through what is hidden"


def test_tokens_are_filled_in_too() -> None:
    space = SPACES["tokens"]
    model = stepped("masked", space, 100).averaged.eval()
    x = next(toy(space, 16)).x
    keep = torch.ones_like(x, dtype=torch.bool)
    keep[:, 4:7] = False
    made = model.sample(SampleRequest(tuple(range(16)), source=x, keep=keep))
    assert (made == x).double().mean() > 0.95
    assert model.sample(SampleRequest((1, 2))).shape == (2, 12)


# ---- runs


def recipe(task: str, corpus, steps: int = 8, **settings):
    made = recipe_for(task, corpus, {"size": "tiny", "seed": 0})
    models = {made.model: {**made.models.get(made.model, {}), **settings}}
    return made.model_copy(update={"models": models, "train": {"steps": steps, "batch_size": 16, "threads": 1}})


@pytest.fixture(scope="module")
def pre(corpus, tmp_path_factory) -> Run:
    return train(corpus, recipe("contrast", corpus), tmp_path_factory.mktemp("pre") / "run")


def test_a_run_says_how_well_labels_can_be_told(pre: Run) -> None:
    lines = [json.loads(line) for line in (pre.path / "log.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "validation/linear_probe" in line]
    assert [line["step"] for line in looks] == [2, 4, 6, 8]
    assert all(0 <= line["validation/knn"] <= 1 for line in looks)


def test_a_run_makes_nothing_alone_and_says_what_it_is_for(pre: Run) -> None:
    with pytest.raises(RunError, match="makes nothing alone; it holds features, for `maquette train CORPUS --start"):
        generate(pre, 1)


def test_a_run_of_masked_fills_in_a_picture(corpus, tmp_path: Path) -> None:
    import PIL.Image

    run = train(corpus, recipe("masked", corpus), tmp_path / "run")
    assert not (run.path / "samples").exists()
    with pytest.raises(UsageError, match="fills in what is missing"):
        generate(run, 1)
    source, keep = np.zeros((16, 16), np.uint8), np.full((16, 16), 255, np.uint8)
    keep[:8] = 0
    for name, content in (("source", source), ("keep", keep)):
        PIL.Image.fromarray(content).save(tmp_path / f"{name}.png")
    made = generate(run, 1, Wish(source=str(tmp_path / "source.png"), keep=str(tmp_path / "keep.png")))
    assert made[0].content.shape == (16, 16, 1) and made[0].content[8:].max() == 0


def test_a_flow_that_fills_in_makes_pieces_alone_too(corpus, tmp_path: Path) -> None:
    run = train(corpus, recipe("masked", corpus, 3, body="flow"), tmp_path / "run")
    assert (run.path / "samples" / "00000003.png").is_file()
    assert len(generate(run, 2)) == 2


def test_tasks_are_joined_by_plus_and_unknown_ones_get_the_nearest_name(corpus, tmp_path: Path) -> None:
    made = recipe_for("masked+rotation", corpus)
    assert made.model == "joint" and made.models["joint"]["tasks"] == ["masked", "rotation"]
    run = train(corpus, recipe("masked+rotation", corpus, 2), tmp_path / "run")
    assert {"model/masked.error", "model/rotation.nats"} <= json.loads(
        (run.path / "log.jsonl").read_text().splitlines()[0]
    ).keys()
    with pytest.raises(UnknownName, match="did you mean masked"):
        recipe_for("maskd", corpus)
    with pytest.raises(UnknownName, match="did you mean rotation"):
        recipe_for("masked+rotatoin", corpus)
    with pytest.raises(SettingError, match="different tasks"):
        build("joint", GRIDS["2 axes"], tasks=["masked", "masked"])
    assert recipe_for("auto", corpus).model == "contrast"


def test_the_command_pretrains(corpus, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from maquette.cli import app
    from maquette.show import show

    words = ["pretrain", str(corpus.path), "--task", "rotation", "-o", str(tmp_path / "run"), "--size", "tiny"]
    done = CliRunner().invoke(app, [*words, "--set", "train.steps=2", "--set", "train.batch_size=8"])
    assert done.exit_code == 0, done.output
    assert Run.open(tmp_path / "run").recipe.model == "rotation"
    show(str(tmp_path / "run"))
    show("contrast")


@pytest.mark.parametrize(("model", "body"), [("gan", None), ("vqvae", "vqvae"), ("vae", "vae"), ("flow", "flow")])
def test_a_model_starts_from_a_pretext_run(model: str, body: str | None, corpus, tmp_path: Path) -> None:
    from maquette.starting import warm

    start = train(corpus, recipe("contrast", corpus, 2, body=body), tmp_path / "pre")
    kind = catalog.trainable(model)
    report = warm(kind(corpus.spec, **catalog.check(kind, kind.sizes["tiny"], model)), model, start)
    (own,) = kind.enters
    encoder = start.load_model().encoder.state_dict()
    assert {n.removeprefix(f"{own}.") for n in report.taken} >= set(encoder)


# ---- judging


def test_an_audit_takes_a_pretext_run_as_its_judge(pre: Run, corpus, tmp_path: Path) -> None:
    made = train(
        corpus, make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 2, "threads": 1}}), tmp_path / "vae"
    )
    found = audit(made, corpus, samples=48, judge=pre.path, out=tmp_path / "audit")
    facts = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert "a run of contrast that learnt from this corpus without labels" in facts["judge"]["words"]
    assert facts["judge"]["hash"] and found.evidence.find("coverage").n == 48
    with pytest.raises(RunError, match="no run at"):
        audit(made, corpus, judge=tmp_path / "nowhere")


def test_a_judge_that_does_not_fit_is_refused_in_words(pre: Run, corpus, tmp_path: Path) -> None:
    made = train(
        corpus, make_recipe({"model": "gan", "size": "tiny", "train": {"steps": 2, "threads": 1}}), tmp_path / "gan"
    )
    with pytest.raises(SettingError, match="holds no features"):
        audit(made, corpus, judge=made)
    facts = json.loads((pre.path / "run.json").read_text())
    facts["spec"]["space"]["shape"] = [1, 16, 15]
    other = Run(pre.path, pre.recipe, facts)
    with pytest.raises(MaquetteError, match=r"(do not fit|pretrain on a corpus of that shape)"):
        audit(made, corpus, judge=other)


# ---- seeing: a perceptual distance


@pytest.mark.parametrize("model", ["vae", "vqvae"])
def test_pieces_are_compared_through_the_eyes_of_a_pretext_run(model: str, pre: Run, corpus, tmp_path: Path) -> None:
    table = {"perceptual": str(pre.path), "perceptual_weight": 0.5}
    asked = make_recipe({"model": model, "size": "tiny", "models": {model: table}, "train": {"steps": 4, "threads": 1}})
    run = train(corpus, asked, tmp_path / "run")
    assert "model/perceptual" in json.loads((run.path / "log.jsonl").read_text().splitlines()[-1])
    plain = catalog.trainable(model)(corpus.spec, **catalog.trainable(model).sizes["tiny"])
    assert run.newest().tensors["weights"].keys() == plain.state_dict().keys()
    run.load_model()
    with pytest.raises(SettingError, match="looks through"):
        catalog.trainable(model)(corpus.spec, perceptual="x").loss(corpus.tensor("test"), "model", 0.0)


@pytest.mark.parametrize("model", ["vae", "vae+flow"])
def test_the_eyes_are_found_from_any_folder_and_no_folder_of_this_machine_is_kept(
    model: str, pre: Run, corpus, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(pre.path, tmp_path / "runs" / "pre")

    def asked(place: str, steps: int = 4):
        train = {"steps": steps, "threads": 1}
        return make_recipe({"model": model, "size": "tiny", "models": {"vae": {"perceptual": place}}, "train": train})

    monkeypatch.chdir(tmp_path)
    events = training(corpus, asked("runs/pre"), Path("runs/mine"))
    for event in events:
        if event.step >= 2:
            events.close()
            break
    monkeypatch.chdir(tmp_path / "elsewhere")
    whole = train(corpus, asked("../runs/pre"), Path("../runs/mine"))
    assert whole.recipe.models["vae"]["perceptual"] == "../pre"
    assert all(str(tmp_path) not in file.read_text() for file in whole.path.rglob("recipe.toml"))
    stage = whole.codec or whole
    assert stage.newest().facts["step"] == 4 and stage.facts["perceptual"] == identity(Run.open("../runs/pre"))
    again = train(corpus, to_recipe("../runs/mine/recipe.toml", {}, []), Path("other/place"))
    assert again.recipe.models["vae"]["perceptual"] == "../../../runs/pre"
    styled = adapt(whole, corpus, Path("styled"), steps=2)
    assert (styled.codec or styled).recipe.models["vae"]["perceptual"] == (
        "../" * (2 + bool(styled.codec))
    ) + "runs/pre"


def test_eyes_that_do_not_fit_are_refused_in_words(pre: Run, corpus, tmp_path: Path) -> None:
    plain = train(corpus, make_recipe({"model": "gan", "size": "tiny", "train": {"steps": 1}}), tmp_path / "gan")
    for place, error, words in (
        (plain.path, SettingError, "run of `maquette pretrain`"),
        (tmp_path, RunError, "no run"),
    ):
        asked = make_recipe({"model": "vae", "size": "tiny", "models": {"vae": {"perceptual": str(place)}}})
        with pytest.raises(error, match=words):
            train(corpus, asked, tmp_path / error.__name__)


# ---- probes: small theorems


def points(n: int, spread: float, seed: int = 0) -> Labelled:
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return Labelled(torch.eye(3)[labels] * 2 + spread * torch.randn(n, 3, generator=chance), labels)


def test_probes_are_right_about_what_can_be_told_and_at_chance_about_noise() -> None:
    easy = compare(points(90, 0.1, 0), points(60, 0.1, 1), points(60, 0.1, 2))
    assert easy.linear == easy.knn == 1.0
    noise = [
        Labelled(torch.randn(300, 3, generator=torch.Generator().manual_seed(k)), torch.arange(300) % 3)
        for k in (3, 4, 5)
    ]
    assert 0.2 < compare(*noise).linear < 0.5


def test_what_is_free_is_chosen_on_the_validation_split_not_on_the_judged_one() -> None:
    train_, validation = points(60, 1.0, 0), points(60, 1.0, 1)
    wrong = Labelled(validation.features, (validation.labels + 1) % 3)
    assert linear_probe(train_, validation, wrong)[0] == linear_probe(train_, validation, validation)[0]
    assert knn(train_, validation, wrong)[0] == knn(train_, validation, validation)[0]


@cache
def blind():
    class Blind:
        def embed(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2]

    return Blind()


def test_a_corpus_without_labels_is_not_probed(corpus) -> None:
    assert probe(blind(), corpus.unconditioned()) is None
    assert probe(train_judge(corpus, work=200_000), corpus).linear > 0.5
