"""Feedback in rounds: what a model of sequences writes on its way is judged by the taste, so that it learns from pieces as it makes them now
and not from those of its start alone, which it soon no longer writes (on-policy: Guo 2024, arXiv:2402.04792; Xu 2023, arXiv:2312.16682)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from maquette import catalog
from maquette.corpus import augmented
from maquette.feedback import FOLDER, kept
from maquette.files import write_bytes
from maquette.run import Run, Sampler
from maquette.space import Batch, Model
from maquette.verbs.taste import Taste, learnt, made_again, padded, spaces_of

CHUNK = 128  # pieces whose nats are taken at once
FIRST = 2_000_000_000  # seed of the first piece that the taste speaks for
VARIATIONS = 4  # of a piece, of which one is taken
RATED = "rated."  # begins the names of what a person rated, as it was
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
    more, count = facts["settings"]["more"], facts["rounds"]
    rated = {k[len(RATED) :]: v for k, v in tensors.items() if k.startswith(RATED)} | {"pairs": tensors["pairs"]}
    begun = Begun(run.path, run.recipe, run.facts)
    taste = learnt(rated["x"], rated["liked"], rated["pairs"], spaces_of(begun, rated["x"]))

    def written(model: Model, number: int) -> dict[str, Tensor]:
        file = run.path / FOLDER / f"round-{number}.safetensors"
        with suppress(OSError, SafetensorError):
            return load_file(file)
        now = Writing(run.path, run.recipe, run.facts)
        now.model = model
        share = more // count
        fresh = with_more(now, taste, rated, share, number * share)
        fresh["nats"] = nats_of(model, fresh["x"], fresh.get("condition"))
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


def with_more(run: Run, taste: Taste, rated: Mapping[str, Tensor], count: int, after: int = 0) -> dict[str, Tensor]:
    """Rated pieces (x, liked, pairs and, where there is one, condition) with those of `count` other pieces of the run of which the
    taste is sure enough: what rated pieces have in common by accident, these have not. after: pieces that were made before.

    All are varied as training pieces are, or the run would come to make what it happened to begin with (of chorales in minor half were in one
    key). twin (N,): of each liked piece the disliked one that is most like it otherwise.
    """
    if not count:
        return dict(rated)
    made, asked = made_again(run, [{"seed": FIRST + after + k} for k in range(count)])
    chance = taste.reward(made).exp()
    sure = (chance > SURE[1]) | (chance < SURE[0])
    said = torch.cat([rated["liked"], (chance[sure] > 0.5).to(rated["liked"])])
    both = padded([*rated["x"], *made[sure]], (run.codec or run).spec.space.end)
    told = None if asked is None else torch.cat([rated["condition"], asked[sure]])
    batch = varied(run, taste, Batch(both, told), said, rated["x"], FIRST + after)
    found = {"x": batch.x, "liked": said, "pairs": rated["pairs"], "twin": twins(taste, batch.x, said)}
    return found | ({} if batch.condition is None else {"condition": batch.condition})


def varied(run: Run, taste: Taste, pieces: Batch, said: Tensor, usual: Tensor, seed: int) -> Batch:
    """Each piece as its modality varies training pieces, where the taste surely says of it what was `said`; else as it is. Of a few variations
    chance takes one, each as likely as its features are among those of `usual` pieces: moved again and again, tunes leave their register."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    known = taste.features(usual).double()
    mean, std = known.mean(0), known.std(0)
    std[std <= 1e-3 * std.max()] = torch.inf  # what hardly varies says nothing
    best = torch.full((len(pieces),), -torch.inf, dtype=torch.float64)
    luck = torch.Generator().manual_seed(seed)
    x, condition = pieces.x, pieces.condition
    for k in range(VARIATIONS):
        other = augmented(pieces, partial(modality.augment, condition=run.spec.condition), seed + k)
        if other is pieces:  # this modality varies nothing
            return pieces
        rows = taste.features(other.x).double()
        chance = taste.linear(rows).sigmoid()
        same = torch.where(said == 1, chance > SURE[1], (said == 0) & (chance < SURE[0]))
        gumbel = -torch.empty_like(best).exponential_(generator=luck).log()
        fits = torch.where(same, gumbel - ((rows - mean) / std).square().sum(1) / 2, -torch.inf)
        x = torch.where((fits > best)[:, None], other.x, x)
        if condition is not None:
            condition = torch.where((fits > best)[:, None], other.condition, condition)  # type: ignore[arg-type]
        best = torch.maximum(best, fits)
    return Batch(x, condition)


def twins(taste: Taste, x: Tensor, said: Tensor) -> Tensor:
    """(N,): of each liked piece the number of the disliked one that is nearest to it in all that the taste could go by and does not; of the
    others their own. A run that learns from such twins learns what is liked and not what happens to come with it."""
    rows = taste.features(x).double() - taste.linear.centre
    way = taste.linear.weight / taste.linear.weight.norm().clamp_min(1e-12)
    rows = rows - (rows @ way)[:, None] * way
    found = torch.arange(len(x))
    liked, disliked = (torch.nonzero(said == s).flatten() for s in (1, 0))
    if len(disliked):
        for part in liked.split(256):
            found[part] = disliked[torch.cdist(rows[part], rows[disliked]).argmin(1)]
    return found
