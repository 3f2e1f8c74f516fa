"""Texts in and out: encodings, units, records, tokens of every alphabet, twins, what a person may ask; and readers that never crash."""

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maquette import alphabet, catalog, texts
from maquette.errors import MaquetteError, SettingError, UnknownName, Unreadable, UsageError
from maquette.modalities.text import Text, tokenizer_json
from maquette.piece import Asked, Piece, Works

POEM = "秦川雄帝宅，函谷壯皇居。\n綺殿千尋起，離宮百雉餘。"
OTHER = "白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"
ENGLISH = "The quick brown fox jumps over the lazy dog; then it sleeps.\nNobody saw it, and nobody cared."
KINDS = ("bytes", "characters", "bpe")


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **given) -> list[Piece]:
    return list(Text(**given).read(path))


def contents(path: Path, **given) -> list[str]:
    return [p.content for p in read(path, **given)]


def learnt(pieces: list[str], **given) -> Text:
    text = Text(**given)
    cleaned = [text.clean(Piece(p)) for p in pieces]
    text.restore(text.fit(cleaned))
    text.restore(text.fitted | text.learn(lambda: iter([text.to_array(p) for p in cleaned])))
    return text


def reason(path: Path, **given) -> str:
    with pytest.raises(Unreadable) as error:
        read(path, **given)
    return str(error.value)


# ---- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding):
    assert contents(file(tmp_path, "a.txt", POEM.encode(encoding))) == [POEM]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"),
        ("big5", POEM),
        ("shift_jis", "これは日本語の文章です。カタカナも入れておきます。"),
        ("euc_kr", "이것은 한국어 문장입니다."),
        ("cp1251", "Это обычный русский текст."),
        ("cp1252", "Le café était fermé, déjà ! Où es-tu allé cet été ?"),
    ],
)
def test_another_encoding_is_never_guessed_but_suggested(tmp_path, encoding, text):
    path = file(tmp_path, "a.txt", b"abc" + text.encode(encoding))
    first = next(k for k, b in enumerate(path.read_bytes()) if b > 127)
    said = reason(path)
    assert f"byte {first} is no UTF-8" in said and f"--set encoding={encoding}" in said
    assert contents(path, encoding=encoding) == ["abc" + text]


def test_the_byte_that_fails_is_counted_over_blocks_and_broken_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", 10)
    assert "byte 14 is no UTF-8" in reason(file(tmp_path, "a.txt", "ab中中中中".encode() + b"\xff"))
    assert "byte 11 is no UTF-8" in reason(file(tmp_path, "b.txt", "ab中中中中".encode()[:-1]))


def test_binary_files_and_utf_16_without_a_mark_are_told_apart(tmp_path):
    assert "byte 2 is 0, so this is a binary file" in reason(file(tmp_path, "a.txt", b"ab\0cd" * 50))
    said = reason(file(tmp_path, "b.txt", "plain words".encode("utf-16-le") * 9))
    assert "--set encoding=utf-16-le" in said


def test_an_unknown_encoding_is_refused_by_name():
    with pytest.raises(SettingError, match="utf-9"):
        Text(encoding="utf-9")
    with pytest.raises(SettingError, match="base64"):
        Text(encoding="base64")


def test_an_empty_file_and_a_single_character_say_so(tmp_path):
    assert "the file is empty" in reason(file(tmp_path, "a.txt", ""))
    for content, said in (("x", "single character"), (" \n ", "nothing but white space")):
        with pytest.raises(Unreadable, match=said):
            Text().clean(read(file(tmp_path, "b.txt", content))[0])


def test_line_ends_of_all_systems_are_one(tmp_path):
    assert contents(file(tmp_path, "a.txt", "a\r\nb\rc\n")) == ["a\nb\nc\n"]


# ---- units


def test_a_short_file_is_one_piece_and_a_long_one_passages(tmp_path):
    assert len(read(file(tmp_path, "a.txt", ENGLISH))) == 1
    pieces = read(file(tmp_path, "b.txt", (ENGLISH + "\n\n") * 400))
    assert len(pieces) > 5 and all(2000 <= len(p.content) <= 5000 for p in pieces)
    assert "".join(p.content for p in pieces) == (ENGLISH + "\n\n") * 400
    assert [p.facts["member"] for p in pieces] == list(range(len(pieces)))


def test_among_many_files_each_is_a_piece(tmp_path):
    text = Text()
    text.files = 500
    assert len(list(text.read(file(tmp_path, "b.txt", (ENGLISH + "\n\n") * 400)))) == 1


@pytest.mark.parametrize(
    ("content", "ends"),
    [("para one.\n\n" * 99, "\n\n"), ("a line\n" * 99, "\n"), ("word " * 99, " "), ("x" * 500, "x")],
)
def test_passages_end_at_a_paragraph_else_a_line_else_a_space(tmp_path, content, ends):
    parts = contents(file(tmp_path, "a.txt", content), unit="passage", passage=50)
    assert "".join(parts) == content and all(p.endswith(ends) and len(p) <= 63 for p in parts)


def test_a_passage_never_parts_an_accent_from_its_letter(tmp_path):
    parts = contents(file(tmp_path, "a.txt", "e\u0301" * 100), unit="passage", passage=31, steps=())
    assert all(not p.startswith("\u0301") for p in parts)


def test_lines_and_paragraphs_are_units_too(tmp_path):
    path = file(tmp_path, "a.txt", "one\ntwo\n \n\nthree\n")
    assert contents(path, unit="line") == ["one", "two", "three"]
    assert contents(path, unit="paragraph") == ["one\ntwo", "three"]


@pytest.mark.parametrize("unit", ["auto", "line", "paragraph", "passage"])
def test_a_huge_single_line_streams_through_in_little_memory(tmp_path, unit):
    path = file(tmp_path, "a.txt", "abcdefg " * (2 << 20))  # 16 MB
    tracemalloc.start()
    size = sum(len(p.content) for p in Text(unit=unit).read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 16 << 20 and peak < 13 << 20


def test_a_file_is_read_piece_by_piece_and_not_ahead(tmp_path):
    path = file(tmp_path, "a.txt", (ENGLISH + "\n") * 40_000 + "x")
    with path.open("ab") as stream:
        stream.write(b"\xff")
    assert next(Text().read(path)).content.startswith("The quick")


def test_what_is_too_long_for_one_piece_says_how_to_cut_it(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "WHOLE", 1000)
    assert "--set unit=passage" in reason(file(tmp_path, "a.txt", "word " * 900), unit="file")


# ---- records


def test_records_of_json_bring_their_facts(tmp_path):
    record = {
        "author": "太宗",
        "title": "一",
        "paragraphs": POEM.split("\n"),
        "tags": ["a", "b"],
        "year": 630,
        "no": None,
    }
    (piece,) = read(file(tmp_path, "a.json", json.dumps([record], ensure_ascii=False)))
    assert piece.content == POEM
    assert piece.facts == {
        "author": "太宗",
        "title": "一",
        "tags": "a; b",
        "year": 630,
        "source": "a.json",
        "member": 0,
    }


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_records_may_stand_one_a_line_and_be_plain_texts(tmp_path, suffix):
    lines = '{"text": "one two", "label": "x"}\n"three"\n'
    pieces = read(file(tmp_path, f"a{suffix}", lines))
    assert [p.content for p in pieces] == ["one two", "three"] and pieces[0].facts["label"] == "x"


def test_a_long_json_list_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "BLOCK", 64)
    records = [{"text": "x" * (k % 300) + "ab", "n": k} for k in range(200)]
    assert contents(file(tmp_path, "a.json", json.dumps(records, indent=1))) == [r["text"] for r in records]


def test_tables_of_commas_tabs_and_semicolons_are_read(tmp_path):
    for name, mark in (("a.csv", ","), ("a.tsv", "\t"), ("b.csv", ";")):
        rows = f'id{mark}body\n1{mark}"two\nlines"\n2{mark}more\n'
        pieces = read(file(tmp_path, name, rows))
        assert [p.content for p in pieces] == ["two\nlines", "more"] and pieces[0].facts["id"] == "1"


def test_the_only_column_of_texts_is_taken_and_many_are_asked_about(tmp_path):
    assert contents(file(tmp_path, "a.csv", "n,verse\n1,hello there\n")) == ["hello there"]
    said = reason(file(tmp_path, "b.csv", "verse,author\nhello,me\n"))
    assert "which column" in said and "verse, author" in said and "--set column=NAME" in said
    assert contents(tmp_path / "b.csv", column="verse") == ["hello"]
    assert "there is no column poem_; it has verse, author" in reason(tmp_path / "b.csv", column="poem_")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "item 1 is a number"),
        ('[["a"]]', "item 1 is a list"),
        ("null", "item 1 is null"),
        ('[{"text": "ok ok"}, {"text": ', "it is not JSON from character"),
        ("not json", "it is not JSON from character 1 on"),
        ("[]", "it holds no records"),
        ("[" * 100_000, "nested too deeply"),
        ('{"data": [1]}', "which column holds the text"),
    ],
)
def test_json_that_is_no_list_of_records_is_told_in_words(tmp_path, content, said):
    assert said in reason(file(tmp_path, "a.json", content))


def test_a_broken_line_of_jsonl_costs_no_other_line(tmp_path):
    path = file(tmp_path, "a.jsonl", '{"text": "one"}\n{broken\n{"text": "two"}\n')
    found = []
    with pytest.raises(Unreadable, match="line 2 is not JSON"):
        for piece in Text().read(path):
            found.append(piece.content)
    assert found == ["one", "two"]


def test_a_lone_surrogate_puts_one_record_aside_and_no_other(tmp_path):
    pieces = read(file(tmp_path, "a.json", '["good one", "bad \\ud800 one"]'))
    assert Text().clean(pieces[0]).content == "good one"
    with pytest.raises(Unreadable, match="half of a pair"):
        Text().clean(pieces[1])


# ---- cleaning


def test_each_step_does_what_it_says():
    steps = texts.STEPS
    assert steps["unicode"]("e\u0301") == "é" and steps["compatibility"]("ﬁＡ") == "fiA"
    assert steps["controls"]("a\x07b\u200b\ufeffc\u2028d\tx") == "abc\nd\tx"
    assert steps["spaces"]("\n\n  a\u00a0b  \n\n\n\nc \n") == "  a b\n\nc"


def test_the_header_and_footer_of_gutenberg_go_wherever_blocks_end():
    header = "The Project Gutenberg EBook\n*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n"
    book = header + "Emma Woodhouse.\n" * 9000 + "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\nlicence"
    for size in (7, 1000, 65_537, len(book)):
        parts = [book[k : k + size] for k in range(0, len(book), size)]
        assert "".join(texts.body(parts)) == "Emma Woodhouse.\n" * 9000
    assert "".join(texts.body([ENGLISH])) == ENGLISH


# ---- tokens


@pytest.mark.parametrize("kind", KINDS)
def test_every_alphabet_gives_the_text_back(kind):
    pieces = [POEM, OTHER, ENGLISH, "emoji 😀 and <end> tabs\tnewlines\n\n x"]
    text = learnt(pieces, tokens=kind, vocabulary=400)
    for content in pieces:
        tokens = text.to_tensor(Piece(content))
        assert tokens.dtype == torch.int64 and int(tokens.min()) > 0 and int(tokens.max()) < text.space.vocabulary
        padded = torch.cat([tokens, torch.zeros(3, dtype=torch.long)])
        assert text.to_piece(padded).content == content


def test_bytes_are_tokens_plus_one():
    text = learnt([ENGLISH], tokens="bytes")
    assert text.space.vocabulary == 257 and text.space.end == 0
    assert text.to_tensor(Piece("a\n")).tolist() == [98, 11]
    assert text.to_piece(torch.tensor([0xE5 + 1, 98, 0, 98])).content == "\ufffda"


def test_a_character_of_no_training_text_is_the_unknown_token():
    text = learnt(["aab", "ab"], tokens="characters")
    assert text.to_tensor(Piece("ba😀")).tolist() == [3, 2, 1]
    assert text.to_piece(torch.tensor([2, 1])).content == "a\ufffd"
    assert any("unknown" in line for line in text.advice())
    rule = text.start(Asked()).constraint
    assert rule.begin(0).allowed().tolist() == [True, False, True, True]


def test_auto_takes_characters_while_they_are_few_and_bpe_beyond(monkeypatch):
    assert learnt([POEM], vocabulary=300).fitted["tokens"] == "characters"
    monkeypatch.setattr(alphabet, "MANY", 5)
    assert learnt([POEM], vocabulary=300).fitted["tokens"] == "bpe"


@pytest.mark.parametrize(("longest", "context"), [(2, 32), (31, 32), (32, 64), (100, 128), (5000, 256)])
@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_the_context_follows_the_longest_text_with_its_end(kind, longest, context):
    assert learnt(["ab", "a" * longest], tokens=kind).space.shape == (context,)
    assert learnt(["ab", "a" * longest], tokens=kind, context=48).space.shape == (48,)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learnt_is_plain_json_and_serves_in_another_process(kind):
    text = learnt([POEM, ENGLISH], tokens=kind, vocabulary=350)
    other = catalog.modality(
        {"name": "text", "settings": {"tokens": kind}, "fitted": json.loads(json.dumps(text.fitted))}
    )
    assert other.space == text.space
    assert torch.equal(other.to_tensor(Piece(POEM)), text.to_tensor(Piece(POEM)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_tokenizer_gives_our_numbers(kind):
    from tokenizers import Tokenizer

    text = learnt([POEM, ENGLISH, "tabs\tand  spaces\n\nél"], tokens=kind, vocabulary=350)
    exported = Tokenizer.from_str(tokenizer_json(text.fitted))
    assert exported.token_to_id("<end>") == 0 and exported.get_vocab_size() == text.space.vocabulary
    for content in (POEM, ENGLISH, "tabs\tand  spaces\n\nél"):
        ours = text.to_tensor(Piece(content)).tolist()
        assert exported.encode(content).ids == ours and exported.decode(ours) == content


def test_encoding_is_fast():
    many = np.frombuffer((ENGLISH + POEM).encode() * 20_000, np.uint8)
    for kind, least in (("bytes", 20), ("characters", 8)):
        text = learnt([ENGLISH, POEM], tokens=kind)
        text.encode(many[:200])
        begun = time.perf_counter()
        text.encode(many)
        assert len(many) / 1e6 / (time.perf_counter() - begun) > least  # MB/s; measured 100 and 290


def test_bpe_is_learnt_from_a_part_of_a_large_train_split(monkeypatch):
    monkeypatch.setattr(alphabet, "FED", 100)
    assert learnt([f"{ENGLISH} {k}" for k in range(50)], tokens="bpe", vocabulary=300).space.vocabulary <= 300


# ---- twins


def groups(pieces: list[str]) -> list[int]:
    text = Text()
    return text.twins(np.stack([text.sketch(Piece(p)) for p in pieces])).tolist()


def test_a_poem_with_one_character_changed_is_a_twin_and_another_poem_is_none():
    for k, sign in enumerate(POEM):
        if sign not in "，。\n":
            assert groups([POEM, OTHER, POEM[:k] + "龍" + POEM[k + 1 :]]) == [0, 1, 0]


def test_passages_of_one_book_are_no_twins_and_copies_with_a_typo_are():
    chance = np.random.default_rng(0)
    words = np.array(["".join(chance.choice(list("etaoinshrdlu"), 5)) for _ in range(300)])
    passages = [" ".join(words[chance.integers(len(words), size=800)]) for _ in range(12)]
    assert groups(passages) == list(range(12))
    assert groups([*passages, passages[3].replace(str(words[0]), "typo", 2)])[-1] == 3


def test_the_shortest_texts_have_sketches_too():
    assert groups(["ab", "ab", "cd", "a"]) == [0, 0, 2, 3]


# ---- what a person asks


def test_a_prompt_is_kept_and_the_model_writes_on():
    text = learnt([ENGLISH * 9], tokens="characters", context=32)
    found = text.start(Asked(prompt="The quick "))
    assert bool(found.keep.all()) and text.to_piece(found.source).content == "The quick "
    assert found.length == 10 + 32
    assert len(text.start(Asked(prompt=ENGLISH)).source) == len(ENGLISH) > 32
    assert text.start(Asked(prompt="The", length=9)).length == 9


def test_unknown_characters_of_a_prompt_are_named():
    with pytest.raises(UsageError, match="Z 龍"):
        learnt([ENGLISH], tokens="characters").start(Asked(prompt="Z fox 龍"))


def test_a_source_is_continued_from_the_lines_or_characters_that_are_kept(tmp_path):
    path = str(file(tmp_path, "a.txt", ENGLISH))
    text = learnt([ENGLISH], tokens="bpe", vocabulary=300)
    for keep, kept in (("lines=1-1", ENGLISH.split("\n")[0] + "\n"), ("first=10", ENGLISH[:10]), (None, ENGLISH)):
        found = text.start(Asked(source=path, keep=keep))
        assert text.to_piece(found.source).content == ENGLISH
        assert text.to_piece(found.source[found.keep]).content == kept


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(bars=2), "bars mean nothing"),
        (Asked(keep="first=3"), "--source"),
        (Asked(rules=("rhyme",)), "needs a form"),
        (Asked(prompt="The quick", length=9), "leaves nothing"),
        (Asked(form="/a+/", prompt="The"), "begins with what is given"),
        (Asked(form="/The{3,}/", length=3), "at least"),
        (Asked(form="五言绝句"), "cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_in_words(asked, said):
    with pytest.raises(UsageError, match=said):
        learnt([ENGLISH], tokens="characters").start(asked)


def test_unknown_rules_and_odd_keeps_are_refused(tmp_path):
    text = learnt([ENGLISH], tokens="bytes")
    with pytest.raises(UnknownName, match="rhyme"):
        text.start(Asked(rules=("rime",)))
    with pytest.raises(UsageError, match="lines=1-2"):
        text.start(Asked(source=str(file(tmp_path, "a.txt", ENGLISH)), keep="lines=3-4"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_goes_on_from_a_prompt_and_fits_its_length(kind):
    text = learnt([POEM, OTHER], tokens=kind, vocabulary=400)
    found = text.start(Asked(prompt="白日", form="五言绝句"))
    guide, written = found.constraint.begin(0), found.source.tolist()
    for token in written:
        guide.push(token)
    chance = np.random.default_rng(1)
    while len(written) < found.length:
        token = int(chance.choice(torch.nonzero(guide.allowed()).flatten().numpy()))
        if token == 0:
            break
        guide.push(token)
        written.append(token)
    from maquette.verse import form_kept

    content = text.to_piece(torch.tensor(written)).content
    assert content.startswith("白日") and form_kept(content, "五言绝句")


# ---- out


def test_what_is_written_is_read_back_with_its_facts(tmp_path):
    text = Text()
    piece = Piece(POEM + "\n<b>", {"seed": 3, "model": "x", "score": float("nan")})
    for name in ("a.txt", "b.md", "c.json"):
        path = text.write(piece, tmp_path / name)
        assert [p.content for p in text.read(path)] == [piece.content]
        assert Text.read_facts(path) == {"seed": 3, "model": "x", "score": None}
    with pytest.raises(UsageError, match=r"\.txt"):
        text.write(piece, tmp_path / "a.png")
    assert Text.read_facts(file(tmp_path, "d.txt", "x")) == {}


def test_a_sheet_is_a_text_of_all_with_captions_and_an_exhibit_is_escaped(tmp_path):
    path = Text().sheet([Piece("one"), Piece("two")], tmp_path / "sheet.png", captions=["first", "second"])
    assert path.name == "sheet.txt"
    assert path.read_text() == "── first ──\n\none\n\n── second ──\n\ntwo\n"
    assert "&lt;b&gt;" in Text().exhibit(Piece("<b>")) and Text().units(Piece("é!")) == {"character": 2, "byte": 3}


def test_findings_stand_beside_those_of_held_out_texts():
    text = learnt([POEM, OTHER], tokens="characters")
    made, held = [Piece(POEM)] * 3, [Piece(OTHER), Piece(POEM)]
    train = [text.encode(text.to_array(Piece(POEM)))]
    found = {f.name: f for f in text.findings(Works(made, held, held, lambda: iter(train), Asked(form="五言绝句")))}
    assert all(f.space == "text" and f.low <= f.value <= f.high and f.n for f in found.values())
    assert found["longest copied span"].value == len(POEM) and found["self-BLEU"].value == 1
    assert found["form kept"].value == found["form kept"].reference == 1
    assert {"distinct 1", "distinct 2", "distinct 3", "repetition", "rhyme kept"} <= set(found)
    assert text.findings(Works([], held, held, lambda: iter(train))) == []


# ---- readers never crash, never hang

SUFFIXES = st.sampled_from(Text.suffixes)
UNITS = st.sampled_from(["auto", "file", "record", "paragraph", "line", "passage"])
HOSTILE = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.text('[]{}",:\\n01tfae \n\r\t;u\ud800', max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=HOSTILE, suffix=SUFFIXES, unit=UNITS, block=st.sampled_from([1, 7, 1 << 20]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path_factory, content, suffix, unit, block):
    path = file(tmp_path_factory.getbasetemp(), f"hostile{suffix}", content)
    text = Text(unit=unit, tokens="bytes", passage=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "BLOCK", block)
        try:
            for piece in text.read(path):
                json.dumps(dict(piece.facts), allow_nan=False)
                try:
                    stored = text.to_array(text.clean(piece))
                    assert stored.tobytes().decode()
                    text.sketch(text.clean(piece))
                except Unreadable:
                    pass
        except MaquetteError as error:
            assert isinstance(error, Unreadable) and str(error)


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=200))
def test_any_bytes_that_were_sampled_are_shown(sampled):
    text = learnt(["ab"], tokens="bytes")
    made = text.to_piece(torch.tensor([b + 1 for b in sampled], dtype=torch.long))
    made.content.encode()
