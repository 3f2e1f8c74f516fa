"""Keys, rules and moods on cases with a known answer; guides never break the rules they were given."""

import numpy as np
import pytest
import torch

from maquette.errors import UsageError
from maquette.scores import guides, harmony, layout, likeness
from maquette.scores.score import polyphony, rolls, score, separated


def line(*pitches, voice=0, length=4):
    return [(k * length, length, p, voice) for k, p in enumerate(pitches)]


def faults(*voices):
    notes = [n for v, pitches in enumerate(voices) for n in line(*pitches, voice=v)]
    return harmony.faults(*rolls(score(notes, 4), len(voices)))


@pytest.mark.parametrize("tonic", range(12))
def test_a_scale_with_its_tonic_repeated_has_the_key_of_that_tonic(tonic):
    major = [0, 4, 7, 0, 2, 4, 5, 7, 9, 11, 0, 0]
    minor = [0, 3, 7, 0, 2, 3, 5, 7, 8, 11, 0, 0]
    for mode, degrees in (("major", major), ("minor", minor)):
        found = harmony.key_of(score(line(*(48 + tonic + d for d in degrees)), 4))
        assert (found.tonic, found.mode) == (tonic, mode)


def test_keys_are_understood_as_people_write_them():
    assert harmony.tonic_named("Db") == harmony.tonic_named("C#") == (1, None)
    assert harmony.tonic_named("f# minor") == (6, "minor") and harmony.tonic_named("Gm") == (7, "minor")
    with pytest.raises(UsageError, match="a key is one of"):
        harmony.tonic_named("H")


def test_two_voices_that_move_from_fifth_to_fifth_are_one_fault():
    assert faults((67, 69), (60, 62))["fifths"] == 1
    assert faults((67, 67), (60, 60))["fifths"] == 0  # nobody moves
    assert faults((67, 69), (60, 60))["fifths"] == 0
    assert faults((79, 62 + 7), (60, 62))["fifths"] == 0  # a twelfth, then a fifth, in contrary motion


def test_octaves_and_unisons_are_counted_alike():
    assert faults((72, 74), (60, 62))["octaves"] == 1
    assert faults((60, 62), (60, 62))["octaves"] == 1


def test_a_crossing_counts_once_when_it_begins():
    assert faults((60, 60, 60), (55, 62, 64))["crossing"] == 1


def test_ranges_and_leaps_are_counted_by_note():
    found = faults((90, 70), (60, 60), (55, 55), (40, 54))
    assert found["range"] == 1 and found["leaps"] == 2


def random_walk(form, seed, steps=64):
    """Tokens drawn evenly from what is allowed."""
    guide, chance, tokens = form.begin(seed), torch.Generator().manual_seed(seed), []
    for _ in range(steps * 12):
        allowed = guide.allowed()
        assert allowed.shape == (layout.VOCABULARY,) and allowed.any()
        place = len(tokens)
        given = form.known[place] if isinstance(form, guides.VoicesForm) and place < len(form.known) else guides.FREE
        token = int(given) if given != guides.FREE else int(torch.multinomial(allowed.float(), 1, generator=chance))
        if token == layout.END:
            break
        guide.push(token)
        tokens.append(token)
    guide.push(layout.END)
    assert guide.allowed().nonzero().tolist() == [[layout.END]]
    return np.array(tokens, np.int64)


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_chance_itself_keeps_every_rule_under_a_guide(seed, holds):
    tokens = random_walk(guides.VoicesForm(4, holds, 64, frozenset(harmony.RULES)), seed)
    assert len(tokens) == 256 and (tokens < layout.REST).sum() > 50
    found = harmony.faults(*rolls(layout.from_voices(tokens, 4, holds, 4), 4))
    assert all(found[k] == 0 for k in ("fifths", "octaves", "crossing", "range"))


@pytest.mark.parametrize("voice", range(4))
def test_rules_hold_against_a_voice_that_is_given(voice):
    known = np.full((32, 4), guides.FREE)
    known[:, voice] = [p for p in (62, 60, 58, 60, 63, 65, 57, 55) for _ in range(4)]
    known[np.arange(32) % 4 > 0, voice] = layout.HOLD
    rules = frozenset({"crossing", "parallels"})
    tokens = random_walk(guides.VoicesForm(4, True, 32, rules, known.reshape(-1)), voice)
    found = harmony.faults(*rolls(layout.from_voices(tokens, 4, True, 4), 4))
    assert found["fifths"] == found["octaves"] == found["crossing"] == 0


def test_rules_hold_on_the_way_into_bars_that_are_given():
    known = np.full((16, 4), guides.FREE)
    known[8:] = (72, 67, 60, 48)
    for seed in range(8):
        tokens = random_walk(guides.VoicesForm(4, True, 16, frozenset(harmony.RULES), known.reshape(-1)), seed)
        found = harmony.faults(*rolls(layout.from_voices(tokens, 4, True, 4), 4))
        assert found["fifths"] == found["octaves"] == 0


@pytest.mark.parametrize("holds", [True, False])
def test_frames_under_a_guide_are_well_formed_and_as_many_as_asked(holds):
    tokens = random_walk(guides.FramesForm(holds, 16, 3), 1)
    assert (tokens == layout.FRAME).sum() == 16
    piece = layout.from_frames(tokens, holds, 4)
    assert piece.steps == 16 and polyphony(piece) <= 3
    assert np.array_equal(layout.to_frames(piece, holds), tokens) or not holds


def test_without_a_length_the_end_may_come_after_any_whole_step():
    guide = guides.VoicesForm(2).begin(0)
    assert not guide.allowed()[layout.END]
    for token in (60, 55):
        assert not guide.allowed()[layout.END]
        guide.push(token)
    assert guide.allowed()[layout.END]


def test_a_mood_asks_for_numbers_of_the_corpus_itself():
    numbers = {"tempo": (100.0, 10.0), "density": (2.0, 0.5), "register": (60.0, 0.0)}
    assert harmony.mood_in_numbers("sad", numbers) == {"mode": "minor", "tempo": 92.0, "density": 1.6}
    for name in harmony.MOODS:
        assert harmony.mood_of(harmony.mood_in_numbers(name, numbers), numbers) == name
    with pytest.raises(UsageError, match="a mood is one of"):
        harmony.mood_in_numbers("angry", numbers)


def test_chords_are_parted_into_lines_that_move_little():
    notes = [(0, 4, p, 0) for p in (72, 64, 60)] + [(4, 4, p, 0) for p in (71, 65, 62)]
    parted = separated(score(notes, 4), 3)
    assert parted.notes[:, 2:].tolist() == [[72, 0], [64, 1], [60, 2], [71, 0], [65, 1], [62, 2]]


def test_whole_parts_stay_together_even_where_they_cross():
    notes = line(60, 72, voice=1) + line(67, 65, 64, 67, voice=0)
    parted = separated(score(notes, 4), 2)
    assert set(parted.notes[parted.notes[:, 3] == 0, 2].tolist()) in ({60, 72}, {67, 65, 64})


def test_the_longest_shared_run_is_found_in_any_key():
    tune = [0, 2, 4, 5, 7, 9, 7, 4, 0, 11, 12]
    whole = score(line(*(60 + t for t in tune)), 4)
    copied = score(line(*(65 + t for t in tune[2:9]), 40, 90), 4)
    shared = likeness.longest_shared([likeness.moves(copied)], [likeness.moves(whole)])
    assert shared.tolist() == [6]  # seven notes, six moves


def test_shared_runs_agree_with_a_slow_search():
    chance = np.random.default_rng(0)
    pieces = [chance.integers(0, 3, n).astype(np.uint64) for n in (0, 1, 12, 30)]
    corpus = [chance.integers(0, 3, n).astype(np.uint64) for n in (5, 0, 40)]

    def slow(p):
        runs = {tuple(c[i:j]) for c in corpus for i in range(len(c)) for j in range(i + 1, len(c) + 1)}
        return max((j - i for i in range(len(p)) for j in range(i + 1, len(p) + 1) if tuple(p[i:j]) in runs), default=0)

    assert likeness.longest_shared(pieces, corpus).tolist() == [slow(p) for p in pieces]


def test_divergence_is_nothing_between_equals_and_one_bit_between_strangers():
    assert likeness.divergence(np.array([1.0, 1, 0]), np.array([2.0, 2, 0])) == pytest.approx(0)
    assert likeness.divergence(np.array([1.0, 0]), np.array([0.0, 1])) == pytest.approx(1)
