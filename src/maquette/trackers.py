"""TensorBoard and Weights & Biases, when asked for by name (extra `log`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from maquette.errors import MissingExtra, UnknownName


class Tracker(Protocol):
    def add(self, step: int, logs: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("--log tensorboard", "log") from None
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, step: int, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases; without a network set WANDB_MODE=offline, as wandb itself asks."""

    def __init__(self, folder: Path):
        try:
            import wandb
        except ImportError:
            raise MissingExtra("--log wandb", "log") from None
        self.run: Any = wandb.init(
            project="maquette", name=folder.name, dir=str(folder), resume="allow", id=folder.name
        )

    def add(self, step: int, logs: Mapping[str, float]) -> None:
        self.run.log(dict(logs), step=step)

    def close(self) -> None:
        self.run.finish()


TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB}


def known_trackers(names: Iterable[str]) -> None:
    """Raises UnknownName, before anything is trained."""
    for name in names:
        if name not in TRACKERS:
            raise UnknownName("tracker", name, TRACKERS)


def open_tracker(name: str, folder: Path) -> Tracker:
    """Raises MissingExtra."""
    return TRACKERS[name](folder)
