"""A corpus gives the same batches to everyone who asks for (seed, k), and says in words when it is damaged."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette import corpus as module
from maquette import files, writing
from maquette.condition import Condition, Field
from maquette.corpus import Corpus
from maquette.errors import CorpusError, SettingError, StorageError, UnknownName
from maquette.space import Batch, DataSpec, Space
from maquette.splitting import SPLITS
from maquette.writing import CorpusWriter


def make(folder, count=20, space=None, kind=np.uint8, conditioned=True):
    space = space or Space("grid", (1, 2, 2))
    folder.mkdir(parents=True, exist_ok=True)
    writer = CorpusWriter(folder, space, kind)
    for i in range(count):
        writer.add(np.full(space.shape, i, kind), json.dumps({"source": f"ä{i}.png"}).encode() + b"\n")
    writer.close()
    numbers = np.arange(count)
    splits = {"train": numbers[: count - 6], "validation": numbers[-6:-3], "test": numbers[-3:]}
    condition = Condition([Field("label", "label", ("a", "b"))]) if conditioned else None
    likelihood = "categorical" if space.kind == "tokens" else "gaussian"
    facts = {
        "fingerprint": "f",
        "spec": DataSpec(space, condition, likelihood).to_json(),
        "counts": {k: len(v) for k, v in splits.items()},
    }
    writer.finish(splits, (numbers % 2).astype(np.float32)[:, None] if conditioned else None, facts)
    return Corpus.open(folder)


def indices(batches, count):
    return torch.cat([b.index for b in itertools.islice(batches, count)]).tolist()


def test_a_batch_is_a_function_of_seed_and_number(tmp_path):
    c = make(tmp_path)
    whole = list(itertools.islice(c.batches(4, seed=1), 12))
    later = list(itertools.islice(c.batches(4, seed=1, start=5), 7))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.index, b.index) for a, b in zip(whole[5:], later, strict=True))
    assert indices(c.batches(4, seed=1), 12) != indices(c.batches(4, seed=2), 12)


def test_each_epoch_shows_every_piece_once_in_another_order(tmp_path):
    c = make(tmp_path)
    shown = indices(c.batches(7, seed=0), 4)  # 14 training pieces: two batches an epoch
    assert sorted(shown[:14]) == sorted(shown[14:]) == list(range(14)) and shown[:14] != shown[14:]


def test_the_ranks_together_see_what_one_process_would(tmp_path):
    c = make(tmp_path)
    alone = indices(c.batches(6, seed=3), 5)
    shares = [list(itertools.islice(c.batches(6, seed=3, rank=r, world=3), 5)) for r in range(3)]
    together = [i for k in range(5) for r in range(3) for i in shares[r][k].index.tolist()]
    assert together == alone
    with pytest.raises(SettingError, match="multiple of the 4 processes; 6 came"):
        next(c.batches(6, seed=3, world=4))


def test_a_batch_may_be_larger_than_the_corpus(tmp_path):
    assert len(next(make(tmp_path).batches(100, seed=0))) == 100


def test_pictures_are_in_minus_one_to_one_and_carry_their_condition(tmp_path):
    c = make(tmp_path)
    batch = c.take(np.array([0, 7]))
    assert batch.x.dtype == torch.float32 and batch.x[0].eq(-1).all()
    assert batch.x[1].allclose(torch.tensor(7 / 127.5 - 1))
    assert batch.condition.tolist() == [[0.0], [1.0]] and batch.index.tolist() == [0, 7]


def test_tokens_are_whole_numbers_and_latents_stay_as_they_are(tmp_path):
    tokens = make(tmp_path / "t", space=Space("tokens", (3,), 50_000), kind=np.uint16, conditioned=False)
    assert tokens.take(np.array([5])).x.tolist() == [[5, 5, 5]] and tokens.take(np.array([5])).x.dtype == torch.int64
    latents = make(tmp_path / "l", space=Space("grid", (2, 4)), kind=np.float32, conditioned=False)
    assert latents.take(np.array([5])).x.eq(5).all() and latents.take(np.array([5])).condition is None
    assert latents.conditions() is None


def test_once_passes_over_a_split_in_order_and_a_limit_spreads_over_it(tmp_path):
    c = make(tmp_path)
    assert torch.cat([b.index for b in c.once("train", 4)]).tolist() == list(range(14))
    assert c.tensor("train", limit=4).index.tolist() == [0, 3, 7, 10]
    assert c.tensor("test").index.tolist() == [17, 18, 19]
    assert [c.size(s) for s in SPLITS] == [14, 3, 3] and c.conditions("test").tolist() == [[1.0], [0.0], [1.0]]


def test_augmentation_is_a_function_of_the_batch_and_leaves_the_global_chance_alone(tmp_path):
    c = make(tmp_path)

    def noisy(batch: Batch) -> Batch:
        return replace(batch, x=batch.x + torch.rand_like(batch.x))

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = [next(c.batches(4, seed=1, start=3, augment=noisy)).x for _ in range(2)]
    assert torch.equal(*first) and torch.equal(torch.rand(1), expected)
    assert not torch.equal(first[0], next(c.batches(4, seed=1, start=3)).x)


def test_many_shards_read_like_one_in_memory_and_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD", 4 * 3)  # three pieces a shard
    c = make(tmp_path)
    assert len(list(tmp_path.glob("shard-*.npy"))) == 7
    index = np.array([19, 0, 4, 4, 18])
    held = c.take(index).x
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    mapped = Corpus.open(tmp_path)
    assert torch.equal(mapped.take(index).x, held) and mapped._whole is None


def test_what_is_known_of_a_piece_is_found_by_its_number(tmp_path):
    c = make(tmp_path)
    assert c.facts_of(13) == {"source": "ä13.png"}
    assert [json.loads(line)["source"] for line in c.lines()] == [f"ä{i}.png" for i in range(20)]
    with pytest.raises(CorpusError, match=r"no piece 20 .* 0 to 19"):
        c.facts_of(20)
    with pytest.raises(UnknownName, match="did you mean validation"):
        c.size("valid")


def test_a_folder_that_is_no_corpus_is_refused_in_words(tmp_path):
    with pytest.raises(CorpusError, match="is not a corpus"):
        Corpus.open(tmp_path)


def test_another_version_is_refused_in_words(tmp_path):
    make(tmp_path)
    facts = json.loads((tmp_path / "corpus.json").read_text())
    (tmp_path / "corpus.json").write_text(json.dumps({**facts, "version": 99}))
    with pytest.raises(CorpusError, match="version 99, this is version 1"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("name", ["corpus.json", "shard-00000.npy", "train.npy", "offsets.npy", "conditions.npy"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_a_damaged_corpus_is_refused_in_words(tmp_path, name, damage):
    make(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(CorpusError, match=r"run `maquette prepare`|`maquette prepare FOLDER"):
        Corpus.open(tmp_path)


def test_a_full_disk_is_said_in_words():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="the disk is full"), files.full_disk_in_words(full):
        writing.save(full, np.zeros(1 << 16))
