"""A Run is a folder: recipe, facts, checkpoints, log, samples; enough to resume, to generate, to explain. Never the training content.

runs/mine/recipe.toml                       every choice, defaults spelled out
          run.json                          what the model was told: its spec, the corpus's facts and fingerprint, cost
          checkpoints/00001200/             weights, averaged, optimiser (safetensors); manifest.json with checksums, written last
          best/                               the averaged weights that foretell the validation split best, where that is looked at
          log.jsonl                         one line a record
          samples/00001200.png              always the same seeds
          codec/                            two stages: the run whose codes this one was trained on
          adapter/                          method lora: what was learnt beside the base's weights, alone (see adapting.py)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from maquette import catalog
from maquette.adapting import facts_of, load_adapter, merged, parse_adapter, save_adapter
from maquette.building import building
from maquette.errors import RunError, UsageError
from maquette.files import (
    checksum,
    fingerprint,
    full_disk_in_words,
    read_json,
    sync,
    write_bytes,
    write_json,
    write_text,
)
from maquette.loop import TrainState
from maquette.nets.blend import Gate
from maquette.partners import Partners
from maquette.recipe import Recipe, load, to_toml
from maquette.space import Codec, DataSpec, GenerativeModel, Model, SampleRequest, generator

VERSION = 1
KEPT = 2  # checkpoints that stay: the newest and one to fall back on


@dataclass(frozen=True)
class Checkpoint:
    """tensors: file name -> tensors; facts: step, steps, lr_scale (see TrainState); sums: file name -> checksum."""

    path: Path
    sums: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


class Run:
    """Open one with `Run.open`, make one with `Run.create`."""

    def __init__(self, path: Path, recipe: Recipe, facts: dict[str, Any]):
        self.path, self.recipe, self.facts = Path(path), recipe, facts

    @staticmethod
    def exists(path: Path) -> bool:
        return (Path(path) / "run.json").is_file()

    @staticmethod
    def create(path: Path, recipe: Recipe, facts: Mapping[str, Any]) -> Run:
        """A new run folder. Raises RunError when something else is there."""
        path = Path(path)
        unfinished = {
            "codec",
            "feedback",
            "recipe.toml",
        }  # what a run that was killed while it was made leaves, beside hidden files
        if path.is_dir() and any(p.name not in unfinished and p.name[0] != "." for p in path.iterdir()):
            raise RunError(f"{path} holds files but no run; choose an empty or a new folder with -o")
        write_text(path / "recipe.toml", to_toml(recipe))
        write_json(path / "run.json", {"version": VERSION, **facts})
        return Run.open(path)

    @staticmethod
    def open(path: str | Path) -> Run:
        """Raises RunError when there is no run, or one of another version."""
        path = Path(path)
        if not Run.exists(path):
            raise RunError(f"no run at {path}: expected a folder with run.json, as `maquette train` makes it")
        try:
            facts = read_json(path / "run.json")
        except ValueError as error:
            raise RunError(f"{path / 'run.json'} is damaged ({error}); restore it from a copy or train again") from None
        if facts.get("version") != VERSION:
            raise RunError(f"{path} is a run of version {facts.get('version')}; this Maquette reads version {VERSION}")
        return Run(path, load(path / "recipe.toml"), facts)

    @property
    def spec(self) -> DataSpec:
        """What the model of the last stage was told about its data."""
        return DataSpec.from_json(self.facts["spec"])

    @property
    def codec(self) -> Run | None:
        return Run.open(self.path / "codec") if self.facts.get("codec") else None

    @property
    def stage(self) -> str:
        """The model whose weights lie here: the last of a pair, the first of partners."""
        return self.facts.get("stage") or self.recipe.stages[-1]

    @property
    def partner(self) -> Run | None:
        return Run.open(self.path / "partner") if (self.path / "partner" / "run.json").is_file() else None

    def keep_gate(self, gate: Gate) -> None:
        write_bytes(self.path / "gate.safetensors", save({k: v.contiguous() for k, v in gate.state_dict().items()}))

    def partners(self, model: Model) -> Partners | Model:
        """The model with its partner, where it has one and the gate between them is fitted."""
        gate, partner = self.path / "gate.safetensors", self.partner
        if partner is None or not gate.is_file():
            return model
        both = Partners(model, partner.load_model())
        both.gate.load_state_dict(load_file(gate))
        return both

    def note(self) -> None:
        """Write `facts` to run.json."""
        write_json(self.path / "run.json", self.facts)

    def build(self) -> Model:
        """The model of this run with fresh weights (chance from torch's global generator)."""
        model = self.plain()
        self.adapt(model)
        return model

    def adapt(self, model: Model) -> None:
        """Apply the adapter of the recipe, where it has one, in place."""
        own = {k: v for k, v in self.recipe.adapter.items() if k not in ("method", "prior")}
        if self.recipe.adapter:
            catalog.find("adapters", self.recipe.adapter["method"])(**own).apply(model)

    def plain(self) -> Model:
        """The same without its adapter."""
        name = self.stage
        return catalog.trainable(name)(self.spec, **self.recipe.settings_of(name))

    def load_model(self, device: str = "cpu") -> Model:
        """The model with its averaged weights, ready to sample, what LoRA added folded in. Raises RunError as `trained` does."""
        return merged(self.trained()).eval().requires_grad_(False).to(device)

    def trained(self) -> Model:
        """The model as it was trained, with its averaged weights: the best on validation where that was looked at, else the newest.
        Raises RunError where there is no valid checkpoint."""
        checkpoint = self.best(("averaged",)) or self.newest(("averaged",))
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint yet; train for a little longer")
        model = self.build()
        try:
            model.load_state_dict(dict(checkpoint.tensors["averaged"]))
        except RuntimeError as error:
            raise RunError(f"the weights in {checkpoint.path} do not fit the recipe beside them: {error}") from None
        return model

    def keep_adapter(self) -> None:
        """What LoRA learnt, alone, as adapter/ of this run; a run of another method has none."""
        if self.recipe.adapter.get("method") == "lora":
            base = self.facts["start"]
            model = self.trained()
            told = {"base": base["fingerprint"], "run": base["run"]}
            save_adapter(model, self.path / "adapter", told | ({"task": self.told} if model.headed else {}))

    @property
    def told(self) -> dict[str, Any]:
        """What rebuilds this run's model and reads pieces for it, but for its weights; no folder of this machine is in it."""
        recipe = self.recipe.model_dump(mode="json") | {"start": None}  # nothing of this machine
        corpus = {k: v for k, v in self.facts["corpus"].items() if k != "path"}
        return {"recipe": recipe, "spec": self.facts["spec"], "corpus": corpus}

    def lay_on(self, model: Model, adapter: str) -> None:
        """Add an adapter, asked for as `runs/style:0.7`, onto this run's model. Raises RunError for one of another base, UsageError."""
        folder, weight = parse_adapter(adapter)
        base = facts_of(folder)
        if base.get("task") and not model.headed:
            raise UsageError(
                f"the adapter {adapter} holds a task, which makes nothing: give it a piece to speak of, with --source"
            )
        if base.get("base") != identity(self):
            raise RunError(
                f"the adapter {adapter} belongs to another base, {base.get('run')}, or to other weights of it than {self.path} has now; "
                f"generate from its own base, or adapt {self.path} again"
            )
        load_adapter(model, folder, weight)

    def sampler(self, device: str = "cpu", adapters: Sequence[str] = ()) -> Sampler:
        """adapters: `runs/style:0.7`, added up onto the model; of a pair onto its last stage."""
        model = self.load_model(device)
        for adapter in adapters:
            self.lay_on(model, adapter)
        if not isinstance(model, GenerativeModel):
            raise RunError(f"{self.path} is a run of {self.recipe.model}, which makes nothing alone; {self.use(model)}")
        codec = self.codec.load_model(device) if self.codec else None
        return Sampler(self.partners(model), codec)  # type: ignore[arg-type]

    def use(self, model: Model) -> str:
        """What a run that makes nothing is for."""
        if model.headed:
            return f"it answers about a piece: `maquette generate {self.path} --source FILE`, and `.answer(source)` in Python"
        if hasattr(model, "decode"):
            return f"it is half of a pair: {self.recipe.model}+transformer"
        if hasattr(model, "embed"):
            return f"it holds features, for `maquette train CORPUS --start {self.path}` and `maquette audit RUN --judge {self.path}`"
        return "what it answers is asked of it in Python, from `Run.load_model()`"

    def usual_condition(self, seeds: Sequence[int]) -> Tensor | None:
        """A condition for each seed, its label drawn as often as it occurs in training; None without labels."""
        condition, labels = self.spec.condition, self.facts["corpus"].get("labels") or {}
        fields = {f.name: f for f in condition.fields} if condition else {}
        names = [n for n in fields["label"].values if labels.get(n)] if "label" in fields else []
        if condition is None or not names:
            return None
        weights = torch.tensor([float(labels[n]) for n in names])
        picks = [int(torch.multinomial(weights, 1, generator=generator(seed, stream=9))) for seed in seeds]
        return torch.tensor([condition.encode({"label": names[k]}) for k in picks])

    # checkpoints

    def save(self, now: TrainState) -> Path:
        """Write a checkpoint beside the old ones; it counts once its manifest is in place. Raises StorageError on a full disk."""
        final = self.path / "checkpoints" / f"{now.step:08d}"
        partial = final.with_name(f".{final.name}.{os.getpid()}")
        with full_disk_in_words(final):
            try:
                self._write(partial, now)
                if final.exists():
                    shutil.rmtree(final)
                partial.rename(final)
                sync(final.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        halves = final.parent.glob(".[0-9]*")  # of processes that were killed while they saved
        for old in [*self._checkpoints()[KEPT:], *halves]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def _write(self, folder: Path, now: TrainState, only: Sequence[str] = ("weights", "averaged", "optimiser")) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sums = {}
        for name, tensors in now.tensors().items():
            if name not in only:
                continue
            file = folder / f"{name}.safetensors"
            try:
                save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, file)
            except SafetensorError as error:  # the library hides the errno of a full disk
                raise OSError(28 if "space" in str(error) else 5, str(error), str(file)) from None
            sync(file)
            sums[file.name] = checksum(file)
        write_json(folder / "manifest.json", {"version": VERSION, "files": sums, "facts": now.facts()})
        sync(folder)

    def keep_best(self, now: TrainState) -> None:
        """The averaged weights as the best so far. Raises StorageError on a full disk."""
        with full_disk_in_words(self.path), building(self.path / "best") as folder:
            self._write(folder, now, ("averaged",))

    def best(self, files: Sequence[str] = ("averaged",)) -> Checkpoint | None:
        """What `keep_best` kept last, if it is whole."""
        try:
            return _read(self.path / "best", files)
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def _checkpoints(self) -> list[Path]:
        """Newest first; those set aside or half written do not count."""
        return sorted((self.path / "checkpoints").glob("[0-9]" * 8), reverse=True)

    def newest(self, files: Sequence[str] = ("weights", "averaged", "optimiser")) -> Checkpoint | None:
        """The newest checkpoint whose checksums hold; damaged ones are set aside as <step>.damaged. None where there is none.

        Raises RunError when all that were there are damaged.
        """
        found = self._checkpoints()
        for folder in found:
            try:
                return _read(folder, files)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                self.event("damaged", checkpoint=folder.name, reason=str(error))
                folder.rename(folder.with_name(f"{folder.name}.damaged"))
        if found:
            raise RunError(
                f"every checkpoint of {self.path} is damaged; they were set aside beside it. Train again with another -o"
            )
        return None

    # log

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with (
            full_disk_in_words(self.path / "log.jsonl"),
            (self.path / "log.jsonl").open("a", encoding="utf-8") as stream,
        ):
            stream.write(json.dumps(record) + "\n")

    def event(self, name: str, **facts: Any) -> None:
        """Something that happened and is no measurement: a stop, a rollback, a damaged checkpoint; to events.jsonl."""
        with full_disk_in_words(self.path), (self.path / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"event": name, **facts}) + "\n")

    def forget_log_after(self, step: int) -> None:
        """Drop the records of steps that are about to be done again, and half a line left by a crash."""
        file = self.path / "log.jsonl"
        if file.exists():
            kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(file, "".join(f"{line}\n" for line in kept))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process a run folder. Raises RunError naming the process that has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                raise RunError(
                    f"{self.path} is being trained by process {stream.read().strip()}; wait for it or stop it"
                ) from None
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield


def identity(run: Run) -> str:
    """A fingerprint of the weights a run samples from: its averaged weights and those of its codec."""
    newest = run.best(()) or run.newest(())
    if newest is None:
        raise RunError(f"{run.path} has no checkpoint yet; train for a little longer")
    marks = [newest.sums["averaged.safetensors"], identity(run.codec) if run.codec else None]
    return fingerprint(marks + ([identity(run.partner)] if run.partner else []))


def _read(folder: Path, files: Sequence[str]) -> Checkpoint:
    manifest = read_json(folder / "manifest.json")
    tensors = {}
    for name in files:
        file = folder / f"{name}.safetensors"
        if checksum(file) != manifest["files"][file.name]:
            raise ValueError(f"{file.name} does not match its checksum")
        tensors[name] = load_file(file)
    return Checkpoint(folder, manifest["files"], tensors, manifest["facts"])


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


@dataclass(frozen=True)
class Sampler:
    """A model, and the codec its codes come from: both as one thing that samples pieces."""

    model: GenerativeModel
    codec: Codec | None = None

    @property
    def spec(self) -> DataSpec:
        return self.codec.spec if self.codec else self.model.spec  # type: ignore[attr-defined]

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """(len(request), *spec.space.shape). What `keep` marks is the source's to the last bit."""
        device = self.model.device
        request = _to(request, device)
        made = self.model.sample(self._in_codes(request))
        made = self.codec.decode(made) if self.codec else made
        if request.keep is not None and request.source is not None and not self.spec.space.ragged:
            made = torch.where(request.keep, request.source, made)
        return made.cpu()

    @torch.no_grad()
    def interpolate(self, request: SampleRequest, positions: Sequence[float]) -> Tensor:
        codes = self.model.interpolate(_to(request, self.model.device), positions)
        return (self.codec.decode(codes) if self.codec else codes).cpu()

    def _in_codes(self, request: SampleRequest) -> SampleRequest:
        """Source and keep in the space of the codes: a code is kept where all that it stands for is kept."""
        if self.codec is None or request.source is None:
            return request
        keep = None if request.keep is None else keep_codes(request.keep, self.codec.code_space, self.codec.code_axes)
        return request.with_(source=self.codec.encode(request.source), keep=keep)


def keep_codes(keep: Tensor, space: Any, axes: tuple[int, ...]) -> Tensor:
    """keep (B, C, *pixels) bool -> (B, *space.shape) bool; `axes` is the layout of the codes over the pixels."""
    cells = torch.stack([_all_within(row.all(0), axes) for row in keep])
    if space.kind == "tokens":
        return cells.reshape(len(keep), prod(axes))
    return cells.unsqueeze(1).expand(len(keep), *space.shape)


def _all_within(mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    """mask (*pixels) -> (*axes): True where every pixel of the cell is True."""
    for axis, cells in enumerate(axes):
        length = mask.shape[axis]
        bounds = [(i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells)]
        mask = torch.stack([mask.narrow(axis, a, b - a).all(axis) for a, b in bounds], axis)
    return mask


def _to(request: SampleRequest, device: torch.device) -> SampleRequest:
    moved = {
        k: None if t is None else t.to(device) for k in ("condition", "source", "keep") for t in (getattr(request, k),)
    }
    return request.with_(**moved)
