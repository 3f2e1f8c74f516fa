"""Alphabets turn the UTF-8 bytes of a text into tokens and back: bytes, characters, byte-level BPE (Sennrich 2016, Radford 2019), or
the tokenizer.json of somebody else.

Token 0 closes a piece in those that are learnt here, from the train split alone; what is learnt is plain JSON.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maquette.errors import SettingError

Tokens = Literal["auto", "bytes", "characters", "bpe", "file"]
Train = Callable[[], Iterator[np.ndarray]]
END, UNKNOWN = "<end>", "<unknown>"  # their names in an exported tokenizer
REPLACEMENT = "\ufffd"  # what a token or bytes that mean nothing are shown as
MANY = 8_000  # different characters in the train split from which `auto` takes BPE
UNICODE = 0x110000
FED = 16 << 20  # bytes of text that BPE is learnt from, at most; of a larger train split every k-th piece
LONG = 1 << 16  # characters of the longest piece that are looked at to choose a context


class Alphabet(ABC):
    """texts: the bytes of each token, b"" for those that stand for nothing; end: closes a piece; unknown: stands for what is not
    known, or -1; never: tokens that are never written; spelled: whether the texts of its tokens one after another are the text."""

    kind: str
    texts: tuple[bytes, ...]
    end, unknown = 0, -1
    never: tuple[int, ...] = ()
    spelled = True

    @property
    def size(self) -> int:
        return len(self.texts)

    @property
    def writable(self) -> tuple[bytes, ...]:
        """`texts` without what is never written."""
        closed = {self.end, *self.never}
        return tuple(b"" if i in closed else text for i, text in enumerate(self.texts))

    @abstractmethod
    def encode(self, stored: np.ndarray) -> np.ndarray:
        """UTF-8 (n,) uint8 -> tokens (m,)"""

    def strange(self, text: str) -> list[str]:
        """The parts of a text that it does not know."""
        return []

    def decode(self, tokens: np.ndarray) -> str:
        """tokens (m,) up to the first end; bytes that are no UTF-8 become U+FFFD."""
        tokens = np.asarray(tokens)
        closed = np.flatnonzero(tokens == self.end)
        return self._joined(tokens[: closed[0]] if len(closed) else tokens)

    def _joined(self, tokens: np.ndarray) -> str:
        return b"".join(self.texts[t] for t in tokens.tolist()).decode("utf-8", "replace")


class Bytes(Alphabet):
    """Token = byte + 1.

    >>> Bytes().encode(np.frombuffer(b"ab", np.uint8)).tolist()
    [98, 99]
    """

    kind = "bytes"
    texts = (b"", *(bytes([b]) for b in range(256)))

    def encode(self, stored: np.ndarray) -> np.ndarray:
        return stored.astype(np.int32) + 1

    def _joined(self, tokens: np.ndarray) -> str:
        return (tokens - 1).astype(np.uint8).tobytes().decode("utf-8", "replace")


class Characters(Alphabet):
    """0 end, 1 unknown, then characters, the most frequent first.

    >>> Characters("ab").encode(np.frombuffer(b"abc", np.uint8)).tolist()
    [2, 3, 1]
    """

    kind, unknown, never = "characters", 1, (1,)

    def __init__(self, characters: str):
        self.characters = characters
        self.texts = (b"", REPLACEMENT.encode(), *(c.encode() for c in characters))

    @cached_property
    def _numbers(self) -> np.ndarray:
        table = np.full(UNICODE, self.unknown, np.int32)
        table[codepoints(self.characters)] = np.arange(2, len(self.characters) + 2)
        return table

    def encode(self, stored: np.ndarray) -> np.ndarray:
        return self._numbers[codepoints(stored.tobytes().decode())]

    def strange(self, text: str) -> list[str]:
        return [c for c in text if c not in self.characters]


class Bpe(Alphabet):
    """facts: a Hugging Face tokenizer.json as plain data."""

    kind = "bpe"

    def __init__(self, facts: Mapping[str, Any]):
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(json.dumps(facts))
        self._tokenizer.encode_special_tokens = True  # "<end>" in a text is five letters
        letters = _byte_letters()
        names = sorted(facts["model"]["vocab"].items(), key=lambda item: item[1])
        self.texts = tuple(b"" if i == self.end else bytes(letters[c] for c in name) for name, i in names)

    def encode(self, stored: np.ndarray) -> np.ndarray:
        return np.array(self._tokenizer.encode(stored.tobytes().decode(), add_special_tokens=False).ids, np.int32)


class Foreign(Alphabet):
    """Somebody else's tokenizer.json as plain data, and the token of it that closes a piece. One to one: what its model reads.

    Special tokens that stand in a text are read as letters; none but the end is ever written.
    """

    kind = "file"

    def __init__(self, facts: Mapping[str, Any], end: int):
        from tokenizers import Tokenizer

        self.end, self._tokenizer = end, Tokenizer.from_str(json.dumps(facts))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        names = {i: name for name, i in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        special = {t["id"] for t in facts.get("added_tokens") or () if t.get("special")}
        self.unknown = _unknown_of(facts["model"], self._tokenizer)
        self.never = tuple(
            i for i in range(max(names) + 1) if i != end and (i in special | {self.unknown} or i not in names)
        )
        spell = _spelling(facts.get("decoder"))
        self.spelled = spell is not None
        silent = {end, *self.never} if spell else set(range(max(names) + 1))
        self.texts = tuple(b"" if i in silent else spell(names[i]) for i in range(max(names) + 1))  # type: ignore[misc]

    def encode(self, stored: np.ndarray) -> np.ndarray:
        found = self._tokenizer.encode(stored.tobytes().decode(), add_special_tokens=False).ids
        return np.array([i for i in found if i != self.end], np.int32)  # an end within a piece would cut it

    def strange(self, text: str) -> list[str]:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return [text[a:b] for (a, b), i in zip(found.offsets, found.ids, strict=True) if i == self.unknown]

    def _joined(self, tokens: np.ndarray) -> str:
        return super()._joined(tokens) if self.spelled else self._tokenizer.decode(tokens.tolist())


def _unknown_of(model: Mapping[str, Any], tokenizer: Any) -> int:
    if isinstance(number := model.get("unk_id"), int):
        return number
    name = model.get("unk_token")
    found = tokenizer.token_to_id(name) if isinstance(name, str) else None
    return -1 if found is None else found


def _spelling(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes] | None:
    """How the name of a token becomes its bytes, where a text is the bytes of its tokens one after another; else none."""
    parts = [] if decoder is None else decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"]:
        letters = _byte_letters()
        return lambda name: bytes(letters[c] for c in name) if set(name) <= letters.keys() else name.encode()
    swaps = [(p["pattern"].get("String"), p["content"]) for p in parts if p["type"] == "Replace"]
    if (
        "Fuse" not in kinds
        or not {"Replace", "ByteFallback", "Fuse"}.issuperset(kinds)
        or any(a is None for a, _ in swaps)
    ):
        return None

    def spell(name: str) -> bytes:
        if "ByteFallback" in kinds and (byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name)):
            return bytes([int(byte[1], 16)])
        for old, new in swaps:
            name = name.replace(old, new)
        return name.encode()

    return spell


def codepoints(text: str) -> np.ndarray:
    """(n,) uint32"""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


# ---- learning


def learn(tokens: Tokens, train: Train, vocabulary: int, size: int = 0) -> dict[str, Any]:
    """{"tokens", "characters" or "tokenizer", "longest": tokens of the longest piece}; size: bytes of all pieces, where known.

    One pass over the train split; `auto` takes a second where it finds too many characters for itself.
    """
    if tokens == "bytes":
        return {"tokens": "bytes", "longest": max((len(piece) for piece in train()), default=1)}
    if tokens in ("auto", "characters"):
        counts, longest = _count(train())
        known = np.flatnonzero(counts)
        if tokens == "characters" or len(known) <= MANY:
            order = known[np.argsort(-counts[known], kind="stable")]
            return {"tokens": "characters", "characters": "".join(map(chr, order.tolist())), "longest": longest}
    return _learn_bpe(train(), vocabulary, ceil(size / FED) or 1)


def _count(pieces: Iterable[np.ndarray], block: int = 1 << 20) -> tuple[np.ndarray, int]:
    """How often each code point occurs, and the characters of the longest piece."""
    counts, held, weight, longest = np.zeros(UNICODE, np.int64), [], 0, 1

    def count() -> None:
        counts[:] += np.bincount(codepoints(b"".join(held).decode()), minlength=UNICODE)

    for piece in pieces:
        longest = max(longest, int((piece & 0xC0 != 0x80).sum()))
        held.append(piece.tobytes())
        weight += len(piece)
        if weight > block:
            count()
            held, weight = [], 0
    count()
    return counts, longest


def _learn_bpe(pieces: Iterable[np.ndarray], vocabulary: int, stride: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary < 300:
        raise SettingError(f"vocabulary should be at least 300 for bpe (256 are the bytes); {vocabulary} came")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    longest = [""]

    def texts() -> Iterator[str]:
        for k, piece in enumerate(pieces):
            text = piece.tobytes().decode()
            if len(text) > len(longest[0]):
                longest[0] = text[:LONG]
            if k % stride == 0:
                yield text

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(texts(), trainer)
    return {"tokens": "bpe", "tokenizer": json.loads(made.to_str()), "longest": len(made.encode(longest[0]).ids) or 1}


def restored(fitted: Mapping[str, Any]) -> Alphabet:
    """The alphabet that `learn` or `lent` described."""
    if fitted["tokens"] == "bytes":
        return Bytes()
    if fitted["tokens"] == "file":
        return Foreign(fitted["tokenizer"], fitted["end"])
    return Characters(fitted["characters"]) if fitted["tokens"] == "characters" else Bpe(fitted["tokenizer"])


# ---- somebody else's


def lent(path: str, end: str) -> dict[str, Any]:
    """{"tokens": "file", "tokenizer", "end"} of a tokenizer.json and the name of the token that ends a piece; where none is named, the
    eos_token of the tokenizer_config.json beside it. Raises SettingError."""
    from tokenizers import Tokenizer

    facts = _read(Path(path).expanduser())
    try:
        known = Tokenizer.from_str(json.dumps(facts))
    except Exception as error:  # the library raises nothing narrower
        said = " ".join(str(error).split())[:160]
        raise SettingError(
            f"text.tokenizer should be a tokenizer.json of Hugging Face; {path} is none ({said})"
        ) from None
    name = end or _eos(Path(path).expanduser().with_name("tokenizer_config.json"))
    number = known.token_to_id(name) if name else None
    if number is None:
        special = ", ".join(t["content"] for t in (facts.get("added_tokens") or ())[:10]) or "none"
        came = (
            f"{name!r} is none of its {known.get_vocab_size():,} tokens"
            if name
            else "no tokenizer_config.json beside it names one"
        )
        raise SettingError(
            f"text.end should be the token of {path} that ends a piece; {came}; its special tokens are {special}"
        )
    return {"tokens": "file", "tokenizer": facts, "end": number}


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise SettingError(
            f"text.tokenizer should be a file; {path} is a folder, did you mean {path / 'tokenizer.json'}?"
        )
    if not path.is_file():
        raise SettingError(f"text.tokenizer should be the path of a tokenizer.json; there is no file {path}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(
            f"text.tokenizer should be a tokenizer.json; {path} cannot be read as JSON ({error})"
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise SettingError(f"text.tokenizer should be a tokenizer.json of Hugging Face; {path} has no model in it")
    return found


def _eos(path: Path) -> str:
    """The end by its name, "" where that is not said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return ""
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) else ""


def longest_of(alphabet: Alphabet, train: Train) -> int:
    """Tokens of the longest piece, as far as its first LONG bytes or so."""
    longest = max(train(), key=len, default=np.zeros(0, np.uint8))[:LONG]
    return len(alphabet.encode(np.frombuffer(longest.tobytes().decode(errors="ignore").encode(), np.uint8))) or 1


# ---- export


def tokenizer_json(fitted: Mapping[str, Any]) -> str:
    """A Hugging Face tokenizer.json whose numbers are ours; of what was learnt here token 0 is the special token <end>."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    if fitted["tokens"] in ("bpe", "file"):
        return json.dumps(fitted["tokenizer"], ensure_ascii=False)
    if fitted["tokens"] == "bytes":
        made = Tokenizer(models.BPE({END: 0} | {c: b + 1 for c, b in _byte_letters().items()}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    else:
        names = {END: 0, UNKNOWN: 1} | {c: i for i, c in enumerate(fitted["characters"], 2)}
        made = Tokenizer(models.WordLevel(names, unk_token=UNKNOWN))
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        made.decoder = decoders.Fuse()
    made.add_special_tokens([END])
    return made.to_str()


@cache
def _byte_letters() -> dict[str, int]:
    """The printable letter that byte-level BPE writes each byte as."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + k): b for k, b in enumerate(others)}
