"""The judge: a small encoder trained by the tool on a corpus's own train split, and an untrained cross-check of pixels and their edges.

What it learns: the labels, where there are enough; else how a piece was turned (Gidaris 2018, arXiv:1803.07728), or for grids that
are not square along which axes it was mirrored. It shares no weights with any generator and is kept beside its corpus:

    corpora/mine/judge/<settings>.safetensors, <settings>.json
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial, reduce
from math import prod
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from maquette import files
from maquette.condition import Field
from maquette.errors import SettingError, StorageError
from maquette.loop import loop, make_plan
from maquette.nets.conv import Encoder, depth
from maquette.nets.turns import drawn_turns, turns
from maquette.space import Batch, DataSpec, Embedder, Losses, Model, Optimiser, Phase, Space

FEATURES = 64
MEMBERS = 10  # of a label in the train split, for it to be learnt
SIGHT = {
    1: 4096,
    2: 64 * 64,
    3: 16 * 16 * 16,
}  # elements a channel that the judge looks at; larger grids are averaged down
WORK = 20_000_000  # elements a channel seen in training: about 10 s on one core
PIXELS = 256  # most features of the untrained space
BATCH = 512


class Source(Protocol):
    """What the judge needs of a corpus."""

    path: Path
    fingerprint: str
    spec: DataSpec

    def size(self, split: str) -> int: ...
    def batches(self, batch_size: int, seed: int, start: int = 0) -> Any: ...
    def once(self, split: str, batch_size: int = 256, limit: int | None = None) -> Any: ...


@dataclass(frozen=True)
class Task:
    """What the judge is trained on. column: of the condition that holds the label; classes: those that are told apart, none where it
    learns of hidden tokens alone."""

    name: Literal["labels", "turns", "hidden"]
    classes: tuple[int, ...]
    column: int = 0


class Pixels:
    """x (B, C, *axes) -> (B, D): averages over equal blocks, as many as fit into 256 numbers. Nothing is learnt."""

    name = "pixels"

    def __init__(self, space: Space):
        space.need("grid", model="the audit")
        self.block = _fitting(space.axes, space.shape[0])
        self.hash = files.fingerprint({"space": self.name, "block": self.block, "shape": space.shape})
        self.words = f"averages over blocks of {' x '.join(map(str, self.block))}, untrained"

    def embed(self, x: Tensor) -> Tensor:
        return _averaged(x.float(), self.block).flatten(1)


class Untrained:
    """x (B, C, *axes) -> (B, D): averages over equal blocks of the piece and of how much neighbours differ, at most 256 numbers.

    Averages alone wash slight noise out, and blur makes them more typical. The modulus of differences, taken before averaging, keeps both in
    sight: a scattering transform of first order (Bruna & Mallat 2013, arXiv:1203.1513) with Haar's wavelets. The space is called pixels.
    """

    name = "pixels"

    def __init__(self, space: Space):
        space.need("grid", model="the audit")
        bands = len(space.axes) + (len(space.axes) > 1)
        self.block = _fitting(space.axes, space.shape[0] + bands)
        self.hash = files.fingerprint({"space": "averages and differences", "block": self.block, "shape": space.shape})
        blocks = " x ".join(map(str, self.block))
        self.words = f"averages of the piece, and of how much neighbours differ, over blocks of {blocks}, untrained"

    def embed(self, x: Tensor) -> Tensor:
        x = x.float()
        return _averaged(torch.cat([x, differences(x)], 1), self.block).flatten(1)


def differences(x: Tensor) -> Tensor:
    """(B, C, *axes) -> (B, A, *axes): how much neighbours differ along each axis and, where there are several, along all at once; the mean
    over channels, 0 at the far ends.

    >>> differences(torch.tensor([[[0.0, 1.0, -1.0]]])).tolist()
    [[[1.0, 2.0, 0.0]]]
    """
    axes = range(2, x.ndim)
    bands = [_change(x, axis) for axis in axes] + ([reduce(_change, axes, x)] if len(axes) > 1 else [])
    return torch.cat([band.abs().mean(1, keepdim=True) for band in bands], 1)


def _change(x: Tensor, axis: int) -> Tensor:
    return F.pad(x.diff(dim=axis), [0, 0] * (x.ndim - 1 - axis) + [0, 1])


def _fitting(axes: tuple[int, ...], channels: int) -> tuple[int, ...]:
    """The smallest blocks, about as long along each axis, whose averages are at most `PIXELS` numbers."""
    factor = 1
    while channels * prod(-(-n // factor) for n in axes) > PIXELS and factor < max(axes):
        factor += 1
    return tuple(min(factor, n) for n in axes)


class Judge(Model):
    """x (B, C, *axes) -> features (B, 64), each of mean 0 and variance 1 over the train split."""

    name = "judge"
    phases = (Phase("judge", optimiser=Optimiser(lr=2e-3, weight_decay=0.05, clip=1.0)),)

    def __init__(self, spec: DataSpec, task: Task):
        super().__init__(spec)
        spec.space.need("grid", model="the judge of the audit")
        channels, *axes = spec.space.shape
        self.task = task
        self.block = _block(axes)
        seen = tuple(-(-n // b) for n, b in zip(axes, self.block, strict=True))
        self.body = Encoder(channels, seen, 32, width=24, levels=depth(seen, 7), blocks=0)
        self.project = nn.Linear(32 * prod(self.body.grid), FEATURES)
        self.head = nn.Linear(FEATURES, len(task.classes))
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.register_buffer("accuracy", torch.tensor(0.0))  # on the validation split

    def raw(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.body(_averaged(x, self.block)).flatten(1)))

    def embed(self, x: Tensor) -> Tensor:
        return (self.raw(x.float()) - self.mean) / self.std

    def logits(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(F.dropout(self.raw(x), 0.2, self.training)))

    @property
    def words(self) -> str:
        kinds = len(self.task.classes)
        what = f"{kinds} labels" if self.task.name == "labels" else f"{kinds} ways of turning a piece"
        return (
            f"a small encoder trained on the train split to tell {what} apart "
            f"(right for {float(self.accuracy):.0%} of the validation split, {1 / kinds:.0%} by chance)"
        )

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        x, target = posed(batch, self.task)
        known = target >= 0
        logits = self.logits(jitter(x))
        return Losses({"nats": F.cross_entropy(logits[known], target[known]) if known.any() else logits.sum() * 0})


def train_judge(corpus: Source, *, seed: int = 0, work: int = WORK) -> Judge:
    """A judge for a corpus; the same seed gives the same judge. work: elements it looks at, which bounds the time."""
    judge_task = task(corpus)
    plan = {"steps": steps(corpus, work), "batch_size": _batch(corpus), "seed": seed, "device": "cpu", "threads": 1}
    with torch.random.fork_rng(devices=[]), threads_kept():
        torch.manual_seed(seed)
        model = Judge(corpus.spec, judge_task)
        batches = partial(corpus.batches, plan["batch_size"], seed)
        for now in loop(model, batches, make_plan(model, plan)):
            last = now
        return standardise(last.averaged, corpus, seed)


@contextmanager
def threads_kept() -> Iterator[None]:
    """The loop sets the number of threads, one here so that every machine sums in the same order; give it back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def standardise(judge: Any, corpus: Source, seed: int, limit: int = 5000) -> Any:
    """Fix mean and deviation of the features over the train split, and measure the accuracy on the validation split."""
    judge.eval()
    rows = torch.cat([judge.raw(b.x) for b in corpus.once("train", BATCH, limit)])
    judge.mean.copy_(rows.mean(0))
    judge.std.copy_(rows.std(0).nan_to_num(0))
    judge.std[judge.std < 1e-6] = 1.0
    torch.manual_seed(seed)
    right = known = 0
    for batch in corpus.once("validation", BATCH, limit) if judge.task.classes else ():
        x, target = posed(batch, judge.task)
        right += int((judge.logits(x).argmax(1) == target).sum())
        known += int((target >= 0).sum())
    judge.accuracy.fill_(right / max(1, known))
    return judge.requires_grad_(False)


def steps(corpus: Source, work: int = WORK) -> int:
    """Bounded by the work, and by 60 passes over a small corpus."""
    axes = corpus.spec.space.axes
    seen = prod(-(-n // b) for n, b in zip(axes, _block(axes), strict=True))
    passes = -(-60 * corpus.size("train") // _batch(corpus))
    return max(20, min(work // (_batch(corpus) * seen), passes, 600))


def shown(corpus: Source) -> int:
    """Pieces that a judge of this corpus is shown, again and again."""
    return steps(corpus) * _batch(corpus)


def _batch(corpus: Source) -> int:
    return min(64, corpus.size("train"))


def task(corpus: Source) -> Task:
    """Labels where at least two have enough members in the train split, else turns."""
    return labels_of(corpus) or Task("turns", tuple(range(len(turns(corpus.spec.space.axes)))))


def labels_of(corpus: Source, members: int = MEMBERS) -> Task | None:
    """The first label of which at least two values have enough members in the train split."""
    for field, columns in corpus.spec.condition.slices() if corpus.spec.condition else []:
        if field.kind == "label" and (classes := _populous(corpus, field, columns.start, members)):
            return Task("labels", classes, columns.start)
    return None


def _populous(corpus: Source, field: Field, column: int, members: int) -> tuple[int, ...]:
    values = torch.cat([b.condition[:, column] for b in corpus.once("train", 4096, 20_000)])
    counts = torch.bincount(values[~values.isnan()].long(), minlength=len(field.values))
    classes = tuple(int(c) for c in (counts >= members).nonzero().flatten())
    return classes if len(classes) >= 2 else ()


def posed(batch: Batch, task: Task) -> tuple[Tensor, Tensor]:
    """A batch as a question: (x (B, C, *axes), the right answer (B,), -1 where there is none)."""
    if task.name == "labels":
        values = batch.condition[:, task.column]  # type: ignore[index]
        target = torch.full((len(batch),), -1)
        for answer, label in enumerate(task.classes):
            target[values == label] = answer
        return batch.x, target
    return drawn_turns(batch.x)


def jitter(x: Tensor) -> Tensor:
    """x (B, C, *axes) shifted by up to a sixteenth of each axis, edges repeated: a small shift shall mean little."""
    for axis in range(2, x.ndim):
        n, reach = x.shape[axis], x.shape[axis] // 16
        if reach:
            place = torch.arange(n) + int(torch.randint(-reach, reach + 1, ()))
            x = x.index_select(axis, place.clamp(0, n - 1))
    return x


def _block(axes: Any) -> tuple[int, ...]:
    """The blocks that are averaged so that what is left is within SIGHT."""
    factor = 1
    while prod(-(-n // factor) for n in axes) > SIGHT[len(axes)]:
        factor += 1
    return tuple(min(factor, n) for n in axes)


def _averaged(x: Tensor, block: tuple[int, ...]) -> Tensor:
    if prod(block) == 1:
        return x
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(block) - 1]
    return pool(x, block, ceil_mode=True, count_include_pad=False)


# ---- kept beside the corpus


@dataclass(frozen=True)
class Known:
    """A judge and what a report says about it. hash: of its weights."""

    judge: Any
    hash: str

    @property
    def words(self) -> str:
        return self.judge.words


def judge_of(corpus: Source, *, seed: int = 0, work: int = WORK) -> Known:
    """The judge that lies beside the corpus, if it is whole and belongs to it; else a newly trained one, which is then kept.

    A corpus folder that may not be written to gets no copy; that changes nothing else.
    """
    settings = {"seed": seed, "work": work, "version": 1, "features": FEATURES}
    return beside(corpus, settings, partial(Judge, corpus.spec), partial(train_judge, corpus, seed=seed, work=work))


def beside(
    corpus: Source, settings: Mapping[str, Any], build: Callable[[Task], Model], train: Callable[[], Model]
) -> Known:
    """A judge of these settings from the corpus folder, built for the task that it learnt there; else a new one."""
    settings = {"corpus": corpus.fingerprint, **settings}
    file = Path(corpus.path) / "judge" / f"{files.fingerprint(settings)}.safetensors"
    return _kept(file, settings, build) or _keep(train(), file, settings)


def _kept(file: Path, settings: Mapping[str, Any], build: Callable[[Task], Model]) -> Known | None:
    try:
        facts = files.read_json(file.with_suffix(".json"))
        if facts["settings"] != settings or files.checksum(file) != facts["hash"]:
            return None
        judge = build(Task(**{**facts["task"], "classes": tuple(facts["task"]["classes"])}))
        judge.load_state_dict(load_file(file))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None
    return Known(judge.eval().requires_grad_(False), facts["hash"])


def _keep(judge: Any, file: Path, settings: Mapping[str, Any]) -> Known:
    content = save({k: v.contiguous() for k, v in judge.state_dict().items()})
    known = Known(judge, hashlib.blake2b(content, digest_size=16).hexdigest())  # as files.checksum
    facts = {"settings": dict(settings), "hash": known.hash, "task": asdict(judge.task)}
    with suppress(StorageError, OSError):
        files.write_bytes(file, content)
        files.write_json(file.with_suffix(".json"), facts)
    return known


# ---- a judge that was trained elsewhere


class Lent:
    """Any embedder as a judge: its features at mean 0 and variance 1 over a corpus's train split; what does not vary there is left out.

    hash: of its weights; words: what a report says about it. Raises SettingError where the features are not finite or never vary.
    """

    name = "judge"

    def __init__(self, embedder: Embedder, corpus: Source, hash: str, words: str, limit: int = 5000):
        self.embedder, self.hash, self.words = embedder, hash, words
        with torch.inference_mode():
            rows = torch.cat([self._rows(b.x) for b in corpus.once("train", BATCH, limit)])
        if broken := int((~rows.isfinite().all(1)).sum()):
            raise SettingError(
                f"the features of this judge are not finite for {broken} of {len(rows)} training pieces, so nothing can be measured in them; "
                "give another --judge, or none"
            )
        self.mean, std = rows.mean(0), rows.std(0)
        self.alive = std > 1e-6
        self.std = std[self.alive]
        if not self.alive.any():
            raise SettingError(
                f"the features of this judge are the same for all {len(rows)} training pieces, so it tells none apart; give another --judge, or none"
            )

    def _rows(self, x: Tensor) -> Tensor:
        """(B, D). Raises SettingError for anything else."""
        rows = self.embedder.embed(x.float() if x.is_floating_point() else x)
        if rows.ndim != 2 or len(rows) != len(x):
            raise SettingError(
                f"a judge gives one row of features a piece, ({len(x)}, D); of {len(x)} pieces this one made {tuple(rows.shape)}"
            )
        return rows.float()

    @property
    def judge(self) -> Lent:
        return self

    def embed(self, x: Tensor) -> Tensor:
        return (self._rows(x) - self.mean)[:, self.alive] / self.std
