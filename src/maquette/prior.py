"""Prior preservation (Ruiz 2023, arXiv:2208.12242): beside few new pieces a model also sees what it made before, so that it forgets less."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from safetensors.torch import load_file, save

from maquette import files
from maquette.run import Run
from maquette.space import Batch, SampleRequest

PIECES = 256  # that the start makes of itself
FIRST = 1_000_000_000  # their seeds lie far from those a person asks for

Batches = Callable[..., Iterator[Batch]]


def prior_of(run: Run) -> Batch:
    """What the start of an adapted run makes in the space of its model; made once, kept in the run's folder."""
    place = run.path / "prior.safetensors"
    if not place.is_file():
        start = Run.open(run.recipe.start)  # type: ignore[arg-type]
        seeds = tuple(range(FIRST, FIRST + PIECES))
        condition = start.usual_condition(seeds)
        with torch.inference_mode():
            x = start.load_model().sample(SampleRequest(seeds, condition))  # type: ignore[operator]
        tensors = {"x": x} | ({} if condition is None else {"condition": condition})
        files.write_bytes(place, save({k: v.clone().contiguous() for k, v in tensors.items()}))
    found = load_file(place)
    return Batch(found["x"], found.get("condition"))


def beside(batches: Batches, prior: Batch, share: float, seed: int) -> Batches:
    """The same stream with a share of each batch in the place of prior pieces; which ones is a function of (seed, batch)."""

    def mixed(start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(batches(start=start), start):
            count = round(share * len(batch))
            chosen = np.random.default_rng([seed, number, 77]).integers(0, len(prior), count)
            yield joined(batch, prior.map(lambda t, chosen=chosen: t[torch.from_numpy(chosen)]))

    return mixed


def joined(batch: Batch, other: Batch) -> Batch:
    """`other` in the place of the last rows; sequences are cut or padded with their last token, which is the end."""
    keep = len(batch) - len(other)
    x = other.x
    if x.ndim == 2 and x.shape[1] != batch.x.shape[1]:
        width = batch.x.shape[1]
        more = x[:, -1:].expand(-1, max(0, width - x.shape[1]))
        x = torch.cat([x, more], 1)[:, :width]
    condition = batch.condition
    if condition is not None:
        rest = torch.full((len(other), condition.shape[1]), torch.nan) if other.condition is None else other.condition
        condition = torch.cat([condition[:keep], rest])
    before = None if batch.before is None else torch.cat([batch.before[:keep], torch.full((len(other),), -1)])
    return Batch(torch.cat([batch.x[:keep], x.to(batch.x.dtype)]), condition, batch.index, before)
