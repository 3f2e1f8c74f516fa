"""Maquette trains generative models on a person's own content and makes new content from them.

    import maquette as mq
    run = mq.train(mq.prepare("my-pictures"), model="flow", minutes=5)
    run.generate(16, condition={"label": "dragon"})[0].save("a.png")

Names are loaded when they are used, so that `import maquette` costs nothing.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "prepare": "api",
    "pretrain": "api",
    "train": "api",
    "adapt": "api",
    "tune": "api",
    "generate": "api",
    "rate": "api",
    "learn": "api",
    "audit": "api",
    "compare": "api",
    "create": "api",
    "export": "api",
    "verify": "api",
    "open_run": "api",
    "Corpus": "corpus",
    "Piece": "piece",
    "Marks": "provenance.finishing",
    "Modality": "piece",
    "Space": "space",
    "DataSpec": "space",
    "Batch": "space",
    "Losses": "space",
    "Phase": "space",
    "Optimiser": "space",
    "Model": "space",
    "GenerativeModel": "space",
    "SampleRequest": "space",
    "Recipe": "recipe",
    "MaquetteError": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maquette' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"maquette.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
