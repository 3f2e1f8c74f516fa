"""Cards say what is known, and that the rest is not."""

from __future__ import annotations

import json

import pytest

from maquette.cards import data_card, hub_licence, model_card

FACTS = {
    "name": "my | things", "modality": {"name": "image"}, "counts": {"train": 1400, "test": 600}, "opted_out": 3,
    "licences": {"CC0-1.0": 2000}, "owners": {"Ada: <b>": 2000}, "set_apart": {"MIT": 2}, "fingerprint": "abc",
}  # fmt: skip


def test_a_data_card_lists_the_composition():
    card = data_card(FACTS)
    for words in ("1,400 train, 600 test", "CC0-1.0: 2,000", "on an opt-out list | 3", "2 MIT", "`abc`", r"Ada: \<b\>"):
        assert words in card


def test_what_is_unknown_says_so():
    card = data_card({})
    assert (
        "| pieces | unknown |" in card and "| on an opt-out list | unknown |" in card and "## Owners\n\nunknown" in card
    )


def test_the_front_matter_is_read_back_as_it_was_meant():
    lines = data_card(FACTS).split("---\n")[1].splitlines()
    head = {k: json.loads(v) for k, v in (line.split(": ", 1) for line in lines)}
    assert head == {"pretty_name": "my | things", "license": "cc0-1.0", "tags": ["maquette", "image"]}


def test_the_hub_reads_the_card():
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    assert hub.DatasetCard(data_card(FACTS)).data.license == "cc0-1.0"


@pytest.mark.parametrize(
    "counts, name",
    [({}, "unknown"), ({"MIT": 1}, "mit"), ({"CC-BY-4.0": 1}, "cc-by-4.0"), ({"MIT": 1, "CC0-1.0": 1}, "other"),
     ({"MIT": 9, "unknown": 1}, "unknown"), ({"ask": 1}, "other")],
)  # fmt: skip
def test_one_licence_is_named_only_where_all_pieces_have_it(counts, name):
    assert hub_licence(counts) == name


FINDING = {
    "name": "near copies",
    "space": "judge",
    "value": 0.02,
    "low": 0.01,
    "high": 0.03,
    "reference": 0.01,
    "n": 500,
}


def test_a_model_card_is_filled_from_recipe_corpus_and_audit():
    audit = {
        "verdict": ["Of 500 10 lie near."],
        "findings": [FINDING, {**FINDING, "name": "answered", "reference": None}],
    }
    card = model_card(
        FACTS, {"model": "vqvae+transformer", "size": "tiny", "seed": 4}, audit, rows={"stored as": "float32"}, use="so"
    )
    for words in (
        "1,400 train, 600 test",
        "2,000 CC0-1.0",
        "size tiny",
        "| seed | 4 |",
        "- Of 500",
        "| stored as | float32 |",
        "## Use\n\nso",
    ):
        assert words in card
    assert "| near copies (judge) | 0.02 | 0.01 to 0.03 | 0.01 | 500 |" in card and "0.01 to 0.03 | none |" in card


def test_a_model_card_says_what_is_unknown():
    card = model_card({}, {})
    assert (
        "not audited" in card and "| their licences | unknown |" in card and "| model | unknown, size unknown |" in card
    )


def test_the_hub_reads_the_card_of_a_model():
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    read = hub.ModelCard(model_card(FACTS, {"model": "vae"}, head={"library_name": "transformers"})).data
    assert (read.license, read.library_name, read.tags) == ("unknown", "transformers", ["maquette", "image", "vae"])
