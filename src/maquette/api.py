"""The Python door: the verbs as functions that take paths or objects, and a run that can generate and audit itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maquette.corpus import Corpus
from maquette.guard.policy import Policy
from maquette.piece import Piece
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import Inspection
from maquette.recipe import Recipe, load, make_recipe, override
from maquette.run import Run
from maquette.verbs import adapt as _adapt
from maquette.verbs import answer as _answer
from maquette.verbs import audit as _audit
from maquette.verbs import comparing as _comparing
from maquette.verbs import export as _export
from maquette.verbs import generate as _generate
from maquette.verbs import guarding as _guarding
from maquette.verbs import learn as _learn
from maquette.verbs import prepare as _prepare
from maquette.verbs import pretrain as _pretrain
from maquette.verbs import rate as _rate
from maquette.verbs import renewing as _renewing
from maquette.verbs import train as _train
from maquette.verbs import tune as _tune
from maquette.verbs import verify as _verify


@dataclass(frozen=True)
class Trained:
    """A run, with the verbs that read one as methods."""

    run: Run

    @property
    def path(self) -> Path:
        return self.run.path

    def generate(
        self,
        n: int = 16,
        *,
        device: str = "auto",
        marks: Marks | None = None,
        policy: Policy | str | Path | None = None,
        **wish: Any,
    ) -> list[Piece]:
        """n pieces; wish: seed, condition, source, keep, temperature, guidance, steps, top_k, top_p (see generate.Wish).

        marks: what their files get when they are saved; none: labels "eu", the ledger, a signature where the extra is installed.
        policy: what is asked and made is held against it (see `generate`).
        """
        return generate(self, n, device=device, marks=marks, policy=policy, **wish)

    def answer(self, source: str | Path, *, device: str = "auto", **wish: Any) -> Any:
        """What a run of a task says about a file: .facts, .words, and .piece where it restores one. wish: keep, seed, temperature."""
        return _answer.answer(self.run, _generate.Wish(source=str(source), **wish), device)

    def interpolate(
        self, first: int, last: int, frames: int = 24, *, marks: Marks | None = None, **wish: Any
    ) -> list[Piece]:
        made = _generate.interpolate(self.run, first, last, frames, _generate.Wish(**wish))
        return _marked(made, marks)

    def audit(self, corpus: Corpus | str | Path | None = None, **options: Any) -> Any:
        return audit(self, corpus, **options)

    def export(self, out: str | Path | None = None, *, to: str = "huggingface", allow_copies: str = "") -> Path:
        return export(self, out, to=to, allow_copies=allow_copies)


def prepare(
    source: str | Path,
    out: str | Path | None = None,
    *,
    modality: str = "auto",
    split: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    policy: str | Path | None = None,
    opt_out: str | Path | None = None,
    canaries: str | Path | None = None,
    **settings: Any,
) -> Corpus:
    """A folder, archive or file of content -> a Corpus. settings: of the modality (`maquette show image`).

    split: the shares of train, validation and test, drawn with seed. policy: a TOML file that says what may enter, by licence and by words;
    opt_out: a list of SHA-256 of files that may not. canaries: a file of texts or tunes that are planted in the train split.
    """
    place = Path(out) if out else None
    options = {"modality": modality, "split": split, "seed": seed, "policy": policy, "opt_out": opt_out}
    options["canaries"] = canaries
    return _prepare.prepare(Path(source), place, settings=settings, **options)


def train(
    corpus: Corpus | str | Path,
    *,
    out: str | Path | None = None,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Trained:
    """Train or resume. choices: model, size, minutes, seed, start (the path of a run); settings: {"gan.loss": "hinge", "train.lr": 1e-3}."""
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(Path(corpus))
    recipe = to_recipe(recipe, choices, [f"{k}={_as_toml(v)}" for k, v in (settings or {}).items()])
    place = Path(out) if out else _train.usual_place(corpus, recipe)
    return Trained(_train.train(corpus, recipe, place))


def tune(
    corpus: Corpus | str | Path,
    *,
    trials: int = 20,
    minutes: float = 30.0,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    **choices: Any,
) -> _tune.Tuned:
    """Search the best settings on the validation split. choices: model, size, seed; settings: those that are fixed.

    The result's `recipe` goes into `train(corpus, recipe=...)`.
    """
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(Path(corpus))
    recipe = to_recipe(None, choices, [f"{k}={_as_toml(v)}" for k, v in (settings or {}).items()])
    return _tune.tune(corpus, recipe, trials=trials, minutes=minutes, out=Path(out) if out else None)


def adapt(
    run: Trained | str | Path,
    corpus: Corpus | str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    method: str | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    **settings: Any,
) -> Trained:
    """Fit a run to other content by a method (full, head, lora), or put a task head on it (classify, regress, caption, restore).

    settings: of the method, of the task, of training by their names; `prior`, a share of each batch that is what the run made before, so
    that it forgets less.
    """
    run = run if isinstance(run, Trained) else open_run(run)
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(Path(corpus))
    options = {"method": method, "task": task, "minutes": minutes, "seed": seed, "given": settings}
    return Trained(_adapt.adapt(run.run, corpus, Path(out), **options))


def pretrain(
    corpus: Corpus | str | Path,
    *,
    task: str = "auto",
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Trained:
    """Learn from pieces alone, without labels: masked, rotation, contrast, or several joined by +. choices: size, minutes, seed."""
    corpus = corpus if isinstance(corpus, Corpus) else Corpus.open(Path(corpus))
    recipe = _pretrain.recipe_for(task, corpus, choices)
    return train(corpus, out=out, recipe=recipe, settings=settings)


def rate(run: Trained | str | Path, judge: Callable[[Piece], bool | None], n: int = 20, **options: Any) -> int:
    """Ask `judge` of n pieces: True likes, False dislikes, None skips; ratings land in the run's folder. How many there were."""
    run = run if isinstance(run, Trained) else open_run(run)
    letters = {True: "y", False: "n", None: "s"}
    return _rate.rate(run.run, lambda pieces, k, of: letters[judge(pieces[0])], n, **options)


def learn(
    run: Trained | str | Path,
    out: str | Path,
    ratings: str | Path | None = None,
    *,
    minutes: float | None = None,
    **options: Any,
) -> Trained:
    """Fit a run to ratings of its pieces (none: those in its folder). options: steps, seed, method, corpus, given (see feedback.Lesson)."""
    run = run if isinstance(run, Trained) else open_run(run)
    return Trained(_learn.learn(run.run, Path(ratings) if ratings else None, Path(out), minutes=minutes, **options))


def to_recipe(
    base: Recipe | str | Path | Mapping[str, Any] | None, choices: Mapping[str, Any], assignments: list[str]
) -> Recipe:
    """A recipe from a file or data, the choices that were made explicitly, and key=value lines."""
    if isinstance(base, str | Path):
        base = load(Path(base))
    data = base.model_dump() if isinstance(base, Recipe) else dict(base or {})
    return override(make_recipe(data | {k: v for k, v in choices.items() if v is not None}), assignments)


def _as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def open_run(path: str | Path) -> Trained:
    return Trained(Run.open(Path(path)))


def generate(
    run: Trained | str | Path,
    n: int = 16,
    *,
    device: str = "auto",
    marks: Marks | None = None,
    new: bool = False,
    policy: Policy | str | Path | None = None,
    **wish: Any,
) -> list[Piece]:
    """n pieces; `piece.save(path)` writes one with the papers that the command line gives: Marks(labels, sign, watermark, visible).

    new: what is a copy of a training piece is drawn again, with the next seeds; each piece's facts hold its verdict and nearest ones.
    policy: a file or a Policy; none: policy.toml in the run's folder. What it names stands in piece.facts["policy"]["flags"]; a rule that
    blocks raises ContentError for what is asked, and leaves out what is made, with a warning that counts it.
    """
    run, asked = run if isinstance(run, Trained) else open_run(run), _generate.Wish(**wish)
    if guard := _guarding.guard_of(run.run, policy):
        guard.ask(run.run, asked)

    def make() -> list[Piece]:
        if new:
            return list(_renewing.new(run.run, n, asked, device).pieces)
        return _generate.generate(run.run, n, asked, device)

    return _marked(_guarding.kept(guard, make), marks)


def _marked(pieces: Sequence[Piece], marks: Marks | None) -> list[Piece]:
    chosen = marks or Marks()
    return [replace(piece, marks=chosen) for piece in pieces]


def audit(run: Trained | str | Path, corpus: Corpus | str | Path | None = None, **options: Any) -> Any:
    """The run against its corpus (found from the run when it still lies where it lay)."""
    run = run if isinstance(run, Trained) else open_run(run)
    corpus = corpus if isinstance(corpus, Corpus) or corpus is None else Corpus.open(Path(corpus))
    return _audit.audit(run.run, corpus, **options)


def compare(runs: Sequence[Trained | str | Path], corpus: Corpus | str | Path | None = None, **options: Any) -> Any:
    """Audits of two runs or more of one corpus, and what is better in which. options: those of `audit`."""
    opened = [(run if isinstance(run, Trained) else open_run(run)).run for run in runs]
    corpus = corpus if isinstance(corpus, Corpus) or corpus is None else Corpus.open(Path(corpus))
    return _comparing.compare(opened, corpus, **options)


def verify(path: str | Path) -> Inspection:
    """What the papers of a file say: .untouched, .signature, .ledger, .labels, .watermark (a p-value), .facts. Raises Unreadable."""
    return _verify.verify(path)


def export(
    run: Trained | str | Path, out: str | Path | None = None, *, to: str = "huggingface", allow_copies: str = ""
) -> Path:
    """The run in the layout of another library: a folder for `AutoModelForCausalLM.from_pretrained`.

    allow_copies: why it may be handed on although the audit found copies whose licence forbids it.
    """
    run = run if isinstance(run, Trained) else open_run(run)
    return _export.export(run.run, out, to, allow_copies)


def create(
    source: str | Path,
    *,
    minutes: float = 5.0,
    out: str | Path | None = None,
    n: int = 16,
    marks: Marks | None = None,
    **choices: Any,
) -> Trained:
    """prepare + train + generate + audit; pieces and report lie in the run's folder."""
    run = train(prepare(source), out=out, minutes=minutes, **choices)
    if pieces := run.generate(n, marks=marks):  # a policy in the run's folder may withhold all
        folder = _generate.next_folder(run.run)
        _generate.save(pieces, folder)
        _generate.sheet(pieces, folder, pieces[0].marks)
    run.audit()
    return run
