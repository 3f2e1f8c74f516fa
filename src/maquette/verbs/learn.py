"""adapt --feedback: a run and ratings of its pieces in, a run out that makes more of what is liked, and what that cost in variety.

Every family: the training pieces are shown in proportion to their chance to be liked (verbs/taste.py). Sequences besides learn from the
rated pieces themselves (feedback.Preference). How far a run has gone from its start is logged as `distance`, and limited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maquette import catalog, files
from maquette.corpus import Corpus
from maquette.errors import ContentError, RunError
from maquette.feedback import Lesson, check, keep, kept, narrowed
from maquette.likelihood import is_chain
from maquette.loop import only_here
from maquette.metrics.diversity import covered
from maquette.ratings import Ratings
from maquette.run import Run, identity
from maquette.verbs.adapt import adapted
from maquette.verbs.audit import draw
from maquette.verbs.drive import Progress
from maquette.verbs.reading import written
from maquette.verbs.rounds import RATED, with_more
from maquette.verbs.taste import (
    Taste,
    as_written,
    needed_corpus,
    padded,
    ratings_of,
    remembered,
    rewards,
    spaces_of,
    targets,
    taste_of,
)
from maquette.verbs.train import said, training

MINUTES = 1.0
POOL = 30_000  # training pieces whose chance to be liked is taken, at most
FEWEST = 32  # that are shown at least, where there are so many
JUDGED = 256  # pieces before and after, for the comparison
USEFUL = 0.66  # nats a held-out rating, above which a taste foretells nothing


@dataclass(frozen=True)
class Compared:
    """One figure of the run before and after; better: higher, or none where it only informs."""

    name: str
    before: float
    after: float

    @property
    def words(self) -> str:
        return f"{self.name:<28} {self.before:>8.3f} -> {self.after:.3f}"


def learn(run: Run, ratings: Path, out: Path, **options: Any) -> Run:
    """`learning` without anybody watching."""
    for _ in learning(run, ratings, out, **options):
        pass
    return Run.open(out)


def learning(
    run: Run,
    ratings: Path | None,
    out: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    corpus: Corpus | None = None,
    method: str = "full",
    seed: int | None = None,
    given: Mapping[str, Any] | None = None,
    loggers: tuple[str, ...] = (),
    compare: bool = True,
) -> Iterator[Progress]:
    """Fit a run to what is liked of its pieces; the same line goes on.

    ratings  a file; none: that in the run's folder
    minutes, steps  of training; none: MINUTES
    given    settings of feedback.Lesson, of the method and of training by their names, and `prior` (see prior.py)

    Raises ContentError (no ratings, one side only, contradictions), RunError (other weights, another `out`), CorpusError, SettingError.
    """
    out = Path(out)
    settings, rest = check(given or {})
    said_so = ratings_of(run, ratings)
    corpus = needed_corpus(run, corpus)
    found = kept(out)
    if found is None:
        yield said(run.stage, f"ratings: {said_so.words}")
        found = prepared(run, said_so, corpus, out, settings)
    facts, tensors = found
    if facts["ratings"] != said_so.mark or facts["base"] != identity(run) or facts["settings"] != settings:
        raise RunError(f"{out} learns from other ratings, another run or other settings; choose another folder with -o")
    yield said(run.stage, facts["words"])
    recipe = adapted(run, method, rest)
    pace = {"lr_scale": recipe.train.get("lr_scale", 1.0) * settings["rate"], "steps": steps}
    chosen = {"minutes": None if steps else minutes or MINUTES, "seed": seed, "train": {**recipe.train, **pace}}
    recipe = recipe.model_copy(update={k: v for k, v in chosen.items() if k != "seed" or v is not None})
    stopped = False
    for progress in training(narrowed(corpus, tensors), recipe, out, loggers=loggers):
        stopped = stopped or "stopped" in progress.news
        yield progress
    only_here(Run.open(out).keep_adapter)
    if compare and not stopped and not (out / "feedback.json").is_file():
        table = compared(run, Run.open(out), corpus, said_so)
        files.write_json(out / "feedback.json", {**facts, "compared": [asdict(c) for c in table]})
        yield said(run.stage, "\n".join(["before -> after", *(c.words for c in table)]))


def prepared(
    run: Run, ratings: Ratings, corpus: Corpus, out: Path, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the run will learn from, written into its folder: which pieces are shown, and of sequences the rated pieces."""
    if out.is_dir() and Run.exists(out):
        raise RunError(f"{out} is a run that learnt without feedback; choose another folder with -o")
    model = run.load_model()
    direct = run.codec is None and is_chain(model) and hasattr(model, "hidden")
    if not direct:
        ratings.need_both_sides()
    taste, words, tensors, rounds = None, "", {}, 1
    if ratings.one_sided:
        x, condition = remembered(run, ratings)
        words = f"all rated pieces are {'liked' if ratings.likes else 'disliked'}: only the pieces themselves teach, not a taste"
    else:
        taste, x, condition = taste_of(run, ratings, corpus)
        words = taste.words
        if taste.linear.nats > USEFUL and not direct:
            raise ContentError(
                f"from {len(ratings.wishes)} ratings nothing can be foretold of others ({taste.words}): rate more pieces, or by "
                "something that can be seen in them"
            )
        if taste.linear.nats <= USEFUL:
            tensors = shown(taste, corpus, Lesson(**settings))
            count, of = len(tensors["train"]), corpus.size("train")
            words += f"; {count:,} of {of:,} training pieces are shown"
    if direct:
        liked, pairs = targets(ratings)
        rated = {"x": x, "liked": liked, "pairs": pairs} | ({} if condition is None else {"condition": condition})
        heard = rated
        if taste is not None and taste.linear.nats <= USEFUL:
            rounds = max(1, min(settings["rounds"], settings["more"]))
            heard = with_more(run, taste, rated, settings["more"] // rounds)
            words += f"; it speaks for {len(heard['x']) - len(x)} other pieces of the run too" + (
                ", anew in each round" if rounds > 1 else ""
            )
        tensors |= heard | {f"{RATED}{k}": v for k, v in rated.items() if rounds > 1 and k != "pairs"}
    facts = {
        "rounds": rounds,
        "ratings": ratings.mark,
        "base": identity(run),
        "settings": dict(settings),
        "rated": ratings.words,
        "words": words,
        "nats": None if taste is None else taste.linear.nats,
    }
    keep(out, facts, tensors, model)
    return kept(out)  # type: ignore[return-value]


def shown(taste: Taste, corpus: Corpus, lesson: Lesson) -> dict[str, Tensor]:
    """Of train and validation the numbers of the pieces that are shown: each stays by chance, as its chance to be liked says."""
    found = {}
    for split, seed in (("train", 0), ("validation", 1)):
        numbers = corpus.numbers(split)
        if len(numbers) > POOL:
            numbers = numbers[np.arange(POOL) * len(numbers) // POOL]
        if len(numbers):
            stays = thinned(rewards(taste, corpus, numbers), lesson.sharpness, lesson.floor, seed)
            found[split] = torch.from_numpy(np.ascontiguousarray(numbers[stays.numpy()]))
    return found


def thinned(reward: Tensor, sharpness: float, floor: float, seed: int) -> Tensor:
    """reward (N,): log of the chance to be liked -> bool (N,): which pieces stay. The best twentieth surely do, the others by
    (their chance / that of those)^sharpness, at least `floor`; of few pieces the best FEWEST stay."""
    best = reward.quantile(0.95) if len(reward) <= 1 << 20 else reward.max()
    chance = ((reward - best) * sharpness).exp().clamp(floor, 1)
    luck = torch.rand(len(reward), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    stays = luck < chance
    stays[reward.argsort(descending=True)[:FEWEST]] = True
    return stays


# ---- what it cost


def compared(before: Run, after: Run, corpus: Corpus, ratings: Ratings) -> list[Compared]:
    """Both runs side by side: the chance to be liked, how varied the pieces are, and of sequences the nats of the validation split."""
    made = [pieces(r, corpus, JUDGED) for r in (before, after)]
    table = []
    x, _ = remembered(before, ratings)
    if not ratings.one_sided:
        taste = taste_of(before, ratings, corpus)[0]
        table.append(Compared("foretold to be liked", *(float(taste.reward(m).exp().mean()) for m in made)))
    real = real_pieces(corpus, 4 * JUDGED)
    for name, features in spaces_of(before, x, corpus).items():
        if name in ("what is measured of each", "the tokens in it"):
            continue
        held = features(real)
        table.append(Compared(f"coverage in {name}", *(float(covered(features(m), held).mean()) for m in made)))
    if corpus.spec.space.kind == "tokens":
        table += [
            Compared(f"different runs of {n}", *(distinct(m, n, corpus.spec.space.end) for m in made))
            for n in (1, 2, 3)
        ]
    return table


def pieces(run: Run, corpus: Corpus, n: int, seed: int = 500_000) -> Tensor:
    """(n, ...) pieces of a run as they are written."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    if corpus.spec.space.ragged:
        return padded(list(written(run, modality, n, seed, "cpu", chunk=64)), corpus.spec.space.end)
    return torch.stack([as_written(x, modality) for x in draw(run, n, seed, "cpu")])


def real_pieces(corpus: Corpus, n: int) -> Tensor:
    """Held-out pieces, of sequences the first window."""
    split = "test" if corpus.size("test") else "train"
    numbers = corpus.numbers(split)
    numbers = numbers[np.arange(min(n, len(numbers))) * len(numbers) // min(n, len(numbers))]
    space = corpus.spec.space
    if space.ragged:
        return padded([corpus.take(np.array([i])).x[0, : space.shape[0]] for i in numbers], space.end)
    return corpus.take(numbers).x


def distinct(x: Tensor, n: int, end: int) -> float:
    """Different runs of n tokens as a share of all of them (Li 2016, arXiv:1510.03055).

    >>> distinct(torch.tensor([[1, 2, 1, 2, 0]]), 2, 0)
    0.6666666666666666
    """
    seen: set[tuple[int, ...]] = set()
    count = 0
    for row in F.pad(x, (0, 1), value=end).tolist():
        row = row[: row.index(end)] if end >= 0 else row[:-1]
        runs = list(zip(*(row[k:] for k in range(n)), strict=False))
        seen.update(runs)
        count += len(runs)
    return len(seen) / max(1, count)
