"""A Piece is one work and what is known about it; a Modality is how one kind of content is read, cleaned, shown, written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maquette.condition import Condition, Field
from maquette.errors import ContentError, UsageError
from maquette.finding import Finding
from maquette.space import Batch, Constraint, Likelihood, Space

if TYPE_CHECKING:
    from maquette.provenance.finishing import Marks


@dataclass(frozen=True)
class Piece:
    """content: what the modality works on (an image: uint8 array (H, W, C)); facts: source, label, licence, text ... or run, seed."""

    content: Any
    facts: Mapping[str, Any] = field(default_factory=dict)
    modality: Modality | None = field(default=None, repr=False, compare=False)
    marks: Marks | None = field(default=None, repr=False, compare=False)  # what its files get: labels, a signature ...

    def save(self, path: str | Path) -> Path:
        """Write a file a person can open; its suffix chooses the format. With marks: labelled, signed, entered in the ledger beside it."""
        if self.modality is None:
            raise ValueError("this piece belongs to no modality; pass modality= when you make it")
        if self.marks is None:
            return self.modality.write(self, Path(path))
        facts = {**self.facts, **self.marks.noted(self.content)}
        marked = replace(self, content=self.marks.marked(self.content), facts=facts)
        return self.marks.finish([self.modality.write(marked, Path(path))], facts)[0]


@dataclass(frozen=True)
class Asked:
    """What a person asks of a piece beside its condition, in words that the modality understands.

    source  a file to vary, continue or fill in; keep: what stays of it (a mask file; a voice; bars=1-4)
    prompt  how it begins; form: a form of verse or a pattern; rules: of composition; bars, length: how long
    """

    source: str | None = None
    keep: str | None = None
    prompt: str | None = None
    form: str | None = None
    rules: tuple[str, ...] = ()
    bars: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Start:
    """The same as tensors of one piece: source and keep (*space.shape), or (n,) of a ragged space; see SampleRequest."""

    source: Tensor | None = None
    keep: Tensor | None = None
    length: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Works:
    """What a modality may look at to judge generated pieces in its own terms.

    generated, held  new pieces and pieces of the test split; train: as many of the train split, for the floor
    training         passes once over the tokens (n,) of the whole train split
    asked            what was asked of the generated ones
    """

    generated: list[Piece]
    held: list[Piece]
    train: list[Piece]
    training: Callable[[], Iterator[np.ndarray]]
    asked: Asked = Asked()
    seed: int = 0


class Modality(ABC):
    """One kind of content. A constructor takes keyword-only settings; see `catalog.settings`.

    What is fitted on the train split lives in `fitted`, plain JSON, and is given back by `restore`.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()  # of the files it reads, lower case with dot
    companions: ClassVar[tuple[str, ...]] = ()  # of files it reads beside those, such as labels
    likelihood: Likelihood = "gaussian"
    formats: ClassVar[
        tuple[str, ...]
    ] = ()  # suffixes that `generate` writes of each piece; none: the first of `suffixes`
    pretty: ClassVar[str] = ""  # plural noun for sentences: "pictures"
    files: int = (
        0  # how many there are to read, once that is known: one long file may be read otherwise than many short ones
    )
    telling: ClassVar[
        tuple[str, ...]
    ] = ()  # names of its own findings whose sentences a verdict repeats: variety, novelty
    ragged: ClassVar[bool] = (
        False  # whether pieces have lengths of their own; then content is stored, learnt from, and encoded
    )

    @abstractmethod
    def read(self, path: Path) -> Iterator[Piece]:
        """The pieces of one file, which may hold many. Raises Unreadable; never writes, never follows a link elsewhere."""

    @abstractmethod
    def clean(self, piece: Piece) -> Piece:
        """Standardise, normalise, denoise by the steps of the recipe. Raises Unreadable for what cannot be made to fit."""

    @abstractmethod
    def fit(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """What must be learnt from pieces (a size, channels, a vocabulary) before they become tensors; JSON."""

    @abstractmethod
    def restore(self, fitted: Mapping[str, Any]) -> None:
        """Take up what `fit` returned, in another process."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """Known after fit or restore."""

    @abstractmethod
    def to_array(self, piece: Piece) -> np.ndarray:
        """What a corpus stores of a cleaned piece: (*space.shape), uint8 for pictures (see corpus.to_tensor). Of a ragged space
        (n,) of any integers, from which `encode` makes tokens: the bytes of a text."""

    def learn(self, train: Callable[[], Iterator[np.ndarray]]) -> dict[str, Any]:
        """Ragged: what must be learnt from the train split alone, such as a vocabulary; JSON, added to what `fit` gave and given to
        `restore`. `train()` passes over what `to_array` gave."""
        return {}

    def encode(self, stored: np.ndarray) -> np.ndarray:
        """Ragged: what `to_array` gave -> tokens (n,) without the end. Known after `learn` and `restore`, as `space` is."""
        return stored

    @property
    def unknown(self) -> int:
        """Ragged: the token of all that is not known; -1 where everything is."""
        return -1

    @abstractmethod
    def to_piece(self, x: Tensor, facts: Mapping[str, Any] | None = None) -> Piece:
        """x (*space.shape), float in [-1, 1] or int64 tokens (cut at the first end) -> a piece; the mirror of to_array."""

    @abstractmethod
    def write(self, piece: Piece, path: Path) -> Path:
        """Write one file with the piece's facts in its metadata where the format has any, else in a file beside it; atomic."""

    @staticmethod
    def read_facts(path: str | Path) -> dict[str, Any]:
        """What `write` noted with a piece; {} where there is nothing of ours. Raises Unreadable."""
        return {}

    @abstractmethod
    def sheet(self, pieces: list[Piece], path: Path, columns: int = 0, captions: list[str] | None = None) -> Path:
        """One file that shows many pieces at once: `path`, or the same with the suffix this modality needs."""

    @abstractmethod
    def start(self, asked: Asked) -> Start:
        """A person's words as tensors. Raises UsageError for what this modality does not know, ContentError, Unreadable."""

    def exhibit(self, piece: Piece) -> str:
        """A piece as HTML that needs nothing from outside, for reports."""
        return ""

    def augment(self, batch: Batch, condition: Condition | None = None) -> Batch:
        """A random variation that is still likely; what it changes of the conditions it says there. Chance from torch's global
        generator."""
        return batch

    def fields(self) -> list[Field]:
        """Fields of the condition that this modality always has, whatever the facts of the pieces say."""
        return []

    def conditions(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a person asks, as values of the fields of the corpus: mood=calm may stand for a tempo and a mode."""
        return dict(asked)

    def sketch(self, piece: Piece) -> np.ndarray | None:
        """Some numbers (K,) that near twins share; None where near twins are not looked for this way."""
        return None

    def twins(self, sketches: np.ndarray) -> np.ndarray:
        """sketches (N, K) -> group (N,) int64, the same for near twins."""
        return np.arange(len(sketches))

    def traces(self, piece: Piece) -> dict[str, np.ndarray]:
        """Sequences of symbols (n,) in which copies of this kind are looked for, the same names for every piece; negative is a break."""
        return {"tokens": self.to_tensor(piece).numpy().reshape(-1)}

    def symbols(self, piece: Piece) -> dict[str, np.ndarray]:
        """Sequences of symbols (n,) by which pieces of this kind are told apart where nothing is learnt, as `traces` are."""
        return {"tokens": self.to_tensor(piece).numpy().reshape(-1)}

    def given(self, start: Start) -> Piece | None:
        """Ragged: what of a new piece was given and is not the model's own, by itself; None where all is its own."""
        if start.source is None or start.keep is None or not bool(start.keep.any()):
            return None
        return self.to_piece(start.source[start.keep])

    def canaries(self, path: Path, alternatives: int, seed: int) -> Iterator[list[Piece]]:
        """Each canary of a file, cleaned, with so many others that chance might have put in its place, itself first. Raises UsageError."""
        raise UsageError(f"canaries are known of texts and music; {self.pretty or 'these pieces'} have none")

    def units(self, piece: Piece) -> dict[str, int]:
        """How many of what a likelihood may be divided by: {"character": 120, "byte": 131}."""
        return {}

    def measured(self, piece: Piece) -> dict[str, float]:
        """What can be told of a piece in a few numbers that a taste may hang on; the same names for every piece."""
        return {}

    def findings(self, works: Works) -> list[Finding]:
        """The modality's own figures, each beside the value of held-out pieces."""
        return []

    def advice(self) -> list[str]:
        """Sentences for the doctor's report, before training."""
        return []

    def to_tensor(self, piece: Piece) -> Tensor:
        """(*space.shape), as a model sees it; (n,) of a ragged space."""
        return torch.from_numpy(self.encode(self.to_array(piece)).astype(np.int64))

    def one(self, path: str | Path) -> Piece:
        """The only piece of a file. Raises ContentError where it holds none or many."""
        if not Path(path).is_file():
            raise ContentError(f"no file {path}; --source and --keep take the path of one file")
        pieces = list(self.read(Path(path)))
        if len(pieces) != 1:
            raise ContentError(f"{path} should hold one piece; it holds {len(pieces)}")
        return pieces[0]
