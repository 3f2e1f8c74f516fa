"""Adapting: what moves and what holds still in every family, thin matrices as files, and what peft makes of them."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save
from test_export import build as small_transformer
from test_export import theirs
from test_models_contract import FAMILIES, GenerativeModel, batches, home, toy
from test_models_contract import build as fresh
from test_train import tiny

from maquette import catalog
from maquette.adapters.lora import Lora
from maquette.adapting import load_adapter, merged, parse_adapter, save_adapter
from maquette.corpus import Corpus
from maquette.errors import RunError, SettingError, UsageError
from maquette.loop import loop, make_plan
from maquette.models.transformer import Transformer
from maquette.nets.lora import fold, most, thin
from maquette.nets.transformer import Table
from maquette.run import Run, identity
from maquette.space import DataSpec, Model, Optimiser, Phase, SampleRequest, Space
from maquette.verbs.adapt import adapt
from maquette.verbs.export import write_huggingface
from maquette.verbs.generate import Wish, generate, like
from maquette.verbs.train import train

LEARN = [name for name in FAMILIES if catalog.find("models", name).phases]
METHODS = {"full": {}, "head": {}, "lora": {"rank": 2}}
every_family = pytest.mark.parametrize("name", LEARN)


def build(name: str, space: Space) -> Model:
    """A base, in which nothing is zero any more."""
    model = fresh(name, space)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model


def adapted(name: str, method: str = "lora") -> Model:
    model = build(name, home(name))
    torch.manual_seed(1)
    catalog.find("adapters", method)(**METHODS[method]).apply(model)
    return model


def stirred(model: Model) -> Model:
    """With thin matrices that do something."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("lora_B"):
                p.normal_(std=0.1)
    return model.eval()


def told(model: Model) -> torch.Tensor:
    """What it says of a batch of its toy."""
    torch.manual_seed(5)
    batch = next(toy(model.spec.space, 8))
    return torch.stack([model.loss(batch, p.name, 0.5).total.detach() for p in model.phases])


@every_family
def test_adapting_changes_nothing_at_first(name: str) -> None:
    plain = build(name, home(name)).eval()
    assert torch.equal(told(plain), told(adapted(name).eval()))


@pytest.mark.parametrize("method", METHODS)
@every_family
def test_only_what_may_move_moves_and_going_on_is_bit_exact(name: str, method: str) -> None:
    plan, kept = make_plan(None, {"steps": 4, "batch_size": 16}), None
    before = adapted(name, method).state_dict()
    for now in loop(adapted(name, method), batches(home(name)), plan):
        if now.step == 2:
            kept = {f: load(save({k: v.clone() for k, v in t.items()})) for f, t in now.tensors().items()}, now.facts()
    for again in loop(adapted(name, method), batches(home(name)), plan, kept):  # noqa: B007
        pass
    for mine, other in ((now.model, again.model), (now.averaged, again.averaged)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in mine.state_dict().items())
    moved = {k for k, p in now.model.named_parameters() if not torch.equal(before[k], p)}
    may = {k for k, _ in now.model.named_parameters() if any(p.moves(k) for p in now.model.phases)}
    assert moved == may
    assert all(any(p.moves(k) for k in moved) for p in now.model.phases), "every player learns, a discriminator too"
    if method == "lora":
        assert all(k.rpartition(".")[2] in ("lora_A", "lora_B") or k.startswith("discriminator") for k in moved)
    assert (method == "full") == (moved == set(dict(now.model.named_parameters())))


@every_family
def test_merging_gives_the_plain_model_with_the_same_outputs(name: str) -> None:
    model = stirred(adapted(name))
    whole = merged(model)
    plain = build(name, home(name))
    assert whole.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in whole.modules()] == [type(m) for m in plain.modules()]
    assert whole.phases == plain.phases and whole.adaptation is None and model.adaptation
    assert torch.allclose(told(whole), told(model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(told(whole), told(plain.eval()), atol=1e-5, rtol=1e-5)
    if isinstance(model, GenerativeModel):
        made = [m.sample(SampleRequest((1, 2))).float() for m in (model, whole)]
        assert torch.allclose(*made, atol=1e-4)


@every_family
def test_an_adapter_is_saved_alone_and_laid_onto_its_base(name: str, tmp_path: Path) -> None:
    model = stirred(adapted(name))
    save_adapter(model, tmp_path / "a", {"base": "-"})
    plain = build(name, home(name)).eval()
    load_adapter(plain, tmp_path / "a")
    assert torch.allclose(told(plain), told(merged(model)), atol=1e-5, rtol=1e-5)


def test_adapters_add_up_by_weight(tmp_path: Path) -> None:
    base, names = build("flow", home("flow")), ("a", "b")
    change = {}
    for k, name in enumerate(names):
        torch.manual_seed(k)
        model = copy.deepcopy(base)
        Lora(rank=2).apply(model)
        save_adapter(stirred(model), tmp_path / name, {"base": "-"})
        change[name] = {n: p - q for (n, p), q in zip(merged(model).named_parameters(), base.parameters(), strict=True)}
    both = copy.deepcopy(base)
    load_adapter(both, tmp_path / "a", 0.7)
    load_adapter(both, tmp_path / "b", -0.5)
    for (n, p), q in zip(both.named_parameters(), base.parameters(), strict=True):
        assert torch.allclose(p, q + 0.7 * change["a"][n] - 0.5 * change["b"][n], atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Linear(6, 4),
        torch.nn.Conv1d(4, 6, 3, groups=2),
        torch.nn.Conv3d(2, 4, (1, 3, 3)),
        torch.nn.ConvTranspose2d(3, 5, 4, stride=2),
        torch.nn.Embedding(7, 5),
        Table(12, 5, (3, 4), 1.0),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_of_any_kind_adds_a_product_of_its_rank_and_folds_back(layer: torch.nn.Module) -> None:
    kind, before = type(layer), layer.weight.detach().clone()
    thin(layer, 2, 0.5)
    assert isinstance(layer, kind) and torch.equal(layer.weight, before)
    torch.nn.init.normal_(layer.lora_B)
    added = (layer.weight - before).detach().flatten(1)
    assert torch.linalg.matrix_rank(added, atol=1e-5) == 2
    again = copy.deepcopy(layer)
    fold(again)
    assert type(again) is kind and torch.equal(again.weight, layer.weight) and most(again) == min(added.shape)
    assert set(dict(again.named_parameters())) <= {"weight", "bias", "digits"}


def test_rates_are_paced_and_thin_matrices_have_adam_where_others_have_muon() -> None:
    plain = build("transformer", home("transformer"))
    plain.phases = (Phase("model", optimiser=Optimiser("muon", lr=0.1, muon_lr=0.2)),)
    Lora(pace=2.0).apply(thinly := copy.deepcopy(plain))
    assert (thinly.phases[0].optimiser.name, thinly.phases[0].optimiser.lr) == ("adamw", 0.2)
    catalog.find("adapters", "full")(pace=0.5).apply(plain)
    assert plain.phases[0].optimiser == Optimiser("muon", lr=0.05, muon_lr=0.1)


def test_a_step_of_decoding_knows_the_thin_matrices() -> None:
    model = stirred(adapted("transformer"))
    tokens = model.sample(SampleRequest((1, 2, 3), temperature=0.0))
    guess = torch.cat([model.logits(tokens[:, :i])[:, -1:].argmax(-1) for i in range(tokens.shape[1])], 1)
    assert torch.equal(tokens, guess)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [({"targets": "proj$"}, {}), ({"rank": 8}, {}), ({}, {"tied": True})],
    ids=["layers", "tables too", "tied"],
)
def test_peft_lays_it_onto_the_exported_base(settings: tuple[dict, dict], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra peft: pip install 'maquette[peft]'")
    base = small_transformer(**settings[1])
    plain = copy.deepcopy(base)
    write_huggingface(base, tmp_path / "base", None, "")
    Lora(**{"rank": 3, "alpha": 5} | settings[0]).apply(base)
    save_adapter(stirred(base), tmp_path / "adapter", {"base": "-"})
    model = peft.PeftModel.from_pretrained(theirs(tmp_path / "base"), tmp_path / "adapter").eval()
    tokens = torch.randint(0, 5, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = base.logits(tokens)
        found = model(torch.cat([torch.full((3, 1), base.vocabulary), tokens], 1)).logits
    assert torch.allclose(found[..., : base.vocabulary], ours, atol=1e-4)
    assert torch.allclose(found[..., base.vocabulary], ours.mean(-1), atol=1e-4)
    load_adapter(plain, tmp_path / "adapter")
    assert torch.allclose(plain.logits(tokens), ours, atol=1e-4)


# ---- runs


@pytest.fixture(scope="module")
def base(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(corpus, tiny("flow"), tmp_path_factory.mktemp("runs") / "base")


@pytest.fixture(scope="module")
def style(base: Run, corpus: Corpus) -> Run:
    return adapt(base, corpus, base.path.parent / "style", method="lora", steps=4, given={"rank": 2, "pace": 20.0})


def pictures(run: Run, *adapters: str) -> torch.Tensor:
    return run.sampler(adapters=adapters).sample(SampleRequest((1, 2, 3)))


def test_an_adapted_run_makes_what_its_adapter_makes_on_the_base(base: Run, style: Run) -> None:
    whole, on = pictures(style), pictures(base, f"{style.path}")
    assert torch.allclose(whole, on, atol=1e-5) and not torch.allclose(pictures(base), on, atol=1e-4)
    assert torch.allclose(pictures(base, f"{style.path}:0"), pictures(base), atol=1e-6)
    half = pictures(base, f"{style.path}:0.25", f"{style.path}/adapter:0.75")
    assert torch.allclose(half, on, atol=1e-5)


def test_a_piece_remembers_its_adapters(base: Run, style: Run) -> None:
    wish = Wish(adapters=(f"{style.path}:0.7",))
    piece = generate(base, 2, wish)[1]
    again = generate(base, 1, like(piece.facts, base))[0]
    assert torch.equal(torch.as_tensor(again.content), torch.as_tensor(piece.content))
    with pytest.raises(RunError, match=r"is not .* the one that made this piece"):
        like({**piece.facts, "adapters": ["0" * 32]}, base)


def test_of_a_pair_the_adapter_belongs_to_the_last_stage(corpus: Corpus, tmp_path: Path) -> None:
    pair = train(corpus, tiny("vqvae+transformer"), tmp_path / "pair")
    run = adapt(pair, corpus, tmp_path / "style", method="lora", steps=4, given={"rank": 2, "pace": 20.0})
    on = pair.sampler(adapters=(str(run.path),))
    told = run.load_model().state_dict()
    assert all(torch.allclose(v, told[k], atol=1e-6) for k, v in on.model.state_dict().items())
    assert load_file(run.path / "adapter" / "adapter_model.safetensors").keys()


def test_what_cannot_be_laid_on_is_refused_in_words(base: Run, style: Run, corpus: Corpus, tmp_path: Path) -> None:
    other = train(corpus, tiny("flow").model_copy(update={"seed": 7}), tmp_path / "other")
    for text, error, words in (
        ("nowhere:0.7", RunError, "there is no such folder"),
        (str(base.path), RunError, "holds no adapter"),
        (f"{style.path}:much", UsageError, "should be a number"),
        (f"{style.path}:nan", UsageError, "should be a number"),
    ):
        with pytest.raises(error, match=words):
            pictures(base, text)
    with pytest.raises(RunError, match="belongs to another base"):
        pictures(other, str(style.path))
    broken = tmp_path / "broken"
    shutil.copytree(style.path / "adapter", broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match="damaged"):
        pictures(base, str(broken))


def test_impossible_settings_are_refused_in_words() -> None:
    flow = build("flow", home("flow"))
    for settings, words in (
        ({"rank": 5000}, "rank should be at most"),
        ({"targets": "no_such_layer"}, r"matches none of: .*body"),
        ({"targets": "(("}, "regular expression"),
    ):
        with pytest.raises(SettingError, match=words):
            Lora(**settings).apply(flow)
    Lora().apply(flow)
    with pytest.raises(SettingError, match="adapted already"):
        Lora().apply(flow)
    with pytest.raises(SettingError, match="no weights to adapt"):
        Lora().apply(build("ngram", home("ngram")))
    with pytest.raises(SettingError, match="only a model with thin matrices"):
        save_adapter(build("flow", home("flow")), "nowhere", {})
    with pytest.raises(RunError, match="no such folder"):
        parse_adapter("nowhere")


def test_an_adapter_on_a_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    space = Space("tokens", (8,), 5)
    model = Transformer(DataSpec(space), width=48, layers=1)
    Lora(rank=2).apply(model)
    save_adapter(model, tmp_path / "a", {})
    for other in (Transformer(DataSpec(space), width=96, layers=1), build("flow", home("flow"))):
        with pytest.raises(RunError, match="does not fit this model"):
            load_adapter(other, tmp_path / "a")


def test_the_fingerprint_of_the_base_is_kept(base: Run, style: Run) -> None:
    from maquette.adapting import facts_of

    facts = facts_of(style.path / "adapter")
    assert facts["base"] == identity(base) and facts["method"] == "lora" and facts["settings"]["rank"] == 2


def test_the_suite_covers_every_adapter() -> None:
    assert set(METHODS) == set(catalog.names("adapters"))
    for name in METHODS:
        assert all(row["description"] for row in catalog.table(catalog.find("adapters", name)))


def test_the_command_line_lays_an_adapter_on(base: Run, style: Run, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from maquette.cli import app

    line = ["generate", str(base.path), "-n", "1", "-o", str(tmp_path / "out"), "--adapter"]
    done = CliRunner().invoke(app, [*line, f"{style.path}:0.7"], catch_exceptions=False)
    assert done.exit_code == 0 and len(list((tmp_path / "out").glob("0*.png"))) == 1
    with pytest.raises(UsageError, match="should be a number"):
        CliRunner().invoke(app, [*line, f"{style.path}:x"], catch_exceptions=False)
