"""A task learnt by LoRA, alone in a file: laid onto its base it is the run it came from, head and all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_heads import FEW, _picture, columns, starts, told  # noqa: F401
from typer.testing import CliRunner

from maquette.adapting import load_adapter
from maquette.api import open_run
from maquette.cli import app
from maquette.corpus import Corpus
from maquette.errors import RunError, UsageError
from maquette.run import Run
from maquette.verbs.adapt import adapt
from maquette.verbs.answer import answer
from maquette.verbs.generate import Wish, generate
from maquette.verbs.heads import laid

THIN = {"steps": 4, "given": {"batch_size": 8, "threads": 1, "rank": 2, "pace": 20.0}}


@pytest.fixture(scope="module")
def judge(starts: dict[str, Run], columns: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:  # noqa: F811
    place = tmp_path_factory.mktemp("judges") / "judge"
    return adapt(starts["vae"], columns, place, task="classify", method="lora", **THIN)


@pytest.mark.parametrize(
    ("task", "start"),
    [(t, "vae") for t in ("classify", "regress", "caption", "restore")]
    + [("restore", "flow"), ("classify", "gan"), ("classify", "vqvae+transformer"), ("restore", "contrast")],
)
def test_base_and_adapter_are_the_run(
    task: str,
    start: str,
    starts: dict[str, Run],  # noqa: F811
    columns: Corpus,  # noqa: F811
    tmp_path: Path,
) -> None:
    run = adapt(starts[start], columns, tmp_path / "run", task=task, method="lora", **THIN)
    whole = run.load_model().state_dict()
    found = laid(starts[start], [str(run.path)])[1].state_dict()
    assert found.keys() == whole.keys()
    assert all(torch.allclose(v, found[k], atol=1e-6) for k, v in whole.items())
    head = [k for k in whole if k.startswith(run.load_model().heads)]
    assert head and all(torch.equal(found[k], whole[k]) for k in head)


def test_the_adapter_alone_answers_on_its_base_as_the_run_does(
    judge: Run,
    starts: dict[str, Run],  # noqa: F811
    tmp_path: Path,
) -> None:
    moved = tmp_path / "judge.adapter"
    shutil.copytree(judge.path / "adapter", moved)
    source = str(_picture(tmp_path))
    asked = answer(starts["vae"], Wish(source=source, adapters=(str(moved),)))
    own = open_run(judge.path).answer(source)
    assert asked.words == own.words
    theirs, ours = (a.facts["answer"]["probabilities"] for a in (asked, own))
    assert all(abs(theirs[k] - p) < 1e-5 for k, p in ours.items())
    assert asked.facts["adapters"] and asked.facts["recipe"]["model"] == "classify"
    line = ["generate", str(starts["vae"].path), "--adapter", str(moved), "--source", source, "-o", str(tmp_path / "a")]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert own.words in done.output and (tmp_path / "a" / "answer.json").is_file()


def test_no_folder_of_this_machine_is_in_the_adapter(judge: Run, starts: dict[str, Run]) -> None:  # noqa: F811
    facts = json.loads((judge.path / "adapter" / "maquette.json").read_text())
    assert facts["task"]["recipe"]["model"] == "classify" and facts["task"]["recipe"]["start"] is None
    assert str(starts["vae"].path.parent) not in json.dumps(facts["task"])


def test_the_head_is_saved_as_peft_saves_modules(judge: Run) -> None:
    config = json.loads((judge.path / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(judge.path / "adapter" / "adapter_model.safetensors")
    assert config["modules_to_save"] == ["head.norm", "head.layers"]  # "head" would be the network's own too
    assert {"base_model.model.head.layers.0.weight", "base_model.model.head.norm.running_mean"} <= tensors.keys()
    assert not any(name.split(".")[0] == "head" for name in config["target_modules"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_peft_lays_it_onto_the_network_of_the_base(judge: Run, starts: dict[str, Run], columns: Corpus) -> None:  # noqa: F811
    peft = pytest.importorskip("peft", reason="needs the extra peft: pip install 'maquette[peft]'")
    plain = laid(starts["vae"], [str(judge.path)])[0].plain().eval()
    from maquette.starting import warm

    warm(plain, "classify", starts["vae"])
    model = peft.PeftModel.from_pretrained(plain, judge.path / "adapter").eval()
    x = columns.tensor("test").x
    with torch.no_grad():
        assert torch.allclose(model.base_model.model.logits(x), judge.load_model().logits(x), atol=1e-4)


def test_a_task_goes_on_from_a_task_and_its_adapter_with_it(
    judge: Run,
    columns: Corpus,  # noqa: F811
    tmp_path: Path,
) -> None:
    on = adapt(judge, columns, tmp_path / "on", task="classify", method="lora", **THIN)
    whole, found = on.load_model().state_dict(), laid(judge, [str(on.path)])[1].state_dict()
    assert all(torch.allclose(v, found[k], atol=1e-6) for k, v in whole.items())
    source = str(_picture(tmp_path))
    asked = answer(judge, Wish(source=source, adapters=(str(on.path),)))
    assert asked.words == open_run(on.path).answer(source).words


def test_what_makes_no_sense_is_refused_in_words(
    judge: Run,
    starts: dict[str, Run],  # noqa: F811
    columns: Corpus,  # noqa: F811
    tmp_path: Path,
) -> None:
    base, source = starts["vae"], str(_picture(tmp_path))
    style = adapt(base, columns, tmp_path / "style", method="lora", **THIN)
    for adapters, error, words in (
        ((f"{judge.path}:0.5",), UsageError, "holds a whole head"),
        ((str(judge.path), str(judge.path)), UsageError, "no other beside it"),
        ((str(judge.path), str(style.path)), UsageError, "no other beside it"),
        ((str(style.path),), UsageError, "which makes pieces"),
    ):
        with pytest.raises(error, match=words):
            answer(base, Wish(source=source, adapters=adapters))
    with pytest.raises(RunError, match="belongs to another base"):
        answer(starts["gan"], Wish(source=source, adapters=(str(judge.path),)))
    with pytest.raises(UsageError, match="holds a task, which makes nothing"):
        generate(base, 1, Wish(adapters=(str(judge.path),)))
    with pytest.raises(UsageError, match="give one with --source"):
        answer(base, Wish(adapters=(str(judge.path),)))
    with pytest.raises(RunError, match="does not fit this model"):
        load_adapter(base.plain(), judge.path / "adapter")
