"""Encoders that others trained, from a local path, as judges of the audit: an ONNX file, a Hugging Face folder (DINOv2, ViT, CLIP ...), or a
judge of ours kept beside another corpus. Nothing is downloaded, no code that comes with a model is run, no pickle is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from maquette import files
from maquette.errors import MissingExtra, SettingError
from maquette.features import Judge, Task
from maquette.models.borrowed import without_bars
from maquette.space import DataSpec, Embedder, Space

PART = 32  # pieces at once: networks of others are large
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
READS = (
    "a run of `maquette pretrain`, an .onnx file, a folder of a Hugging Face model (config.json and *.safetensors), or a judge that an audit "
    "kept beside a corpus (judge/*.safetensors)"
)


@dataclass(frozen=True)
class Encoder:
    """An embedder with its name in reports. hash: of its weights and settings."""

    embedder: Embedder
    hash: str
    words: str


def encoder_at(path: Path, space: Space) -> Encoder:
    """What lies at a path, as an embedder of pieces of that space. Raises SettingError and MissingExtra."""
    path = Path(path)
    if path.suffix == ".onnx" and path.is_file():
        return _onnx(path, space)
    if (path / "config.json").is_file():
        return _hugging_face(path, space)
    kept = [path] if path.suffix == ".safetensors" else sorted(path.glob("*.safetensors"))
    if len(kept) == 1 and kept[0].with_suffix(".json").is_file():
        return _kept_judge(kept[0], space)
    if len(kept) > 1:
        raise SettingError(f"{path} holds {len(kept)} judges; give one of them, such as --judge {kept[0]}")
    raise SettingError(f"{path} holds no encoder that can be read; --judge takes {READS}")


# ---- a judge that was kept beside another corpus


def _kept_judge(file: Path, space: Space) -> Encoder:
    try:
        facts = files.read_json(file.with_suffix(".json"))
        if files.checksum(file) != facts["hash"]:
            raise ValueError("the weights do not match their checksum")
        judge = Judge(DataSpec(space), Task(**{**facts["task"], "classes": tuple(facts["task"]["classes"])}))
        tensors = load_file(file)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise SettingError(f"the judge {file} cannot be read: {error}") from None
    try:
        judge.load_state_dict(tensors)
    except RuntimeError:
        raise SettingError(
            f"the judge {file} was trained on pieces of another shape than {space.shape}; give one of a corpus of that shape"
        ) from None
    words = f"an encoder that an audit trained on another corpus ({file.parent.parent.name})"
    return Encoder(judge.eval().requires_grad_(False), facts["hash"], words)


# ---- pictures as networks of others want them


@dataclass(frozen=True)
class Taste:
    """How a network wants its pictures: sides (height, width) or None for any; channels; mean and std a channel of values in [0, 1]."""

    sides: tuple[int, int] | None
    channels: int
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def apply(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) in [-1, 1] -> (B, channels, *sides) as the network was trained on. Grey is repeated, colour where only grey is
        wanted becomes its luma, transparency is left out."""
        if self.channels == 1 and x.shape[1] > 1:
            x = (x[:, :3] * torch.tensor(LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
        x = x.expand(-1, self.channels, -1, -1) if x.shape[1] == 1 else x[:, : self.channels]
        if self.sides and self.sides != tuple(x.shape[2:]):
            x = F.interpolate(x, self.sides, mode="bicubic", antialias=True).clamp(-1, 1)
        mean, std = (torch.tensor(t).reshape(1, -1, 1, 1) for t in (self.mean, self.std))
        return ((x + 1) / 2 - mean) / std


def taste_of(folder: Path, channels: int, sides: tuple[int, int] | None) -> Taste:
    """What the preprocessor_config.json of a folder says; without one, values stay in [-1, 1]. sides: where it says nothing."""
    file = folder / "preprocessor_config.json"
    try:
        told = files.read_json(file) if file.is_file() else {}
    except ValueError as error:
        raise SettingError(f"{file} cannot be read: {error}") from None
    found = told.get("crop_size") or told.get("size")
    mean, std = (tuple(map(float, told.get(k) or (0.5,))) for k in ("image_mean", "image_std"))
    if not all(len(t) in (1, channels) for t in (mean, std)) or min(std) <= 0:
        raise SettingError(f"{file} names {len(mean)} means and {len(std)} deviations for {channels} channels")
    return Taste(_sides(found) or sides, channels, mean, std)


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def _pictures(path: Path, space: Space) -> None:
    if space.kind != "grid" or len(space.axes) != 2 or space.shape[0] not in (1, 3, 4):
        raise SettingError(f"{path} reads pictures, and the pieces of this corpus have shape {space.shape}")


def _hash_of(paths: Iterable[Path]) -> str:
    return files.fingerprint([[p.name, files.checksum(p)] for p in sorted(paths)])


# ---- Hugging Face


def _hugging_face(folder: Path, space: Space) -> Encoder:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise SettingError(
            f"{folder} holds no weights as *.safetensors; pickles (*.bin, *.pt) are not read, so convert them"
        )
    _pictures(folder, space)
    network, missing = _opened(folder)
    reads = getattr(network, "main_input_name", "")
    if reads != "pixel_values" and not hasattr(network, "get_image_features"):
        raise SettingError(
            f"{folder} is a {type(network).__name__}, which reads {reads or 'no pictures'}; give an encoder of pictures"
        )
    config = getattr(network.config, "vision_config", network.config)
    sides = _sides(getattr(config, "image_size", None))
    taste = taste_of(folder, getattr(config, "num_channels", 3), sides)
    words = f"{type(network).__name__} of the folder {folder.name}, which was trained elsewhere"
    named = [*weights, folder / "config.json", *folder.glob("preprocessor_config.json")]
    return Encoder(Borrowed(network, taste, not missing), _hash_of(named), words)


def _opened(folder: Path) -> tuple[Any, list[str]]:
    """The network, and which of its parts got no weights: only a pooler may be among them."""
    try:
        from transformers import AutoModel
    except ImportError:
        raise MissingExtra("an encoder of Hugging Face", "hf") from None
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        with without_bars():
            network, info = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **safe)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise SettingError(
            f"{folder} cannot be opened as a model of Hugging Face: {str(error).splitlines()[0]}"
        ) from None
    missing = sorted(info["missing_keys"])
    if lacking := [name for name in missing if "pooler" not in name]:
        raise SettingError(
            f"the weights in {folder} are not all of {type(network).__name__}: {len(lacking)} are missing, such as {lacking[0]}; features "
            "of numbers drawn by chance would mean nothing"
        )
    return network.eval().requires_grad_(False), missing


class Borrowed:
    """A network of transformers. pooled: whether its own pooling has weights; else the mean over its places is taken."""

    def __init__(self, network: Any, taste: Taste, pooled: bool):
        self.network, self.taste, self.pooled = network, taste, pooled

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self._part(self.taste.apply(part)) for part in x.split(PART)])

    def _part(self, x: Tensor) -> Tensor:
        if hasattr(self.network, "get_image_features"):
            found = self.network.get_image_features(pixel_values=x)
            return found if isinstance(found, Tensor) else found.pooler_output
        found = self.network(pixel_values=x)
        if self.pooled and getattr(found, "pooler_output", None) is not None:
            return found.pooler_output.flatten(1)
        rows = found.last_hidden_state
        return rows.mean(1) if rows.ndim == 3 else rows.flatten(2).mean(2)


# ---- ONNX


def _onnx(file: Path, space: Space) -> Encoder:
    """The first output of a network with one input (B, C, H, W); a preprocessor_config.json beside it says how it wants its pictures."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("an encoder as an ONNX file", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many classes of its own
        raise SettingError(f"{file} cannot be opened by onnxruntime: {str(error).splitlines()[0]}") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        shapes = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        raise SettingError(
            f"{file} should have one input of float32 pictures (batch, channels, height, width); it has {shapes}"
        )
    _pictures(file, space)
    batch, channels, *sides = (n if isinstance(n, int) and n > 0 else None for n in inputs[0].shape)
    fixed = (sides[0], sides[1]) if all(sides) else None
    taste = taste_of(file.parent, channels or space.shape[0], fixed)
    beside = [p for p in file.parent.glob(f"{file.name}[._]data") if p.is_file()]
    named = [file, *beside, *file.parent.glob("preprocessor_config.json")]
    embedder = Exchanged(session, inputs[0].name, taste, batch or PART)
    return Encoder(embedder, _hash_of(named), f"the network {file.name}, which was trained elsewhere")


class Exchanged:
    """A session of onnxruntime. size: pieces at once; a last part that is smaller is filled up."""

    def __init__(self, session: Any, name: str, taste: Taste, size: int):
        self.session, self.name, self.taste, self.size = session, name, taste, size

    def embed(self, x: Tensor) -> Tensor:
        return torch.cat([self._part(part) for part in x.split(self.size)])

    def _part(self, x: Tensor) -> Tensor:
        full = x if len(x) == self.size else torch.cat([x, x[-1:].expand(self.size - len(x), *x.shape[1:])])
        try:
            found = self.session.run(None, {self.name: self.taste.apply(full).contiguous().numpy()})[0]
        except Exception as error:  # of many classes of its own
            raise SettingError(
                f"the ONNX network fails on pieces of shape {tuple(x.shape[1:])}: {str(error).splitlines()[0]}"
            ) from None
        rows = torch.from_numpy(found).float()
        return (rows.mean(1) if rows.ndim == 3 else rows)[: len(x)]
