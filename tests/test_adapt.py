"""Starting from another run and adapting to other content: what is taken, what is refused, what stays as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import draw
from test_train import same, tiny, weights

from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError, SettingError, UnknownName
from maquette.prior import prior_of
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.starting import warm
from maquette.verbs.adapt import adapt, adapting
from maquette.verbs.audit import audit
from maquette.verbs.fitting import fitted_to
from maquette.verbs.generate import Wish, generate
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Larger pictures of squares, labelled with a name the other corpus does not know beside one it does."""
    root = tmp_path_factory.mktemp("more") / "squares"
    for label in ("square", "tile"):
        (root / label).mkdir(parents=True)
        for k in range(15):
            draw("square", 100 * len(label) + k, 24).save(root / label / f"{k}.png")
    return prepare(root, tmp_path_factory.mktemp("corpora") / "squares", settings={})


@pytest.fixture(scope="module")
def base(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(corpus, tiny("vae"), tmp_path_factory.mktemp("runs") / "base")


def test_a_run_of_the_same_model_gives_all_its_weights(corpus: Corpus, base: Run) -> None:
    model = base.build()
    report = warm(model, "vae", base)
    assert not report.new and not report.left and report.numbers == report.of
    assert all(torch.equal(t, base.load_model().state_dict()[n]) for n, t in model.state_dict().items())


def test_what_does_not_fit_by_shape_stays_fresh_and_is_listed(corpus: Corpus, base: Run, tmp_path: Path) -> None:
    wider = make_recipe(tiny("vae").model_dump() | {"start": str(base.path), "models": {"vae": {"latent_size": 5}}})
    run = train(corpus, wider, tmp_path / "wider")
    told = run.facts["start"]
    assert any(n.startswith("encoder.stem") for n in told["taken"])
    assert "decoder.mix.weight" in told["new"] and "decoder.mix.weight" in told["left"]
    assert "start:" in told["words"] and "new:" in told["words"]


def test_a_start_of_which_nothing_fits_is_refused_in_words(corpus: Corpus, base: Run, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"no weight of .*fits flow.*start from a run of flow itself"):
        train(corpus, tiny("flow").model_copy(update={"start": str(base.path)}), tmp_path / "flow")


def test_a_start_that_is_no_run_or_damaged_is_refused_before_training(
    corpus: Corpus, base: Run, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="no run at"):
        train(corpus, tiny("vae").model_copy(update={"start": "nowhere"}), tmp_path / "a")
    broken = tmp_path / "broken"
    shutil.copytree(base.path, broken)
    for file in broken.glob("checkpoints/*/averaged.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match="damaged"):
        train(corpus, tiny("vae").model_copy(update={"start": str(broken)}), tmp_path / "b")


def test_a_corpus_is_fitted_to_the_size_and_labels_of_the_run(base: Run, squares: Corpus) -> None:
    fitted = fitted_to(base, squares)
    assert fitted.spec.space == base.spec.space != squares.spec.space
    assert fitted.spec.condition == base.spec.condition
    known = fitted.conditions("train")
    assert known is not None and 0 < int(known[:, 0].isnan().sum()) < len(known)  # `tile` is a name it has never seen
    assert [fitted.size(s) for s in ("train", "validation", "test")] == [
        squares.size(s) for s in ("train", "validation", "test")
    ]
    assert fitted_to(base, squares).path == fitted.path
    assert fitted_to(base, fitted) is fitted


def test_adapting_goes_on_bit_exactly_and_stands_alone(base: Run, squares: Corpus, tmp_path: Path) -> None:
    whole = adapt(base, squares, tmp_path / "whole", given={"steps": 8})
    events = adapting(base, squares, tmp_path / "halves", given={"steps": 8})
    for event in events:
        if event.step >= 1:
            events.close()
            break
    assert same(whole, adapt(base, squares, tmp_path / "halves", given={"steps": 8}))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(whole.path, elsewhere)
    assert len(generate(Run.open(elsewhere), 2, Wish(condition={"label": "square"}))) == 2


@pytest.mark.parametrize("model", ["vae", "flow"])
def test_of_few_pieces_the_start_stays_where_training_only_makes_it_worse(
    corpus: Corpus, model: str, tmp_path: Path
) -> None:
    base = train(corpus, tiny(model), tmp_path / "base")
    run = adapt(base, corpus, tmp_path / "wild", given={"steps": 60, "lr": 1.0, "clip": 0.0})
    assert run.best().facts["best"][0] == 0
    assert run.newest().facts["step"] < 60  # it was ended
    before = base.load_model().state_dict()
    assert all(torch.equal(t, before[n]) for n, t in run.load_model().named_parameters())


@pytest.mark.parametrize("model", ["vae", "gan", "vqvae+transformer"])
def test_of_few_pieces_the_weights_of_the_best_look_are_kept(corpus: Corpus, model: str, tmp_path: Path) -> None:
    base = train(corpus, tiny(model), tmp_path / "base")
    run = adapt(base, corpus, tmp_path / "tame", given={"steps": 40})
    at, figure = run.best().facts["best"]
    logs = [json.loads(line) for line in (run.path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    name = "validation/kid" if model == "gan" else "validation/loss"
    looks = {row["step"]: row[name] for row in logs if name in row}
    assert at > 0 and looks
    assert figure <= min(looks.values()) + 1e-3 * abs(figure)


def test_of_a_pair_the_codec_stays_as_it_is(corpus: Corpus, squares: Corpus, tmp_path: Path) -> None:
    pair = train(corpus, tiny("vqvae+transformer"), tmp_path / "pair")
    run = adapt(pair, squares, tmp_path / "adapted", given={"steps": 4})
    before, after = pair.codec.load_model().state_dict(), run.codec.load_model().state_dict()
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    assert not (run.path / "codec" / "samples").exists()
    moved = weights(run)["weights"]
    assert any(not torch.equal(t, moved[n]) for n, t in weights(pair)["weights"].items())
    assert len(generate(run, 2)) == 2


def test_prior_pieces_stand_beside_the_new_ones(base: Run, squares: Corpus, tmp_path: Path) -> None:
    run = adapt(base, squares, tmp_path / "kept", given={"prior": 0.5, "steps": 4})
    prior = prior_of(run)
    assert (run.path / "prior.safetensors").is_file() and prior.x.shape[1:] == base.spec.space.shape
    assert not same(run, adapt(base, squares, tmp_path / "plain", given={"steps": 4}))
    with pytest.raises(SettingError, match=r"adapter\.prior should be a share"):
        adapt(base, squares, tmp_path / "no", given={"prior": 2})


def test_bad_wishes_get_a_sentence(base: Run, squares: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match='no adapter "lorra"'):
        adapt(base, squares, tmp_path / "a", method="lorra")
    words = tmp_path / "words"
    words.mkdir()
    for k in range(12):
        (words / f"{k}.txt").write_text(f"a poem of number {k} and of nothing else")
    poems = prepare(words, tmp_path / "poems", settings={})
    with pytest.raises(SettingError, match=r"learnt image pieces, and .* holds text"):
        adapt(base, poems, tmp_path / "b")


def test_a_text_whose_characters_the_run_never_saw_is_refused(tmp_path: Path) -> None:
    corpora = {}
    for name, line in (
        ("known", "the cat sat on the mat"),
        ("strange", "白日依山尽黄河入海流"),
        ("near", "the mat sat"),
    ):
        (tmp_path / name).mkdir()
        for k in range(12):
            (tmp_path / name / f"{k}.txt").write_text(f"{line} {k:02d} " * 3)
        corpora[name] = prepare(tmp_path / name, tmp_path / f"{name}.corpus", settings={"tokens": "characters"})
    run = train(corpora["known"], tiny("transformer", 2), tmp_path / "run")
    fitted = fitted_to(run, corpora["near"])
    assert fitted.spec.space == run.spec.space and fitted.spec.tokens > 0
    with pytest.raises(SettingError, match=r"characters that the run has never seen.*tokens=bytes"):
        adapt(run, corpora["strange"], tmp_path / "no")


def test_a_masked_encoder_becomes_a_decoder(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for k in range(12):
        (tmp_path / "texts" / f"{k}.txt").write_text(f"a line of number {k} " * 4)
    corpus = prepare(tmp_path / "texts", tmp_path / "corpus", settings={"tokens": "characters"})
    masked = tiny("transformer", 2).model_copy(update={"models": {"transformer": {"mode": "masked"}}})
    start = train(corpus, masked, tmp_path / "masked")
    run = train(corpus, tiny("transformer", 2).model_copy(update={"start": str(start.path)}), tmp_path / "decoder")
    taken = run.facts["start"]["taken"]
    assert "model.layers.0.self_attn.q_proj.weight" in taken and "lm_head.weight" in taken
    assert "model.start" in run.facts["start"]["new"]


def test_a_run_is_compared_with_a_corpus_it_was_not_trained_on(base: Run, squares: Corpus) -> None:
    made = audit(base, against=squares, samples=48)
    assert made.page.parent.name == "audit-squares" and made.page.is_file()
    with pytest.raises(CorpusError, match="is not the corpus"):
        audit(base, fitted_to(base, squares))


def test_a_start_that_was_trained_on_is_no_start_for_a_run_already_begun(
    corpus: Corpus, base: Run, tmp_path: Path
) -> None:
    recipe = tiny("vae").model_copy(update={"start": str(base.path)})
    run = train(corpus, recipe, tmp_path / "run")
    shutil.rmtree(run.path / "checkpoints")  # as if it had been killed before the first
    run.facts["start"]["fingerprint"] = "of other weights"
    run.note()
    with pytest.raises(RunError, match="no longer the run"):
        train(corpus, recipe, tmp_path / "run")
