"""Export: what another library makes of our weights is what we make of them, and what it cannot express is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maquette.condition import Condition, Field
from maquette.errors import MaquetteError, SpaceError, UnknownName, UsageError
from maquette.loop import TrainState, make_plan
from maquette.modalities.text import Text
from maquette.models.transformer import Transformer
from maquette.piece import Piece
from maquette.recipe import make_recipe, settle
from maquette.run import Run
from maquette.space import DataSpec, Space
from maquette.verbs.export import export, qwen3_weights, with_start, write_huggingface

WORDS = {"sea": 0, "tide": 1, "salt": 2, "grey": 3, "hum": 4, "[end]": 5}
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "hum"},
}


def build(
    space: Space = Space("tokens", (12,), 6, end=5), condition: Condition | None = None, **settings
) -> Transformer:
    torch.manual_seed(0)
    settings = {"width": 32, "layers": 2, "head_width": 16, "absolute": False} | settings
    model = Transformer(DataSpec(space, condition), **settings)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))  # what starts at zero or one would hide mistakes
    return model.eval()


def theirs(folder: Path):
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install 'maquette[hf]'")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"tied": True}, {"space": Space("tokens", (12,), 12, (3, 4))}],
    ids=["plain", "tied", "digits"],
)
def test_transformers_gives_the_same_logits(settings: dict, tmp_path: Path) -> None:
    model = build(**settings)
    write_huggingface(model, tmp_path, None, "")
    other = theirs(tmp_path)
    tokens = torch.randint(model.vocabulary, (3, 11), generator=torch.Generator().manual_seed(1))
    started = torch.cat([torch.full((3, 1), model.vocabulary), tokens], 1)
    with torch.no_grad():
        ours, found = model.logits(tokens), other(started).logits
    assert ours.abs().max() > 0.3
    assert torch.allclose(found[..., : model.vocabulary], ours, atol=1e-4)
    assert torch.allclose(found[..., model.vocabulary], ours.mean(-1), atol=1e-4)


def test_the_start_is_no_likelier_than_one_token_in_all(tmp_path: Path) -> None:
    write_huggingface(build(), tmp_path, None, "")
    with torch.no_grad():
        shares = theirs(tmp_path)(torch.tensor([[6, 0, 1, 2, 3]])).logits.softmax(-1)
    assert float(shares[..., 6].max()) <= 1 / 7 + 1e-6


def test_a_tokenizer_puts_the_start_before_every_text_and_generation_never_writes_it(tmp_path: Path) -> None:
    write_huggingface(build(), tmp_path, TOKENIZER, "")
    model = theirs(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer("sea tide").input_ids == [6, 0, 1]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (6, 5) and len(tokenizer) == 7
    torch.manual_seed(0)
    made = model.generate(**tokenizer(["sea"] * 64, return_tensors="pt"), max_new_tokens=10)
    assert set(made[:, 1:].unique().tolist()) == {0, 1, 2, 3, 5}  # neither the start nor what stands for the unknown


@pytest.mark.parametrize("tokens", ["characters", "bytes", "bpe"])
def test_the_tokenizer_of_a_text_corpus_numbers_as_the_corpus_does(tokens: str, tmp_path: Path) -> None:
    text = Text(tokens=tokens, vocabulary=300)
    sea = Piece("the grey sea,\nthe salt tide hums: 海 ")
    text.restore(text.fit([sea]) | text.learn(lambda: iter([text.to_array(sea)] * 3)))
    write_huggingface(build(text.space), tmp_path, text.tokenizer_json(), "")
    theirs(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    found = tokenizer(sea.content).input_ids
    assert found == [text.space.vocabulary, *text.to_tensor(sea).tolist()]
    assert tokenizer.decode(found, skip_special_tokens=True) == sea.content
    assert tokenizer.eos_token_id == text.space.end
    never = json.loads((tmp_path / "generation_config.json").read_text())["suppress_tokens"]
    assert never == [1] * (tokens == "characters") + [text.space.vocabulary]


def test_what_stood_behind_a_text_stays_there() -> None:
    old = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}
    made = with_start({**TOKENIZER, "post_processor": old}, 6)
    assert made["post_processor"]["processors"][0] == old and made["added_tokens"][-1]["id"] == 6


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: build(absolute=True), "absolute=false"),
        (lambda: build(condition=Condition([Field("label", "label", ("a", "b"))])), "without labels"),
    ],
)
def test_what_qwen3_cannot_express_is_refused_in_words(model, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        qwen3_weights(model())


def make_run(path: Path, space: Space, model: str = "transformer", **settings) -> Run:
    """A run that was hardly trained; of the corpus only what an export reads."""
    recipe = settle(make_recipe({"model": model, "size": "tiny", "models": {model: settings}}))
    modality = {"name": "image", "settings": {}, "fitted": {"channels": 1, "height": 8, "width": 8}}
    corpus = {"name": "shore", "modality": modality, "counts": {"train": 70}, "licences": {"CC0": 70}}
    run = Run.create(path, recipe, {"spec": DataSpec(space).to_json(), "corpus": corpus})
    made = run.build()
    run.save(TrainState(made, make_plan(made, {"steps": 10})))
    return run


def test_a_run_becomes_a_folder_with_a_card(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Space("tokens", (12,), 6), absolute=False)
    out = export(run)
    assert out == run.path / "huggingface" and export(run) == out  # again, over its own work
    assert load_file(out / "model.safetensors")["lm_head.weight"].shape == (7, 48)
    config = json.loads((out / "config.json").read_text())
    assert config["eos_token_id"] is None and config["max_position_embeddings"] == 12
    card = (out / "README.md").read_text()
    assert "# shore" in card and "70 train" in card and "70 CC0" in card
    assert "not audited" in card and "`<start>` (number 6)" in card


def test_bad_wishes_are_refused_in_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Space("tokens", (12,), 6))
    with pytest.raises(UnknownName, match="huggingface"):
        export(run, to="hugingface")
    with pytest.raises(SpaceError, match="absolute=false"):
        export(run)
    assert not (run.path / "huggingface").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "poem.txt").write_text("grey tide")
    with pytest.raises(UsageError, match="no export"):
        export(run, tmp_path / "mine")
    assert (tmp_path / "mine" / "poem.txt").exists()
    with pytest.raises(MaquetteError, match="run of vae"):
        export(make_run(tmp_path / "vae", Space("grid", (1, 8, 8)), "vae"))
