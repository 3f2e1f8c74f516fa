"""Cleaning steps for pictures, by name: content (H, W, C) uint8, the size that is wanted, the background -> content."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import PIL.Image

from maquette.errors import MissingExtra

Step = Literal["background", "crop", "pad", "resize", "normalise", "median", "nlmeans", "wavelet"]
MULTIPLE = 4  # inferred sizes are multiples of it, so that bodies can halve them twice
Target = tuple[int, int]  # height, width
Background = tuple[int, int, int] | None  # None: white under transparency, the border's colour around padding


def _over_background(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """Transparency over a plain colour."""
    return content if content.shape[2] < 4 else with_channels(content, 3, background)


def _crop(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """The largest centred part of the proportions that are wanted."""
    height, width = content.shape[:2]
    if 0 <= target[0] - height < MULTIPLE and 0 <= target[1] - width < MULTIPLE:
        return _padded(content, target, background)  # a size was rounded up: three pixels more blur nothing
    h = min(height, max(1, round(width * target[0] / target[1])))
    w = min(width, max(1, round(height * target[1] / target[0])))
    top, left = (height - h) // 2, (width - w) // 2
    return content[top : top + h, left : left + w]


def _pad(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """The whole picture, centred, with a border that gives the proportions that are wanted."""
    height, width = content.shape[:2]
    scale = min(target[0] / height, target[1] / width)
    if scale < 1:  # shrunk first: the border of a long thin picture would fill the memory
        content = _resize(content, (max(1, round(height * scale)), max(1, round(width * scale))), background)
        return _padded(content, target, background)
    h = max(height, round(width * target[0] / target[1]))
    w = max(width, round(height * target[1] / target[0]))
    return _padded(content, (h, w), background)


def _padded(content: np.ndarray, shape: Target, background: Background) -> np.ndarray:
    height, width, channels = content.shape
    if (height, width) == tuple(shape):
        return content
    canvas = np.empty((*shape, channels), np.uint8)
    canvas[:] = _border(content, background)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    canvas[top : top + height, left : left + width] = content
    return canvas


def _border(content: np.ndarray, background: Background) -> np.ndarray:
    """(C,): transparent, the background that was asked for, or the median of the outermost pixels."""
    if content.shape[2] == 4:
        return np.zeros(4, np.uint8)
    if background is not None:
        return np.array([_grey(background)] if content.shape[2] == 1 else background, np.uint8)
    rim = np.concatenate([content[0], content[-1], content[:, 0], content[:, -1]])
    return np.median(rim, axis=0).astype(np.uint8)


def _grey(colour: Sequence[int]) -> int:
    return round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])  # ITU-R BT.601, as Pillow


def _resize(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """Lanczos over the area that a new pixel covers (antialiased); colours weighted by their alpha."""
    if content.shape[:2] == tuple(target):
        return content
    resized = np.array(to_picture(content).resize((target[1], target[0]), PIL.Image.Resampling.LANCZOS))
    return resized[..., None] if content.shape[2] == 1 else resized


def _normalise(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """Each picture stretched so that its darkest level is 0 and its lightest 255; alpha stays."""
    colours = content[..., :3].astype(np.float32)
    low, high = colours.min(), colours.max()
    if high <= low:
        return content
    stretched = np.rint((colours - low) * (255 / (high - low))).astype(np.uint8)
    return np.concatenate([stretched, content[..., 3:]], axis=2)


def _denoised(denoise: Callable[[Any, np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """A filter of scikit-image on the colours in [0, 1]; alpha stays."""

    def step(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
        try:
            import pywt  # noqa: F401  # scikit-image imports it late
            import skimage.filters
            import skimage.restoration
        except ImportError:
            raise MissingExtra("the denoising steps median, nlmeans and wavelet", "denoise") from None
        colours = content[..., :3].astype(np.float32) / 255
        clean = denoise(skimage, colours).reshape(colours.shape)  # some filters drop an axis of one channel
        levels = np.rint(np.clip(np.nan_to_num(clean), 0, 1) * 255).astype(np.uint8)
        return np.concatenate([levels, content[..., 3:]], axis=2)

    return step


def _median(skimage: Any, x: np.ndarray) -> np.ndarray:
    return skimage.filters.median(x, np.ones((3, 3, 1)))


def _non_local_means(skimage: Any, x: np.ndarray) -> np.ndarray:
    """Buades, Coll and Morel 2005, with the noise estimated per picture."""
    sigma = float(np.mean(skimage.restoration.estimate_sigma(x, channel_axis=-1)))
    return skimage.restoration.denoise_nl_means(x, 5, 6, 0.8 * sigma, sigma=sigma, channel_axis=-1)


def _wavelet(skimage: Any, x: np.ndarray) -> np.ndarray:
    """BayesShrink (Chang, Yu and Vetterli 2000)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0/0 in a picture without noise
        return skimage.restoration.denoise_wavelet(x, channel_axis=-1, rescale_sigma=True)


STEPS: dict[Step, Callable[[np.ndarray, Target, Background], np.ndarray]] = {
    "background": _over_background,
    "crop": _crop,
    "pad": _pad,
    "resize": _resize,
    "normalise": _normalise,
    "median": _denoised(_median),
    "nlmeans": _denoised(_non_local_means),
    "wavelet": _denoised(_wavelet),
}


def with_channels(content: np.ndarray, channels: int, background: Background) -> np.ndarray:
    """Grey, RGB or RGBA from any of them; what is invisible becomes black in RGBA and the background elsewhere."""
    if content.shape[2] == 4:
        alpha = content[..., 3:]
        if channels == 4:
            return content * (alpha > 0)
        paper = np.array(background or (255, 255, 255), np.float32)
        content = np.rint(paper + (content[..., :3] - paper) * (alpha / np.float32(255))).astype(np.uint8)
    if content.shape[2] == channels:
        return content
    if channels == 1:
        return np.array(to_picture(content).convert("L"))[..., None]
    colours = content if content.shape[2] == 3 else np.repeat(content, 3, axis=2)
    return colours if channels == 3 else np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=2)


def to_picture(content: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(content[..., 0] if content.shape[2] == 1 else np.ascontiguousarray(content))
