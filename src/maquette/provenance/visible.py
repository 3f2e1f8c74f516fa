"""A mark that people see: "AI" or "AI生成" in a corner of a picture, a first line of a text. Drawn of strokes, so that no font is needed.
Scores name it in words where credits stand, sound begins with it; of these the modality writes it, which asks here for the words.

Its letters are at least 5 % of the picture's shorter side, as GB 45438-2025 asks (from memory of the standard); the EU AI Act names no size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from maquette.errors import UsageError

SHARE = 0.05  # of the shorter side, which letters are high
FINER = 8  # times finer the strokes are drawn, before they are made smooth
PLATE, GAP = 0.75, 0.3  # how dark the ground is; its margin and the space between letters, in heights of a letter
LINES = {"eu": "[AI-generated]", "cn": "[AI生成]", "both": "[AI生成 · AI-generated]"}
WORDS = {"eu": "AI", "cn": "AI生成", "both": "AI生成"}
SMALLEST = {"A": 8, "生": 12}  # pixels in which a letter can still be read
Stroke = tuple[tuple[float, float], ...]
GLYPHS: dict[str, tuple[float, tuple[Stroke, ...]]] = {  # width and strokes, in heights of a letter
    "A": (0.8, (((0, 1), (0.4, 0), (0.8, 1)), ((0.17, 0.62), (0.63, 0.62)))),
    "I": (0.1, (((0.05, 0), (0.05, 1)),)),
    "生": (1.0, (
        ((0.28, 0.02), (0.1, 0.42)), ((0.2, 0.25), (0.85, 0.25)), ((0.18, 0.58), (0.82, 0.58)),
        ((0.5, 0), (0.5, 0.95)), ((0.04, 0.95), (0.96, 0.95)),
    )),
    "成": (1.0, (
        ((0.15, 0.25), (0.94, 0.25)), ((0.15, 0.25), (0.14, 0.6), (0.02, 0.98)),
        ((0.15, 0.5), (0.45, 0.5), (0.43, 0.82), (0.32, 0.8)),
        ((0.53, 0.02), (0.58, 0.5), (0.75, 0.85), (0.92, 0.95), (0.96, 0.74)),
        ((0.86, 0.42), (0.7, 0.75), (0.42, 0.98)), ((0.72, 0.03), (0.86, 0.14)),
    )),
}  # fmt: skip


def shown(content: Any, regime: str) -> Any:
    """A picture (H, W, C) uint8 or a text with the mark of a regime ("off": as "eu"). Raises UsageError for what cannot show one."""
    regime = regime if regime in LINES else "eu"
    if getattr(content, "credited", False):
        return content  # its modality marks each file of it by `credit`
    if isinstance(content, str):
        return f"{LINES[regime]}\n\n{content}"
    if getattr(content, "ndim", 0) != 3:
        raise UsageError(
            "a visible mark is drawn on pictures, written in texts and scores and heard in sound; nothing else gets one yet: drop --visible"
        )
    return _drawn(content, WORDS[regime])


def credit(facts: Mapping[str, Any]) -> str:
    """The words of the mark where a piece's facts say that it is asked for, else "".

    >>> credit({"visible": True, "labels": "eu"}), credit({"labels": "eu"})
    ('AI-generated', '')
    """
    regime = facts.get("labels") if facts.get("labels") in LINES else "eu"
    return LINES[regime].strip("[]") if facts.get("visible") else ""  # type: ignore[index]


def _drawn(content: np.ndarray, words: str) -> np.ndarray:
    """In the lower right corner."""
    height, width, channels = content.shape
    letter = max(ceil(SHARE * min(height, width)), SMALLEST["A" if words.isascii() else "生"])
    ink, plate = _mark(words, letter)
    tall, broad = ink.shape
    if tall > height or broad > width:
        raise UsageError(
            f'the mark "{words}" needs {broad}x{tall} pixels to be read, this picture has {width}x{height}; '
            "drop --visible, or use --labels eu, whose mark is shorter"
        )
    made, place = content.astype(np.float32), np.s_[height - tall :, width - broad :]
    cover = (plate + (1 - plate) * ink)[..., None]
    colours = 3 if channels >= 3 else 1
    made[place][..., :colours] = made[place][..., :colours] * (1 - cover) + 255 * ink[..., None]
    made[place][..., colours:] = np.maximum(made[place][..., colours:], 255 * cover)
    return np.rint(made).astype(np.uint8)


@cache
def _mark(words: str, letter: int) -> tuple[np.ndarray, np.ndarray]:
    """(white ink, dark ground), each the share by which it covers (tall, broad)."""
    fine, gap = letter * FINER, GAP * letter * FINER
    broad = sum(GLYPHS[c][0] * fine + gap for c in words) + gap
    size = (ceil(broad / FINER), ceil((fine + 2 * gap) / FINER))
    image = PIL.Image.new("L", (size[0] * FINER, size[1] * FINER))
    draw, at = PIL.ImageDraw.Draw(image), gap
    for c in words:
        for stroke in GLYPHS[c][1]:
            points = [(at + x * fine, gap + y * fine) for x, y in stroke]
            draw.line(points, fill=255, width=round(0.12 * fine), joint="curve")
        at += GLYPHS[c][0] * fine + gap
    ink = np.asarray(image.resize(size, PIL.Image.Resampling.BOX), np.float32) / 255
    return ink, np.full_like(ink, PLATE)
