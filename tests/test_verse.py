"""Forms that always hold: whatever a model would like to write, with any tokens; rhyme; the figures of prose."""

import json
import random
import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette import prose, rhyme, verse
from maquette.errors import UnknownName, UsageError
from maquette.verse import form, form_kept

CHARACTERS = "，。\n天年前山間還東風中紅花家霞沙人春新江長香雲君聞水時月白日依盡黃河入海流欲窮千里目更上一層樓□A"
BYTES = [b"", *(bytes([k]) for k in range(256))]
HAN = [b"", b"", *(c.encode() for c in CHARACTERS)]
LATIN = [b"", *(c.encode() for c in "\n ,.!?'-abcdefghijklmnopqrstuvwxyzABCDE0123456789{}[]\":@")]
POEM = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
PIECES = [
    b"",
    *BYTES[1:],
    b"the ",
    b"an",
    b"and ",
    b"er",
    b"\n\n",
    "天".encode(),
    "天。\n".encode(),
    "年，".encode(),
    b'": "',
    b"12",
]


def wander(rule, seed: int, likes=None) -> str:
    """What a model without any taste writes; `likes` chooses among the tokens that are allowed."""
    chance, guide, written = random.Random(seed), rule.begin(seed), b""
    for _ in range(rule.length):
        allowed = torch.nonzero(guide.allowed()).flatten().tolist()
        assert allowed
        token = (likes or chance.choice)(allowed)
        guide.push(token)
        if token == rule.end:
            assert guide.allowed().sum() >= 1
            break
        written += rule.texts[token]
    return written.decode()


@pytest.mark.parametrize("texts", [HAN, BYTES, PIECES], ids=["characters", "bytes", "pieces"])
@pytest.mark.parametrize("name", list(verse.CHINESE))
def test_chinese_forms_hold_with_any_tokens(name, texts):
    rule = form(name, texts)
    for seed in range(4):
        made = wander(rule, seed)
        lines, length = verse.CHINESE[name]
        couplets = made.split("\n")
        assert form_kept(made, name) and len(couplets) == lines // 2
        assert all(re.fullmatch(rf".{{{length}}}，.{{{length}}}。", c) for c in couplets)
        assert rhyme.is_han(np.array([ord(c) for c in re.sub("[，。\n]", "", made)])).all()
        assert "□" not in made and "A" not in made


@pytest.mark.parametrize("texts", [HAN, BYTES, PIECES], ids=["characters", "bytes", "pieces"])
@pytest.mark.parametrize("name", ["五言絕句", "七言律詩", "lines=4x7"])
def test_rhyme_holds_where_it_is_asked_for(name, texts):
    pytest.importorskip("pypinyin")
    rule = form(name, texts, rules=("rhyme",), length=400)
    classes = set()
    for seed in range(8):
        made = wander(rule, seed)
        lines = made.split("\n") if name.startswith("lines") else re.split(r"[，。\n]+", made.strip("。"))
        ends = {rhyme.rhyme_class(line[-1]) for line in lines[1::2]}
        assert len(ends) == 1 and None not in ends
        classes |= ends
    assert len(classes) > 1  # the rhyme is not always the same


def test_no_line_ends_on_a_sound_that_nothing_else_has():
    pytest.importorskip("pypinyin")
    rule = form("五言绝句", [b"", *(c.encode() for c in "，。\n天年水")], rules=("rhyme",))
    for seed in range(10):
        assert not re.search("水。", wander(rule, seed))


def test_a_form_these_tokens_cannot_write_names_what_is_missing():
    with pytest.raises(UsageError, match="，"):
        form("五言绝句", [b"", *(c.encode() for c in "天地。\n")])
    with pytest.raises(UsageError, match="needs at least 25 tokens; length 24 came"):
        form("五言绝句", HAN, length=24)
    with pytest.raises(UsageError, match="tokens for each byte"):
        form("五言绝句", [b"", b"a", b"the"])


@pytest.mark.parametrize("texts", [LATIN, BYTES], ids=["characters", "bytes"])
def test_a_haiku_has_five_seven_and_five_syllables(texts):
    rule = form("haiku", texts, length=90)
    for seed in range(6):
        made = wander(rule, seed)
        lines = made.split("\n")
        counts = [sum(rhyme.syllables(w) for w in re.findall(r"[a-zA-Z'’]+", line)) for line in lines]
        assert counts == [5, 7, 5], made
        assert form_kept(made, "haiku")


def test_a_haiku_that_is_one_is_known():
    assert form_kept("An old silent pond\nA frog jumps into the pond\nSplash! Silence again", "haiku")
    assert not form_kept("An old pond\nA frog jumps into the pond\nSplash! Silence again", "haiku")


def test_numbers_of_lines_hold():
    for seed in range(5):
        assert wander(form("lines=3", LATIN, length=60), seed).count("\n") == 2
        assert [len(line) for line in wander(form("lines=4x7", LATIN), seed).split("\n")] == [7] * 4


@pytest.mark.parametrize(
    "pattern",
    [
        r"a+b?c*",
        r"[a-z]+@[a-z]{2,5}\.(com|org)",
        r"(ab|cd){2,}",
        r"[^a-z\n]{3}",
        r"\d{3}-\w\w",
        r"x?y{0,2}z",
        r"(?:a|b|)*end",
        r"[-a\]]+",
        r"h\u0065y|\x41b",
    ],
)
@pytest.mark.parametrize("texts", [LATIN, BYTES], ids=["characters", "bytes"])
def test_what_is_written_to_a_pattern_matches_it(pattern, texts):
    rule = form(f"/{pattern}/", texts, length=30)
    for seed in range(5):
        made = wander(rule, seed)
        assert re.fullmatch(pattern, made) and form_kept(made, f"/{pattern}/")


@settings(max_examples=150, deadline=None)
@given(
    st.from_regex(r"([ab]|[ab]\*|\((a|b)\|ab\)|\(ba\)\+|a\?|b\{1,3\}|\[\^a\]|\.){1,6}", fullmatch=True),
    st.text("abc", max_size=8),
)
def test_our_patterns_agree_with_the_standard_library(pattern, text):
    assert form_kept(text, f"/{pattern}/") == bool(re.fullmatch(pattern, text))


@settings(max_examples=300, deadline=2000)
@given(st.text(r"ab()[]{}|*+?\.^-,12du", max_size=12))
def test_any_pattern_is_understood_or_refused_in_words(pattern):
    try:
        verse.parse(f"/{pattern}/") if pattern else None
    except UsageError as error:
        assert "/" in str(error) or "states" in str(error) or "long" in str(error)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "not closed"),
        ("a)", "unexpected"),
        ("[a", "no end"),
        ("*a", "nothing before"),
        ("a{x}", "without"),
        ("(?=a)", "not (?:"),
        (r"(a)\1", "unknown"),
        ("[z-a]", "backwards"),
        ("a{9999}", "between"),
    ],
)
def test_a_pattern_that_is_wrong_says_where(pattern, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        verse.parse(f"/{pattern}/")


def test_json_shapes_hold():
    shape = '{"title": "string", "lines": ["string"], "year": "integer", "mood": "sad|happy", "in": {"x": "number", "y": "boolean"}}'
    for texts in (LATIN, BYTES, PIECES):
        for seed in range(4):
            made = json.loads(wander(form(shape, texts, length=200), seed))
            assert isinstance(made["title"], str) and isinstance(made["lines"], list) and isinstance(made["year"], int)
            assert made["mood"] in ("sad", "happy") and isinstance(made["in"]["y"], bool)
    for broken in ('{"a": "text"}', '{"a"', "{}", '{"a": 3}'):
        with pytest.raises(UsageError):
            verse.parse(broken)


def test_a_text_is_finished_within_its_length_however_the_model_rambles():
    longest = form("/a*b{5}/", LATIN, length=20)
    made = wander(longest, 0, likes=min)  # a before b, always
    assert made == "a" * 15 + "b" * 5
    told = form('{"a": "string"}', BYTES, length=30)
    assert json.loads(wander(told, 0, likes=lambda allowed: max(a for a in allowed)))


def test_what_breaks_a_form_can_only_end():
    guide = form("/ab/", LATIN).begin(0)
    guide.push(LATIN.index(b"z"))
    assert torch.nonzero(guide.allowed()).flatten().tolist() == [0]


def test_unknown_forms_and_rules_are_refused_with_what_there_is():
    with pytest.raises(UnknownName, match="haiku"):
        verse.parse("haikuu")
    with pytest.raises(UnknownName, match="rhyme"):
        verse.parse("五言绝句", rules=("metre",))
    for name in ("haiku", "/a/", "lines=4"):
        with pytest.raises(UsageError, match="rhyme"):
            verse.parse(name, rules=("rhyme",))
    with pytest.raises(UsageError, match="no two of the characters"):
        form("lines=4x7", LATIN, rules=("rhyme",))


def test_asking_what_is_allowed_costs_microseconds():
    texts = [b"", b"", *(chr(k).encode() for k in range(0x4E00, 0x4E00 + 7800)), *(c.encode() for c in "，。\n")]
    rule = form("五言绝句", texts)
    wander(rule, 0)
    guide, begun = rule.begin(1), time.perf_counter()
    for token in [5, 6, 7, 8, 9, len(texts) - 3] * 2:
        guide.allowed()
        guide.push(token)
    assert (time.perf_counter() - begun) / 12 < 200e-6  # measured: 0.5 microseconds and 3 for the push


# ---- rhyme


def test_real_poems_rhyme_and_shuffled_ones_do_not():
    pytest.importorskip("pypinyin")
    assert verse.rhyme_kept(POEM) is True
    assert verse.rhyme_kept(POEM.replace("樓", "天")) is False
    assert verse.rhyme_kept("白日依山盡，黃河入海流。") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("day", "weigh"), ("night", "white"), ("sea", "free"), ("rain", "plane"), ("fly", "sigh"), ("bell", "tell")],
)
def test_english_words_that_rhyme(one, other):
    assert rhyme.rhyme_sound(one) == rhyme.rhyme_sound(other)


@pytest.mark.parametrize(("one", "other"), [("day", "tree"), ("stone", "rain"), ("cat", "cut"), ("moon", "man")])
def test_english_words_that_do_not(one, other):
    assert rhyme.rhyme_sound(one) != rhyme.rhyme_sound(other)


def test_english_verse_rhymes_in_couplets_or_across():
    assert verse.rhyme_kept("I see the day\nand go away\nI saw the night\nall full of light") is True
    assert verse.rhyme_kept("I see the day\nalong the stream\nI saw the moon\nwithin a dream") is True
    assert verse.rhyme_kept("I see the day\nalong the stream\nI saw the moon\nabove a hill") is False
    assert verse.rhyme_kept("one line") is None and verse.rhyme_kept("") is None


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("stone", 1),
        ("table", 2),
        ("walked", 1),
        ("wanted", 2),
        ("boxes", 2),
        ("the", 1),
        ("Mr", 1),
        ("cherry", 2),
        ("year", 1),
    ],
)
def test_syllables_are_counted_by_spelling(word, count):
    assert rhyme.syllables(word) == count


# ---- figures


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("ab", max_size=12), min_size=1, max_size=4),
    st.lists(st.text("ab", max_size=30), min_size=1, max_size=3),
)
def test_the_longest_copied_span_is_that_of_brute_force(texts, training):
    def brute(text: str) -> int:
        spans = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
        return max((len(s) for s in spans if any(s in t for t in training)), default=0)

    assert prose.longest_copied(texts, training) == [brute(t) for t in texts]


def test_the_longest_copied_span_is_found_in_chunks_too(monkeypatch):
    monkeypatch.setattr(prose, "CHUNK", 10)
    assert prose.longest_copied(["xx hello there"], ["abc"] * 20 + ["hello there"] + ["abc"] * 9) == [11]


def test_two_hundred_texts_are_compared_with_a_megabyte_in_seconds():
    chance = np.random.default_rng(0)
    words = ["".join(chance.choice(list("etaoinshrdlu"), 4)) for _ in range(2000)]
    text = " ".join(chance.choice(words, 200_000))
    begun = time.process_time()
    found = prose.longest_copied([text[k * 100 : k * 100 + 300] for k in range(200)], [text[:500_000], text[500_000:]])
    assert time.process_time() - begun < 15 and min(found) == 300  # measured: 1.7 s


def test_a_text_that_repeats_itself_and_texts_that_resemble_each_other_show():
    assert prose.repetition(list("abcdabcdabcd")) > 0.5
    assert prose.repetition(list("abcdef")) == 0
    assert prose.self_bleu([list("abcdef"), list("abcdef")]) == [1.0, 1.0]
    assert max(prose.self_bleu([list("abcdef"), list("uvwxyz")])) < 0.2
    assert prose.distinct([list("abcdea")], 1) == 5 / 6


def test_a_form_is_judged_where_held_out_texts_have_one():
    pytest.importorskip("pypinyin")
    found = {f.name: f for f in prose.findings(["plain", POEM], [POEM, POEM], lambda: ["山"])}
    assert found["form kept"].value == 0.5 and found["form kept"].reference == 1
    assert found["rhyme kept"].value == 1
    names = {f.name for f in prose.findings(["plain words"], ["more of them"], lambda: ["words"])}
    assert "form kept" not in names and "rhyme kept" not in names
