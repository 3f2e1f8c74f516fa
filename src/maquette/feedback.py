"""How a run learns from feedback: what its folder keeps of it, and the model that the loop then trains, tied to the one it began as.

runs/mine-liked/feedback/lesson.json           the settings, what was rated, the nats of the taste
                         lesson.safetensors    rated pieces (sequences) as they teach and as they were rated, and the numbers of the
                                               training pieces that are shown
                         start.safetensors     the weights it began from
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from maquette import catalog, files
from maquette.corpus import Corpus
from maquette.nets.preference import damping, dpo, kto, token_kl
from maquette.run import Run
from maquette.space import Batch, Losses, Model

FOLDER = "feedback"
Anew = Callable[[Model, int], Mapping[str, Tensor]]  # (model, number of the round) -> rated pieces, and their `nats`


class Lesson:
    """The settings of learning from feedback; the signature is what `adapt --feedback --set` takes."""

    def __init__(
        self,
        *,
        sharpness: Annotated[
            float,
            Field(
                ge=0, description="training pieces are shown in proportion to this power of their chance to be liked"
            ),
        ] = 5.0,
        floor: Annotated[
            float, Field(ge=0, le=1, description="share of the pieces that are not liked which is shown all the same")
        ] = 0.05,
        weight: Annotated[
            float, Field(ge=0, description="sequences: of the preference beside the nats of the corpus")
        ] = 1.0,
        beta: Annotated[
            float, Field(gt=0, description="sequences: how soon a piece is liked enough; smaller goes further")
        ] = 0.2,
        limit: Annotated[
            float,
            Field(
                gt=0, description="sequences: distance from the start in nats a piece, beyond which preference fades"
            ),
        ] = 20.0,
        reach: Annotated[
            float, Field(gt=0, description="others: how far the weights may move, as a share of their own length")
        ] = 0.5,
        more: Annotated[
            int,
            Field(
                ge=0,
                description="sequences: other pieces of the run that the taste speaks for beside those a person rated",
            ),
        ] = 1000,
        rounds: Annotated[
            int,
            Field(
                ge=1,
                le=8,
                description="sequences: how often these pieces are written anew, as the run makes them by then",
            ),
        ] = 4,
        rate: Annotated[float, Field(gt=0, description="of the learning rate of the base, what is left")] = 0.3,
    ):
        self.sharpness, self.floor, self.rate, self.more = sharpness, floor, rate, more
        self.weight, self.beta, self.limit, self.reach = weight, beta, limit, reach
        self.rounds = rounds


# ---- kept in the run


def keep(run: Path, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], start: Model) -> None:
    """Write the folder; lesson.json last, which makes it count. Raises StorageError."""
    folder = Path(run) / FOLDER
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in start.state_dict().items()}
    files.write_bytes(folder / "start.safetensors", save(weights))
    files.write_bytes(folder / "lesson.safetensors", save({k: v.contiguous() for k, v in tensors.items()}))
    files.write_json(folder / "lesson.json", dict(facts))


def kept(run: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """(facts, tensors) of a run that learns from feedback; None of any other."""
    folder = Path(run) / FOLDER
    if not (folder / "lesson.json").is_file():
        return None
    return files.read_json(folder / "lesson.json"), load_file(folder / "lesson.safetensors")


def narrowed(corpus: Corpus, tensors: Mapping[str, Tensor]) -> Corpus:
    """The corpus as it is shown: of train and validation only the pieces that were drawn by their chance to be liked, the labels counted
    among them. Its fingerprint stays, for it is the same corpus."""
    shown = {split: tensors[split].numpy() for split in ("train", "validation") if split in tensors}
    found = corpus.narrowed(**shown)
    found.facts = {**corpus.facts, "labels": _labels(found)}
    return found


def _labels(corpus: Corpus) -> dict[str, int]:
    """How often each label occurs among the pieces that are shown; as it was where there are none."""
    for field, columns in corpus.spec.condition.slices() if corpus.spec.condition else []:
        if field.name == "label" and field.kind == "label":
            column = corpus.conditions("train")[:, columns.start]  # type: ignore[index]
            counts = torch.bincount(column[~column.isnan()].long(), minlength=len(field.values)).tolist()
            return {name: n for name, n in zip(field.values, counts, strict=True) if n}
    return corpus.facts.get("labels") or {}


def taught(run: Run, model: Model, anew: Anew | None = None) -> Model:
    """The model as the loop shall train it: itself, or tied to its start and told what is liked where the run learns from feedback.
    anew: gives the rated pieces of each round after the first."""
    found = kept(run.path) if (run.path / FOLDER).is_dir() else None
    if found is None or not model.phases:
        return model
    facts, tensors = found
    settings = Lesson(**facts["settings"])
    start = load_file(run.path / FOLDER / "start.safetensors")
    if "x" not in tensors:
        return Taught(model, Leash(start, settings.reach))
    reference = run.plain()
    reference.load_state_dict(start)
    return Taught(model, Preference(reference, tensors, settings, facts.get("rounds", 1), anew))


# ---- what the loop trains


class Taught(Model):
    """A second face of a model: the same tensors under the same names, so that its checkpoints are those of the model; another loss.

    The validation split does not say when it has learnt enough, for what is liked is not what the corpus holds."""

    by_validation = False

    def __init__(self, model: Model, lesson: Preference | Leash):
        super().__init__(model.spec)
        self.__dict__["inner"] = model  # past nn.Module, which would give its tensors other names
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers
        self.lesson = lesson
        for name in ("phases", "batch_size", "concluded_on", "bf16"):
            setattr(self, name, getattr(model, name))

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)  # while it is copied
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def train(self, mode: bool = True) -> Taught:
        self.inner.train(mode)
        self.training = mode
        return self

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        return self.lesson.loss(self.inner, batch, phase, progress)

    def after_step(self, phase: str) -> None:
        self.inner.after_step(phase)
        self.lesson.after_step(self.inner)

    def conclude(self, batches: Callable[[], Iterable[Batch]]) -> None:
        self.inner.conclude(batches)


class Preference:
    """What is liked of sequences: the loss on rated pieces beside the ordinary nats of the corpus, the anchor.

    In each round what is gained counts from the model as it was when its pieces were written (TR-DPO, Gorbatovski 2024, arXiv:2404.09656): from
    the start they would have gained so much already that a loss that saturates has nothing more to say.

    The distance is that of foretelling on rated pieces: KL(model || start), summed over the tokens of a piece.
    """

    ROWS = 32  # rated pieces of a step

    def __init__(
        self,
        reference: Model,
        rated: Mapping[str, Tensor],
        settings: Lesson,
        rounds: int = 1,
        anew: Anew | None = None,
    ):
        self.reference, self.settings = reference.eval().requires_grad_(False), settings
        self.rounds, self.anew = rounds if anew else 1, anew
        self.round = 0
        self._hear(rated)

    def _hear(self, rated: Mapping[str, Tensor]) -> None:
        length = self.reference.spec.space.shape[0]
        self.x, self.condition = rated["x"][:, :length], rated.get("condition")
        self.liked, self.pairs = rated["liked"], rated["pairs"]
        self.sides = [torch.nonzero(self.liked == s).flatten() for s in (1, 0)]
        self.twin = rated.get("twin")  # of each liked piece the disliked one set against it; none: any
        self.before = rated.get("nats")  # of each piece by the model at the beginning of the round; none: by the start

    def __deepcopy__(self, memo: Any) -> Preference:
        return self  # nothing in it moves

    def loss(self, model: Model, batch: Batch, phase: str, progress: float) -> Losses:
        anchor = model.loss(batch, phase, progress)
        self._turn(model, progress)
        training = model.training
        model.eval()  # dropout would look like a change of mind
        preference, logs = self._preference(model, batch.x.device)
        model.train(training)
        distance = logs["distance"]
        s = self.settings
        terms = {
            "preference": s.weight * damping(distance, s.limit) * preference,
            "too_far": F.relu(distance / s.limit - 1),
        }
        return Losses(anchor.terms | terms, anchor.logs | {k: v.detach() for k, v in logs.items()})

    def after_step(self, model: Model) -> None:
        pass

    def _turn(self, model: Model, progress: float) -> None:
        """To the round of this progress, whose pieces the model writes now; no chance of the training is used up."""
        number = min(int(progress * self.rounds), self.rounds - 1)
        if self.anew is None or number <= self.round or not torch.is_grad_enabled():
            return
        training, device = model.training, model.device
        cards = [device] if device.type == "cuda" else []
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(cards), torch.autocast(device.type, enabled=False):
            self._hear(self.anew(model, number))
        model.train(training)
        self.round = number

    def _preference(self, model: Model, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean of both losses, where there are ratings of both kinds; chance from torch's global generator."""
        singles, pairs = self._drawn()
        rows = torch.cat([singles, pairs.flatten()])
        gain, distance = self._gain(model, rows, device)
        alone, both = gain[: len(singles)], gain[len(singles) :].view(-1, 2)
        losses, logs = [], {"distance": distance}
        if len(singles):
            liked = self.liked[singles].to(device) > 0
            usual = distance if self.before is None else alone.mean().clamp_min(0)  # as far as any piece has gained
            losses.append(kto(alone, liked, usual.detach(), self.settings.beta))
            logs |= {f"gain_{n}": alone[s].mean() for n, s in (("liked", liked), ("disliked", ~liked)) if bool(s.any())}
        if len(pairs):
            losses.append(dpo(both[:, 0], both[:, 1], self.settings.beta))
            logs["pairs_right"] = (both[:, 0] > both[:, 1]).float().mean()
        return torch.stack(losses).mean(), logs

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Rows of single pieces, as many of either side where there are both, and pairs (P, 2)."""
        sides = [s for s in self.sides if len(s)]
        room = self.ROWS if not len(self.pairs) else self.ROWS // 2
        singles = [s[torch.randint(len(s), (room // len(sides),))] for s in sides]
        if self.twin is not None and len(sides) == 2:
            singles[1] = self.twin[singles[0]]
        count = 0 if not len(self.pairs) else (self.ROWS // 4 if sides else self.ROWS // 2)
        pairs = self.pairs[torch.randint(max(1, len(self.pairs)), (count,))] if count else self.pairs[:0]
        return torch.cat(singles) if singles else torch.zeros(0, dtype=torch.long), pairs

    def _gain(self, model: Model, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """log p - log p at the beginning of the round of whole pieces (B,), and the distance () from the start in nats a piece."""
        x = self.x[rows]
        counted = model.spec.space.counted(x)
        longest = int(counted.sum(1).max())
        batch = Batch(x[:, :longest], None if self.condition is None else self.condition[rows]).to(device)
        counted = counted[:, :longest].to(device)
        mine = model.head(model.hidden(batch)).float()
        with torch.no_grad():
            first = self.reference.to(device)
            theirs = first.head(first.hidden(batch)).float()
        tokens = [F.cross_entropy(t.transpose(1, 2), batch.x, reduction="none") for t in (theirs, mine)]
        start, now = ((nats * counted).sum(1) for nats in tokens)
        before = start if self.before is None else self.before[rows].to(device)
        return before - now, (token_kl(mine, theirs) * counted).sum(1).mean()


class Leash:
    """How far weights have moved from where they began, as a share of their length; beyond `reach` they are drawn back."""

    def __init__(self, start: Mapping[str, Tensor], reach: float):
        self.start, self.reach = start, reach
        self.length = torch.stack([t.float().square().sum() for t in start.values()]).sum().sqrt()
        self.moved = torch.zeros(())

    def __deepcopy__(self, memo: Any) -> Leash:
        return self

    def loss(self, model: Model, batch: Batch, phase: str, progress: float) -> Losses:
        losses = model.loss(batch, phase, progress)
        return Losses(losses.terms, losses.logs | {"distance": self.moved})

    @torch.no_grad()
    def after_step(self, model: Model) -> None:
        """The distance after each move; weights beyond the reach come back along the straight line to their start."""
        own = [(p, self.start[n].to(p)) for n, p in model.named_parameters() if n in self.start]
        gone = torch.stack([(p - s).float().square().sum() for p, s in own]).sum().sqrt()
        self.moved = gone / self.length.to(gone)
        if self.moved > self.reach:
            for p, s in own:
                p.copy_(torch.lerp(s, p, float(self.reach / self.moved)))
            self.moved = torch.full_like(self.moved, self.reach)


def check(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the lesson with every default, the rest). Raises SettingError."""
    known = catalog.settings(Lesson).model_fields
    own = {k: v for k, v in given.items() if k in known}
    return catalog.check(Lesson, own, "feedback"), {k: v for k, v in given.items() if k not in known}
