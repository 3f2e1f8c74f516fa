"""The guard: disguised terms are found where they stand, innocent text is left alone, a policy with a typo is refused."""

import json
import random
from pathlib import Path

import pytest

from maquette.errors import SettingError, UnknownName
from maquette.finding import Finding
from maquette.guard.folding import fold
from maquette.guard.personal import find
from maquette.guard.policy import make
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
