"""Feedback: ratings as a file, a taste learnt from them, and runs that make more of what is liked without losing the rest."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from maquette.corpus import Corpus
from maquette.errors import ContentError, RunError, SettingError, UnknownName
from maquette.feedback import Lesson, Preference, kept, taught
from maquette.files import checksum
from maquette.nets.preference import damping, dpo, kto, token_kl
from maquette.nets.reward import Linear, fitted
from maquette.ratings import Rating, append, merge, read, settled
from maquette.recipe import make_recipe
from maquette.run import Run, identity
from maquette.scores.layout import REST
from maquette.space import Batch
from maquette.verbs import rate as rating
from maquette.verbs.generate import Wish, generate, like
from maquette.verbs.learn import distinct, learn, learning, pieces, thinned
from maquette.verbs.prepare import prepare
from maquette.verbs.rounds import nats_of, twins, varied
from maquette.verbs.taste import Taste, made_again, ratings_of, taste_of
from maquette.verbs.train import train


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A VAE of circles and squares."""
    recipe = make_recipe({"model": "vae", "size": "tiny", "train": {"steps": 150, "threads": 1, "device": "cpu"}})
    return train(corpus, recipe, tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="module")
def poems(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Lines of four words; a quarter of them speak of the moon."""
    words, last = ["sea", "sky", "hill", "road"], ["wind", "snow", "moon", "rain"]
    lines = [" ".join((words[k % 4], words[k // 4 % 4], "and", last[k // 16 % 4])) for k in range(256)]
    folder = tmp_path_factory.mktemp("texts")
    (folder / "poems.jsonl").write_text(
        "".join(json.dumps({"text": f"{t} {k % 7}"}) + "\n" for k, t in enumerate(lines))
    )
    return prepare(folder, folder / "corpus", modality="text", settings={"tokens": "characters", "context": 32})


@pytest.fixture(scope="module")
def writer(poems: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = make_recipe(
        {"model": "transformer", "size": "tiny", "train": {"steps": 150, "threads": 1, "device": "cpu"}}
    )
    return train(poems, recipe, tmp_path_factory.mktemp("runs") / "poems")


def rated(run: Run, file: Path, likes, count: int = 60) -> Path:
    """Ratings of the first pieces of a run by a function of the piece."""
    said = [Rating(identity(run), {"seed": k}, likes(p)) for k, p in enumerate(generate(run, count))]
    append(file, said)
    return file


def dark(piece) -> bool:
    return float(piece.content.mean()) < 200


def moon(piece) -> bool:
    return "moon" in piece.content


# ---- the file


def test_what_is_rated_is_read_back_and_half_a_line_of_a_crash_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ratings.jsonl"
    append(file, [Rating("w", {"seed": 1}, True, rater="me"), Rating("w", {"seed": 2}, None, {"seed": 3})])
    first, second = read(file)
    assert first.liked is True and first.rater == "me" and first.time and second.worse == {"seed": 3}
    with file.open("a") as stream:
        stream.write('{"run": "w", "wi')
    append(file, [Rating("w", {"seed": 4}, False)])
    with pytest.raises(ContentError, match=r"line 3 .* take that line out"):
        read(file)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 1"),
        ('{"run": "w", "wish": {"seed": 1}}', "liked is missing"),
        ('{"run": "w", "wish": {"seed": 1}, "liked": "yes"}', "true or false"),
        ('{"run": "w", "wish": {}, "liked": true}', "seed"),
        ('{"run": "w", "better": {"seed": 1}}', "worse is missing"),
    ],
)
def test_a_damaged_line_is_named_with_its_reason(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "r.jsonl").write_text(line + "\n")
    with pytest.raises(ContentError, match=said):
        read(tmp_path / "r.jsonl")


def test_ratings_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    twice = [Rating("w", {"seed": 1}, True, line=1), Rating("w", {"seed": 1}, False, line=2)]
    with pytest.raises(ContentError, match=r"seed 1 is liked and disliked .lines 1 and 2"):
        settled(twice, "w", "mine")
    crossed = [Rating("w", {"seed": 1}, None, {"seed": 2}, line=1), Rating("w", {"seed": 2}, None, {"seed": 1}, line=5)]
    with pytest.raises(ContentError, match=r"seeds 2 and 1 .* lines 1 and 5|lines 1 and 5"):
        settled(crossed, "w", "mine")
    with pytest.raises(ContentError, match="with itself"):
        settled([Rating("w", {"seed": 1}, None, {"seed": 1})], "w", "mine")


def test_ratings_of_other_weights_are_refused_where_there_are_no_others() -> None:
    with pytest.raises(RunError, match="other weights"):
        settled([Rating("other", {"seed": 1}, True)], "w", "mine")
    some = settled([Rating("other", {"seed": 1}, True), Rating("w", {"seed": 1}, False)], "w", "mine")
    assert some.left_out == 1 and some.dislikes == 1
    with pytest.raises(ContentError, match="rated yet"):
        settled([], "w", "mine")


def test_one_side_alone_says_what_is_missing() -> None:
    likes = settled([Rating("w", {"seed": k}, True) for k in range(5)], "w", "mine")
    with pytest.raises(ContentError, match=r"all 5 rated pieces are liked.*disliked too"):
        likes.need_both_sides()
    settled([Rating("w", {"seed": 1}, None, {"seed": 2})], "w", "mine").need_both_sides()


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    append(tmp_path / "new", [Rating("w", {"seed": k}, k > 1) for k in range(4)])
    assert merge(tmp_path / "own", tmp_path / "new") == 4 and merge(tmp_path / "own", tmp_path / "new") == 0


# ---- losses and the taste


def test_dpo_and_kto_begin_where_nothing_is_known_and_push_the_right_way() -> None:
    gain = torch.zeros(4, requires_grad=True)
    liked = torch.tensor([True, True, False, False])
    kto(gain, liked, torch.zeros(()), 0.1).backward()
    assert (gain.grad[:2] < 0).all() and (gain.grad[2:] > 0).all()
    assert float(dpo(torch.tensor([9.0]), torch.tensor([0.0]), 1.0)) < 0.001 < math.log(2)
    one_sided = kto(torch.tensor([1.0, 1.0]), torch.tensor([True, True]), torch.zeros(()), 1.0)
    assert float(one_sided) == pytest.approx(1 - 1 / (1 + math.exp(-1)))


def test_the_distance_is_that_of_kullback_and_leibler_and_damps_beyond_its_limit() -> None:
    p = torch.tensor([[0.5, 0.5]]).log()
    q = torch.tensor([[0.9, 0.1]]).log()
    assert float(token_kl(p, q)) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5), abs=1e-6)
    assert [float(damping(torch.tensor(d), 2.0)) for d in (1.0, 3.0, 9.0)] == [1.0, 0.5, 0.0]


def test_a_taste_finds_the_one_number_of_many_that_decides() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(200, 60, generator=chance)
    liked = (x[:, 7] > 0.6).float()
    nothing = torch.zeros(0, 2, dtype=torch.long)
    new = torch.randn(500, 60, generator=chance)
    right = ((fitted(x, liked, nothing)(new) > 0) == (new[:, 7] > 0.6)).float().mean()
    assert right > 0.85
    pairs = torch.stack([x[:100, 7] > x[100:, 7], x[:100, 7] <= x[100:, 7]], 1).long()
    pairs = (
        torch.where(pairs[:, :1] > 0, torch.tensor([[0, 100]]), torch.tensor([[100, 0]])) + torch.arange(100)[:, None]
    )
    score = fitted(x, torch.full((200,), torch.nan), pairs)(new)
    assert torch.corrcoef(torch.stack([score, new[:, 7].double()]))[0, 1] > 0.8
    noise = fitted(x, torch.randint(2, (200,), generator=chance).float(), nothing)
    assert noise.nats > 0.6


def test_what_is_surely_liked_stays_and_some_of_the_rest() -> None:
    reward = torch.cat([torch.zeros(500), torch.full((1500,), -5.0)]).double()
    stays = thinned(reward, 3.0, 0.05, 0)
    assert stays[:500].all() and 40 < int(stays[500:].sum()) < 120
    assert int(thinned(torch.linspace(-9, 0, 40).double(), 50.0, 0.0, 0).sum()) >= 32


def test_different_runs_of_tokens_end_with_the_piece() -> None:
    assert distinct(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]), 1, 0) == pytest.approx(1 / 5)


# ---- rating a run


def test_rating_goes_on_where_it_ended_and_stops_when_told(run: Run, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    answers = iter("ynsq")
    assert rating.rate(copy, lambda pieces, k, of: next(answers), 9) == 2
    seeds = [(r.wish["seed"], r.liked) for r in read(copy.path / "ratings.jsonl")]
    assert seeds == [(0, True), (1, False)]
    assert next(rating.shown(copy, 1))[0].facts["wish"]["seed"] == 2
    assert rating.rate(copy, lambda pieces, k, of: "b", 2, pairs=True) == 2
    pair = read(copy.path / "ratings.jsonl")[2]
    assert (pair.wish["seed"], pair.worse["seed"]) == (3, 2)


def test_the_terminal_asks_again_until_it_understands(run: Run, tmp_path: Path) -> None:
    told: list[str] = []
    lines = iter(["what", "Yes"])
    ask = rating.asker(lambda question: next(lines), told.append, tmp_path)
    assert ask((generate(run, 1)[0],), 1, 1) == "y"
    assert any("\u2580" in t for t in told) and any("w" in t and "came" in t for t in told)
    assert list(tmp_path.glob("*.png"))


def test_a_sheet_stands_alone_and_what_it_gives_is_taken(run: Run, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    text = rating.sheet(copy, tmp_path / "sheet.html", 4).read_text(encoding="utf-8")
    assert text.count("data:image/png;base64") == 4 and not re.findall(r"https?://", text)
    assert "viewport" in text and "prefers-color-scheme" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    lines = [json.dumps({"run": data["run"], "wish": item[0], "liked": True}) for item in data["items"]]
    (tmp_path / "down.jsonl").write_text("\n".join(lines) + "\n")
    assert rating.take(copy, tmp_path / "down.jsonl") == 4 and rating.take(copy, tmp_path / "down.jsonl") == 0
    (tmp_path / "not.jsonl").write_text(lines[0].replace("true", "false") + "\n")
    with pytest.raises(ContentError, match="liked and disliked"):
        rating.take(copy, tmp_path / "not.jsonl")
    (tmp_path / "other.jsonl").write_text(lines[0].replace(data["run"], "0" * 16) + "\n")
    with pytest.raises(RunError, match="other weights"):
        rating.take(copy, tmp_path / "other.jsonl")


# ---- choosing at once


def test_rated_pieces_are_made_again_to_the_last_bit(writer: Run) -> None:
    wishes = [{"seed": 5}, {"seed": 2, "temperature": 0.5}, {"seed": 9}]
    x, _ = made_again(writer, wishes)
    alone = [generate(writer, 1, Wish(**w))[0].content for w in wishes]
    from maquette import catalog

    modality = catalog.modality(writer.facts["corpus"]["modality"])
    assert [modality.to_piece(row).content for row in x] == alone


def test_liked_pieces_are_the_best_of_several_and_can_be_made_again(run: Run, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    with pytest.raises(ContentError, match="maquette rate"):
        generate(copy, 1, Wish(liked=True))
    rated(copy, copy.path / "ratings.jsonl", dark)
    plain, liked = generate(copy, 24, Wish(seed=100)), generate(copy, 24, Wish(seed=100, liked=True))
    assert sum(map(dark, liked)) > sum(map(dark, plain)) and sum(map(dark, liked)) >= 20
    assert (generate(copy, 1, Wish(seed=101, liked=True))[0].content == liked[1].content).all()
    facts = liked[0].facts
    assert facts["liked"]["seed"] == 100 and (generate(copy, 1, like(facts, copy))[0].content == liked[0].content).all()
    with pytest.raises(SettingError, match="of should be"):
        Wish(liked=True, of=0)


# ---- learning


def test_a_vae_makes_more_of_what_is_liked_and_says_what_it_cost(run: Run, tmp_path: Path) -> None:
    file = rated(run, tmp_path / "r.jsonl", dark)
    news = [p.news for p in learning(run, file, tmp_path / "out", steps=20) if p.news]
    after = Run.open(tmp_path / "out")
    before, now = (sum(map(dark, generate(r, 64, Wish(seed=900)))) for r in (run, after))
    assert now > before
    found = json.loads((tmp_path / "out" / "feedback.json").read_text())
    assert any(c["name"].startswith("coverage") for c in found["compared"]) and "shown" in found["words"]
    assert any("before -> after" in n for n in news)
    moved = [
        json.loads(line).get("model/distance", 0) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    ]
    assert 0 < max(moved) <= 0.5


def test_a_writer_learns_to_speak_of_the_moon(writer: Run, tmp_path: Path) -> None:
    file = rated(writer, tmp_path / "r.jsonl", moon, 100)
    learn(writer, file, tmp_path / "out", steps=60, given={"more": 100}, compare=False)
    before, now = (sum(map(moon, generate(r, 64, Wish(seed=900)))) for r in (writer, Run.open(tmp_path / "out")))
    assert now > 2 * before and now >= 32
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["model/distance"] > 0 and "model/preference" in log[-1] and "model/nats_per_token" in log[-1]


def test_pairs_teach_a_writer_too_and_likes_alone_do(writer: Run, tmp_path: Path) -> None:
    made = generate(writer, 80)
    yes, no = ([k for k, p in enumerate(made) if moon(p) is side] for side in (True, False))
    append(
        tmp_path / "pairs",
        [Rating(identity(writer), {"seed": a}, None, {"seed": b}) for a, b in zip(yes, no, strict=False)],
    )
    learn(writer, tmp_path / "pairs", tmp_path / "out", steps=40, given={"more": 0}, compare=False)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["model/pairs_right"] > 0.7
    append(tmp_path / "likes", [Rating(identity(writer), {"seed": k}, True) for k in yes])
    learn(writer, tmp_path / "likes", tmp_path / "likes-out", steps=5, compare=False)
    assert "only the pieces themselves" in kept(tmp_path / "likes-out")[0]["words"]


def test_in_each_round_the_taste_speaks_for_pieces_as_they_are_written_by_then(writer: Run, tmp_path: Path) -> None:
    file = rated(writer, tmp_path / "r.jsonl", moon, 60)
    out = tmp_path / "out"
    learn(writer, file, out, steps=30, given={"more": 90, "rounds": 3}, compare=False)
    facts, first = kept(out)
    later = [load_file(out / "feedback" / f"round-{k}.safetensors") for k in (1, 2)]
    assert facts["rounds"] == 3 and not (out / "feedback" / "round-3.safetensors").exists()
    for tensors in later:  # what a person said stays, what the run wrote besides is new
        width = min(first["x"].shape[1], tensors["x"].shape[1])
        assert torch.equal(tensors["x"][:60, :width], first["x"][:60, :width])
        assert torch.equal(tensors["liked"][:60], first["liked"][:60])
        assert 60 < len(tensors["x"]) <= 90
        liked = tensors["liked"] == 1
        assert bool((tensors["liked"][tensors["twin"][liked]] == 0).all())
        assert tensors["nats"].shape == tensors["liked"].shape
    share = [float(t["liked"][60:].mean()) for t in (first, later[1])]
    assert share[1] > share[0]


def by_ear(weight: tuple[float, float]) -> Taste:
    """Of the mean pitch, 60 in the middle, and the share of rests, a half in the middle; by the log-odds that each is worth."""

    def heard(x: torch.Tensor) -> torch.Tensor:
        sounds = x < REST
        return torch.stack([(x * sounds).sum(1) / sounds.sum(1), (~sounds).float().mean(1)], 1)

    centre = torch.tensor([60.0, 0.5]).double()
    return Taste("by ear", heard, Linear(centre, torch.tensor(weight).double(), torch.zeros(()).double(), 0.1), 0)


def tunes(count: int) -> torch.Tensor:
    """Eight tokens each, about pitch 60; every second tune has six rests, the others two."""
    pitches = 60 + torch.randint(-2, 3, (count, 8), generator=torch.Generator().manual_seed(0))
    rests = torch.where(torch.arange(count) % 2 == 0, 6, 2)
    return torch.where(torch.arange(8) < rests[:, None], REST, pitches)


def test_rated_tunes_are_moved_to_other_keys_but_stay_in_their_register_and_keep_what_is_said_of_them() -> None:
    facts = {"name": "music", "settings": {"voices": 1}, "fitted": {"voices": 1, "context": 8}}
    music = SimpleNamespace(facts={"corpus": {"modality": facts}}, spec=SimpleNamespace(condition=None))
    x, said = tunes(400), (torch.arange(400) % 2 == 0).float()
    of_rests, of_pitch = by_ear((0.0, 40.0)), by_ear((4.0, 0.0))
    moved = varied(music, of_rests, Batch(x), said, x, 7)
    by = (moved.x - x)[:, -1]
    assert torch.equal(moved.x, torch.where(x < REST, x + by[:, None], x))
    assert by.unique().numel() > 6 and by.float().std() < 2.5  # anywhere between -5 and 6 would be 3.5
    assert torch.equal(varied(music, of_rests, Batch(x), said, x, 7).x, moved.x)
    high = (x * (x < REST)).sum(1) > 60 * (x < REST).sum(1)
    kept = varied(music, of_pitch, Batch(x), high.float(), x, 7)
    odds = of_pitch.odds(kept.x)[(kept.x != x).any(1)]
    assert len(odds) > 50 and bool(((odds > 0) == high[(kept.x != x).any(1)]).all())
    doubted = varied(music, of_rests, Batch(x), 1 - said, x, 7)  # a person says otherwise: theirs stay as they are
    assert torch.equal(doubted.x, x)


def test_a_liked_piece_is_set_against_the_disliked_one_that_differs_least_but_for_what_is_liked() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 5.0], [-9.0, 0.1], [-0.1, 4.0], [-1.0, 20.0]])
    taste = Taste(
        "plain", lambda x: x, Linear(torch.zeros(2).double(), torch.tensor([2.0, 0]).double(), torch.zeros(()), 0.1), 5
    )
    assert twins(taste, rows, torch.tensor([1.0, 1, 0, 0, 0])).tolist() == [2, 3, 2, 3, 4]
    assert twins(taste, rows, torch.ones(5)).tolist() == [0, 1, 2, 3, 4]


def test_what_is_gained_counts_from_the_round_that_a_run_is_in(writer: Run, tmp_path: Path) -> None:
    file = rated(writer, tmp_path / "r.jsonl", moon, 60)
    learn(writer, file, tmp_path / "out", steps=30, given={"more": 90, "rounds": 3}, compare=False)
    tensors = load_file(tmp_path / "out" / "feedback" / "round-2.safetensors")
    settings = Lesson(**kept(tmp_path / "out")[0]["settings"])
    model = writer.load_model()
    beside = Preference(model, tensors, settings)
    gain, distance = beside._gain(model, torch.arange(8), torch.device("cpu"))
    assert float(distance) < 1e-5 and gain.abs().max() > 1  # near the start, but not where the round began
    now = nats_of(model, tensors["x"], tensors.get("condition"))
    at_once = Preference(model, {**tensors, "nats": now}, settings)
    assert at_once._gain(model, torch.arange(len(now)), torch.device("cpu"))[0].abs().max() < 1e-3
    from_start = Preference(model, {k: v for k, v in tensors.items() if k != "nats"}, settings)
    assert from_start._gain(model, torch.arange(8), torch.device("cpu"))[0].abs().max() < 1e-3


@pytest.mark.parametrize("name", ["run", "writer"])
def test_stopping_and_going_on_is_bit_exact(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base = request.getfixturevalue(name)
    file = rated(base, tmp_path / "r.jsonl", dark if name == "run" else moon)
    options = {"given": {"more": 40}, "compare": False}
    learn(base, file, tmp_path / "whole", steps=8, **options)
    halves = Run.open(tmp_path / "whole").path.with_name("halves")
    stopped_after(base, file, halves, 3, options)
    learn(base, file, halves, steps=8, **options)
    sums = [checksum(r / "checkpoints" / "00000008" / "weights.safetensors") for r in (tmp_path / "whole", halves)]
    assert sums[0] == sums[1]


def stopped_after(base: Run, file: Path, out: Path, step: int, options: dict) -> None:
    """Train, and be told to stop as Ctrl-C tells it."""
    import signal

    from maquette.verbs import drive

    asked = drive.Interruption.anywhere
    seen = iter(range(1, 99))

    def stop(self: drive.Interruption) -> bool:
        if next(seen) == step:
            signal.raise_signal(signal.SIGINT)
        return asked(self)

    drive.Interruption.anywhere = stop
    try:
        news = [p.news for p in learning(base, file, out, steps=8, **options)]
    finally:
        drive.Interruption.anywhere = asked
    assert any("stopped" in n for n in news)


def test_a_taught_model_has_the_names_of_its_model_and_its_copy_stands_alone(writer: Run, tmp_path: Path) -> None:
    import copy

    file = rated(writer, tmp_path / "r.jsonl", moon)
    out = learn(writer, file, tmp_path / "out", steps=2, given={"more": 0}, compare=False)
    model = out.build()
    face = taught(out, model)
    assert list(face.state_dict()) == list(model.state_dict()) and face is not model
    twin = copy.deepcopy(face)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(next(twin.inner.parameters()), next(model.parameters()))
    assert torch.equal(next(twin.inner.parameters()), next(twin.parameters()))
    assert face.token_nats == model.token_nats
    with pytest.raises(AttributeError):
        face.nothing_of_this_name  # noqa: B018


def test_what_cannot_be_learnt_from_is_said_and_nothing_is_lost(run: Run, writer: Run, tmp_path: Path) -> None:
    all_liked = rated(run, tmp_path / "all.jsonl", lambda p: True, 12)
    with pytest.raises(ContentError, match="all 12 rated pieces are liked"):
        learn(run, all_liked, tmp_path / "out", steps=2)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ContentError, match="no ratings at"):
        learn(run, tmp_path / "none.jsonl", tmp_path / "out", steps=2)
    with pytest.raises(RunError, match="other weights"):
        learn(writer, all_liked, tmp_path / "out", steps=2)
    file = rated(run, tmp_path / "r.jsonl", dark)
    with pytest.raises(UnknownName, match="sharpnes"):
        learn(run, file, tmp_path / "out", steps=2, given={"sharpnes": 2})
    learn(run, file, tmp_path / "out", steps=2, compare=False)
    rated(run, file, dark, 70)
    with pytest.raises(RunError, match="other ratings"):
        learn(run, file, tmp_path / "out", steps=2)


def test_the_taste_says_how_sure_it_is(run: Run, corpus: Corpus, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    rated(copy, copy.path / "ratings.jsonl", dark)
    taste, x, _ = taste_of(copy, ratings_of(copy), corpus)
    assert taste.linear.nats < 0.5 and "0.69" in taste.words
    assert (taste.reward(x) <= 0).all() and len(pieces(copy, corpus, 3)) == 3


def copied(run: Run, place: Path) -> Run:
    """The same run in a folder of its own, for its ratings are its own."""
    import os
    import shutil

    folder = place / "copy"
    shutil.copytree(run.path, folder, dirs_exist_ok=True)
    found = Run.open(folder)
    found.facts["corpus"]["path"] = os.path.relpath((run.path / run.facts["corpus"]["path"]).resolve(), folder)
    found.note()
    return found
