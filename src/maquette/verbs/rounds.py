"""Feedback in rounds: what a model of sequences writes on its way is judged by the taste, so that it learns from pieces as it makes them now
and not from those of its start alone, which it soon no longer writes (on-policy: Guo 2024, arXiv:2402.04792; Xu 2023, arXiv:2312.16682)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from maquette.feedback import FOLDER, kept
from maquette.files import write_bytes
from maquette.run import Run, Sampler
from maquette.space import Batch, Model
from maquette.verbs.taste import Taste, learnt, made_again, padded, spaces_of

CHUNK = 128  # pieces whose nats are taken at once
FIRST = 2_000_000_000  # seed of the first piece that the taste speaks for
SURE = (0.25, 0.6)  # chances to be liked below and above which it does


class Begun(Run):
    """A run that learns from feedback, as it was before: its model is the one it began from."""

    def load_model(self, device: str = "cpu") -> Model:
        model = self.plain()
        model.load_state_dict(load_file(self.path / FOLDER / "start.safetensors"))
        return model.eval().requires_grad_(False).to(device)


class Writing(Run):
    """A run whose pieces are those of a model that is still being trained."""

    model: Any

    def sampler(self, device: str = "cpu", adapters: Sequence[str] = ()) -> Sampler:
        return Sampler(self.model)


def rounds_of(run: Run) -> Callable[[Model, int], dict[str, Tensor]] | None:
    """(model, number of the round) -> rated pieces as `lesson.safetensors` holds them, with other pieces of that model; None where the run
    learns no taste from pieces. What a round learns from is kept in feedback/round-<number>.safetensors, so that going on finds it."""
    found = kept(run.path) if (run.path / FOLDER).is_dir() else None
    if found is None or found[0].get("rounds", 1) < 2:
        return None
    facts, tensors = found
    rated, more, count = facts["rated_pieces"], facts["settings"]["more"], facts["rounds"]
    x, condition = tensors["x"][:rated], tensors.get("condition")
    condition = None if condition is None else condition[:rated]
    taste = learnt(x, tensors["liked"][:rated], tensors["pairs"], spaces_of(Begun(run.path, run.recipe, run.facts), x))

    def written(model: Model, number: int) -> dict[str, Tensor]:
        file = run.path / FOLDER / f"round-{number}.safetensors"
        with suppress(OSError, SafetensorError):
            return load_file(file)
        now = Writing(run.path, run.recipe, run.facts)
        now.model = model
        share = more // count
        rows, told, liked, _ = with_more(now, taste, x, condition, tensors["liked"][:rated], share, number * share)
        fresh = {"x": rows, "liked": liked, "pairs": tensors["pairs"], "nats": nats_of(model, rows, told)}
        fresh |= {} if told is None else {"condition": told}
        write_bytes(file, save({k: v.contiguous() for k, v in fresh.items()}))
        return fresh

    return written


def nats_of(model: Model, x: Tensor, condition: Tensor | None) -> Tensor:
    """Of each piece (N,), by the model as it is."""
    pieces = Batch(x[:, : model.spec.space.shape[0]], condition)
    parts = [pieces.map(lambda t, i=i: t[i : i + CHUNK]).to(model.device) for i in range(0, len(x), CHUNK)]  # type: ignore[misc]
    return -torch.cat([model.log_likelihood(part.x, part.condition).cpu() for part in parts])  # type: ignore[operator]


def forget_rounds(run: Run) -> None:
    """What was written by a model that diverged teaches nothing; going on from the last checkpoint writes it anew."""
    for file in (run.path / FOLDER).glob("round-*.safetensors"):
        file.unlink()


def with_more(
    run: Run, taste: Taste, x: Tensor, condition: Tensor | None, liked: Tensor, count: int, after: int = 0
) -> tuple[Tensor, Tensor | None, Tensor, int]:
    """Rated pieces, their conditions and what is said of them, with `count` other pieces of the run of which the taste is sure enough:
    what rated pieces have in common by accident, these have not. after: pieces that were made before."""
    if not count:
        return x, condition, liked, 0
    made, asked = made_again(run, [{"seed": FIRST + after + k} for k in range(count)])
    chance = taste.reward(made).exp()
    sure = (chance > SURE[1]) | (chance < SURE[0])
    both = padded([*x, *made[sure]], (run.codec or run).spec.space.end)
    said = torch.cat([liked, (chance[sure] > 0.5).to(liked)])
    return both, None if condition is None else torch.cat([condition, asked[sure]]), said, int(sure.sum())  # type: ignore[index]
