"""A keyed watermark of pictures by spread spectrum (Cox et al. 1997) in the cosine transform, on a grid of 64 x 64,
strong where the picture is smooth; asked of the differences of pixels from their surroundings, limited so that edges do not decide."""

from __future__ import annotations

from functools import cache, lru_cache
from math import erfc, sqrt

import numpy as np
import PIL.Image

GRID = 64  # a picture is brought to this side before it is asked, so that another size does not matter
SMALLEST = 64  # pixels of the shorter side
PSNR = 38.2  # dB that embedding keeps
NOISE = 255 / 10 ** (PSNR / 20)
LIMIT = 1.5  # grey levels beyond which a difference counts no more
WIDTH = 1.0  # of the surroundings, pixels of the grid
ROUNDS = 6  # of giving again what clipping took
LOW, HIGH = 6, 30  # frequencies that carry it


def embed(content: np.ndarray, key: bytes) -> np.ndarray:
    """(H, W, C) uint8 -> the same with the mark; one whose shorter side is below 64 comes back as it is. The mark is strong where the
    picture is smooth, and what clipping at black and white takes away is given again."""
    height, width, _ = content.shape
    if min(height, width) < SMALLEST:
        return content
    room = 1 / (1 + (_residue(content) / LIMIT) ** 2)
    mark = _enlarged(_spatial(key) * (0.1 + room), width, height)
    mark = mark * NOISE / np.sqrt((mark**2).mean())
    for _ in range(ROUNDS):
        mark = mark * min(1.5, NOISE / max(_noise(content, mark), 1e-3))
    while _noise(content, mark) > NOISE:
        mark = mark * 0.98
    return _clipped(content, mark)


def _clipped(content: np.ndarray, mark: np.ndarray) -> np.ndarray:
    marked, colours = content.copy(), _colours(content)
    marked[..., :colours] = np.clip(np.rint(content[..., :colours] + mark), 0, 255)
    return marked


def _noise(content: np.ndarray, mark: np.ndarray) -> float:
    change = (_clipped(content, mark).astype(np.float32) - content)[..., : _colours(content)]
    return float(np.sqrt((change**2).mean()))


def p_value(content: np.ndarray, key: bytes) -> float:
    """The chance that a picture which was not marked with this key agrees so well with it: under a random key the sum of signs times
    weights, over the root of the sum of their squares, is close to N(0, 1)."""
    z = score(content, key)
    return 0.5 * erfc(z / sqrt(2))


def score(content: np.ndarray, key: bytes) -> float:
    weights = _weights(content)
    norm = float(np.sqrt((weights**2).sum()))
    return float(weights @ _signs(key)) / norm if norm > 1e-9 else 0.0


def _weights(content: np.ndarray) -> np.ndarray:
    """Of what differs from its surroundings, limited so that edges do not decide, then pressed together so that no coefficient does."""
    residue = _residue(content)
    found = (_basis() @ (residue / (1 + np.abs(residue) / LIMIT)) @ _basis().T)[_band()]
    return found / (np.abs(found) + np.median(np.abs(found)) + 1e-9)


def _residue(content: np.ndarray) -> np.ndarray:
    """On the grid: each pixel less the mean of its surroundings."""
    grey = content[..., : _colours(content)].astype(np.float32).mean(-1)
    small = np.asarray(PIL.Image.fromarray(grey).resize((GRID, GRID), PIL.Image.Resampling.LANCZOS), np.float64)
    return small - _blur() @ small @ _blur().T


@cache
def _blur() -> np.ndarray:
    near = np.subtract.outer(np.arange(GRID), np.arange(GRID))
    weights = np.exp(-0.5 * (near / WIDTH) ** 2)
    return weights / weights.sum(1, keepdims=True)


def _colours(content: np.ndarray) -> int:
    return 3 if content.shape[2] >= 3 else 1


def _enlarged(pattern: np.ndarray, width: int, height: int) -> np.ndarray:
    image = PIL.Image.fromarray(pattern.astype(np.float32))
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC))[..., None]


def _spatial(key: bytes) -> np.ndarray:
    table, basis = np.zeros((GRID, GRID)), _basis()
    table[_band()] = _signs(key)
    return basis.T @ table @ basis


@lru_cache(4)
def _signs(key: bytes) -> np.ndarray:
    seed = int.from_bytes(key, "big")
    return np.random.default_rng(seed).choice([-1.0, 1.0], int(_band().sum()))


@cache
def _band() -> np.ndarray:
    radius = np.hypot(*np.mgrid[:GRID, :GRID])
    return (radius >= LOW) & (radius < HIGH)


@cache
def _basis() -> np.ndarray:
    """The orthonormal cosine transform (GRID, GRID)."""
    k, n = np.mgrid[:GRID, :GRID]
    return np.where(k == 0, sqrt(1 / GRID), sqrt(2 / GRID)) * np.cos(np.pi * (2 * n + 1) * k / (2 * GRID))
