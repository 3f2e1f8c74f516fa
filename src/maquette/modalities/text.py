"""Texts: .txt and .md files, records of JSON and CSV, as tokens of bytes, characters or BPE."""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from math import log1p
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maquette import alphabet, files, prose, shingles, texts, verse
from maquette.alphabet import Alphabet, Tokens, tokenizer_json
from maquette.errors import CorpusError, MaquetteError, SettingError, UnknownName, Unreadable, UsageError
from maquette.finding import Finding
from maquette.guide import FAR, Form, Never
from maquette.piece import Asked, Modality, Piece, Start, Works
from maquette.space import Likelihood, Space
from maquette.texts import Step, Unit

__all__ = ["Text", "tokenizer_json"]

PLAIN, RECORDS = (".txt", ".md"), (".json", ".jsonl", ".csv", ".tsv")
MULTIPLE, SHORTEST, LONGEST = 32, 32, 256  # tokens of a context that is chosen
MANY = 20  # files from which each is a piece of its own
HUGE = 8 << 20  # bytes of a file that is cut into passages however many there are
FEWEST = 20_000  # characters below which what is new is hardly to be expected
FROM_PROMPT = ("unicode", "compatibility", "controls")  # steps that leave the ends of a text alone


class Text(Modality):
    """content is a str.

    >>> text = Text(tokens="characters")
    >>> text.restore(text.learn(lambda: iter([text.to_array(Piece("abba"))])))
    >>> text.space.vocabulary, text.to_tensor(Piece("ab")).tolist()
    (4, [2, 3])
    """

    suffixes: ClassVar[tuple[str, ...]] = (*PLAIN, *RECORDS)
    likelihood: Likelihood = "categorical"
    pretty: ClassVar[str] = "texts"
    telling: ClassVar[tuple[str, ...]] = ("distinct 2", "longest copied span")
    ragged: ClassVar[bool] = True

    def __init__(
        self,
        *,
        tokens: Annotated[
            Tokens,
            Field(
                description=f"auto: characters where at most {alphabet.MANY:,} different ones occur, else bpe; "
                "file: those of `tokenizer`, for a borrowed model"
            ),
        ] = "auto",
        vocabulary: Annotated[int, Field(ge=300, le=1 << 20, description="tokens of bpe, at most")] = 4096,
        tokenizer: Annotated[str, Field(description="tokens=file: path of a Hugging Face tokenizer.json")] = "",
        end: Annotated[
            str,
            Field(
                description="tokens=file: name of the token that ends a piece; none: eos_token of tokenizer_config.json beside it"
            ),
        ] = "",
        context: Annotated[
            int,
            Field(
                ge=0,
                le=1 << 16,
                description=f"tokens a model sees at once; 0: the longest text, {SHORTEST} to {LONGEST}",
            ),
        ] = 0,
        unit: Annotated[
            Unit, Field(description="what a piece is; auto: a record, a file, or passages of a long file")
        ] = "auto",
        column: Annotated[
            str,
            Field(
                description=f"field of a record that holds the text; auto: {', '.join(texts.COLUMNS)}, or the only one"
            ),
        ] = "auto",
        passage: Annotated[int, Field(ge=16, le=1 << 22, description="characters of a passage, about")] = 4000,
        encoding: Annotated[
            str, Field(description="auto: UTF-8, or UTF-16 and UTF-32 by their byte order mark; else its name")
        ] = "auto",
        steps: Annotated[tuple[Step, ...], Field(description="cleaning steps in their order")] = (
            "boilerplate",
            "unicode",
            "controls",
            "spaces",
        ),
    ):
        if (tokens == "file") != bool(tokenizer) or (end and tokens != "file"):
            raise SettingError(
                f"tokens=file and tokenizer=PATH belong together, and end=NAME to them; tokens={tokens}, tokenizer={tokenizer!r}, end={end!r} came"
            )
        self.tokens, self.vocabulary, self.context, self.unit = tokens, vocabulary, context, unit
        self.tokenizer, self.end = tokenizer, end
        self.column, self.passage, self.encoding, self.steps = column, passage, _encoding(encoding), tuple(steps)
        self.files = 0  # how many are read; 0: not known
        self.fitted: dict[str, Any] = {}
        self._forms: dict[tuple[str, tuple[str, ...]], Form] = {}

    # ---- in

    def read(self, path: Path) -> Iterator[Piece]:
        """One by one, without holding the file."""
        with _unreadable(path.name):
            yield from self._records(path) if path.suffix.lower() in RECORDS else self._plain(path)

    def _plain(self, path: Path) -> Iterator[Piece]:
        unit = self._unit(path)
        found = texts.blocks(path, self.encoding)
        found = texts.body(found) if "boilerplate" in self.steps else found
        if unit in ("file", "record"):
            yield Piece(texts.whole(found), {"source": path.name}, self)
            return
        for number, text in enumerate(texts.cut(found, unit, self.passage)):
            yield Piece(text, {"source": path.name, "member": number}, self)

    def _unit(self, path: Path) -> Unit:
        """Of a plain file. One long text becomes passages, many files a piece each; where their number is not known, size decides."""
        if self.unit != "auto":
            return self.unit
        size = path.stat().st_size
        long = size > HUGE or (self.files < MANY and size > self.passage * (2 if self.files else 4))
        return "passage" if long else "file"

    def _records(self, path: Path) -> Iterator[Piece]:
        if self.unit == "file":
            raise Unreadable(f"{path.name}: it holds records, so a file is no unit of it; --set unit=record")
        unit = "file" if self.unit in ("auto", "record") else self.unit
        number = 0
        for record in texts.records(path, self.column, self.encoding):
            for text in texts.cut([record.text], unit, self.passage):
                facts = {k: v for k, v in record.facts.items() if k not in ("source", "member")}
                yield Piece(text, {**facts, "source": path.name, "member": number}, self)
                number += 1

    def one(self, path: str | Path) -> Piece:
        """A plain file as a whole, whatever the unit is; of records the only one."""
        if Path(path).suffix.lower() in RECORDS or not Path(path).is_file():
            return super().one(path)
        with _unreadable(Path(path).name):
            try:
                text = texts.whole(texts.blocks(Path(path), self.encoding))
            except Unreadable as error:  # an encoding is a setting of `prepare`
                raise Unreadable(
                    str(error).split(": --set ")[0] + "; save it as UTF-8" * (": --set " in str(error))
                ) from None
            return Piece(text, {"source": Path(path).name}, self)

    def clean(self, piece: Piece) -> Piece:
        text = piece.content
        for step in self.steps:
            text = texts.STEPS[step](text)
        if not text or text.isspace():
            raise Unreadable("it holds nothing but white space")
        if len(text) < 2:
            raise Unreadable("it is a single character; a text has at least two")
        if (broken := _surrogate(text)) is not None:
            raise Unreadable(f"character {broken} is half of a pair (a lone surrogate), which is no character")
        return Piece(text, piece.facts, self)

    def fit(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """How much there is; what the vocabulary is only the train split says, or the tokenizer of somebody else."""
        lent = alphabet.lent(self.tokenizer, self.end) if self.tokens == "file" else {}
        count, size = 0, 0
        for piece in pieces:
            count += 1
            size += len(piece.content.encode("utf-8", "surrogatepass"))
        return {"seen": count, "bytes": size, **lent}

    def learn(self, train: alphabet.Train) -> dict[str, Any]:
        """The vocabulary and the context, in one pass over the train split; `auto` takes a second where it falls back to BPE."""
        if self.tokens == "file":
            lent = {k: self.fitted[k] for k in ("tokens", "tokenizer", "end")}
            found = {**lent, "longest": alphabet.longest_of(self.alphabet, train)}
        else:
            found = alphabet.learn(self.tokens, train, self.vocabulary, self.fitted.get("bytes", 0))
        longest = -(-(found["longest"] + 1) // MULTIPLE) * MULTIPLE  # one more for the end
        return {**found, "context": self.context or min(max(longest, SHORTEST), LONGEST)}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """fitted: what `fit` and `learn` gave."""
        self.fitted = dict(fitted)
        self._forms = {}
        self.__dict__.pop("alphabet", None)

    @cached_property
    def alphabet(self) -> Alphabet:
        if "tokens" not in self.fitted:
            raise CorpusError("the vocabulary of these texts has not been learnt yet; `maquette prepare` does it")
        return alphabet.restored(self.fitted)

    def tokenizer_json(self) -> dict[str, Any]:
        """A Hugging Face tokenizer.json of these tokens, for `maquette export`."""
        return json.loads(tokenizer_json(self.fitted))

    @property
    def space(self) -> Space:
        return Space("tokens", (self.fitted.get("context", LONGEST),), self.alphabet.size, end=self.alphabet.end)

    @property
    def unknown(self) -> int:
        return self.alphabet.unknown

    def to_array(self, piece: Piece) -> np.ndarray:
        """(n,) uint8, UTF-8"""
        return np.frombuffer(piece.content.encode(), np.uint8)

    def encode(self, stored: np.ndarray) -> np.ndarray:
        return self.alphabet.encode(stored)

    def sketch(self, piece: Piece) -> np.ndarray:
        return shingles.sketch(piece.content)

    def twins(self, sketches: np.ndarray) -> np.ndarray:
        return shingles.groups(sketches)

    def traces(self, piece: Piece) -> dict[str, np.ndarray]:
        """Letters and digits, case folded: what is the same but for spaces and marks is the same."""
        folded = "".join(c for c in piece.content.casefold() if c.isalnum())
        return {"letters": np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)}

    def symbols(self, piece: Piece) -> dict[str, np.ndarray]:
        """Every character, spaces and marks too: how a text is laid out is part of how it is written."""
        return {"characters": np.frombuffer(piece.content.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)}

    def canaries(self, path: Path, alternatives: int, seed: int) -> Iterator[list[Piece]]:
        """One a line, what was drawn by chance in braces: my code is {40381}. Digits and letters a-z in them are drawn anew."""
        for lines in texts.canaries(path, alternatives, seed):
            yield [self.clean(Piece(line)) for line in lines]

    def units(self, piece: Piece) -> dict[str, int]:
        return {"character": len(piece.content), "byte": len(piece.content.encode())}

    def advice(self) -> list[str]:
        found = []
        if (size := self.fitted.get("bytes", FEWEST)) < FEWEST:
            found.append(f"{size:,} bytes of text are little: a model will mostly repeat them; add more if you can")
        if self.fitted.get("tokens") == "characters":
            found.append(
                f"{len(self.fitted['characters']):,} characters were learnt from the train split; any other is read as one unknown "
                f"token, which is never written (--set tokens=bytes knows all)"
            )
        longest, context = self.fitted.get("longest", 0), self.fitted.get("context", 0)
        if longest >= context > 0:
            found.append(
                f"the longest text has {longest:,} tokens, a model sees {context} at once; --set context={min(2 * context, 4096)} "
                f"shows it more, slowly"
            )
        return found

    # ---- out

    def to_piece(self, x: Tensor, facts: Mapping[str, Any] | None = None) -> Piece:
        return Piece(self.alphabet.decode(x.detach().cpu().numpy()), dict(facts or {}), self)

    def start(self, asked: Asked) -> Start:
        """prompt: how it begins. source: a text to continue, keep: lines=1-2 or first=100 of it. form, rules: see verse.py. length: tokens."""
        if asked.bars:
            raise UsageError("bars mean nothing to texts; --length takes tokens, --form a form of verse")
        begun, rest = self._begun(asked)
        given = self._numbers(begun)
        more = self._numbers(rest)
        length = self._length(asked, len(given))
        rule = self._rule(asked, begun, length - len(given))
        if rule is not None and isinstance(rule, Form):
            length = asked.length or max(length, len(given) + 2 * rule.left_after(begun))
            rule = rule.within(length)
        if not len(given):
            return Start(length=length if asked.length or asked.form else None, constraint=rule)
        source = torch.from_numpy(np.concatenate([given, more]).astype(np.int64))
        return Start(source, torch.arange(len(source)) < len(given), length, rule)

    def _length(self, asked: Asked, given: int) -> int:
        if asked.length is not None and asked.length <= given:
            raise UsageError(f"length={asked.length} leaves nothing to write after the {given} tokens that are given")
        return asked.length or given + self.space.shape[0] * (given > 0) or self.space.shape[0]

    def _begun(self, asked: Asked) -> tuple[str, str]:
        """What is given, and what follows it in the source."""
        if asked.source is None and asked.keep is not None:
            raise UsageError("keep says what stays of a source; --source names its file")
        if asked.prompt is not None and asked.source is not None:
            raise UsageError("a prompt and a source are two beginnings; give one of them")
        if asked.source is not None:
            text = self.clean(self.one(asked.source)).content
            stop = len(text) if asked.keep is None else _kept(text, asked.keep)
            return text[:stop], text[stop:]
        text = asked.prompt or ""
        for step in (s for s in self.steps if s in FROM_PROMPT):
            text = texts.STEPS[step](text)
        return text, ""

    def _numbers(self, text: str) -> np.ndarray:
        """Tokens of a text. Raises UsageError naming characters that are not known."""
        if (broken := _surrogate(text)) is not None:
            raise UsageError(
                f"character {broken} of what is given is half of a pair (a lone surrogate), which is no character"
            )
        if strange := self.alphabet.strange(text):
            names = " ".join(dict.fromkeys(strange))
            raise UsageError(f"these characters do not occur in the texts that were learnt from: {names[:100]}")
        return self.encode(self.to_array(Piece(text)))

    def _rule(self, asked: Asked, begun: str, left: int) -> Form | Never | None:
        if asked.form is None:
            if unknown := next(iter(asked.rules), None):
                if unknown not in verse.RULES:
                    raise UnknownName("rule", unknown, verse.RULES)
                raise UsageError(
                    f"{unknown} needs a form that says where lines end, such as --form 五言绝句 or lines=4x7"
                )
            return Never(self.alphabet.never, self.alphabet.size) if self.alphabet.never else None
        form = self._form(asked.form, tuple(asked.rules))
        needed = form.left_after(begun)
        if needed >= FAR:
            raise UsageError(f"no text of the form {asked.form} begins with what is given: {begun[:60]!r}")
        if asked.length and needed > left:
            raise UsageError(f"{asked.form} needs {needed} more tokens at least; length={asked.length} leaves {left}")
        return form

    def _form(self, name: str, rules: tuple[str, ...]) -> Form:
        if not self.alphabet.spelled:
            raise UsageError(
                f"the form {name} needs tokens that are each a part of the text, and this tokenizer.json joins its own in another way; "
                f"prepare with tokens=auto, bytes, characters or bpe"
            )
        if (name, rules) not in self._forms:
            self._forms[name, rules] = verse.form(name, self.alphabet.writable, self.alphabet.end, rules)
        return self._forms[name, rules]

    def write(self, piece: Piece, path: Path) -> Path:
        """.txt or .md with the facts in <file>.json beside it; .json holds both."""
        path = Path(path)
        if path.suffix.lower() not in (*PLAIN, ".json"):
            raise UsageError(f"a text is written as .txt, .md or .json; {path.name} came")
        facts = _plain_facts(piece.facts)
        if path.suffix.lower() == ".json":
            return files.write_json(path, {"text": piece.content, "maquette": facts})
        if facts:
            files.write_json(path.with_name(path.name + ".json"), facts)
        return files.write_bytes(path, piece.content.encode("utf-8", "replace"))

    @staticmethod
    def read_facts(path: str | Path) -> dict[str, Any]:
        """What `write` noted with a text; {} where there is nothing of ours. Raises Unreadable."""
        path = Path(path)
        inside = path.suffix.lower() == ".json"
        place = path if inside else path.with_name(path.name + ".json")
        if not path.is_file():
            raise Unreadable(f"{path.name}: there is no such file")
        try:
            found = files.read_json(place) if place.is_file() else {}
        except (OSError, ValueError, RecursionError):
            return {}
        found = found.get("maquette") if inside and isinstance(found, dict) else found
        return found if isinstance(found, dict) else {}

    def sheet(self, pieces: list[Piece], path: Path, columns: int = 0, captions: list[str] | None = None) -> Path:
        """A .txt file of all pieces, each under its caption."""
        names = captions or [str(k + 1) for k in range(len(pieces))]
        parts = [f"── {name} ──\n\n{piece.content}\n" for name, piece in zip(names, pieces, strict=False)]
        return files.write_bytes(Path(path).with_suffix(".txt"), "\n".join(parts).encode("utf-8", "replace"))

    def exhibit(self, piece: Piece) -> str:
        return f'<pre style="white-space: pre-wrap">{html.escape(piece.content)}</pre>'

    def measured(self, piece: Piece) -> dict[str, float]:
        """Length, lines and how long they are, and how much is written between marks."""
        lines = [line for line in piece.content.splitlines() if line.strip()]
        parts = prose.words(piece.content)
        marks = sum(not any(c.isalnum() for c in part) for part in parts)
        return {
            "characters": log1p(len(piece.content)),
            "lines": log1p(len(lines)),
            "line": len(piece.content) / max(1, len(lines)),
            "marks": marks / max(1, len(parts)),
        }

    def findings(self, works: Works) -> list[Finding]:
        """See prose.py: variety, self-BLEU, repetition, the longest copied span, forms and rhyme."""

        def training() -> Iterator[str]:
            return (self.alphabet.decode(tokens) for tokens in works.training())

        generated, held = ([p.content for p in pieces] for pieces in (works.generated, works.held))
        asked = works.asked
        return prose.findings(generated, held, training, form=asked.form, rules=asked.rules, seed=works.seed)


def _encoding(name: str) -> str:
    try:
        known = name == "auto" or codecs.lookup(name)._is_text_encoding  # type: ignore[attr-defined]
        codecs.getincrementaldecoder("utf-8" if name == "auto" else name)
    except LookupError:
        known = False
    if not known:
        raise SettingError(f"text.encoding should be auto or an encoding such as utf-8, gb18030, cp1252; {name!r} came")
    return name


@contextmanager
def _unreadable(name: str) -> Iterator[None]:
    """What a reader raises names its file; what the disk or a codec raises is one thing to us: this file cannot be read."""
    try:
        yield
    except Unreadable as error:
        said = str(error)
        raise Unreadable(said if said.startswith(name) else f"{name}: {said}") from None
    except (MaquetteError, GeneratorExit):
        raise
    except PermissionError:
        raise Unreadable(f"{name}: may not be read (permission denied)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(
            f"{name}: cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from None


def _surrogate(text: str) -> int | None:
    """Where half of a pair stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


_KEEP: dict[str, Callable[[str, int], int]] = {
    "first": lambda text, n: n if n <= len(text) else -1,
    "lines": lambda text, n: len("".join(lines[:n])) if n <= len(lines := text.splitlines(keepends=True)) else -1,
}


def _kept(text: str, keep: str) -> int:
    """The characters that `first=100` or `lines=1-2` keep. Raises UsageError."""
    found = re.fullmatch(r"(first|lines)=(?:1-)?(\d+)", keep)
    if not found or int(found[2]) < 1:
        raise UsageError(f"of a text its beginning is kept, as first=100 (characters) or lines=1-2; {keep} came")
    kept = _KEEP[found[1]](text, int(found[2]))
    if kept < 0:
        raise UsageError(f"the source has {len(text.splitlines())} lines of {len(text)} characters in all; {keep} came")
    return kept


def _plain_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as JSON can write them."""
    return json.loads(json.dumps(dict(facts), default=str), parse_constant=lambda name: None)
