"""Somebody else's tokenizer.json: one to one what its model reads, an end of its own, forms where its tokens spell the text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maquette import alphabet
from maquette.errors import SettingError, UsageError
from maquette.modalities.text import Text
from maquette.piece import Asked, Piece

POEM = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
ENGLISH = "The tide came, and the tide went; nobody saw it.\n"


def fitted(pieces: list[str], **given) -> Text:
    text = Text(**given)
    found = [text.clean(Piece(p)) for p in pieces]
    text.restore(text.fit(found))
    text.restore(json.loads(json.dumps(text.fitted | text.learn(lambda: iter([text.to_array(p) for p in found])))))
    return text


def exported(kind: str, path: Path) -> tuple[Text, Path]:
    text = fitted([POEM, ENGLISH], tokens=kind, vocabulary=350)
    path.write_text(json.dumps(text.tokenizer_json()))
    return text, path


def pieced(strip: bool, path: Path, **more) -> Path:
    """Like the tokenizers of SentencePiece: spaces are ▁, what is not known is bytes."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "t", "h", "e", "▁t", "he", "▁the"]
    cut = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * strip
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    mark = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    swap = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    model = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    facts = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": names[i], **mark} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}] * strip + [swap]},
        "decoder": {"type": "Sequence", "decoders": decoders + cut},
        "model": {**model, "vocab": {n: i for i, n in enumerate(names)}, "merges": ["▁ t", "h e", "▁t he"]},
    }
    path.write_text(json.dumps(facts | more))
    path.with_name("tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return path


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_a_tokenizer_of_our_own_comes_back_with_its_numbers_and_its_forms(tmp_path, kind):
    ours, path = exported(kind, tmp_path / "tokenizer.json")
    text = fitted([POEM, ENGLISH], tokens="file", tokenizer=str(path), end="<end>")
    assert (text.space.vocabulary, text.space.end) == (ours.space.vocabulary, 0)
    for content in (POEM, ENGLISH):
        assert torch.equal(text.to_tensor(Piece(content)), ours.to_tensor(Piece(content)))
        assert text.to_piece(text.to_tensor(Piece(content))).content == content
    assert text.alphabet.texts[2:] == ours.alphabet.texts[2:]
    begun = text.start(Asked(prompt=POEM[:6], form="五言绝句"))
    assert begun.constraint.begin(0).allowed().any()


@pytest.mark.parametrize("strip", [False, True])
def test_pieces_of_sentences_come_back_and_know_every_byte(tmp_path, strip):
    text = fitted(["the the"], tokens="file", tokenizer=str(pieced(strip, tmp_path / "tokenizer.json")))
    assert (text.space.end, text.space.vocabulary, text.alphabet.spelled) == (2, 266, not strip)
    content = "the the 白\nthé </s>"
    tokens = text.to_tensor(Piece(content))
    assert 2 not in tokens.tolist() and 1 not in tokens.tolist()  # the name of the end in a text is letters
    assert text.to_piece(torch.cat([tokens, torch.tensor([2, 265])])).content == content
    assert text.start(Asked()).constraint.begin(0).allowed().nonzero().flatten().tolist() == list(range(2, 266))
    if strip:
        with pytest.raises(UsageError, match="form lines=2 needs tokens that are each a part of the text"):
            text.start(Asked(form="lines=2"))
    else:
        assert text.start(Asked(form="lines=2", prompt="the ")).constraint.shortest == 3


def test_it_never_cuts_short_what_the_file_would(tmp_path):
    short = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    path = pieced(False, tmp_path / "tokenizer.json", truncation=short)
    text = fitted(["the the the the the"], tokens="file", tokenizer=str(path))
    assert len(text.to_tensor(Piece("the the the the the"))) == 6


def test_an_end_that_stands_in_a_text_is_left_out(tmp_path):
    path = pieced(False, tmp_path / "tokenizer.json", added_tokens=[])
    text = fitted(["the the"], tokens="file", tokenizer=str(path), end="he")
    assert text.encode(np.frombuffer(b"hehe t", np.uint8)).tolist() == [
        alphabet.Foreign(text.fitted["tokenizer"], 0).encode(np.frombuffer(b" t", np.uint8))[0]
    ]


def test_characters_that_it_does_not_know_are_named(tmp_path):
    _, path = exported("characters", tmp_path / "tokenizer.json")
    text = fitted([POEM], tokens="file", tokenizer=str(path), end="<end>")
    with pytest.raises(UsageError, match="do not occur in the texts that were learnt from: z 風"):
        text.start(Asked(prompt="白z風z"))


def test_a_tokenizer_that_cannot_be_is_refused_in_words(tmp_path):
    path = pieced(False, tmp_path / "tokenizer.json")
    for given, said in (
        ({"tokens": "file"}, "belong together"),
        ({"tokenizer": str(path)}, "belong together"),
        ({"tokens": "bytes", "end": "x"}, "belong together"),
    ):
        with pytest.raises(SettingError, match=said):
            Text(**given)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "odd.json").write_text('{"model": {"type": "Odd"}}')
    for name, said in (
        ("none.json", "there is no file"),
        (".", "is a folder, did you mean"),
        ("broken.json", "cannot be read as JSON"),
        ("other.json", "has no model in it"),
        ("odd.json", "is none"),
    ):
        with pytest.raises(SettingError, match=said):
            fitted(["the"], tokens="file", tokenizer=str(tmp_path / name))
    with pytest.raises(
        SettingError, match=r"'</x>' is none of its 266 tokens; its special tokens are <unk>, <s>, </s>"
    ):
        fitted(["the"], tokens="file", tokenizer=str(path), end="</x>")
    path.with_name("tokenizer_config.json").unlink()
    with pytest.raises(SettingError, match=r"no tokenizer_config.json beside it names one"):
        fitted(["the"], tokens="file", tokenizer=str(path))
