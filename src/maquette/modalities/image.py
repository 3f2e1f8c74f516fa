"""Pictures: PNG, JPEG, WebP, GIF, BMP, TIFF files and the arrays of .npz and MNIST idx files, as a grid (C, H, W)."""

from __future__ import annotations

import base64
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageOps
import PIL.PngImagePlugin
import torch
from pydantic import Field
from torch import Tensor

from maquette import arrays, files, sheets
from maquette.cleaning import MULTIPLE, STEPS, Step, to_picture, with_channels
from maquette.condition import Condition
from maquette.errors import MaquetteError, SettingError, Unreadable, UsageError
from maquette.piece import Asked, Modality, Piece, Start
from maquette.space import Batch, Space

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF")  # sniffed from the content; a suffix may lie
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FEWEST_TO_LEARN = 100  # training pictures below which what is new is hardly to be expected
FEW = 2_000  # training pictures below which `augment = "auto"` shifts them
SPARE = 3  # times the size that is wanted: what is larger shrinks to it while it is read, which is not seen in the end
DESCRIPTION = 0x010E  # EXIF ImageDescription


class Image(Modality):
    """content is a uint8 array (H, W, C) with C = 1 grey, 3 RGB or 4 RGBA.

    >>> image = Image(size=8)
    >>> image.restore(image.fit([Piece(np.zeros((20, 10, 3), np.uint8))]))
    >>> image.space.shape, image.clean(Piece(np.zeros((20, 10, 3), np.uint8))).content.shape
    ((1, 8, 8), (8, 8, 1))
    """

    suffixes: ClassVar[tuple[str, ...]] = (*PICTURES, *arrays.SUFFIXES)
    companions: ClassVar[tuple[str, ...]] = arrays.COMPANIONS
    pretty: ClassVar[str] = "pictures"

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=0, le=4096, description="height and width in pixels; 0 takes what is usual")] = 0,
        largest: Annotated[int, Field(ge=4, description="an inferred size is at most this many pixels")] = 64,
        channels: Annotated[Literal[0, 1, 3, 4], Field(description="1 grey, 3 RGB, 4 RGBA; 0 infers it")] = 0,
        steps: Annotated[tuple[Step, ...], Field(description="cleaning steps in their order")] = ("crop", "resize"),
        background: Annotated[
            str, Field(description="colour under transparency and around padding; auto is white and the border's")
        ] = "auto",
        augment: Annotated[
            Literal["auto", "off", "shift", "flip+shift"],
            Field(description=f"random variation; auto shifts by a few pixels below {FEW} training pictures"),
        ] = "auto",
        smallest: Annotated[int, Field(ge=1, description="pixels; a picture with a shorter side is refused")] = 2,
        megapixels: Annotated[float, Field(gt=0, description="million pixels; a larger picture is refused")] = 64,
    ):
        self.settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.size, self.largest, self.channels, self.steps = size, largest, channels, tuple(steps)
        self.variation, self.smallest, self.most_pixels = augment, smallest, int(megapixels * 1e6)
        self.background = None if background == "auto" else _colour(background)
        self.fitted: dict[str, Any] = {}

    # ---- in

    def read(self, path: Path) -> Iterator[Piece]:
        """The first frame of a picture file, upright by its EXIF orientation; every row of an .npz or idx file."""
        with _unreadable(path.name):
            if not path.name.lower().endswith(arrays.SUFFIXES):
                yield self._read_picture(path)
                return
            for number, (content, label) in enumerate(arrays.rows(path, self.most_pixels)):
                self._check_size(content.shape[1], content.shape[0])
                facts = {"source": path.name, "member": number}
                yield Piece(content, facts if label is None else {**facts, "label": label}, self)

    def _read_picture(self, path: Path) -> Piece:
        with _opened_picture(path) as image:
            pixels = image.size
            self._check_size(*pixels)
            spare = SPARE * (self.size or self.largest)
            image.draft(None, (spare, spare))  # a JPEG decodes at 1/2, 1/4, 1/8 for little
            content = _reduced(_to_content(PIL.ImageOps.exif_transpose(image)), spare)
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            facts = {"source": path.name, "pixels": list(pixels[::-1] if turned else pixels)}
            return Piece(content, facts | ({"animated": True} if _animated(image) else {}), self)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.most_pixels:
            raise Unreadable(
                f"{width}x{height} is more than {self.most_pixels / 1e6:g} million pixels; "
                f"shrink it or raise megapixels (--set megapixels={ceil(width * height / 1e6)})"
            )
        if min(width, height) < self.smallest:
            raise Unreadable(f"{width}x{height} is too small; a side has at least {self.smallest} pixels")

    def fit(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """Size and channels: the usual size where it is small, else a square; alpha and colour only where some piece has them."""
        sizes: Counter[tuple[int, int]] = Counter()
        coloured = self.background is not None and len(set(self.background)) > 1
        transparent, animated = False, 0
        for piece in pieces:
            content = piece.content
            sizes[tuple(piece.facts.get("pixels", content.shape[1::-1]))] += 1
            coloured = coloured or _coloured(content)
            animated += piece.facts.get("animated", False)
            transparent = transparent or (content.shape[2] == 4 and bool((content[..., 3] < 255).any()))
        transparent = transparent and "background" not in self.steps
        width, height = (self.size, self.size) if self.size else _usual_size(sizes, self.largest)
        channels = self.channels or (4 if transparent else 3 if coloured else 1)
        seen = {f"{w}x{h}": n for (w, h), n in sizes.most_common(5)}
        return {"channels": channels, "height": height, "width": width, "sizes": seen, "animated": animated}

    def restore(self, fitted: Mapping[str, Any]) -> None:
        """fitted: channels, height, width, sizes seen, and pieces, the size of the train split once it is known."""
        self.fitted = dict(fitted)
        self._space = Space("grid", (fitted["channels"], fitted["height"], fitted["width"]))

    @property
    def space(self) -> Space:
        return self._space

    def advice(self) -> list[str]:
        pieces, seen = self.fitted.get("pieces", FEW), self.fitted.get("sizes", {})
        found = []
        if pieces < FEW // 2:
            varied = "augmentation is on; " if self._variation() != "off" else ""
            found.append(f"{pieces} picture{'s' * (pieces > 1)} to learn from: {varied}consider `flow` or a fine-tune")
        if pieces < FEWEST_TO_LEARN:
            found.append(
                f"with fewer than {FEWEST_TO_LEARN} a model will mostly repeat what it saw; add more if you can"
            )
        sides = [min(map(int, size.split("x"))) for size in seen]
        if not self.size and sides and min(sides) >= 2 * self.largest:
            found.append(
                f"the pictures become {self.space.shape[2]}x{self.space.shape[1]}; --set size=128 keeps more, slowly"
            )
        if len(seen) > 1:
            most = ", ".join(f"{size} ({n:,})" for size, n in seen.items())
            found.append(f"pictures of several sizes were brought to one; the most frequent were {most}")
        if animated := self.fitted.get("animated"):
            found.append(f"{animated:,} of the files are animated or have pages; the first of each was taken")
        if self.space.shape[0] == 4 and not self.channels:
            found.append("some pictures are transparent, so that is learnt too; --set channels=3 lays them on white")
        return found

    def clean(self, piece: Piece) -> Piece:
        channels, height, width = self._space.shape
        content = piece.content
        for step in self.steps:
            content = STEPS[step](content, (height, width), self.background)
        content = with_channels(content, channels, self.background)
        if content.shape != (height, width, channels):
            raise Unreadable(
                f"{content.shape[1]}x{content.shape[0]} after cleaning, the corpus is {width}x{height}; add resize to steps"
            )
        return Piece(content, piece.facts, self)

    def to_array(self, piece: Piece) -> np.ndarray:
        return piece.content.transpose(2, 0, 1)

    # ---- out

    def to_piece(self, x: Tensor, facts: Mapping[str, Any] | None = None) -> Piece:
        levels = x.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return Piece(levels.permute(1, 2, 0).numpy(), dict(facts or {}), self)

    def to_tensor(self, piece: Piece) -> Tensor:
        """(C, H, W) in [-1, 1]"""
        return torch.from_numpy(self.to_array(piece).copy()).float().div(127.5).sub(1)

    def start(self, asked: Asked) -> Start:
        """source: a picture; keep: a mask picture, laid over it as it is cleaned: what is white stays."""
        known = {"source", "keep"}
        if other := next((k for k, v in vars(asked).items() if v and k not in known), None):
            raise UsageError(f"{other} means nothing to pictures; --source and --keep take picture files")
        source = None if asked.source is None else self.to_tensor(self.clean(self.one(asked.source)))
        keep = None if asked.keep is None else self._white(self.clean(self.one(asked.keep)))
        return Start(source, keep)

    def _white(self, mask: Piece) -> Tensor:
        """(C, H, W) bool: True where a mask is white."""
        levels = mask.content[..., : min(3, self.space.shape[0])].mean(-1)
        return torch.from_numpy(levels > 127).expand(self.space.shape).clone()

    def write(self, piece: Piece, path: Path) -> Path:
        """PNG, JPEG and WebP carry the facts as JSON, read back by `read_facts`; the other formats carry none."""
        path = Path(path)
        if path.suffix.lower() not in PICTURES:
            raise UsageError(f"a picture is written as {' '.join(PICTURES)}; {path.name} came")
        image = to_picture(piece.content)
        if path.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".gif") and image.mode == "RGBA":
            image = to_picture(with_channels(piece.content, 3, self.background))
        return files.write_with(path, lambda p: image.save(p, **_metadata(path.suffix.lower(), piece.facts)))

    @staticmethod
    def read_facts(path: str | Path) -> dict[str, Any]:
        """What `write` put into the metadata of a PNG, JPEG or WebP; {} where there is nothing of ours. Raises Unreadable."""
        path = Path(path)
        with _unreadable(path.name), _opened_picture(path) as image:
            text = image.info.get("maquette") or image.getexif().get(DESCRIPTION, "")
        try:
            facts = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def sheet(self, pieces: list[Piece], path: Path, columns: int = 0, captions: list[str] | None = None) -> Path:
        """A contact sheet; small pictures are enlarged without smoothing, transparent ones lie on a checkerboard."""
        return sheets.sheet([p.content for p in pieces], path, columns, captions)

    def exhibit(self, piece: Piece) -> str:
        """The picture as a PNG within the page, drawn with hard edges."""
        with BytesIO() as stream:
            to_picture(piece.content).save(stream, "PNG")
            data = base64.b64encode(stream.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{self.pretty[:-1]}">'

    def animate(self, pieces: Sequence[Piece], path: Path, milliseconds: int = 80) -> Path:
        """An animated .gif, .webp or .png (APNG) of pieces of one size, endless."""
        return sheets.animate([p.content for p in pieces], path, milliseconds)

    def augment(self, batch: Batch, condition: Condition | None = None) -> Batch:
        """x (B, C, H, W): shifted by up to a sixteenth of a side, edges repeated; mirrored only where it was asked for."""
        wanted, x = self._variation(), batch.x
        if wanted == "off":
            return batch
        if wanted.startswith("flip"):
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        return replace(batch, x=_shifted(x))

    def _variation(self) -> str:
        if self.variation == "auto":
            return "shift" if self.fitted.get("pieces", FEW) < FEW else "off"
        return self.variation


@contextmanager
def _opened_picture(path: Path) -> Iterator[PIL.Image.Image]:
    """A picture whose pixels are not decoded yet. Pillow's own limit of pixels and its warnings give way to ours."""
    before = PIL.Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            with PIL.Image.open(path, formats=FORMATS) as image:
                yield image
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _unreadable(name: str) -> Iterator[None]:
    """Whatever a decoder raises on bytes of unknown origin is one thing to us: this file cannot be read."""
    try:
        yield
    except (MaquetteError, GeneratorExit):
        raise
    except PIL.UnidentifiedImageError:
        raise Unreadable(f"{name}: its content is no PNG, JPEG, WebP, GIF, BMP or TIFF picture") from None
    except PermissionError:
        raise Unreadable(f"{name}: may not be read (permission denied)") from None
    except (
        Exception
    ) as error:  # decoders raise anything: OSError, SyntaxError, struct.error, zlib.error, OverflowError ...
        raise Unreadable(
            f"{name}: cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})"
        ) from None


def _animated(image: PIL.Image.Image) -> bool:
    """Whether frames or pages follow the first; photographs with a preview (MPO) do not count."""
    try:
        return image.format in ("GIF", "WEBP", "PNG", "TIFF") and getattr(image, "is_animated", False)
    except Exception:  # what follows is damaged; the first frame was read
        return True


def _reduced(content: np.ndarray, side: int) -> np.ndarray:
    """Averages of whole squares of pixels, so that the shorter side keeps at least `side` pixels."""
    factor = min(content.shape[:2]) // side
    if factor < 2:
        return content
    small = np.array(to_picture(content).reduce(factor))
    return small[..., None] if content.shape[2] == 1 else small


def _to_content(image: PIL.Image.Image) -> np.ndarray:
    """Any Pillow mode -> uint8 (H, W, C). Raises Unreadable for numbers that are no brightness."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return arrays.levels(np.asarray(image))[..., None]
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in image.info:
        return np.array(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[..., None]
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _colour(name: str) -> tuple[int, int, int]:
    try:
        return PIL.ImageColor.getrgb(name)[:3]
    except ValueError:
        raise SettingError(f'background should be auto or a colour like white or "#ffcc00"; {name!r} came') from None


def _coloured(content: np.ndarray) -> bool:
    """Whether any visible pixel is not grey."""
    if content.shape[2] == 1:
        return False
    red, green, blue = content[..., 0], content[..., 1], content[..., 2]
    different = (red != green) | (green != blue)
    return bool((different & (content[..., 3] > 0)).any() if content.shape[2] == 4 else different.any())


def _usual_size(sizes: Counter[tuple[int, int]], largest: int) -> tuple[int, int]:
    """(width, height): the most frequent size where most pieces have it and it is small, else a square."""
    if not sizes:
        return (_rounded(largest),) * 2
    (width, height), n = sizes.most_common(1)[0]
    if 2 * n >= sizes.total() and max(width, height) <= largest:
        return _rounded(width), _rounded(height)
    sides = np.repeat([min(size) for size in sizes], list(sizes.values()))
    return (_rounded(min(int(np.median(sides)), largest // MULTIPLE * MULTIPLE)),) * 2


def _rounded(side: int) -> int:
    return max(MULTIPLE, ceil(side / MULTIPLE) * MULTIPLE)


def _shifted(x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    rows, columns = (_moved(batch, n) for n in (height, width))
    return x.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, width)).gather(
        3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1)
    )


def _moved(batch: int, length: int) -> Tensor:
    """(batch, length): the places 0..length-1 moved by a random whole number, held at the edges."""
    reach = max(1, length // 16)
    return (torch.arange(length) + torch.randint(-reach, reach + 1, (batch, 1))).clamp(0, length - 1)


def _metadata(suffix: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The options of Pillow's save that put the facts into the file and name its format."""
    options: dict[str, Any] = {"format": PIL.Image.registered_extensions()[suffix]}
    text = json.dumps(dict(facts), ensure_ascii=suffix != ".png", default=str)
    if suffix == ".png" and facts:
        options["pnginfo"] = PIL.PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("maquette", text)
    elif suffix in (".jpg", ".jpeg", ".webp"):
        exif = PIL.Image.Exif()
        if facts:
            exif[DESCRIPTION] = text
        options |= {"exif": exif, "quality": 95}
    return options
