"""The untrained space of sequences: which runs of one to three symbols a piece is made of, hashed with signs into 256 numbers (Weinberger 2009,
arXiv:0902.2206). Nothing is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from maquette import files
from maquette.piece import Modality, Piece
from maquette.spans import runs_of

NUMBERS = 256  # at most
ORDERS = (1, 2, 3)  # symbols of a run


class Grams:
    """Pieces -> (N, D): of each kind of symbols of the modality and each length of run the roots of its counts, brought to one length, so that
    a long piece weighs as much as a short one."""

    name = "n-grams"

    def __init__(self, modality: Modality, name: str):
        self.modality = modality
        self.hash = files.fingerprint(
            {"space": self.name, "modality": name, "version": 1, "orders": ORDERS, "numbers": NUMBERS}
        )
        self.words = (
            f"runs of {', '.join(map(str, ORDERS))} symbols of a piece, hashed into {NUMBERS} numbers, untrained"
        )

    def embed(self, pieces: Sequence[Piece]) -> Tensor:
        return torch.from_numpy(np.stack([hashed(self.modality.symbols(piece)) for piece in pieces]))


def hashed(symbols: Mapping[str, np.ndarray], numbers: int = NUMBERS) -> np.ndarray:
    """Name -> symbols (n,), negative is a break -> (D,) float32, D = numbers or a little less.

    >>> one, other = (hashed({"letters": np.frombuffer(t, np.uint8).astype(np.int64)}) for t in (b"abcabc", b"abcabcabcabc"))
    >>> bool(one @ other > 0.9 * np.linalg.norm(one) * np.linalg.norm(other))
    True
    """
    width = numbers // (len(symbols) * len(ORDERS))
    parts = [folded(runs_of(row, n)[0], width) for row in symbols.values() for n in ORDERS]
    return normalize(torch.from_numpy(np.stack(parts)), dim=1).mul_(width**0.5).numpy().reshape(-1)


def folded(runs: np.ndarray, width: int) -> np.ndarray:
    """Hashes of runs (k,) uint64 -> (width,) float32: the roots of their counts, each at a place and with a sign that its hash says. To hold
    none is as one more run, for zeros would lie nearer to all pieces than these to each other."""
    runs = runs if len(runs) else np.zeros(1, np.uint64)
    which, counts = np.unique(runs, return_counts=True)
    sign = 1.0 - 2.0 * ((which >> np.uint64(40)) & np.uint64(1)).astype(np.float64)
    place = (which % np.uint64(width)).astype(np.int64)
    return np.bincount(place, sign * np.sqrt(counts), minlength=width).astype(np.float32)
