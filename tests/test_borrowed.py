"""A borrowed language model: made small and random here, no network; it judges, continues, and is refused where its tokens are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maquette import catalog
from maquette.errors import SettingError, SpaceError, UsageError
from maquette.loop import TrainState, loop, make_plan
from maquette.models.borrowed import Borrowed
from maquette.models.transformer import Transformer
from maquette.recipe import make_recipe, settle
from maquette.run import Run, identity
from maquette.space import Batch, DataSpec, SampleRequest, Space
from maquette.verbs.export import write_huggingface

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install 'maquette[hf]'")
SPACE = Space("tokens", (16,), 12, end=1)
WORDS = {"[start]": 0, "[end]": 1} | {f"w{k}": k for k in range(2, 12)}


def lend(folder: Path, kind: str = "llama", seed: int = 0, **changes) -> Path:
    """A tiny random model with a tiny tokenizer, as `save_pretrained` writes it."""
    torch.manual_seed(seed)
    usual = {"vocab_size": 12, "bos_token_id": 0, "eos_token_id": 1}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=24, **usual)
    else:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = transformers.LlamaConfig(**shape, max_position_embeddings=24, **(usual | changes))
    config.initializer_range = 0.6  # so that it is sure of something
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "w2"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lend(tmp_path_factory.mktemp("lent") / "llama")


def borrow(folder: Path, space: Space = SPACE) -> Borrowed:
    return Borrowed(DataSpec(space), path=str(folder)).eval()


def pieces() -> torch.Tensor:
    """Three windows, two of them with an end and padding."""
    x = torch.randint(2, 12, (3, 16), generator=torch.Generator().manual_seed(3))
    x[1, 9:], x[2, 4:] = 1, 1
    return x


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_its_nats_are_those_of_its_own_logits(kind: str, tmp_path: Path) -> None:
    model, x = borrow(lend(tmp_path / "lent", kind)), pieces()
    found = model.token_nats(Batch(x, before=torch.tensor([-1, -1, 5])))
    read = torch.cat([torch.tensor([[0], [0], [5]]), x[:, :-1]], 1)
    with torch.no_grad():
        shares = model.lm(input_ids=read).logits.log_softmax(-1)
    aim = -shares.gather(2, x.unsqueeze(2)).squeeze(2) * SPACE.counted(x)
    assert torch.allclose(found, aim, atol=1e-5)
    assert found[1, 9] > 0 and (found[1, 10:] == 0).all()


def test_few_rows_at_once_give_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = borrow(folder)
    whole = model.token_nats(Batch(pieces()))
    monkeypatch.setattr("maquette.models.borrowed.AT_ONCE", 1)
    assert torch.allclose(model.token_nats(Batch(pieces())), whole, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_row_i_depends_on_seed_i_alone(kind: str, tmp_path: Path) -> None:
    model = borrow(lend(tmp_path / "lent", kind))
    made = model.sample(SampleRequest((3, 5, 9)))
    for i, seed in enumerate((3, 5, 9)):
        alone = model.sample(SampleRequest((seed,)))[0]
        assert torch.equal(made[i, : len(alone)], alone) and (made[i, len(alone) :] == SPACE.end).all()
    assert not torch.equal(made[0], made[1])


def test_its_samples_follow_its_likelihood(folder: Path) -> None:
    model = borrow(folder)
    first = model.sample(SampleRequest(tuple(range(3000)), length=1))[:, 0]
    nats = torch.stack([model.token_nats(Batch(torch.tensor([[k]])))[0, 0] for k in range(12)])
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(first.bincount(minlength=12) / 3000, (-nats).exp(), atol=0.03)


def test_a_cold_continuation_is_what_transformers_writes(folder: Path) -> None:
    model = borrow(folder)
    prompt = torch.tensor([[4, 7, 3]])
    made = model.sample(
        SampleRequest((0,), source=prompt, keep=torch.ones_like(prompt).bool(), temperature=0, length=14)
    )
    theirs = model.lm.generate(torch.tensor([[0, 4, 7, 3]]), do_sample=False, max_new_tokens=11, pad_token_id=1)[0, 1:]
    assert torch.equal(made[0, :3], prompt[0]) and torch.equal(made[0], theirs[: made.shape[1]])


def test_a_model_without_a_memory_reads_everything_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, request = borrow(folder), SampleRequest((1, 2), length=10)
    usual = model.sample(request)
    monkeypatch.setattr("maquette.models.borrowed.memory_name", lambda lm: "no_such_memory")
    assert torch.equal(model.sample(request), usual)


def test_top_k_keeps_the_likeliest(folder: Path) -> None:
    model = borrow(folder)
    assert torch.equal(model.sample(SampleRequest((1, 2), top_k=1)), model.sample(SampleRequest((5, 6), temperature=0)))


def test_what_it_cannot_see_at_once_it_goes_on_from_the_last_half(folder: Path) -> None:
    model = borrow(folder)
    made = model.sample(SampleRequest(tuple(range(8)), length=70))
    assert made.shape == (8, 70) and len(made.unique()) > 4


def test_an_export_of_ours_borrowed_back_is_the_model_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = Transformer(DataSpec(SPACE), width=32, layers=2, head_width=16, absolute=False).eval()
    with torch.no_grad():
        for p in own.parameters():
            p.add_(0.2 * torch.randn_like(p))
    write_huggingface(own, tmp_path, None, "")
    again = borrow(tmp_path)
    batch = Batch(pieces(), before=torch.tensor([-1, 3, -1]))
    with torch.no_grad():
        assert torch.allclose(again.token_nats(batch), own.token_nats(batch), atol=1e-4)
    request = SampleRequest((1, 2, 3))
    assert torch.equal(again.sample(request), own.sample(request))


def test_training_takes_no_steps_and_a_run_keeps_the_fingerprint_alone(folder: Path, tmp_path: Path) -> None:
    recipe = settle(make_recipe({"model": "borrowed", "models": {"borrowed": {"path": str(folder)}}}))
    run = Run.create(tmp_path / "run", recipe, {"spec": DataSpec(SPACE).to_json(), "corpus": {"name": "toy"}})
    *_, now = loop(run.build(), lambda start: iter([]), make_plan(None, {}))
    assert now.done and not list(now.model.parameters())
    run.save(now)
    assert set(now.tensors()["averaged"]) == {"fingerprint"} and len(identity(run)) == 16
    request = SampleRequest((1, 2))
    assert torch.equal(run.sampler().sample(request), borrow(folder).sample(request))


def test_a_run_notices_that_its_model_has_changed(tmp_path: Path) -> None:
    lent = lend(tmp_path / "lent")
    state = borrow(lent).state_dict()
    lend(lent, seed=1)
    with pytest.raises(RuntimeError, match="has changed since"):
        borrow(lent).load_state_dict(state)


def test_a_state_of_the_loop_shares_the_weights(folder: Path) -> None:
    now = TrainState(borrow(folder), make_plan(None, {}))
    assert now.model.lm is now.averaged.lm


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Space("tokens", (16,), 65, end=1), "65 tokens.* reads 12"),
        (Space("tokens", (16,), 12, end=4), "end with 4.*end with 1"),
        (Space("tokens", (99,), 12, end=1), "99 tokens at once"),
        (Space("grid", (1, 8, 8)), "borrowed works on tokens"),
    ],
)
def test_other_tokens_are_refused_in_words(folder: Path, space: Space, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        borrow(folder, space)


def test_bad_wishes_are_refused_in_words(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingError, match="none came"):
        Borrowed(DataSpec(SPACE))
    with pytest.raises(SettingError, match="download=true fetches it"):
        Borrowed(DataSpec(SPACE), path="nobody/has-this")
    with pytest.raises(SettingError, match="save_pretrained"):
        Borrowed(DataSpec(SPACE), path=str(tmp_path))
    with pytest.raises(SpaceError, match="guidance"):
        borrow(folder).sample(SampleRequest((1,), guidance=2.0))
    with pytest.raises(SettingError, match="bos_token_id"):
        nameless = lend(tmp_path / "nameless", bos_token_id=None, eos_token_id=None)
        borrow(nameless, Space("tokens", (16,), 12))


def test_the_whole_road_from_texts_to_an_export_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import maquette as mq

    monkeypatch.chdir(tmp_path)
    (tmp_path / "poems").mkdir()
    for k in range(24):
        (tmp_path / "poems" / f"{k:02d}.txt").write_text(
            f"the tide came {k} times\nand {k} times it went\n" * (k % 3 + 1)
        )
    corpus = mq.prepare("poems", tokens="characters")
    quick = {"steps": 3, "threads": 1}
    own = mq.train(corpus, model="transformer", size="tiny", settings={f"train.{k}": v for k, v in quick.items()})
    folder = own.export("shared")
    again = mq.train(corpus, model="borrowed", settings={"borrowed.path": str(folder)})
    mine, theirs = (run.generate(2, seed=5, prompt="the tide", length=30) for run in (own, again))
    assert [p.content for p in theirs] and all(p.content.startswith("the tide") for p in theirs)
    assert len(mine) == len(theirs) == 2
    assert again.run.facts["corpus"]["fingerprint"] == corpus.fingerprint


def speak(folder: Path) -> Path:
    """Texts of the words that the lent tokenizer has."""
    folder.mkdir()
    for k in range(80):
        words = [f"w{3 + (k * j + j * j) % 9}" for j in range(1, 5 + k % 6)]
        (folder / f"{k:02d}.txt").write_text(" ".join(words))
    return folder


def with_words(lent: Path) -> Path:
    """The lent tokenizer reads words apart at spaces."""
    facts = json.loads((lent / "tokenizer.json").read_text())
    (lent / "tokenizer.json").write_text(json.dumps({**facts, "pre_tokenizer": {"type": "WhitespaceSplit"}}))
    (lent / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "[end]"}}))
    return lent


def test_the_whole_road_in_a_borrowed_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import maquette as mq

    monkeypatch.chdir(tmp_path)
    lent = with_words(lend(tmp_path / "lent"))
    settings = {"tokens": "file", "tokenizer": "lent/tokenizer.json", "context": 16}
    corpus = mq.prepare(speak(tmp_path / "said"), **settings)
    space = corpus.spec.space
    assert (space.vocabulary, space.end, space.shape) == (12, 1, (16,))
    kept = {corpus.facts_of(i)["source"]: corpus.raw([i])[0].tolist() for i in range(len(corpus))}
    for name, tokens in kept.items():
        words = (tmp_path / "said" / name).read_text().split()
        assert tokens == [WORDS[w] for w in words] + [1]
    assert mq.prepare("said", **settings).fingerprint == corpus.fingerprint
    run = mq.train(corpus, model="borrowed", settings={"borrowed.path": "lent", "train.threads": 1})
    made = run.generate(4, seed=3, prompt="w4 w7", length=12)
    assert all(p.content.startswith("w4 w7") and set(p.content.split()) <= set(WORDS) for p in made)
    assert not any(mark in p.content for p in made for mark in ("[end]", "w2"))  # w2 is what it does not know
    assert any(f.name == "nats a character" for f in run.audit(samples=8).findings)
    with pytest.raises(UsageError, match=r"do not occur.*: sea"):
        run.generate(1, prompt="sea w4")
    with pytest.raises(UsageError, match="joins its own in another way"):
        run.generate(1, form="lines=2")
    (lent / "tokenizer.json").unlink()
    assert run.generate(1, seed=3, prompt="w4 w7", length=12)[0].content == made[0].content


def test_its_settings_are_found_like_any_others() -> None:
    assert catalog.check(catalog.find("models", "borrowed"), {"path": "x"}, "borrowed") == {
        "path": "x",
        "download": False,
    }
