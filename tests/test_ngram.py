"""The n-gram model and the gate: small theorems about counting, smoothing, memory and mixtures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from maquette.condition import Condition, Field
from maquette.errors import SettingError, SpaceError
from maquette.loop import loop, make_plan
from maquette.models.ngram import NGram, Reader, gather
from maquette.nets.blend import Duet, Gate, certainty, mixed
from maquette.nets.kneser_ney import Tables, Text, best_order, discounts, fit, parted
from maquette.space import Batch, DataSpec, SampleRequest, Space

END = 4
RAGGED = Space("tokens", (6,), 5, end=END)
FIXED = Space("tokens", (6,), 5)


def windows(pieces: list[list[int]], length: int = 6, size: int = 2, end: int = END):
    """The batches of a ragged corpus, as `corpus.once` gives them."""
    found = []
    for number, piece in enumerate(pieces):
        whole = [*piece, end]
        for first in range(0, len(whole), length):
            part = whole[first : first + length]
            before = whole[first - 1] if first else -1
            found.append((part + [end] * (length - len(part)), number, before))
    for start in range(0, len(found), size):
        x, index, before = (torch.tensor(column) for column in zip(*found[start : start + size], strict=True))
        yield Batch(x, None, index, before)


def fitted(pieces: list[list[int]], order: int = 3) -> NGram:
    model = NGram(DataSpec(RAGGED), order=order)
    model.conclude(lambda: windows(pieces))
    return model


def text(*pieces: list[int], vocabulary: int) -> Text:
    symbols = np.concatenate([[vocabulary, *piece] for piece in pieces])
    return Text(symbols, symbols == vocabulary)


PIECES = st.lists(st.lists(st.integers(0, 3), max_size=15), min_size=1, max_size=6)
SOME = [[0, 1, 2, 0, 1, 3], [0, 1, 0, 1, 0, 1, 2, 2], [3, 0, 1, 2], []]


@given(PIECES, st.integers(1, 5), st.lists(st.integers(0, 3), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_chances_of_the_next_token_sum_to_one(pieces, order, context):
    model = fitted(pieces, order)
    for before in (None, torch.tensor([2])):
        p = model.next_log_probs(torch.tensor([context], dtype=torch.long).reshape(1, -1), before).double().exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-6)
        assert float(p.min()) > 0


@given(PIECES, st.integers(1, 5), PIECES)
@settings(max_examples=30, deadline=None)
def test_what_is_scored_is_what_would_be_drawn(pieces, order, others):
    model = fitted(pieces, order)
    for piece in others:
        nats = model.piece_nats(np.array(piece, np.int64))
        assert nats.shape == (len(piece) + 1,)
        for i, token in enumerate([*piece, END]):
            log_p = model.next_log_probs(torch.tensor([piece[:i]], dtype=torch.long).reshape(1, -1))
            assert -float(log_p[0, token]) == pytest.approx(float(nats[i]), abs=1e-4)


@given(PIECES, st.integers(1, 4), st.lists(st.integers(0, 4), max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_features_say_what_the_distribution_is(pieces, order, context):
    model = fitted(pieces, order)
    reader = Reader(model.tables, 1)
    log_p = reader(torch.tensor([context], dtype=torch.long).reshape(1, -1)).double()
    depth, left, entropy, peak = reader.features[0].tolist()
    assert 0 <= depth <= 1 and left <= 0
    assert entropy * math.log(5) == pytest.approx(-float((log_p.exp() * log_p).sum()), abs=1e-4)
    assert peak == pytest.approx(float(log_p.max()), abs=1e-4)
    scored = model.score(torch.tensor([[*context, 0]], dtype=torch.long))[1]
    if END not in context:
        assert torch.allclose(scored[0, -1], reader.features[0], atol=1e-5)


def test_a_small_corpus_worked_by_hand():
    # abac, abab with a = 0, b = 1, c = 2; s opens. Pairs: sa 2, ab 3, ba 2, ac 1
    tables = fit(text([0, 1, 0, 2], [0, 1, 0, 1], vocabulary=3), 3, order=2)
    # Continuations: a follows s and b: 2; b follows a: 1; c follows a: 1. n1 = 2, n2 = 1, Y = 1/2:
    # D1 = 1 - 2 Y n2/n1 = 1/2; n3 = 0, so D2 = 2/2. left = (1/2 + 1/2 + 1) / 4 = 1/2
    lower = [(2 - 1) / 4 + 1 / 2 / 3, (1 - 0.5) / 4 + 1 / 2 / 3, (1 - 0.5) / 4 + 1 / 2 / 3]
    assert sum(lower) == pytest.approx(1)
    # Pairs by their counts: n1 = 1, n2 = 2, n3 = 1, n4 = 0, Y = 1/5: D1 = 1 - 2/5 * 2/1 = 1/5; D2 = 2 - 3/5 * 1/2 = 17/10; D3 = 3/2
    after_a = [0.0, (3 - 1.5) / 4, (1 - 0.2) / 4]
    left = (1.5 + 0.2) / 4
    expected = [seen + left * low for seen, low in zip(after_a, lower, strict=True)]
    found = tables.dense(tables.push(np.array([[0, -1]]), np.array([0])))
    assert found[0] == pytest.approx(expected, abs=1e-6)
    opening = tables.dense(tables.push(np.array([[0, -1]]), np.array([3])))
    assert opening[0, 0] == pytest.approx((2 - 1.7) / 2 + 1.7 / 2 * lower[0], abs=1e-6)
    unseen = tables.dense(tables.push(np.array([[0, -1]]), np.array([2])))
    assert unseen[0] == pytest.approx(lower, abs=1e-6)


def test_discounts_leave_something_to_what_was_never_seen():
    for counts in ([], [1], [5, 5, 9], [1, 1, 2, 2, 2, 3, 3, 3, 3], [1] * 50):
        found = discounts(np.array(counts, np.int64))
        assert all(0 < d <= i for i, d in enumerate(found, 1))


def test_windows_of_a_piece_are_put_together_again():
    pieces = [[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0], [1, 1, 1, 1, 1, 1], [2], []]
    whole = text(*([*p, END] for p in pieces), vocabulary=5)
    for size in (1, 2, 5):
        found = gather(windows(pieces, size=size), RAGGED)
        assert np.array_equal(found.symbols, whole.symbols) and np.array_equal(found.opens, whole.opens)


def test_a_window_whose_beginning_is_missing_is_history_and_no_opening():
    found = gather([Batch(torch.tensor([[1, 2]]), None, torch.tensor([0]), torch.tensor([3]))], RAGGED)
    assert found.symbols.tolist() == [3, 1, 2] and found.opens.tolist() == [True, False, False]
    assert best_order(found, found, 5, 3) >= 1


def test_a_batch_is_judged_as_its_pieces_are():
    model = fitted(SOME)
    (batch,) = windows([[0, 1, 2], [], [3]], size=9)
    nats = model.token_nats(batch)
    assert nats.shape == (3, 6)
    for row, piece in zip(nats, ([0, 1, 2], [], [3]), strict=True):
        assert row[: len(piece) + 1].numpy() == pytest.approx(model.piece_nats(np.array(piece, np.int64)))
        assert not row[len(piece) + 1 :].any(), "padding costs nothing"
    assert model.log_likelihood(batch.x).numpy() == pytest.approx(-nats.sum(1).numpy())


def test_what_stands_before_a_window_counts():
    model = fitted(SOME)
    x = torch.tensor([[1, 0, 1, 0, 1, 0]])
    nats = [float(model.token_nats(Batch(x, before=b))[0, 0]) for b in (None, torch.tensor([-1]), torch.tensor([0]))]
    assert nats[0] == nats[1] > nats[2], "1 follows 0 more often than it opens a piece"


def test_likelihoods_of_all_sequences_sum_to_one():
    model = NGram(DataSpec(Space("tokens", (3,), 3)), order=3)
    model.conclude(lambda: [Batch(torch.tensor([[0, 1, 2], [0, 1, 1], [2, 2, 0]]))])
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    assert float(model.log_likelihood(every).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_before_it_has_counted_anything_every_token_is_as_likely():
    model = NGram(DataSpec(RAGGED))
    assert model.next_log_probs(torch.zeros(2, 0, dtype=torch.long)).exp().numpy() == pytest.approx(0.2)
    model.conclude(lambda: [])
    assert float(model.loss(next(windows(SOME)), "", 0.0).total) == pytest.approx(math.log(5), abs=1e-6)


def test_more_is_known_after_counting():
    pieces = [[0, 1, 2, 3] * 3 for _ in range(20)]
    assert fitted(pieces).piece_nats(np.array(pieces[0])).mean() < 0.2


def test_the_order_is_found_on_what_was_held_out():
    chance = np.random.default_rng(0)
    noise = [chance.integers(0, 3, 30).tolist() for _ in range(40)]
    assert fitted(noise, order=0).tables.order == 1
    far = [list(itertools.islice(itertools.cycle([0, 0, 0, 1, 1, 1, 2]), k % 7, k % 7 + 40)) for k in range(40)]
    assert fitted(far, order=0).tables.order >= 4


def test_a_tenth_is_held_out():
    many = text(*([k % 4] for k in range(30)), vocabulary=4)
    train, held = parted(many)
    assert held.opens.sum() == 3 and train.opens.sum() == 27
    train, held = parted(text(list(range(4)) * 10, vocabulary=4))
    assert len(held.symbols) == 5 and held.opens.tolist() == [True, False, False, False, False]
    assert not len(parted(Text(np.zeros(0, np.int64), np.zeros(0, bool)))[1].symbols)


def test_it_saves_and_loads():
    model = fitted(SOME)
    again = NGram(DataSpec(RAGGED))
    again.load_state_dict(load(save(model.state_dict())))
    x = torch.tensor([[0, 1, 2, 2, 1, END]])
    assert torch.equal(again.score(x)[0], model.score(x)[0]) and torch.equal(again.score(x)[1], model.score(x)[1])
    assert torch.equal(again.sample(SampleRequest((1, 2))), model.sample(SampleRequest((1, 2))))
    with pytest.raises(RuntimeError, match="chance"):
        again.load_state_dict({k: v for k, v in model.state_dict().items() if k != "chance"})


def test_it_is_saved_within_another_module_too():
    pair = torch.nn.ModuleDict({"partner": fitted(SOME), "gate": Gate(4)})
    again = torch.nn.ModuleDict({"partner": NGram(DataSpec(RAGGED)), "gate": Gate(4)})
    again.load_state_dict(load(save(pair.state_dict())))
    assert np.array_equal(again["partner"].tables.keys, pair["partner"].tables.keys)


def test_the_loop_takes_a_model_that_has_nothing_to_learn():
    model = NGram(DataSpec(RAGGED))
    states = list(loop(model, lambda start: iter(windows(SOME)), make_plan(model, {"steps": 50, "device": "cpu"})))
    assert len(states) == 1 and states[0].done


def test_row_i_depends_on_seed_i_alone():
    model = fitted(SOME)
    three = model.sample(SampleRequest((3, 5, 9), length=20))
    for i, seed in enumerate((3, 5, 9)):
        alone = model.sample(SampleRequest((seed,), length=20))
        assert torch.equal(three[i, : alone.shape[1]], alone[0]) and (three[i, alone.shape[1] :] == END).all()
    assert not torch.equal(three[0], three[1])


def test_samples_follow_the_chances():
    model = NGram(DataSpec(Space("tokens", (2,), 3)), order=2)
    model.conclude(lambda: [Batch(torch.tensor([[0, 1], [0, 1], [0, 2], [2, 2]]))])
    made = model.sample(SampleRequest(tuple(range(3000))))
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    shares = torch.stack([(made == e).all(1).float().mean() for e in every])
    assert torch.allclose(shares, model.log_likelihood(every).exp(), atol=0.03)


def test_what_is_kept_stays_and_steers_what_follows():
    model = fitted([[0, 1, 2, 3] * 2 for _ in range(30)])
    source = torch.tensor([[2, 3]])
    made = model.sample(
        SampleRequest((1,), source=source, keep=torch.ones_like(source, dtype=torch.bool), temperature=0)
    )
    assert made[0].tolist() == [2, 3, 0, 1, 2, 3]


class Never:
    """A rule that forbids two tokens, and the end before the fourth place."""

    def __init__(self):
        self.written: list[int] = []

    def begin(self, seed: int) -> Never:
        return Never()

    def allowed(self) -> torch.Tensor:
        mask = torch.tensor([True, False, True, False, True])
        mask[END] = len(self.written) >= 3
        return mask

    def push(self, token: int) -> None:
        self.written.append(token)


def test_samples_are_only_what_the_rule_allows():
    made = fitted(SOME).sample(SampleRequest(tuple(range(20)), constraint=Never(), length=9))
    assert set(made.flatten().tolist()) <= {0, 2, END}
    assert not (made[:, :3] == END).any() and (made[:, 3:] == END).any()


def test_conditions_are_not_heeded():
    spec = DataSpec(RAGGED, Condition([Field("label", "label", ("low", "high"))]))
    model = NGram(spec)
    asked = model.sample(SampleRequest((3,), torch.tensor([[1.0]]), guidance=2.0))
    assert torch.equal(asked, model.sample(SampleRequest((3,))))


def test_bad_wishes_are_refused_in_words():
    with pytest.raises(SpaceError, match="ngram works on tokens"):
        NGram(DataSpec(Space("grid", (1, 8, 8))))
    from maquette import catalog

    with pytest.raises(SettingError, match=r"ngram\.order"):
        catalog.check(NGram, {"order": 13}, "ngram")


# ---- the gate


def scores(n: int = 2000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """features (n, 2), log p, log q (n,); the first feature tells who is right."""
    chance = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 2, generator=chance)
    first = features[:, 0] > 0
    good, bad = torch.tensor(0.9).log(), torch.tensor(0.05).log()
    return features, torch.where(first, good, bad), torch.where(first, bad, good)


def test_a_gate_that_knows_nothing_is_half_and_half():
    assert Gate(2)(torch.randn(5, 2)).tolist() == [0.5] * 5


def test_with_two_models_alike_nothing_is_lost():
    features, log_p, _ = scores()
    assert Gate(2).fit(features, log_p, log_p) == pytest.approx(-float(log_p.mean()), abs=1e-6)


def test_the_gate_finds_the_model_that_is_always_better():
    features, log_p, _ = scores()
    for better, worse, sign in ((log_p, log_p - 1, 1), (log_p - 1, log_p, 0)):
        gate = Gate(2)
        assert gate.fit(features, better, worse) == pytest.approx(-float(log_p.mean()), abs=1e-3)
        assert torch.allclose(gate(features), torch.tensor(float(sign)), atol=0.01)


def test_the_gate_learns_where_to_trust_whom():
    features, log_p, log_q = scores()
    gate = Gate(2)
    found = gate.fit(features, log_p, log_q)
    half = -float(mixed(log_p, log_q, torch.tensor(0.5)).mean())
    assert found < 0.2 < 0.7 < half
    assert found == pytest.approx(-float(mixed(log_p, log_q, gate(features)).mean()), abs=1e-4)
    again = Gate(2)
    again.load_state_dict(load(save(gate.state_dict())))
    assert torch.equal(again(features), gate(features))


@given(st.integers(0, 10_000), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_a_mixture_is_no_worse_than_the_better_of_the_two(seed, gap):
    chance = torch.Generator().manual_seed(seed)
    log_p, log_q = -torch.rand(2, 60, generator=chance) * 4
    log_q = (log_q + gap).clamp_max(0)
    with torch.no_grad():
        found = Gate(3).fit(torch.randn(60, 3, generator=chance), log_p, log_q)
    assert found <= -max(float(log_p.mean()), float(log_q.mean())) + 0.01


def test_a_mixture_of_distributions_is_one():
    p, q = (torch.randn(4, 7).log_softmax(-1) for _ in range(2))
    assert mixed(p, q, torch.rand(4, 1)).exp().sum(-1).numpy() == pytest.approx(1, abs=1e-5)


def test_two_readers_write_as_one():
    model = fitted(SOME)
    gate = Gate(2 + NGram.features)
    tables = Tables.empty(5)
    duet = Duet(Reader(tables, 2), Reader(model.tables, 2), gate)
    tokens = torch.tensor([[0, 1], [2, 2]])
    half = (model.next_log_probs(tokens).exp() + 0.2) / 2
    assert torch.allclose(duet(tokens).exp(), half, atol=1e-5)
    assert torch.allclose(certainty(torch.zeros(1, 5)), torch.tensor([[1.0, -math.log(5)]]))
