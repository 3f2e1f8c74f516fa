"""What may move of a model that is fitted to something new, and thin matrices (LoRA) as files in the layout of peft.

adapter/adapter_model.safetensors   base_model.model.<layer>.lora_A.weight and lora_B.weight, as peft reads them; of a task also its head, whole
        adapter_config.json         rank, alpha and layers in peft's words
        counted.safetensors         buffers that were fitted on the way: statistics of norms, a density; peft does not read it
        maquette.json               method, settings, the fingerprint of the base it belongs to, and of a task how it stands on that

Names and shapes of a transformer are those of `maquette export`: peft lays the adapter onto the exported base.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maquette import files
from maquette.building import building
from maquette.errors import RunError, SettingError, UsageError
from maquette.nets.lora import CONVS, TABLES, fold, thinned
from maquette.nets.transformer import Table
from maquette.space import Model, Optimiser, Phase

VERSION = 1
WEIGHTS, CONFIG, COUNTED, FACTS = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "counted.safetensors",
    "maquette.json",
)
NORMS = nn.modules.batchnorm._BatchNorm
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"  # of a language model
BEFORE = "base_model.model."  # peft's prefix of every name


# ---- what may move


def restrict(
    model: Model,
    method: str,
    settings: Mapping[str, Any],
    moving: Callable[[str], bool],
    pace: float = 1.0,
    adam: bool = False,
) -> None:
    """Let only the parameters move whose names are `moving`; teachers move whole, for what they teach is new.

    pace multiplies the rates of each phase; adam takes the place of muon. Teachers keep both.
    Raises SettingError where the model was adapted before or nothing is left to move.
    """
    need_adaptable(model)
    phases = tuple(_restricted(model, phase, moving, pace, adam) for phase in model.phases)
    model.adaptation = {"method": method, "settings": dict(settings), "phases": model.phases}
    model.phases = phases


def need_adaptable(model: Model) -> None:
    """Raise SettingError where the model was adapted before or has nothing that learns."""
    name = type(model).__name__.lower()
    if model.adaptation:
        by = model.adaptation["method"]
        raise SettingError(f"this {name} is adapted already, by {by}; adapt its run, in which that is folded in")
    if not model.phases:
        raise SettingError(f"{name} has no weights to adapt; train it on the new corpus instead")


def _restricted(model: Model, phase: Phase, moving: Callable[[str], bool], pace: float, adam: bool) -> Phase:
    own = [name for name, _ in model.named_parameters() if phase.moves(name)]
    if all(under(name, model.teachers) for name in own):
        return phase
    players = tuple(name for name in own if moving(name))
    if not players:
        raise SettingError(f"nothing of phase {phase.name} would move; choose other layers, or method full")
    return replace(phase, players=players, optimiser=_paced(phase.optimiser, pace, adam))


def _paced(o: Optimiser, pace: float, adam: bool) -> Optimiser:
    name = "adamw" if adam and o.name == "muon" else o.name
    return replace(o, name=name, lr=pace * o.lr, muon_lr=pace * o.muon_lr)


def under(name: str, prefixes: Iterable[str]) -> bool:
    """
    >>> under("body.head.weight", ("body.head",)), under("a.film.bias", ("*.film",)), under("heads.x", ("head",))
    (True, True, False)
    """
    return any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in prefixes)


def merged(model: Model) -> Model:
    """A copy whose thin matrices are in its weights: the plain model, with its own names and phases."""
    whole = copy.deepcopy(model)
    for _, layer in list(thinned(whole)):
        fold(layer)
    if whole.adaptation:
        whole.phases = whole.adaptation["phases"]
        whole.adaptation = None
    return whole


# ---- files


def save_adapter(model: Model, folder: str | Path, facts: Mapping[str, Any]) -> Path:
    """The thin matrices of an adapted model alone; facts: {"base": fingerprint of the run it belongs to, ...}. Raises SettingError, StorageError."""
    layers = _as_exported(model)
    if not layers:
        raise SettingError(
            "only a model with thin matrices (method lora) has an adapter of its own; a run of another method is whole"
        )
    told = {k: v for k, v in (model.adaptation or {}).items() if k != "phases"}
    with files.full_disk_in_words(Path(folder)), building(Path(folder)) as out:
        _save(_to_peft(layers) | {f"{BEFORE}{k}": v for k, v in _whole(model).items()}, out / WEIGHTS)
        _save(_counted(model), out / COUNTED)
        files.write_json(out / CONFIG, _config(model, layers))
        files.write_json(out / FACTS, {"version": VERSION, **told, **facts})
    return Path(folder)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    files.write_with(path, lambda temporary: save_file(plain, temporary, metadata={"format": "pt"}))


def _as_exported(model: Model) -> dict[str, nn.Module]:
    """Thin layers by name. A table that is embedding and head at once is two in an export."""
    layers = dict(thinned(model))
    return layers | ({HEAD: layers[EMBEDDING]} if EMBEDDING in layers and _tied(model) else {})


def _tied(model: Model) -> bool:
    return getattr(model, HEAD, model) is None


def _to_peft(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        a, b = layer.lora_A, layer.lora_B
        if isinstance(layer, CONVS):
            b = b.reshape(*b.shape, *(1,) * (a.ndim - 2))
        if isinstance(layer, Table):  # exported tables have one row more, for the start
            start = b.mean(0, keepdim=True) if name == HEAD else b.new_zeros(1, b.shape[1])
            b = torch.cat([b, start])
        if isinstance(layer, TABLES) and name != HEAD:
            found |= {f"{BEFORE}{name}.lora_embedding_A": b.T, f"{BEFORE}{name}.lora_embedding_B": a.T}
        else:
            found |= {f"{BEFORE}{name}.lora_A.weight": a, f"{BEFORE}{name}.lora_B.weight": b}
    return found


def _whole(model: Model) -> dict[str, Tensor]:
    """All numbers of a task's head, which no base has: peft's modules_to_save."""
    return {k: v for k, v in model.state_dict().items() if model.headed and under(k, model.heads)}


def _counted(model: Model) -> dict[str, Tensor]:
    buffers = {n for n, _ in model.named_buffers()}
    elsewhere = (*model.teachers, *(model.heads if model.headed else ()))
    return {k: v for k, v in model.state_dict().items() if k in buffers and not under(k, elsewhere)}


def _config(model: Model, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """peft's adapter_config.json. Layers of a smaller rank are named one by one."""
    ranks = {name: layer.lora_A.shape[0] for name, layer in layers.items()}
    rank = max(ranks.values())
    scale = next(iter(layers.values())).lora_scale
    less = {name: r for name, r in ranks.items() if r != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if EMBEDDING in dict(model.named_modules()) else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(layers),
        "rank_pattern": less,
        "alpha_pattern": {name: scale * r for name, r in less.items()},
        "modules_to_save": _modules(model) or None,
    }


def _modules(model: Model) -> list[str]:
    """The parts of a task's head as peft finds them, by how a name ends: the largest whose name ends that of no other module."""
    if not model.headed:
        return []
    known, found = dict(model.named_modules()), list[str]()
    for name, module in known.items():
        ends = [n for n in known if n.endswith(name)]
        new = under(name, model.heads) and not under(name, found)
        if name and new and module.state_dict() and all(under(n, model.heads) for n in ends):
            found.append(name)
    return found


def facts_of(folder: str | Path) -> dict[str, Any]:
    """maquette.json of an adapter. Raises RunError where there is none, or one of another version."""
    path = Path(folder) / FACTS
    if not path.is_file():
        raise RunError(
            f"no adapter at {folder}: expected a folder with {WEIGHTS} and {FACTS}, as `maquette adapt --method lora` makes it"
        )
    try:
        facts = files.read_json(path)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); adapt again") from None
    if facts.get("version") != VERSION:
        raise RunError(
            f"{folder} is an adapter of version {facts.get('version')}; this Maquette reads version {VERSION}"
        )
    return facts


@torch.no_grad()
def load_adapter(model: Model, folder: str | Path, weight: float = 1.0) -> None:
    """Add `weight` times an adapter onto a plain model of its base, in place; several add up: W + sum of w_i B_i A_i.

    What was counted is mixed where mixing has a sense (statistics of norms); all else is the adapter's from weight 0.5 on. A head takes the
    place of the model's. Raises RunError, UsageError.
    """
    facts_of(folder)
    config, tensors, counted = _read(Path(folder))
    layers = dict(model.named_modules())
    for name in config["target_modules"]:
        if name == HEAD and _tied(model):
            continue
        _add(layers.get(name), name, tensors, weight * _scale(config, name), folder)
    _set(model, {k: v for k, v in tensors.items() if ".lora_" not in k}, weight, folder)
    _count(model, counted, weight)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    try:
        return files.read_json(folder / CONFIG), load_file(folder / WEIGHTS), load_file(folder / COUNTED)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"the adapter at {folder} is damaged ({error}); adapt again") from None


def _scale(config: Mapping[str, Any], name: str) -> float:
    return config["alpha_pattern"].get(name, config["lora_alpha"]) / config["rank_pattern"].get(name, config["r"])


def _add(layer: nn.Module | None, name: str, tensors: Mapping[str, Tensor], scale: float, folder: str | Path) -> None:
    if layer is not None:
        whole: Tensor = layer.weight  # type: ignore[assignment]
        a, b = _from_peft(name, tensors)
        if a.shape[1:] == whole.shape[1:] and len(b) >= len(whole):
            change = (b[: len(whole)] @ a.flatten(1)).view_as(whole)
            whole.add_(change.to(whole), alpha=scale)
            return
    raise RunError(f"the adapter at {folder} does not fit this model: {name} is missing or of another shape")


def _set(model: Model, heads: Mapping[str, Tensor], weight: float, folder: str | Path) -> None:
    """Put a head in the place of the one that is there. Raises RunError, UsageError for a part of a head."""
    if heads and weight != 1:
        raise UsageError(
            f"the adapter at {folder} holds a whole head, which is there or not; its weight is 1, {weight:g} came"
        )
    own = model.state_dict()
    for key, theirs in heads.items():
        name = key.removeprefix(BEFORE)
        if name not in own or own[name].shape != theirs.shape:
            raise RunError(f"the adapter at {folder} does not fit this model: {name} is missing or of another shape")
        own[name].copy_(theirs)


def _from_peft(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A (r, *shape[1:]) and B (shape[0], r)"""
    if (key := f"{BEFORE}{name}.lora_embedding_A") in tensors:
        return tensors[f"{BEFORE}{name}.lora_embedding_B"].T, tensors[key].T
    return tensors[f"{BEFORE}{name}.lora_A.weight"], tensors[f"{BEFORE}{name}.lora_B.weight"].flatten(1)


def _count(model: Model, counted: Mapping[str, Tensor], weight: float) -> None:
    own = dict(model.named_buffers())
    norms = {n for n, m in model.named_modules() if isinstance(m, NORMS)}
    for name, theirs in counted.items():
        if name not in own or own[name].shape != theirs.shape:
            raise RunError(f"the adapter does not fit this model: {name} is missing or of another shape")
        mine = own[name]
        if name.rpartition(".")[0] in norms and mine.is_floating_point():
            mixed = torch.lerp(mine, theirs.to(mine), weight)
            mine.copy_(mixed.clamp_min(1e-8) if name.endswith("running_var") else mixed)
        elif weight >= 0.5:
            mine.copy_(theirs)


# ---- asked for


def parse_adapter(text: str) -> tuple[Path, float]:
    """`runs/style:0.7` -> the folder of the adapter and its weight; without a number it is 1. Raises UsageError, RunError.

    The folder may be a run of method lora or the adapter in it.
    """
    path, weight = text, 1.0
    if ":" in text and not Path(text).exists():
        path, _, number = text.rpartition(":")
        weight = _number(number, text)
    for folder in (Path(path) / "adapter", Path(path)):
        if (folder / FACTS).is_file():
            return folder, weight
    if not Path(path).exists():
        raise RunError(
            f"no adapter at {path}: there is no such folder; give the run of `maquette adapt --method lora`, as runs/style:0.7"
        )
    raise RunError(f"{path} holds no adapter: expected a run of `maquette adapt --method lora`")


def adapter_sum(text: str) -> str:
    """The checksum of the weights of an adapter that is asked for as `runs/style:0.7`."""
    return files.checksum(parse_adapter(text)[0] / WEIGHTS)


def _number(number: str, text: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(f"the weight of an adapter should be a number, as in runs/style:0.7; {text!r} came")
    return weight
