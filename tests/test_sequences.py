"""Pieces of any length: how they are cut, dealt, judged and written."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette.condition import Condition, Field
from maquette.corpus import Corpus
from maquette.likelihood import piece_nats
from maquette.loop import loop, make_plan
from maquette.models.transformer import Transformer
from maquette.space import Batch, DataSpec, SampleRequest, Space
from maquette.writing import RaggedWriter

END = 0


def make(
    folder: Path, sizes: list[int], length: int = 8, periods: tuple[int, ...] = (), vocabulary: int = 50
) -> Corpus:
    """A corpus of pieces of these sizes (ends left out): 1 2 3 ... each; all in train, the last in validation and test too."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = RaggedWriter(folder, np.uint16)
    for size in sizes:
        writer.add(np.arange(size) % (vocabulary - 1) + 1, b"{}\n")
    space = Space("tokens", (length,), vocabulary, end=END, periods=periods)
    writer.tokens(writer.close(), lambda x: x, space)
    splits = {"train": np.arange(len(sizes)), "validation": np.array([len(sizes) - 1]), "test": np.array([0])}
    facts = {"spec": DataSpec(space, None, "categorical").to_json(), "fingerprint": "-", "modality": {}}
    writer.finish(splits, None, {**facts, "counts": {k: len(v) for k, v in splits.items()}})
    return Corpus.open(folder)


def pieces_of(corpus: Corpus) -> list[np.ndarray]:
    return list(corpus.pieces("train"))


def test_pieces_come_back_as_they_were_stored(tmp_path):
    corpus = make(tmp_path, [3, 8, 20])
    assert [len(p) for p in pieces_of(corpus)] == [3, 8, 20] and corpus.tokens == 34
    assert corpus.take(np.array([0])).x.tolist() == [[1, 2, 3, END]]


def test_once_shows_every_token_once_and_says_what_stands_before(tmp_path):
    corpus = make(tmp_path, [3, 8, 20])
    shown: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for batch in corpus.once("train", 2):
        for x, before, number in zip(batch.x, batch.before, batch.index.tolist(), strict=True):
            assert int(before) == (shown[number][-1] if shown[number] else -1)
            ended = (x == END).nonzero()
            shown[number] += x[: int(ended[0]) + 1 if len(ended) else len(x)].tolist()
    assert [shown[i][:-1] for i in range(3)] == [p.tolist() for p in pieces_of(corpus)]
    assert all(row[-1] == END for row in shown.values())


@pytest.mark.parametrize("sizes", [[30] * 3, [2, 3, 5, 40, 7, 9, 1, 2, 3, 4, 5, 6], [3]])
def test_a_batch_is_a_function_of_seed_and_number_and_no_window_leaves_its_piece(tmp_path, sizes):
    corpus = make(tmp_path, sizes)
    again = itertools.islice(corpus.batches(4, seed=3, start=2), 5)
    for batch, other in zip(itertools.islice(corpus.batches(4, seed=3), 2, 7), again, strict=True):
        assert torch.equal(batch.x, other.x) and torch.equal(batch.before, other.before)
        for x, before, number in zip(batch.x, batch.before, batch.index.tolist(), strict=True):
            real = x[corpus.spec.space.counted(x[None])[0]].tolist()
            whole = [*pieces_of(corpus)[number].tolist(), END]
            first = 0 if int(before) == -1 else real[0] - 1
            assert whole[first : first + len(real)] == real


def test_an_epoch_shows_the_beginning_the_middle_and_the_end_of_a_long_piece(tmp_path):
    corpus = make(tmp_path, [40], length=8)
    seen = torch.cat([b.x.flatten() for b in itertools.islice(corpus.batches(5, seed=0), 30)])
    counts = torch.bincount(seen, minlength=41)
    assert (counts > 8).all(), "each token is seen about once in each of 30 epochs"


def test_windows_of_like_length_are_dealt_together(tmp_path):
    chance = np.random.default_rng(0)
    corpus = make(tmp_path, chance.integers(1, 60, 400).tolist(), length=64, vocabulary=80)
    tokens = room = 0
    for batch in itertools.islice(corpus.batches(8, seed=0), 50):
        tokens += int(corpus.spec.space.counted(batch.x).sum())
        room += batch.x.numel()
    assert tokens / room > 0.85


def test_windows_begin_where_a_period_does(tmp_path):
    corpus = make(tmp_path, [101], length=16, periods=(2, 4), vocabulary=128)
    for batch in itertools.islice(corpus.batches(7, seed=0), 9):
        assert ((batch.before <= 0) | (batch.before % 4 == 0)).all()


def test_sliding_counts_every_token_once_with_half_a_window_before_it(tmp_path):
    corpus = make(tmp_path, [3, 30], length=8)
    found: dict[int, list[int]] = {0: [], 1: []}
    for batch, asked in corpus.sliding("train", batch_size=3):
        for x, rows, number in zip(batch.x, asked, batch.index.tolist(), strict=True):
            found[number] += x[rows].tolist()
            assert not found[number] or int(rows.nonzero()[0]) in (0, 4)
    assert [found[i] for i in range(2)] == [[*p.tolist(), END] for p in pieces_of(corpus)]


def build(length: int = 8, vocabulary: int = 6, condition: Condition | None = None, **settings) -> Transformer:
    torch.manual_seed(0)
    space = Space("tokens", (length,), vocabulary, end=END, periods=settings.pop("periods", ()))
    model = Transformer(DataSpec(space, condition), **{"width": 32, "layers": 2, "head_width": 16, **settings})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def test_padding_changes_no_likelihood():
    model = build()
    short = torch.tensor([[3, 2, END]])
    padded = torch.tensor([[3, 2, END, END, END], [1, 1, 1, 1, END]])
    assert torch.allclose(model.log_likelihood(short), model.log_likelihood(padded)[:1], atol=1e-5)


def test_the_nats_of_a_piece_are_those_of_its_windows(tmp_path):
    corpus = make(tmp_path, [5, 20], length=8, vocabulary=30)
    model = build(vocabulary=30)
    _, nats = piece_nats(model, corpus, "train")
    whole = corpus.take(np.array([0])).x
    assert float(nats[0]) == pytest.approx(-float(model.log_likelihood(whole).detach()), abs=1e-3)


@pytest.mark.parametrize("periods", [(), (2, 4)])
def test_a_piece_may_be_longer_than_what_a_model_sees_at_once(periods):
    model = build(periods=periods)
    with torch.no_grad():
        model.lm_head.weight[END] = 0
    prompt = torch.randint(1, 6, (2, 11), generator=torch.Generator().manual_seed(0))
    made = model.sample(SampleRequest((4, 5), source=prompt, keep=torch.ones_like(prompt, dtype=torch.bool), length=40))
    assert torch.equal(made[:, :11], prompt) and 12 <= made.shape[1] <= 40
    alone = model.sample(SampleRequest((5,), source=prompt[1:], keep=torch.ones(1, 11, dtype=torch.bool), length=40))
    n = min(made.shape[1], alone.shape[1])
    assert torch.equal(made[1, :n], alone[0, :n])


def test_after_its_end_a_row_is_padded():
    made = build().sample(SampleRequest(tuple(range(20)), length=30))
    asked = Space("tokens", (8,), 6, end=END).counted(made)
    assert (made[~asked] == END).all() and 1 < made.shape[1] <= 30


class OnlyOdd:
    """Odd tokens alone, and the end after four of them."""

    def begin(self, seed: int) -> OnlyOdd:
        guide = OnlyOdd()
        guide.count = 0
        return guide

    def allowed(self) -> torch.Tensor:
        mask = torch.zeros(6, dtype=torch.bool)
        mask[[END] if self.count == 4 else [1, 3, 5]] = True
        return mask

    def push(self, token: int) -> None:
        self.count += 1


def test_a_constraint_always_holds():
    made = build().sample(SampleRequest((1, 2, 3), constraint=OnlyOdd(), temperature=2.0))
    assert made.shape == (3, 5) and (made[:, :4] % 2 == 1).all() and (made[:, 4] == END).all()


def test_repetition_makes_what_was_written_lately_rarer():
    model = build()
    plain = model.sample(SampleRequest(tuple(range(40)), length=30))
    hushed = model.sample(SampleRequest(tuple(range(40)), length=30, repetition=20.0))

    def repeated(rows):
        real = rows[:, 1:] != END
        return (rows[:, 1:] == rows[:, :-1])[real].float().mean()

    assert repeated(hushed) < repeated(plain)


@pytest.mark.parametrize("mode", ["encoder-decoder", "masked"])
def test_modes_that_look_ahead_learn_to_fill_a_gap_from_its_right_side(mode):
    """Pieces are one letter repeated: what stands after the gap says what belongs into it."""
    torch.manual_seed(0)
    space = Space("tokens", (8,), 5, end=END, periods=(2,))
    model = Transformer(DataSpec(space), mode=mode, width=48, layers=2)

    def batches(start: int):
        while True:
            letter = torch.randint(1, 5, (32, 1), generator=torch.Generator().manual_seed(start))
            yield Batch(torch.cat([letter.expand(-1, 7), torch.zeros(32, 1, dtype=torch.long)], 1))
            start += 1

    *_, now = loop(model, batches, make_plan(None, {"steps": 120}))
    source = torch.tensor([[1, 2, 3, 4]]).T.expand(4, 8).clone()
    source[:, 7] = END
    keep = torch.zeros(4, 8, dtype=torch.bool)
    keep[:, 5:] = True
    made = now.averaged.sample(SampleRequest((0, 1, 2, 3), source=source, keep=keep))
    assert (made[:, :7] == source[:, :7]).float().mean() > 0.9 and torch.equal(made[keep], source[keep])


def test_conditions_reach_every_window():
    label = Condition([Field("label", "label", ("a", "b"))])
    model = build(condition=label)
    x, before = torch.tensor([[1, 2, 3]]), torch.tensor([4])
    nats = [model.token_nats(Batch(x, torch.tensor([[k]]), before=before)) for k in (0.0, 1.0)]
    assert not torch.allclose(*nats)
