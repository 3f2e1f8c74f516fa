"""A Piece is one work and what is known about it; a Modality is how one kind of content is read, cleaned, shown, written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maquette.space import Likelihood, Space


@dataclass(frozen=True)
class Piece:
    """content: what the modality works on (an image: uint8 array (H, W, C)); facts: source, label, licence, text ... or run, seed."""

    content: Any
    facts: Mapping[str, Any] = field(default_factory=dict)
    modality: Modality | None = field(default=None, repr=False, compare=False)

    def save(self, path: str | Path) -> Path:
        """Write a file a person can open; its suffix chooses the format."""
        if self.modality is None:
            raise ValueError("this piece belongs to no modality; pass modality= when you make it")
        return self.modality.write(self, Path(path))


class Modality(ABC):
    """One kind of content. A constructor takes keyword-only settings; see `catalog.settings`.

    What is fitted on the train split lives in `fitted`, plain JSON, and is given back by `restore`.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()  # of the files it reads, lower case with dot
    companions: ClassVar[tuple[str, ...]] = ()  # of files it reads beside those, such as labels
    likelihood: Likelihood = "gaussian"
    pretty: ClassVar[str] = ""  # plural noun for sentences: "pictures"

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
        """What a corpus stores of a cleaned piece: (*space.shape), uint8 for pictures (see corpus.to_float)."""

    @abstractmethod
    def to_piece(self, x: Tensor, facts: Mapping[str, Any] | None = None) -> Piece:
        """x (*space.shape), float in [-1, 1] or int64 tokens -> a piece; the mirror of to_array."""

    @abstractmethod
    def write(self, piece: Piece, path: Path) -> Path:
        """Write one file with the piece's facts in its metadata where the format has any; atomic."""

    @abstractmethod
    def sheet(self, pieces: list[Piece], path: Path, columns: int = 0, captions: list[str] | None = None) -> Path:
        """One file that shows many pieces at once."""

    @abstractmethod
    def keep(self, path: Path) -> Tensor:
        """A mask a person can draw -> (*space.shape) bool, True where a source stays as it is."""

    def augment(self, x: Tensor) -> Tensor:
        """x (B, *space.shape) -> a random variation that is still a likely piece; chance from torch's global generator."""
        return x

    def advice(self) -> list[str]:
        """Sentences for the doctor's report, before training."""
        return []

    def to_tensor(self, piece: Piece) -> Tensor:
        """(*space.shape), as a model sees it."""
        return torch.from_numpy(self.to_array(piece))
