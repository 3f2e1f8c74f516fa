"""Pictures: PNG, JPEG, WebP, GIF, BMP, TIFF files and the arrays of .npz and MNIST idx files, as a grid (C, H, W)."""

from __future__ import annotations

import gzip
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil, prod, sqrt
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Literal

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageDraw
import PIL.ImageOps
import PIL.PngImagePlugin
import torch
from pydantic import Field
from torch import Tensor

from maquette import files
from maquette.errors import MaquetteError, MissingExtra, SettingError, Unreadable, UsageError
from maquette.piece import Modality, Piece
from maquette.space import Space

Step = Literal["background", "crop", "pad", "resize", "normalise", "median", "nlmeans", "wavelet"]
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF")  # sniffed from the content; a suffix may lie
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
IDX = ("idx3-ubyte", "idx3-ubyte.gz", "idx4-ubyte", "idx4-ubyte.gz")
MULTIPLE = 4  # inferred sizes are multiples of it, so that bodies can halve them twice
FEW = 2_000  # training pictures below which `augment = "auto"` shifts them
DESCRIPTION = 0x010E  # EXIF ImageDescription


class Image(Modality):
    """content is a uint8 array (H, W, C) with C = 1 grey, 3 RGB or 4 RGBA.

    >>> image = Image(size=8)
    >>> image.restore(image.fit([Piece(np.zeros((20, 10, 3), np.uint8))]))
    >>> image.space.shape, image.clean(Piece(np.zeros((20, 10, 3), np.uint8))).content.shape
    ((1, 8, 8), (8, 8, 1))
    """

    suffixes: ClassVar[tuple[str, ...]] = (*PICTURES, *IDX, ".npz")
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
        name = path.name.lower()
        rows = _npz if name.endswith(".npz") else _idx if name.endswith(IDX) else None
        with _unreadable(path.name):
            if rows is None:
                yield self._read_picture(path)
                return
            for number, (content, label) in enumerate(rows(path, self.most_pixels)):
                self._check_size(content.shape[1], content.shape[0])
                facts = {"source": path.name, "member": number}
                yield Piece(content, facts if label is None else {**facts, "label": label}, self)

    def _read_picture(self, path: Path) -> Piece:
        with _opened_picture(path) as image:
            pixels = image.size
            self._check_size(*pixels)
            # a JPEG decodes at 1/2, 1/4, 1/8 for little; four times the size that is wanted loses nothing
            image.draft(None, (4 * (self.size or self.largest),) * 2)
            content = _to_content(PIL.ImageOps.exif_transpose(image))
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return Piece(content, {"source": path.name, "pixels": list(pixels[::-1] if turned else pixels)}, self)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.most_pixels:
            raise Unreadable(
                f"{width}x{height} is more than {self.most_pixels / 1e6:g} million pixels; shrink it or raise megapixels"
            )
        if min(width, height) < self.smallest:
            raise Unreadable(f"{width}x{height} is too small; a side has at least {self.smallest} pixels")

    def fit(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """Size and channels: the usual size where it is small, else a square; alpha and colour only where some piece has them."""
        sizes: Counter[tuple[int, int]] = Counter()
        coloured = self.background is not None and len(set(self.background)) > 1
        transparent = False
        for piece in pieces:
            content = piece.content
            sizes[tuple(piece.facts.get("pixels", content.shape[1::-1]))] += 1
            coloured = coloured or _coloured(content)
            transparent = transparent or (content.shape[2] == 4 and bool((content[..., 3] < 255).any()))
        transparent = transparent and "background" not in self.steps
        width, height = (self.size, self.size) if self.size else _usual_size(sizes, self.largest)
        channels = self.channels or (4 if transparent else 3 if coloured else 1)
        seen = {f"{w}x{h}": n for (w, h), n in sizes.most_common(5)}
        return {"channels": channels, "height": height, "width": width, "sizes": seen}

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
            found.append(f"{pieces} pictures to learn from: {varied}consider `flow` or a fine-tune")
        sides = [min(map(int, size.split("x"))) for size in seen]
        if not self.size and sides and min(sides) >= 2 * self.largest:
            found.append(
                f"the pictures become {self.space.shape[2]}x{self.space.shape[1]}; --set size=128 keeps more, slowly"
            )
        if len(seen) > 1:
            most = ", ".join(f"{size} ({n:,})" for size, n in seen.items())
            found.append(f"pictures of several sizes were brought to one; the most frequent were {most}")
        return found

    def clean(self, piece: Piece) -> Piece:
        channels, height, width = self._space.shape
        content = piece.content
        for step in self.steps:
            content = _STEPS[step](content, (height, width), self.background)
        content = _with_channels(content, channels, self.background)
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

    def keep(self, path: Path) -> Tensor:
        """A mask picture, laid over the source as it is cleaned -> (C, H, W) bool: True where it is white."""
        cleaned = self.clean(next(self.read(path))).content[..., : min(3, self.space.shape[0])]
        return torch.from_numpy(cleaned.mean(-1) > 127).expand(self.space.shape).clone()

    def write(self, piece: Piece, path: Path) -> Path:
        """PNG, JPEG and WebP carry the facts as JSON, read back by `read_facts`; the other formats carry none."""
        path = Path(path)
        if path.suffix.lower() not in PICTURES:
            raise UsageError(f"a picture is written as {' '.join(PICTURES)}; {path.name} came")
        image = _to_picture(piece.content)
        if path.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".gif") and image.mode == "RGBA":
            image = _to_picture(_with_channels(piece.content, 3, self.background))
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
        if not pieces:
            raise UsageError("a sheet shows at least one picture; none came")
        tiles = [_tile(p.content) for p in pieces]
        columns = columns or min(len(tiles), ceil(sqrt(1.4 * len(tiles))))
        width, height = (max(t.size[axis] for t in tiles) + 4 for axis in (0, 1))
        height += 14 if captions else 0
        sheet = PIL.Image.new("RGB", (columns * width + 4, ceil(len(tiles) / columns) * height + 4), (244, 244, 244))
        draw = PIL.ImageDraw.Draw(sheet)
        for i, tile in enumerate(tiles):
            x, y = i % columns * width + 4, i // columns * height + 4
            sheet.paste(tile, (x, y))
            if captions:
                draw.text((x, y + tile.size[1] + 1), captions[i][: width // 6], fill=(40, 40, 40))
        return files.write_with(
            Path(path), lambda p: sheet.save(p, format=PIL.Image.registered_extensions()[p.suffix.lower()])
        )

    def animate(self, pieces: Sequence[Piece], path: Path, milliseconds: int = 80) -> Path:
        """An animated .gif, .webp or .png (APNG) of pieces of one size, endless."""
        path = Path(path)
        formats = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}
        if path.suffix.lower() not in formats or not pieces:
            raise UsageError(
                f"an animation is written as .gif .webp .png from at least one picture; {path.name}, {len(pieces)} came"
            )
        frames = [_tile(p.content) for p in pieces]
        kind = formats[path.suffix.lower()]
        options = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
        return files.write_with(path, lambda p: frames[0].save(p, format=kind, **options))

    def augment(self, x: Tensor) -> Tensor:
        """x (B, C, H, W): shifted by up to a sixteenth of a side, edges repeated; mirrored only where it was asked for."""
        wanted = self._variation()
        if wanted == "off":
            return x
        if wanted.startswith("flip"):
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x)
        return _shifted(x)

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


def _to_content(image: PIL.Image.Image) -> np.ndarray:
    """Any Pillow mode -> uint8 (H, W, C). Raises Unreadable for numbers that are no brightness."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _to_levels(np.asarray(image))[..., None]
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in image.info:
        return np.array(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[..., None]
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_levels(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; bool, 16-bit integers and floats in [0, 1] -> uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if values.dtype.kind not in "iuf" or not 0 <= low <= high <= top:
        raise Unreadable(
            f"brightness should be 8 or 16 bit or a float from 0 to 1; {values.dtype} from {low:g} to {high:g} came"
        )
    return np.rint(values * (255 / top)).astype(np.uint8)


def _to_picture(content: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(content[..., 0] if content.shape[2] == 1 else np.ascontiguousarray(content))


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


# ---- cleaning steps: content (H, W, C), the size that is wanted (height, width), background -> content

Target = tuple[int, int]
Background = tuple[int, int, int] | None


def _over_background(content: np.ndarray, target: Target, background: Background) -> np.ndarray:
    """Transparency over a plain colour."""
    return content if content.shape[2] < 4 else _with_channels(content, 3, background)


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
    resized = np.array(_to_picture(content).resize((target[1], target[0]), PIL.Image.Resampling.LANCZOS))
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


_STEPS: dict[str, Callable[[np.ndarray, Target, Background], np.ndarray]] = {
    "background": _over_background,
    "crop": _crop,
    "pad": _pad,
    "resize": _resize,
    "normalise": _normalise,
    "median": _denoised(_median),
    "nlmeans": _denoised(_non_local_means),
    "wavelet": _denoised(_wavelet),
}


def _with_channels(content: np.ndarray, channels: int, background: Background) -> np.ndarray:
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
        return np.array(_to_picture(content).convert("L"))[..., None]
    colours = content if content.shape[2] == 3 else np.repeat(content, 3, axis=2)
    return colours if channels == 3 else np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=2)


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


def _tile(content: np.ndarray) -> PIL.Image.Image:
    """RGB of at least about 96 pixels a side, whole multiples, over a checkerboard where transparent."""
    if content.shape[2] == 4:
        squares = np.indices(content.shape[:2]) // 4
        paper = np.where(squares.sum(0) % 2, 255, 216)[..., None].astype(np.float32)
        content = np.rint(paper + (content[..., :3] - paper) * (content[..., 3:] / np.float32(255))).astype(np.uint8)
    image = _to_picture(content).convert("RGB")
    times = max(1, 96 // max(image.size))
    return image.resize((image.width * times, image.height * times), PIL.Image.Resampling.NEAREST)


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


# ---- files of many pictures: (content (H, W, C), label or None), read a few at a time

Row = tuple[np.ndarray, str | None]


def _idx(path: Path, most_pixels: int) -> Iterator[Row]:
    """MNIST's format: two zero bytes, 8 for uint8, the rank, big-endian sizes, then bytes; labels in a file beside."""
    labels_name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    labels_path = path.with_name(labels_name)
    with _opened(path) as stream:
        shape = _idx_header(stream, path.name, (3, 4))
        if labels_name == path.name or not labels_path.is_file() or labels_path.is_symlink():
            yield from ((content, None) for content in _rows(stream, shape, np.dtype(np.uint8), most_pixels))
            return
        with _opened(labels_path) as beside:
            count = _idx_header(beside, labels_name, (1,))[0]
            if count != shape[0]:
                raise Unreadable(
                    f"{labels_name} has {count} labels, {path.name} {shape[0]} pictures; they should match"
                )
            for content in _rows(stream, shape, np.dtype(np.uint8), most_pixels):
                label = beside.read(1)
                if not label:
                    raise Unreadable(f"{labels_name} ends early; the rest of the pictures has no label")
                yield content, str(label[0])


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _idx_header(stream: IO[bytes], name: str, ranks: tuple[int, ...]) -> tuple[int, ...]:
    head = stream.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in ranks:
        raise Unreadable(
            f"{name} is no idx file of bytes with {' or '.join(map(str, ranks))} axes; it begins with {head!r}"
        )
    return tuple(int(n) for n in np.frombuffer(_exactly(stream, 4 * head[3]), ">u4"))


def _rows(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, most_pixels: int) -> Iterator[np.ndarray]:
    """shape (N, H, W), (N, H, W, C) or (N, C, H, W) -> N times (H, W, C) uint8, about a megabyte at a time."""
    row = shape[1:]
    first = len(row) == 3 and row[0] in (1, 3, 4) and row[2] not in (1, 3, 4)
    if len(row) not in (2, 3) or (len(row) == 3 and not first and row[2] not in (1, 3, 4)):
        raise Unreadable(f"pictures should be (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3, 4; {shape} came")
    size = prod(row) * dtype.itemsize
    if not 0 < prod(row) <= 4 * most_pixels:
        raise Unreadable(
            f"pictures of {row} pixels; more than none and at most {most_pixels / 1e6:g} million are expected"
        )
    for start in range(0, shape[0], max(1, (1 << 20) // size)):
        count = min(shape[0] - start, max(1, (1 << 20) // size))
        block = stream.read(count * size)
        for i in range(len(block) // size):
            values = np.frombuffer(block, dtype, prod(row), i * size).reshape(row)
            levels = _to_levels(values)
            yield levels.transpose(1, 2, 0) if first else levels if len(row) == 3 else levels[..., None]
        if len(block) < count * size:
            raise Unreadable(f"ends early: {shape[0]} pictures were announced, {start + len(block) // size} are there")


def _exactly(stream: IO[bytes], count: int) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise Unreadable("ends early, within its head")
    return found


def _npz(path: Path, most_pixels: int) -> Iterator[Row]:
    """Arrays `images` or `x` (also x_train and so on), with `labels` or `y` beside where there are any."""
    with zipfile.ZipFile(path) as archive:
        arrays = {n.removesuffix(".npy"): n for n in archive.namelist() if n.endswith(".npy")}
        chosen = [n for n in sorted(arrays) if n in ("images", "x") or n.startswith(("images_", "x_"))]
        chosen = chosen or (list(arrays) if len(arrays) == 1 else [])
        if not chosen:
            raise Unreadable(f"an .npz should have an array named images or x; it has {', '.join(arrays) or 'none'}")
        for name in chosen:
            beside = "labels" + name[6:] if name.startswith("images") else "y" + name[1:]
            yield from _npz_rows(archive, arrays[name], arrays.get(beside), most_pixels)


def _npz_rows(archive: zipfile.ZipFile, name: str, labels_name: str | None, most_pixels: int) -> Iterator[Row]:
    with archive.open(name) as stream:
        shape, dtype = _npy_header(stream)
        labels = _npz_labels(archive, labels_name, shape[0] if shape else 0) if labels_name else None
        for i, content in enumerate(_rows(stream, shape, dtype, most_pixels)):
            yield content, None if labels is None else str(labels[i])


def _npz_labels(archive: zipfile.ZipFile, name: str, count: int) -> np.ndarray:
    with archive.open(name) as stream:
        shape, dtype = _npy_header(stream)
        if shape not in ((count,), (count, 1)) or dtype.kind not in "iuUb" or count * dtype.itemsize > 1 << 28:
            raise Unreadable(f"{name} should be one whole number or word a picture ({count}); {dtype} {shape} came")
        return np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise Unreadable(f".npy of version {version}; 1.0 and 2.0 are read")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject or dtype.itemsize == 0 or (fortran and len(shape) > 1):
        raise Unreadable(f"arrays are read in C order and without Python objects; {dtype} {shape} came")
    return shape, dtype
