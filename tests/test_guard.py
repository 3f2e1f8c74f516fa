"""The guard: disguised terms are found where they stand, innocent text is left alone, a policy with a typo is refused."""

import json
import random
import re
from pathlib import Path

import pytest

from maquette.errors import SettingError, UnknownName, UsageError
from maquette.finding import Finding
from maquette.guard.folding import fold
from maquette.guard.personal import find, known
from maquette.guard.policy import load, make
from maquette.guard.terms import Terms
from maquette.verbs.gating import gated

TERMS = Terms("mild", ["blarg", "zonk", "坏词"])


@pytest.mark.parametrize(
    "word",
    [
        "blarg",
        "BLARG",
        "bl\u0430rg",
        "b\u200blarg",
        "b.l.a.r.g",
        "b l a r g",
        "bl-arg",
        "bl4rg",
        "ｂｌａｒｇ",
        "blárg",
        "blaaaarg",
    ],
)
def test_a_disguised_term_is_found_where_it_stands(word: str) -> None:
    assert TERMS.find(f"so {word}, he")[0].span == (3, 3 + len(word))


@pytest.mark.parametrize("text", ["blargish", "Scunthorpe class 1.2.3", "zonked", "x-12-b"])
def test_innocent_words_are_left_alone(text: str) -> None:
    assert TERMS.find(text) == []


def test_chinese_terms_need_no_word_boundary() -> None:
    assert TERMS.find("这是坏词吗")[0].span == (2, 4)


@pytest.mark.parametrize("seed", range(50))
def test_folding_keeps_positions_on_any_text(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(chr(draw.randrange(draw.choice([128, 0x3000, 0x110000]))) for _ in range(40))
    folded = fold(text)
    assert len(folded.text) <= len(folded.at) and all(0 <= k < len(text) for k in folded.at)
    assert all(0 <= h.span[0] < h.span[1] <= len(text) for h in TERMS.find(text) + find(text))


def test_numbers_count_only_where_their_checksum_holds() -> None:
    good = "a@b.org GB82 WEST 1234 5698 7654 32, 4111 1111 1111 1111"
    assert [h.rule for h in find(good)] == ["personal.email", "personal.iban", "personal.card"]
    assert find("GB83 WEST 1234 5698 7654 32, 4111 1111 1111 1112") == []


def test_a_typo_names_the_nearest_key() -> None:
    with pytest.raises(UnknownName, match="did you mean licences"):
        make({"licenses": {}})
    with pytest.raises(SettingError, match="no limit"):
        make({"gates": [{"finding": "precision"}]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lists": [{"name": "a", "wrds": ["x"]}]}, "did you mean words"),
        ({"lists": [{"name": "a", "words": ["xx"], "action": "blok"}]}, "did you mean block"),
        ({"lists": [{"name": "a", "words": ["xx"], "on": ["prompt", "outpt"]}]}, "did you mean output"),
        ({"lists": [{"name": "a", "words": ["xx"], "on": "prompts"}]}, "did you mean prompt"),
        ({"lists": [{"words": ["xx"]}]}, "name of the policy is missing"),
        ({"lists": [{"name": "a"}]}, "is empty"),
        ({"lists": [{"name": "a", "file": "nowhere.txt"}]}, "cannot be read"),
        ({"lists": {"name": "a"}}, r"begun by \[\[lists\]\]"),
        ({"personal": {"emial": True}}, "did you mean email"),
        ({"personal": {"phone": ["xx"]}}, 'no country of phone numbers "xx"'),
        ({"personal": {"phone": "us"}}, "true, false or countries"),
        ({"personal": {"card": "maybe"}}, "true or false"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_in_words(given: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(given)


def test_a_list_may_lie_in_a_file_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeff# mild ones\n\nblarg\nzonk the cat\n", encoding="utf-8")
    (tmp_path / "p.toml").write_text('[[lists]]\nname = "mild"\nfile = "words.txt"\nwords = ["hoot"]\n')
    assert load(tmp_path / "p.toml").lists[0].words == ("hoot", "blarg", "zonk the cat")


def test_a_rule_looks_only_where_it_is_asked_to_and_says_what_follows() -> None:
    policy = make(
        {"lists": [{"name": "a", "words": ["blarg"], "on": "prompt", "action": "block"}], "personal": {"email": True}}
    )
    hits = {on: [(h.rule, h.action) for h in policy.check("blarg a@b.org", on)] for on in ("prompt", "output")}
    assert hits == {"prompt": [("a", "block"), ("personal.email", "flag")], "output": [("personal.email", "flag")]}
    assert policy.screens("prompt", "block") and not policy.screens("output", "block")


NATIONAL = {
    "be": "85.07.30-033.28",
    "br": "111.444.777-35",
    "cn": "11010519491231002X",
    "de": "Steuer-ID 86 095 742 719",
    "es": "12345678Z",
    "fi": "131052-308T",
    "fr": "2 55 08 14 168 025 38",
    "in": "Aadhaar 2341 2341 2346",
    "nl": "BSN 111222333",
    "no": "010100 50053",
    "pl": "PESEL 44051401359",
    "se": "811218-9876",
    "uk": "NHS 943 476 5919",
    "us": "123-45-6789",
}


@pytest.mark.parametrize("country", NATIONAL)
def test_a_national_number_counts_where_its_check_digits_hold(country: str) -> None:
    assert set(NATIONAL) == set(known("national"))
    good = NATIONAL[country]
    assert len(find(f"it is {good}, yes", ("national",))) == 1
    wrong = re.sub(r"\d(?=\D*$)", lambda m: str((int(m[0]) + 1) % 10), good)
    assert country == "us" or find(wrong, ("national",), {"national": [country]}) == []


def test_telephone_numbers_are_found_as_they_are_written_in_their_countries() -> None:
    for text in (
        "+1 (415) 555-2671",
        "415-555-2671",
        "0049 30 901820",
        "030/12345678",
        "01 23 45 67 89",
        "+7 495 123-45-67",
    ):
        assert [h.span for h in find(f"call {text} now", ("phone",))] == [(5, 5 + len(text))], text
    for text in (
        "12345678901",
        "1.2.3.4",
        "2024-01-15",
        "pp. 12-34",
        "192.168.100.200",
        "10.1038/s41586-020-2649",
        "3.14159265358979",
    ):
        assert find(text, ("phone",)) == [], text
    assert find("01 23 45 67 89", ("phone",), {"phone": ["us"]}) == []


def test_a_gate_fails_where_its_limit_is_passed_and_where_there_is_no_floor() -> None:
    f = Finding("precision", "judge", 0.7, 0.6, 0.8, None, 20, "higher", "")
    for limit, passed in (({"at_least": 0.6}, True), ({"at_most": 0.6}, False), ({"at_least_of_floor": 0.1}, False)):
        gate = make({"gates": [{"finding": "precision", **limit}]}).gates[0]
        assert gate.judge([f])["passed"] is passed


def test_gates_are_written_into_the_audit(tmp_path: Path) -> None:
    (tmp_path / "audit.json").write_text("{}")
    f = Finding("precision", "judge", 0.7, 0.6, 0.8, None, 20, "higher", "")
    policy = make({"gates": [{"finding": "precision", "at_least": 0.8}]})
    assert not gated(policy, [f], tmp_path, lambda _: None)
    assert json.loads((tmp_path / "audit.json").read_text())["gates"][0]["passed"] is False


def test_a_phrase_is_found_whatever_separates_its_words():
    terms = Terms("mild", ["zonk the blarg", "zonk  quickly"])
    for text in ("Zonk the blarg", "z0nk, THE -- bl4rg!", "go zonk\nquickly now"):
        assert len(terms.find(text)) == 1, text
    assert terms.find("zonk that blarg; zonk, then quickly") == []
    assert terms.find("do zonk the blarg.")[0].span == (3, 17)
