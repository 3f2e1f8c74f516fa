"""Judges that others trained: a Hugging Face folder, an ONNX file, a judge of another corpus; and runs that may not judge their kin."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from maquette.encoders import Taste, encoder_at
from maquette.errors import SettingError
from maquette.features import Lent, Pixels, judge_of
from maquette.recipe import make_recipe
from maquette.run import Run, identity
from maquette.space import Space
from maquette.verbs.audit import audit
from maquette.verbs.lending import chosen, pretext_beside, strangers
from maquette.verbs.train import train

GREY = Space("grid", (1, 16, 16))
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def pieces(corpus, n: int = 24) -> torch.Tensor:
    return corpus.tensor("train").x[:n]


def a_run(corpus, folder: Path, model: str = "vae", **more) -> Run:
    return train(
        corpus, make_recipe({"model": model, "size": "tiny", "train": {"steps": 1, "threads": 1}, **more}), folder
    )


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return a_run(corpus, tmp_path_factory.mktemp("runs") / "vae")


# ---- Hugging Face


def vit(folder: Path, **changes) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, **changes)
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def test_a_local_vit_judges_an_audit_and_is_named_by_its_hash(run: Run, corpus, tmp_path: Path) -> None:
    folder = vit(tmp_path / "small-vit")
    made = audit(run, samples=12, judge=folder, out=tmp_path / "report")
    facts = json.loads((made.folder / "audit.json").read_text())
    assert "ViTModel of the folder small-vit" in facts["judge"]["words"]
    assert facts["judge"]["hash"] == encoder_at(folder, GREY).hash and facts["judge"]["hash"] in made.page.read_text()
    assert made.evidence.features["judge"][0].shape == (12, 16)
    (folder / "preprocessor_config.json").write_text("{}")
    assert encoder_at(folder, GREY).hash != facts["judge"]["hash"]


@pytest.mark.parametrize("kind", ["Dinov2", "CLIP", "ResNet"])
def test_encoders_of_other_families_give_one_row_a_picture(kind: str, corpus, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = {
        "Dinov2": lambda: transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14),
        "CLIP": lambda: transformers.CLIPConfig(
            vision_config={**SMALL, "image_size": 16, "patch_size": 8},
            text_config={**SMALL, "vocab_size": 20, "eos_token_id": 2},
            projection_dim=12,
        ),
        "ResNet": lambda: transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]),
    }[kind]()
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / kind)
    rows = encoder_at(tmp_path / kind, GREY).embedder.embed(pieces(corpus))
    assert rows.shape == (24, {"Dinov2": 16, "CLIP": 12, "ResNet": 8}[kind])
    assert rows.isfinite().all() and float(rows.std(0).max()) > 0


def test_weights_that_are_missing_are_not_drawn_by_chance(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = vit(tmp_path / "half") / "model.safetensors"
    held = load_file(file)
    save_file({k: v for k, v in held.items() if "pooler" not in k}, file, {"format": "pt"})
    assert not encoder_at(file.parent, GREY).embedder.pooled
    save_file({k: v for k, v in held.items() if "layernorm_before" not in k}, file, {"format": "pt"})
    with pytest.raises(SettingError, match="are missing, such as"):
        encoder_at(file.parent, GREY)


def test_pickles_and_models_of_texts_are_refused_in_words(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = vit(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingError, match="pickles"):
        encoder_at(folder, GREY)
    transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=20)).save_pretrained(tmp_path / "bert")
    with pytest.raises(SettingError, match="BertModel, which reads input_ids"):
        encoder_at(tmp_path / "bert", GREY)
    with pytest.raises(SettingError, match="reads pictures"):
        encoder_at(vit(tmp_path / "vit"), Space("grid", (1, 64)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"--judge takes .* an \.onnx file"):
        encoder_at(tmp_path / "empty", GREY)


def test_a_picture_becomes_what_the_network_was_trained_on() -> None:
    x = torch.linspace(-1, 1, 2 * 8 * 8).reshape(2, 1, 8, 8)
    seen = Taste((16, 16), 3, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)).apply(x)
    assert seen.shape == (2, 3, 16, 16)
    plain = Taste(None, 3).apply(x)
    assert torch.allclose(plain, x.expand(-1, 3, -1, -1), atol=1e-6)
    colour = torch.tensor([1.0, 0.0, -1.0, 0.5]).reshape(1, 4, 1, 1)
    assert Taste(None, 1).apply(colour).item() == pytest.approx(0.299 - 0.114, abs=1e-6)
    assert Taste(None, 3).apply(colour).flatten().tolist() == pytest.approx([1, 0, -1], abs=1e-6)


# ---- ONNX


def exported(file: Path, batch: int | str = "batch", width: int = 5, scale: float = 1.0, shape=(1, 16, 16)) -> Path:
    """Flatten, then a matrix drawn by chance."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    pixels = shape[0] * shape[1] * shape[2]
    matrix = torch.randn(pixels, width, generator=torch.Generator().manual_seed(0)) * scale
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "matrix"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(matrix.numpy(), "matrix")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


@pytest.mark.parametrize("batch", ["batch", 5])
def test_an_onnx_file_gives_the_features_of_its_network(batch: int | str, corpus, tmp_path: Path) -> None:
    file = exported(tmp_path / "mine.onnx", batch)
    found = encoder_at(file, GREY)
    x = pieces(corpus)
    matrix = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.embedder.embed(x), x.flatten(1) @ matrix, atol=1e-4)
    assert found.hash and "mine.onnx" in found.words


def test_an_onnx_file_judges_an_audit(run: Run, tmp_path: Path) -> None:
    made = audit(run, samples=12, judge=exported(tmp_path / "mine.onnx"), out=tmp_path / "report")
    assert "mine.onnx" in json.loads((made.folder / "audit.json").read_text())["judge"]["words"]


def test_an_onnx_file_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "no.onnx").write_bytes(b"no network")
    with pytest.raises(SettingError, match="cannot be opened by onnxruntime"):
        encoder_at(tmp_path / "no.onnx", GREY)
    resized = encoder_at(exported(tmp_path / "coloured.onnx", shape=(3, 8, 8)), GREY)
    assert resized.embedder.embed(torch.zeros(2, 1, 16, 16)).shape == (2, 5)


# ---- a judge of another corpus


def test_a_judge_that_was_kept_beside_a_corpus_judges_pieces_of_the_same_shape(corpus, tmp_path: Path) -> None:
    known = judge_of(corpus, work=1)
    file = next(
        f for f in (corpus.path / "judge").glob("*.safetensors") if known.hash in f.with_suffix(".json").read_text()
    )
    found = encoder_at(file, GREY)
    assert found.hash == known.hash
    assert torch.equal(found.embedder.embed(pieces(corpus)), known.judge.embed(pieces(corpus)))
    with pytest.raises(SettingError, match="another shape"):
        encoder_at(file, Space("grid", (1, 40, 40)))
    (tmp_path / file.name).write_bytes(file.read_bytes()[:-1])
    (tmp_path / file.with_suffix(".json").name).write_text(file.with_suffix(".json").read_text())
    with pytest.raises(SettingError, match="checksum"):
        encoder_at(tmp_path, GREY)


# ---- features that say nothing


class _Fixed:
    def __init__(self, give):
        self.embed = give


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (lambda x: torch.zeros(len(x), 4), "the same for all"),
        (lambda x: x.flatten(1)[:, :4] * torch.nan, "not finite for"),
        (lambda x: x, "one row of features a piece"),
        (lambda x: x.flatten(1)[:1], "one row of features a piece"),
    ],
)
def test_features_that_say_nothing_are_refused_in_words(give, words: str, corpus) -> None:
    with pytest.raises(SettingError, match=words):
        Lent(_Fixed(give), corpus, "0", "a judge")


# ---- kin


def test_a_run_may_not_be_judged_by_what_it_began_from_nor_by_what_began_from_it(corpus, tmp_path: Path) -> None:
    first = a_run(corpus, tmp_path / "first")
    second = a_run(corpus, tmp_path / "second", start=str(first.path))
    third = a_run(corpus, tmp_path / "third", start=str(first.path), seed=1)
    other = a_run(corpus, tmp_path / "other", seed=2)
    assert second.facts["start"]["fingerprint"] == identity(first)
    for judge, judged, words in (
        (first, second, "second began from it"),
        (second, first, "it began from .*first"),
        (third, second, "both began from .*first"),
        (first, first, "may not judge"),
    ):
        with pytest.raises(SettingError, match=words):
            audit(judged, samples=48, judge=judge.path, out=tmp_path / "report")
    strangers(second, other)
    assert not (tmp_path / "report").exists()


def test_a_run_that_was_trained_to_please_a_judge_is_not_judged_by_it(run: Run, corpus, tmp_path: Path) -> None:
    other = a_run(corpus, tmp_path / "other", seed=1)
    pleased = Run(run.path, run.recipe, {**run.facts, "perceptual": identity(other)})
    with pytest.raises(SettingError, match="trained to please it"):
        strangers(pleased, other)
    strangers(run, other)


# ---- a pretext run beside the run


@pytest.fixture(scope="module")
def neighbours(corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run and a pretext run of the same corpus in folders side by side."""
    place = tmp_path_factory.mktemp("neighbours")
    recipe = make_recipe({"model": "contrast", "size": "tiny", "train": {"steps": 4, "threads": 1}})
    return a_run(corpus, place / "mine"), train(corpus, recipe, place / "pre")


def test_a_finished_pretext_run_beside_a_run_is_its_judge_unless_another_is_asked_for(neighbours, corpus) -> None:
    mine, pre = neighbours
    lent = chosen(None, mine, corpus)
    assert lent.hash == identity(pre) and "pre, a run of contrast that learnt from this corpus" in lent.words
    assert chosen("own", mine, corpus) is None


def test_a_pretext_run_of_another_corpus_or_unfinished_or_kin_is_passed_over(
    neighbours, corpus, tmp_path: Path
) -> None:
    mine, pre = neighbours
    assert pretext_beside([mine], corpus).path.name == "pre"
    facts = json.loads((pre.path / "run.json").read_text())
    kin = Run(mine.path, mine.recipe, {**mine.facts, "start": {"run": str(pre.path), "fingerprint": identity(pre)}})
    assert pretext_beside([mine, kin], corpus) is None  # of several runs it has to be a stranger to all
    copied = shutil.copytree(mine.path.parent, tmp_path / "copied")
    moved = Run.open(copied / "mine")
    other = {**facts, "corpus": {**facts["corpus"], "fingerprint": "another"}}
    (copied / "pre" / "run.json").write_text(json.dumps(other))
    assert pretext_beside([moved], corpus) is None
    (copied / "pre" / "run.json").write_text(json.dumps(facts))
    (manifest,) = (copied / "pre" / "checkpoints").glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"steps": 4', '"steps": 5'))
    assert pretext_beside([moved], corpus) is None


def test_a_barely_trained_pretext_run_is_passed_over_aloud(neighbours, corpus, tmp_path: Path) -> None:
    mine = Run.open(shutil.copytree(neighbours[0].path, tmp_path / "mine"))
    a_run(corpus, tmp_path / "brief", "contrast")
    assert chosen(None, mine, corpus) is None
    found = audit(mine, corpus, samples=12, out=tmp_path / "audit")
    assert "brief was passed over as the judge: it saw 256 pieces in training" in found.evidence.notes[0]
    assert chosen(tmp_path / "brief", mine, corpus).words.startswith("the features of brief")


def test_pixels_are_named_by_a_hash_and_say_how_they_look() -> None:
    one, other = Pixels(GREY), Pixels(Space("grid", (3, 64, 64)))
    assert one.hash != other.hash == Pixels(Space("grid", (3, 64, 64))).hash
    assert other.words == "averages over blocks of 8 x 8, untrained"
