"""A keyed watermark of pictures by spread spectrum (Cox et al. 1997) in low frequencies of the cosine transform, on a grid of 64 x 64."""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np
import PIL.Image

GRID = 64  # a picture is brought to this side before it is asked, so that another size does not matter
SMALLEST = 64  # pixels of the shorter side
PSNR = 38.5  # dB that embedding keeps
LOW, HIGH = 3, 22  # frequencies that carry it


def embed(content: np.ndarray, key: bytes) -> np.ndarray:
    """(H, W, C) uint8 -> the same with the mark; one whose shorter side is below 64 comes back as it is."""
    height, width, channels = content.shape
    if min(height, width) < SMALLEST:
        return content
    pattern = PIL.Image.fromarray(_spatial(key)).resize((width, height), PIL.Image.Resampling.BICUBIC)
    mark = np.asarray(pattern)[..., None]
    mark = mark / np.sqrt((mark**2).mean())
    marked, colours = content.copy(), min(channels, 3) if channels != 2 else 1
    strength = 255 / 10 ** (PSNR / 20)
    marked[..., :colours] = np.clip(np.rint(content[..., :colours] + strength * mark), 0, 255)
    return marked


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
    """Whitened by frequency, then pressed together so that no single coefficient decides."""
    grey = content[..., : 3 if content.shape[2] >= 3 else 1].astype(np.float32).mean(-1)
    small = PIL.Image.fromarray(grey).resize((GRID, GRID), PIL.Image.Resampling.LANCZOS)
    basis, band = _basis(), _band()
    found = (basis @ np.asarray(small, np.float64) @ basis.T)[band]
    found = found * np.hypot(*np.nonzero(band))
    return found / (np.abs(found) + np.median(np.abs(found)) + 1e-9)


def _spatial(key: bytes) -> np.ndarray:
    table, basis = np.zeros((GRID, GRID)), _basis()
    table[_band()] = _signs(key)
    return (basis.T @ table @ basis).astype(np.float32)


def _signs(key: bytes) -> np.ndarray:
    seed = int.from_bytes(key, "big")
    return np.random.default_rng(seed).choice([-1.0, 1.0], int(_band().sum()))


def _band() -> np.ndarray:
    radius = np.hypot(*np.mgrid[:GRID, :GRID])
    return (radius >= LOW) & (radius < HIGH)


def _basis() -> np.ndarray:
    """The orthonormal cosine transform (GRID, GRID)."""
    k, n = np.mgrid[:GRID, :GRID]
    return np.where(k == 0, sqrt(1 / GRID), sqrt(2 / GRID)) * np.cos(np.pi * (2 * n + 1) * k / (2 * GRID))
