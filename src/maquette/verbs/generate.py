"""generate: a run in, new pieces out; each has its own seed and carries its papers, so that `like` makes it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette import catalog
from maquette.adapting import adapter_sum
from maquette.errors import ContentError, RunError, SettingError, UsageError
from maquette.loop import pick_device
from maquette.piece import Asked, Modality, Piece
from maquette.provenance.finishing import Marks
from maquette.run import Run, identity
from maquette.space import SampleRequest
from maquette.verbs.series import Series, columns, named, of_all

CHUNK = 64  # pieces made at once
OF_ONE = (
    "nearest",
    "verdict",
    "p",
    "draws",
    "liked",
    "position",
    "series",
)  # facts that hold of one piece, not of a sheet of many
CANDIDATES = 1000  # most among which the best is looked for
MOST_THREADS = 1024  # that papers may ask for
MOST_SERIES = 1000  # pieces of a series


@dataclass(frozen=True)
class Wish:
    """What is asked for, in words a person writes; travels in each piece's metadata.

    seed         of the first piece; piece k has seed + k
    condition    {"label": "dragon"}; empty: labels as often as they occur in training
    source, keep, prompt, form, rules, bars, length: see piece.Asked
    adapters     ("runs/style:0.7", ...): what was learnt by LoRA, added to the run by weight
    temperature, guidance, steps, top_k, top_p, repetition: see SampleRequest
    series       pieces that share an identity: of each seed its piece and then its variations; 0: none
    vary         how much of a variation is new, in [0, 1]; none: what is usual (see verbs/series.py); member: which variation of a seed's piece
    liked        piece k is the best, by the taste learnt from the run's ratings, of `of` pieces whose seeds follow from seed k
    """

    seed: int = 0
    condition: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    keep: str | None = None
    prompt: str | None = None
    form: str | None = None
    rules: Sequence[str] = ()
    bars: int | None = None
    length: int | None = None
    temperature: float = 1.0
    guidance: float = 1.0
    steps: int | None = None
    top_k: int = 0
    top_p: float = 1.0
    repetition: float = 1.0
    adapters: Sequence[str] = ()
    liked: bool = False
    of: int = 8
    series: int = 0
    vary: float | None = None
    member: int = 0

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("seed", self.seed >= 0, ">= 0"),
            ("temperature", self.temperature > 0, "> 0"),
            ("guidance", self.guidance >= 0, ">= 0"),
            ("steps", self.steps is None or self.steps >= 1, ">= 1"),
            ("top_k", self.top_k >= 0, ">= 0"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("repetition", self.repetition >= 1, ">= 1"),
            ("bars", self.bars is None or self.bars >= 1, ">= 1"),
            ("length", self.length is None or self.length >= 1, ">= 1"),
            ("series", self.series == 0 or 2 <= self.series <= MOST_SERIES, f"from 2 to {MOST_SERIES}"),
            ("vary", self.vary is None or 0 <= self.vary <= 1, "in [0, 1]"),
            ("member", 0 <= self.member < MOST_SERIES, f"from 0 to {MOST_SERIES - 1}"),
            ("of", 1 <= self.of <= CANDIDATES, f"from 1 to {CANDIDATES}"),
        ):
            if not fits:
                raise SettingError(f"{name} should be {expected}; {getattr(self, name)} came")
        if self.keep and not self.source:
            raise UsageError("--keep marks what stays of a source; give the source too, with --source")
        self._check_series()

    def _check_series(self) -> None:
        if self.vary is not None and not (self.series or self.member or self.source):
            raise UsageError(
                "--vary says how far variations go: of a made piece with --series, of a file with --source"
            )
        if self.series and self.source:
            raise UsageError("a file is varied by --source alone: -n says how often, --vary how far; drop --series")
        if self.vary is not None and self.keep:
            raise UsageError("--keep fills in around what stays and --vary changes the whole; ask for one of them")
        if (self.series or self.vary is not None) and self.liked:
            raise UsageError("--liked chooses among whole new pieces; drop --series and --vary")

    @property
    def asked(self) -> Asked:
        return Asked(self.source, self.keep, self.prompt, self.form, tuple(self.rules), self.bars, self.length)


def generate(run: Run, n: int = 16, wish: Wish | None = None, device: str = "auto") -> list[Piece]:
    """n new pieces. Raises UnknownName for a condition the corpus does not know, SpaceError for what the model cannot do."""
    return list(generating(run, n, wish or Wish(), device))


def generating(run: Run, n: int, wish: Wish, device: str = "auto") -> Iterator[Piece]:
    """The same, one by one as they are ready."""
    if n < 1:
        raise SettingError(f"the number of pieces should be >= 1; {n} came")
    if wish.liked:
        yield from _best(run, n, wish, device)
        return
    modality = catalog.modality(run.facts["corpus"]["modality"])
    sampler = run.sampler(pick_device(device), wish.adapters)
    series = Series(run, sampler, wish, n)
    if not getattr(sampler.model, "alone", True) and not (wish.source and wish.keep):
        raise UsageError(
            f"{run.path} is a run of {run.recipe.model}, which makes nothing alone but fills in what is missing: give a piece with "
            "--source and what stays of it with --keep"
        )
    request = series.request(to_request(run, modality, wish, series.seeds))
    for start in range(0, len(request), CHUNK):
        for k, x in enumerate(sampler.sample(request.rows(start, start + CHUNK)), start):
            facts = papers(run, series.wish(k)) | series.facts(k)
            yield replace(modality.to_piece(x, facts), modality=modality)


def _best(run: Run, n: int, wish: Wish, device: str) -> Iterator[Piece]:
    """Of each piece the best of its candidates; its papers name the seed of the one that was taken, so that it can be made again when
    the ratings are long others."""
    from maquette.verbs.taste import corpus_if_there, padded, ratings_of, taste_of

    taste = taste_of(run, ratings_of(run), corpus_if_there(run))[0]
    modality = catalog.modality(run.facts["corpus"]["modality"])
    sampler = run.sampler(pick_device(device), wish.adapters)
    for seed in range(wish.seed, wish.seed + n):
        seeds = candidates(seed, wish.of)
        request = to_request(run, modality, wish, seeds)
        parts = [sampler.sample(request.rows(i, i + CHUNK)) for i in range(0, wish.of, CHUNK)]
        made = padded([row for part in parts for row in part], sampler.spec.space.end)
        reward = taste.reward(made)
        best = int(reward.argmax())
        plain = replace(wish, seed=seeds[best], liked=False, of=Wish.of)
        chosen = {"seed": seed, "of": wish.of, "chance": round(float(reward[best].exp()), 4)}
        yield replace(modality.to_piece(made[best], papers(run, plain) | {"liked": chosen}), modality=modality)


def candidates(seed: int, of: int) -> tuple[int, ...]:
    """The seeds among whose pieces that of `seed` is chosen: none is a candidate of another seed, and more come after fewer."""
    return tuple(1_000_000 + CANDIDATES * seed + k for k in range(of))


def streaming(run: Run, wish: Wish, device: str = "auto") -> Iterator[str]:
    """One text as it is written, part by part. Raises UsageError where pieces are no texts or the model does not write in order."""
    modality = catalog.modality(run.facts["corpus"]["modality"])
    sampler = run.sampler(pick_device(device), wish.adapters)
    if not hasattr(sampler.model, "stream") or sampler.codec:
        raise UsageError(f"{run.recipe.model} makes a piece as a whole; drop --stream")
    written: list[Tensor] = []
    shown = ""
    for column in sampler.model.stream(to_request(run, modality, wish, (wish.seed,))):
        written.append(column)
        text = modality.to_piece(torch.cat(written).clone()).content
        if not isinstance(text, str):
            raise UsageError(f"{modality.pretty} cannot be shown while they are written; drop --stream")
        whole = text.rstrip("\ufffd")  # the first bytes of a character that is not whole yet
        yield whole[len(shown) :]
        shown = whole if len(whole) > len(shown) else shown


def interpolate(
    run: Run, first: int, last: int, frames: int, wish: Wish | None = None, device: str = "auto"
) -> list[Piece]:
    """`frames` pieces on the way from seed `first` to seed `last`. Raises SpaceError where the model has no latent space."""
    if frames < 2:
        raise SettingError(f"a way has at least 2 frames; {frames} came")
    modality = catalog.modality(run.facts["corpus"]["modality"])
    wish = wish or Wish()
    positions = [k / (frames - 1) for k in range(frames)]
    request = to_request(run, modality, wish, (first, last))
    if request.condition is not None:  # the way keeps one condition, that of its first piece
        request = request.with_(condition=request.condition[:1].expand(2, -1))
    made = run.sampler(pick_device(device), wish.adapters).interpolate(request, positions)
    facts = papers(run, replace(wish, seed=first)) | {"interpolate": [first, last]}
    return [
        replace(modality.to_piece(x, facts | {"position": p}), modality=modality)
        for x, p in zip(made, positions, strict=True)
    ]


def to_request(run: Run, modality: Modality, wish: Wish, seeds: Sequence[int]) -> SampleRequest:
    """A wish in words as tensors."""
    start = modality.start(wish.asked)
    return SampleRequest(
        tuple(seeds),
        condition_of(run, modality, wish.condition, seeds, drawn=not wish.source or wish.vary is None),
        _for_each(start.source, seeds),
        _for_each(start.keep, seeds),
        wish.temperature,
        wish.guidance,
        wish.steps,
        wish.top_k,
        wish.top_p,
        start.length,
        wish.repetition,
        start.constraint,
        wish.vary,
        (wish.member,) * len(seeds) if wish.member else (),
    )


def _for_each(x: Tensor | None, seeds: Sequence[int]) -> Tensor | None:
    return None if x is None else x.unsqueeze(0).expand(len(seeds), *x.shape)


def condition_of(
    run: Run, modality: Modality, asked: Mapping[str, Any], seeds: Sequence[int], drawn: bool = True
) -> Tensor | None:
    """The row of each seed; where nothing is asked labels are `drawn` as often as they occur: not where a piece shall stay what it is."""
    if run.spec.condition is None:
        if asked:
            raise UsageError(
                f"{run.path} was trained without labels or other facts, so nothing can be asked of it; drop --condition"
            )
        return None
    row = torch.tensor([run.spec.condition.encode(modality.conditions(asked))])
    usual = None if asked or not drawn else run.usual_condition(seeds)
    if usual is not None:
        return torch.where(row.isnan(), usual, row)
    return None if bool(row.isnan().all()) else row.expand(len(seeds), -1)


def papers(run: Run, wish: Wish) -> dict[str, Any]:
    """What a piece carries: enough to make it again and to explain it."""
    from maquette import __version__

    asked = {
        k: v for k, v in asdict(wish).items() if v not in (None, {}, (), []) and k not in ("liked", "of", "series")
    }
    asked = {k: v for k, v in asked.items() if k != "member" or v}
    return {
        "generator": f"maquette {__version__}",
        "run": run.path.as_posix() if not run.path.is_absolute() else run.path.name,
        "run_fingerprint": identity(run),
        "corpus": {k: run.facts["corpus"][k] for k in ("name", "fingerprint")},
        "recipe": run.recipe.model_dump(mode="json"),
        "wish": asked,
        "threads": torch.get_num_threads(),
    } | ({"adapters": [adapter_sum(a) for a in wish.adapters]} if wish.adapters else {})


def like(facts: Mapping[str, Any], run: Run) -> Wish:
    """The wish that made a piece, from its papers. Raises RunError when this is not the run that made it."""
    if "wish" not in facts:
        raise ContentError(
            "this file carries no papers of Maquette; --like takes a piece that Maquette made and nobody re-saved"
        )
    if facts["run_fingerprint"] != identity(run):
        raise RunError(
            f"{run.path} is not the run (or no longer the weights) that made this piece: it came from {facts['run']}"
        )
    wish = Wish(**facts["wish"])
    if changed := [a for a, s in zip(wish.adapters, facts.get("adapters", ()), strict=True) if adapter_sum(a) != s]:
        raise RunError(f"the adapter {changed[0]} is not (or no longer) the one that made this piece")
    return wish


def threads_of(facts: Mapping[str, Any]) -> int | None:
    """On how many threads a piece was made, by its papers: sums on as many are the same to the last bit. None: older papers do not say.
    Raises ContentError."""
    threads = facts.get("threads")
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise ContentError(
            f"the papers of this piece say it was made on {threads!r} threads, and 1 to {MOST_THREADS} are expected; they were "
            "changed or are damaged. Give the run and what was asked instead of --like"
        )
    return threads


def save(pieces: Sequence[Piece], folder: Path, suffixes: Sequence[str] = (), marks: Marks | None = None) -> list[Path]:
    """Each piece named by its seed and condition, in every format asked for; none: what the modality usually writes.
    With marks, else by those that a piece has itself: labelled, signed and entered in the ledger beside it."""
    assert pieces and pieces[0].modality is not None
    modality = pieces[0].modality
    wanted = suffixes or modality.formats or modality.suffixes[:1]
    chosen = [replace(piece, marks=marks or piece.marks) for piece in pieces]
    return [piece.save(folder / f"{_name(piece)}{suffix}") for piece in chosen for suffix in wanted]


def sheet(pieces: Sequence[Piece], folder: Path, marks: Marks | None = None) -> Path:
    """A contact sheet of pieces, which has papers as they have, with all their seeds."""
    assert pieces and pieces[0].modality is not None
    seen = [_seen(piece, marks) for piece in pieces] if marks else list(pieces)
    return papered(pieces[0].modality.sheet(seen, folder / "sheet.png", columns(pieces[0].facts)), pieces, marks)


def _seen(piece: Piece, marks: Marks) -> Piece:
    return replace(piece, content=marks.shown(piece.content), facts={**piece.facts, **marks.noted(piece.content)})


def papered(path: Path, pieces: Sequence[Piece], marks: Marks | None) -> Path:
    """A file that shows many pieces, with what the papers of the pieces have in common and the seeds of all."""
    if marks:
        seeds = pieces[0].facts.get("interpolate") or [piece.facts["wish"]["seed"] for piece in pieces]
        noted = {"labels": marks.labels, "watermark": False, "visible": marks.visible, "seeds": seeds}
        common = {k: v for k, v in pieces[0].facts.items() if k not in OF_ONE}
        marks.finish([path], {**common, **noted, **of_all(pieces[0].facts)})
    return path


def _name(piece: Piece) -> str:
    wish = piece.facts["wish"]
    if "position" in piece.facts:
        first, last = piece.facts["interpolate"]
        return f"{first}-to-{last}-{piece.facts['position']:.3f}"
    words = "-".join(
        "".join(c if c.isalnum() else "_" for c in str(v))[:24] for v in wish.get("condition", {}).values()
    )
    return f"{wish['seed']:06d}{'-' + words if words else ''}{named(piece.facts)}"


def next_folder(run: Run) -> Path:
    """runs/mine/pieces/001, 002 ...: each call of generate its own folder, so that nothing is written over."""
    taken = [int(p.name) for p in (run.path / "pieces").glob("[0-9]*") if p.name.isdigit()]
    return run.path / "pieces" / f"{max(taken, default=0) + 1:03d}"
