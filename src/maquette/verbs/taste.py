"""A taste: how likely a person likes a piece, learnt at once from ratings; what `generate --liked` and `adapt --feedback` go by.

The reward is linear (nets/reward.py) on features of a piece; which features tell most is chosen by cross-validation: those of the corpus's
judge, of the model itself, what the modality measures, the bare pixels or words, or all together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from maquette import catalog
from maquette.corpus import Corpus
from maquette.errors import ContentError, CorpusError, MaquetteError, StorageError
from maquette.features import Pixels, judge_of
from maquette.files import fingerprint, write_bytes
from maquette.nets.reward import Linear, fitted
from maquette.piece import Modality
from maquette.ratings import FILE, Ratings, read, settled
from maquette.run import Run, identity
from maquette.verbs.generate import CHUNK, Wish, to_request

Features = Callable[[Tensor], Tensor]  # pieces (B, ...) -> (B, D)
WORDS = 4096  # numbers that runs of two tokens are told apart by
TOKENS = 8192  # tokens of a larger vocabulary share a number


@dataclass(frozen=True)
class Taste:
    """features: of a piece; space: which they are; rated: pieces it is learnt from."""

    space: str
    features: Features
    linear: Linear
    rated: int

    def odds(self, x: Tensor) -> Tensor:
        """pieces (B, ...) -> log-odds of being liked (B,)"""
        return self.linear(self.features(x))

    def reward(self, x: Tensor) -> Tensor:
        """pieces (B, ...) -> log of the chance to be liked (B,), at most 0: among pieces that are surely liked none is better."""
        return F.logsigmoid(self.odds(x))

    @property
    def words(self) -> str:
        return f"the taste is read from {self.space}: {self.linear.nats:.2f} nats a rating it has not seen, where guessing costs 0.69"


def taste_of(run: Run, ratings: Ratings, corpus: Corpus | None = None) -> tuple[Taste, Tensor, Tensor | None]:
    """The taste, the rated pieces (N, ...) and their conditions. Raises ContentError where nothing is better than anything."""
    ratings.need_both_sides()
    x, condition = remembered(run, ratings)
    return learnt(x, *targets(ratings), spaces_of(run, x, corpus)), x, condition


def ratings_of(run: Run, file: Path | None = None) -> Ratings:
    """The ratings of a run; those in its folder where no file is named. Raises ContentError, RunError."""
    file = Path(file) if file else run.path / FILE
    if not file.is_file():
        raise ContentError(f"no ratings at {file}; `maquette rate {run.path}` asks for some and writes them there")
    return settled(read(file), identity(run), str(run.path))


def targets(ratings: Ratings) -> tuple[Tensor, Tensor]:
    """liked (N,) 1, 0 or NaN, and pairs (P, 2)"""
    liked = torch.full((len(ratings.wishes),), torch.nan)
    for i, said in ratings.liked:
        liked[i] = float(said)
    return liked, torch.tensor(ratings.pairs, dtype=torch.long).view(-1, 2)


def learnt(x: Tensor, liked: Tensor, pairs: Tensor, spaces: Mapping[str, Features]) -> Taste:
    """The best of all spaces, and of all together, by cross-validation. liked, pairs: see `targets`."""
    even = {name: evened(features, x) for name, features in spaces.items()}
    if len(even) > 1:
        parts = list(even.values())
        even["all that is known of a piece"] = lambda y: torch.cat([features(y) for features in parts], 1)
    found = [Taste(name, features, fitted(features(x), liked, pairs), len(x)) for name, features in even.items()]
    return min(found, key=lambda taste: taste.linear.nats)


def evened(features: Features, x: Tensor) -> Features:
    """The same, so scaled that rated pieces x lie at a mean square of 1 around their mean."""
    rows = features(x)
    size = (rows - rows.mean(0)).square().sum(1).mean().sqrt().clamp_min(1e-9)
    return lambda y: features(y) / size


# ---- features


def spaces_of(run: Run, x: Tensor, corpus: Corpus | None = None) -> dict[str, Features]:
    """Name -> features of pieces as tensors; x: rated pieces, which say how widely what is measured spreads."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    space = (run.codec or run).spec.space
    found: dict[str, Features] = {}
    if space.kind == "grid":
        found["the picture itself"] = Pixels(space).embed
        if corpus is not None:
            found["the corpus's judge"] = in_parts(judge_of(corpus).judge.embed)
    if space.kind == "vector":
        found["its numbers"] = lambda x: x.float()
    if space.kind == "tokens":
        found["the tokens in it"] = lambda x: spoken(x[:, : space.shape[0]], space)
    model = (run.codec or run).load_model()
    if hasattr(model, "embed"):
        found["the model itself"] = in_parts(model.embed)
    if type(modality).measured is not Modality.measured:
        found["what is measured of each"] = standardised(lambda x: measured(modality, x), x)
    return found


def in_parts(embed: Features) -> Features:
    """The same, 256 pieces at once, without gradients."""

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        return torch.cat([embed(part).float().flatten(1) for part in x.split(256)])

    return features


def standardised(features: Features, x: Tensor) -> Features:
    """The same, each divided by its deviation among x."""
    spread = features(x).std(0).nan_to_num(0)
    scale = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
    return lambda y: features(y) / scale


def spoken(x: Tensor, space: Any) -> Tensor:
    """x (B, n) tokens -> (B, D): which tokens, and which runs of two (hashed), a piece holds."""
    counted = space.counted(x) if space.ragged else torch.ones_like(x, dtype=torch.bool)
    singles = torch.zeros(len(x), min(space.vocabulary, TOKENS) + 1)
    twos = torch.zeros(len(x), WORDS + 1)
    singles.scatter_(1, torch.where(counted, x % (singles.shape[1] - 1), singles.shape[1] - 1), 1.0)
    mixed = (x[:, :-1] * 1_000_003 + x[:, 1:] * 7_919) % WORDS
    twos.scatter_(1, torch.where(counted[:, 1:], mixed, WORDS), 1.0)
    return torch.cat([singles[:, :-1], 0.5 * twos[:, :-1]], 1)


def measured(modality: Modality, x: Tensor) -> Tensor:
    """(B, D) what the modality measures of each piece"""
    rows = [list(modality.measured(modality.to_piece(row)).values()) for row in x]
    return torch.tensor(rows, dtype=torch.float32).nan_to_num(0.0)


# ---- pieces


def made_again(run: Run, wishes: Sequence[Mapping[str, Any]], device: str = "cpu") -> tuple[Tensor, Tensor | None]:
    """The pieces of these wishes (N, ...), as written, in their order, and the condition of each (N, width) or None. Of a ragged space
    they are padded with the end."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    rows: list[Tensor] = [torch.zeros(0)] * len(wishes)
    width = run.spec.condition.width if run.spec.condition else 0
    condition = torch.full((len(wishes), width), torch.nan)
    for wish, numbers in _alike(wishes):
        sampler = run.sampler(device, wish.adapters)
        for start in range(0, len(numbers), CHUNK):
            part = numbers[start : start + CHUNK]
            request = to_request(run, modality, wish, [int(wishes[i]["seed"]) for i in part])
            made = sampler.sample(request)
            for place, i in enumerate(part):
                rows[i] = as_written(made[place], modality)
                if request.condition is not None:
                    condition[i] = request.condition[place]
    return padded(rows, (run.codec or run).spec.space.end), condition if width else None


def remembered(run: Run, ratings: Ratings) -> tuple[Tensor, Tensor | None]:
    """`made_again` of all rated pieces; kept in the run's folder until other pieces are rated."""
    file, mark = run.path / "rated.safetensors", fingerprint([identity(run), list(ratings.wishes)])
    with suppress(OSError, SafetensorError, KeyError), safe_open(file, "pt") as known:
        if known.metadata()["mark"] == mark:
            found = {k: known.get_tensor(k) for k in known.keys()}  # noqa: SIM118
            return found["x"], found.get("condition")
    x, condition = made_again(run, ratings.wishes)
    tensors = {"x": x.contiguous()} | ({} if condition is None else {"condition": condition})
    with suppress(StorageError):
        write_bytes(file, save(tensors, {"mark": mark}))
    return x, condition


def _alike(wishes: Sequence[Mapping[str, Any]]) -> Iterable[tuple[Wish, list[int]]]:
    """Wishes that differ in nothing but their seed, with their places."""
    groups: dict[str, list[int]] = {}
    for i, wish in enumerate(wishes):
        key = repr(sorted((k, v) for k, v in wish.items() if k != "seed"))
        groups.setdefault(key, []).append(i)
    for places in groups.values():
        yield wish_of(wishes[places[0]]), places


def wish_of(data: Mapping[str, Any]) -> Wish:
    """Raises ContentError for what no Maquette has written."""
    try:
        return Wish(**data)
    except TypeError as error:
        raise ContentError(f"a rating names a piece by what is no wish ({error}); take that line out") from None


def wish_facts(wish: Wish, seed: int) -> dict[str, Any]:
    """What a rating notes of a piece: what was asked, without what is as usual."""
    usual = asdict(Wish())
    asked = {k: v for k, v in asdict(replace(wish, seed=seed)).items() if k == "seed" or v != usual[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asked.items()}


def as_written(x: Tensor, modality: Modality) -> Tensor:
    """What a person sees of a grid, after rounding; tokens as they are."""
    return modality.to_tensor(modality.to_piece(x)) if x.is_floating_point() else x


def padded(rows: Sequence[Tensor], end: int) -> Tensor:
    """Rows of one shape as one tensor; sequences padded with the end."""
    if rows[0].ndim > 1 or rows[0].is_floating_point():
        return torch.stack(list(rows))
    longest = max(len(r) for r in rows)
    return torch.stack([F.pad(r, (0, longest - len(r)), value=max(end, 0)) for r in rows])


def corpus_if_there(run: Run) -> Corpus | None:
    """The corpus of a run where it still lies as it was trained on."""
    with suppress(MaquetteError):
        corpus = Corpus.open((run.path / run.facts["corpus"]["path"]).resolve())
        if corpus.fingerprint == run.facts["corpus"]["fingerprint"]:
            return corpus
    return None


def needed_corpus(run: Run, corpus: Corpus | None) -> Corpus:
    """Raises CorpusError where it has moved or is another."""
    found = corpus or corpus_if_there(run)
    if found is None or found.fingerprint != run.facts["corpus"]["fingerprint"]:
        raise CorpusError(
            f"the corpus that {run.path} was trained on is not where it was (or has changed); give it as the corpus"
        )
    return found if run.spec.condition else found.unconditioned()


def rewards(taste: Taste, corpus: Corpus, numbers: np.ndarray, most: int = 256) -> Tensor:
    """The reward of each of these pieces (n,), of sequences by as many tokens as a rated piece has at most: a taste for short pieces knows
    nothing of the length of whole ones."""
    parts = [numbers[i : i + most] for i in range(0, len(numbers), most)]
    length = corpus.spec.space.shape[0] if corpus.spec.space.ragged else None
    found = [taste.reward(corpus.take(part).x[:, :length]) for part in parts]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
