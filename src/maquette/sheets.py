"""Many pictures at once: contact sheets and animations of contents (H, W, C) uint8."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

from maquette import files
from maquette.cleaning import to_picture
from maquette.errors import UsageError


def sheet(contents: Sequence[np.ndarray], path: Path, columns: int = 0, captions: Sequence[str] | None = None) -> Path:
    """A contact sheet; small pictures are enlarged without smoothing, transparent ones lie on a checkerboard."""
    if not contents:
        raise UsageError("a sheet shows at least one picture; none came")
    tiles = [_tile(c) for c in contents]
    columns = columns or min(len(tiles), ceil(sqrt(1.4 * len(tiles))))
    width, height = (max(t.size[axis] for t in tiles) + 4 for axis in (0, 1))
    height += 14 if captions else 0
    canvas = PIL.Image.new("RGB", (columns * width + 4, ceil(len(tiles) / columns) * height + 4), (244, 244, 244))
    draw = PIL.ImageDraw.Draw(canvas)
    for i, tile in enumerate(tiles):
        x, y = i % columns * width + 4, i // columns * height + 4
        canvas.paste(tile, (x, y))
        if captions:
            draw.text((x, y + tile.size[1] + 1), captions[i][: width // 6], fill=(40, 40, 40))
    return files.write_with(
        Path(path), lambda p: canvas.save(p, format=PIL.Image.registered_extensions()[p.suffix.lower()])
    )


def animate(contents: Sequence[np.ndarray], path: Path, milliseconds: int = 80) -> Path:
    """An animated .gif, .webp or .png (APNG) of pieces of one size, endless."""
    path = Path(path)
    formats = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
    if path.suffix.lower() not in formats or not contents:
        raise UsageError(
            f"an animation is written as .gif .webp .png from at least one picture; {path.name}, {len(contents)} came"
        )
    frames = [_tile(c) for c in contents]
    kind = formats[path.suffix.lower()]
    options = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    return files.write_with(path, lambda p: frames[0].save(p, format=kind, **options))


def _tile(content: np.ndarray) -> PIL.Image.Image:
    """RGB of at least about 96 pixels a side, whole multiples, over a checkerboard where transparent."""
    if content.shape[2] == 4:
        squares = np.indices(content.shape[:2]) // 4
        paper = np.where(squares.sum(0) % 2, 255, 216)[..., None].astype(np.float32)
        content = np.rint(paper + (content[..., :3] - paper) * (content[..., 3:] / np.float32(255))).astype(np.uint8)
    image = to_picture(content).convert("RGB")
    times = max(1, 96 // max(image.size))
    return image.resize((image.width * times, image.height * times), PIL.Image.Resampling.NEAREST)
