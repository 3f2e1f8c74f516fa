"""answer: a run of a task and a file in, what it says about it out: a name, a number, a caption, or the piece made whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette import catalog, files
from maquette.errors import UsageError
from maquette.loop import pick_device
from maquette.piece import Modality, Piece
from maquette.provenance.finishing import Marks
from maquette.run import Run
from maquette.space import SampleRequest
from maquette.verbs.generate import Wish, papers
from maquette.verbs.heads import answers, is_task, laid


@dataclass(frozen=True)
class Answer:
    """facts: the answer and where it comes from; words: it in one line; piece: what was made whole, else None."""

    facts: Mapping[str, Any]
    words: str
    piece: Piece | None = None


@torch.inference_mode()
def answer(run: Run, wish: Wish, device: str = "auto") -> Answer:
    """Raises UsageError for a run of another kind and where no source is given, ContentError or Unreadable for its file."""
    if not answers(run, wish.adapters):
        raise UsageError(
            f"{run.path} is a run of {run.recipe.model}, which makes pieces; a run of `maquette adapt --task` answers"
        )
    if not wish.source:
        own = is_task(run.stage)
        who = f"{run.path} is a run of {run.stage}" if own else f"the adapter {wish.adapters[0]} holds a task"
        raise UsageError(f"{who}, which says something about a piece: give one with --source")
    run, model = laid(run, wish.adapters)
    modality, model = catalog.modality(run.facts["corpus"]["modality"]), model.to(pick_device(device))
    if hasattr(model, "restored"):
        return _whole(run, model, modality, wish)
    if wish.keep:
        raise UsageError(f"{run.stage} looks at a whole piece; --keep means nothing to it, drop it")
    x = modality.to_tensor(modality.clean(modality.one(wish.source)))
    if run.spec.space.ragged:
        x = torch.cat([x, x.new_tensor([run.spec.space.end])])
    x = x.unsqueeze(0).to(model.device)
    more = {"seed": wish.seed, "temperature": wish.temperature if wish.temperature != 1 else 0.0}
    found = model.answer(x, **more) if run.stage == "caption" else model.answer(x)
    return Answer({"answer": dict(found), **papers(run, wish)}, said(found, wish.source))


def said(found: Mapping[str, Any], source: str) -> str:
    """
    >>> said({"label": "cat", "probability": 0.91, "abstains": False, "probabilities": {"cat": 0.91, "dog": 0.09}}, "a.png")
    'a.png: label cat (91%)'
    """
    name, value = next(iter(found.items()))
    if isinstance(value, float):
        return f"{source}: {name} {value:.4g}"
    if "probability" not in found:
        return f"{source}: {name} {', '.join(value) or 'none' if isinstance(value, list) else json.dumps(value, ensure_ascii=False)}"
    sure = f"{found['probability']:.0%}"
    return (
        f"{source}: unsure; {name} {value} at best ({sure})"
        if found["abstains"]
        else f"{source}: {name} {value} ({sure})"
    )


def _whole(run: Run, model: Any, modality: Modality, wish: Wish) -> Answer:
    """The piece of the file, restored."""
    x = _imputed(model, modality, wish) if model.kind == "impute" else _restored(run, model, modality, wish)
    piece = replace(modality.to_piece(x.cpu(), papers(run, wish)), modality=modality)
    return Answer(piece.facts, f"{wish.source}: {DONE[model.kind]}", piece)


DONE = {
    "denoise": "noise taken away",
    "inpaint": "holes filled",
    "enlarge": "blocks enlarged",
    "impute": "missing tokens written",
}


def _restored(run: Run, model: Any, modality: Modality, wish: Wish) -> Tensor:
    if (model.kind == "inpaint") != (wish.keep is not None):
        raise UsageError(
            f"{run.path} fills holes: say with --keep what stays, the rest is filled"
            if model.kind == "inpaint"
            else f"{run.path} learnt to {model.kind}, which changes the whole piece; --keep means nothing to it, drop it"
        )
    start = modality.start(wish.asked)
    x = start.source.unsqueeze(0).to(model.device)  # type: ignore[union-attr]
    hidden = None if start.keep is None else ~start.keep.all(0).view(1, 1, *start.keep.shape[1:]).to(model.device)
    return model.restored(x, hidden)[0].clamp(-1, 1)


def _imputed(model: Any, modality: Modality, wish: Wish) -> Tensor:
    if wish.keep is None:
        raise UsageError("restore writes what is missing of a sequence: say with --keep what stays")
    start = modality.start(wish.asked)
    row = {"source": start.source.unsqueeze(0), "keep": start.keep.unsqueeze(0)}  # type: ignore[union-attr]
    return model.imputed(SampleRequest((wish.seed,), temperature=wish.temperature, length=start.length, **row))[0]


def save(found: Answer, out: Path, marks: Marks | None = None) -> Path:
    """A file named `out`, or in the folder `out`: the restored piece, or answer.json."""
    if found.piece is not None:
        assert found.piece.modality is not None
        usual = (found.piece.modality.formats or found.piece.modality.suffixes)[0]
        return replace(found.piece, marks=marks).save(out if out.suffix else out / f"restored{usual}")
    return files.write_json(out if out.suffix == ".json" else out / "answer.json", dict(found.facts))
