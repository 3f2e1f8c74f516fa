"""train: a corpus and a recipe in, a run out. The same line resumes; Ctrl-C saves; `minutes` is a promise about the clock."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from maquette import catalog, files
from maquette.building import building
from maquette.corpus import Corpus
from maquette.errors import RunError, SettingError, TrainingError
from maquette.feedback import taught
from maquette.loop import Plan, TrainState, agreed, loop, make_plan, only_here, rank, seed_everything, world
from maquette.nets.perception import lend_eyes
from maquette.partners import Partners
from maquette.prior import beside, prior_of
from maquette.recipe import Recipe, differences, rebased, settle, to_toml
from maquette.run import Run, identity
from maquette.space import Codec, DataSpec, Model
from maquette.starting import nothing_fits, warm
from maquette.trackers import known_trackers
from maquette.verbs.carding import keep_card
from maquette.verbs.drive import Budget, Interruption, Progress, drive, nothing, processes
from maquette.verbs.holding import held_by
from maquette.verbs.prepare import encode
from maquette.verbs.rounds import forget_rounds, rounds_of

DEFAULT_MINUTES = 10.0


def train(corpus: Corpus, recipe: Recipe, out: Path, **options: Any) -> Run:
    """`training` without anybody watching."""
    for _ in training(corpus, recipe, out, **options):
        pass
    return Run.open(out)


def training(corpus: Corpus, recipe: Recipe, out: Path, *, loggers: tuple[str, ...] = ()) -> Iterator[Progress]:
    """Train, or go on with the run at `out` if it is the same recipe on the same corpus; yields Progress.

    Raises RunError (another run, another corpus, locked), TrainingError, StorageError, SettingError.
    """
    out = Path(out)
    known_trackers(loggers)
    with processes():
        recipe, reason = choose(recipe, corpus)
        recipe = settle(recipe)
        _fitting(recipe)
        if recipe.start:
            Run.open(recipe.start)
        lock = Run(out, recipe, {}).lock() if rank() == 0 else nothing()
        with lock, Interruption() as interruption:
            if reason:
                yield said(recipe.stages[0], reason)
            yield from _stages(corpus, recipe, out, interruption, loggers)
            if Run.exists(out):
                only_here(lambda: keep_card(Run.open(out)))


def said(stage: str, news: str) -> Progress:
    return Progress(stage, 0, None, {}, 0.0, None, None, news=news)


def _stages(
    corpus: Corpus, recipe: Recipe, out: Path, interruption: Interruption, loggers: tuple[str, ...]
) -> Iterator[Progress]:
    if len(recipe.stages) == 1:
        run = _open_or_create(out, recipe, corpus, corpus.spec)
        yield from _stage(run, corpus, recipe.minutes, interruption, loggers)
        return
    if has_partner(recipe):
        yield from _partners(corpus, recipe, out, interruption, loggers)
        return
    first, second = _halves(recipe)
    bare = corpus.unconditioned()
    if recipe.adapter:
        codec_run = frozen_codec(Run.open(recipe.start), out / "codec")
        second = second.model_copy(update={"minutes": recipe.minutes})
    else:
        codec_run = _open_or_create(out / "codec", first, bare, bare.spec)
        yield from _stage(codec_run, bare, first.minutes, interruption, loggers)
    if interruption.asked:
        return
    codes = _codes(corpus, codec_run)
    run = _open_or_create(out, recipe, corpus, codes.spec, codec={"fingerprint": codes.fingerprint})
    yield from _stage(run, codes, second.minutes, interruption, loggers)


def frozen_codec(start: Run, place: Path) -> Run:
    """The codec of a start as it is: what is adapted is the model on its codes. A copy, so that the new run stands alone."""

    def copy() -> None:
        with building(place) as folder:
            source = start.path / "codec"
            newest = start.codec.newest(("averaged",))  # type: ignore[union-attr]
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_all_but(newest.path.name))  # type: ignore[union-attr]
            files.write_text(folder / "recipe.toml", to_toml(rebased(start.codec.recipe, source, place)))  # type: ignore[union-attr]

    if not agreed(int(Run.exists(place))):
        only_here(copy)
    return Run.open(place)


def _all_but(checkpoint: str) -> Callable[[Any, list[str]], list[str]]:
    """For shutil.copytree: what a codec needs no more, its samples, log and older checkpoints."""

    def ignored(folder: Any, names: list[str]) -> list[str]:
        older = [n for n in names if Path(folder).name == "checkpoints" and n != checkpoint]
        return [*older, *(n for n in names if n in ("samples", "log.jsonl", "events.jsonl", ".lock"))]

    return ignored


def has_partner(recipe: Recipe) -> bool:
    """Whether the second name is no model on codes but one beside the first, as in transformer+ngram."""
    return len(recipe.stages) == 2 and getattr(catalog.trainable(recipe.stages[1]), "partner", False)


def _partners(
    corpus: Corpus, recipe: Recipe, out: Path, interruption: Interruption, loggers: tuple[str, ...]
) -> Iterator[Progress]:
    """Both models on the same corpus, then the gate between them on the validation split."""
    second = _halves(recipe)[1]
    run = _open_or_create(out, recipe, corpus, corpus.spec, stage=recipe.stages[0])
    yield from _stage(run, corpus, recipe.minutes, interruption, loggers)
    if interruption.asked:
        return
    partner = _open_or_create(
        out / "partner", second.model_copy(update={"start": None, "adapter": {}}), corpus, corpus.spec
    )
    yield from _stage(partner, corpus, None, interruption, loggers)
    only_here(lambda: fit_gate(run, corpus))


def fit_gate(run: Run, corpus: Corpus) -> None:
    """Learn on the validation split how far either of two partners is heard at each place."""
    partners = Partners(run.load_model(), run.partner.load_model())  # type: ignore[union-attr]
    partners.fit(corpus.sliding("validation"))
    run.keep_gate(partners.gate)


def _halves(recipe: Recipe) -> tuple[Recipe, Recipe]:
    """The recipe of the codec and of the model on its codes; the codec's class says which share of the time it should get."""
    share = getattr(catalog.trainable(recipe.stages[0]), "codec_share", 0.4)
    minutes = recipe.minutes or (None if recipe.train["steps"] else DEFAULT_MINUTES)

    def half(name: str, part: float) -> Recipe:
        return recipe.model_copy(
            update={
                "model": name,
                "models": {Path(name).stem: recipe.settings_of(name)},
                "minutes": minutes and minutes * part,
            }
        )

    return half(recipe.stages[0], share), half(recipe.stages[1], 1 - share)


def _codes(corpus: Corpus, codec_run: Run) -> Corpus:
    """The corpus in codes, beside the corpus; made once for each codec."""
    name = identity(codec_run)
    place = corpus.path.with_name(f"{corpus.path.name}.codes") / name
    if not agreed(int((place / "corpus.json").is_file())):
        codec = codec_run.load_model()
        if not isinstance(codec, Codec):
            raise SettingError(f"{codec_run.recipe.model} is no codec; a pair begins with vae or vqvae")
        only_here(lambda: encode(corpus.widened(), codec, place, {"run": name, "model": codec_run.recipe.model}))
    return Corpus.open(place).narrowed(**corpus.narrow)


def _fitting(recipe: Recipe) -> None:
    """Raise SettingError unless the stages make sense together, before anything is trained."""
    if has_partner(recipe):
        if not hasattr(catalog.trainable(recipe.stages[0]), "hidden"):
            raise SettingError(f"{recipe.stages[1]} stands beside a transformer: transformer+{recipe.stages[1]}")
        return
    if len(recipe.stages) == 2 and not hasattr(catalog.trainable(recipe.stages[0]), "encode"):
        raise SettingError(
            f"{recipe.stages[0]} is no codec; a pair is codec+model, such as vqvae+transformer or vae+flow"
        )


def choose(recipe: Recipe, corpus: Corpus) -> tuple[Recipe, str]:
    """Settle `model = "auto"` by the number and size of the pieces, and say why in a sentence."""
    if recipe.model != "auto":
        return recipe, ""
    pieces, space = corpus.size("train"), corpus.spec.space
    side = max(space.axes) if space.kind == "grid" else 0
    settings: dict[str, dict[str, Any]] = {}
    if space.periods:
        name, why = "transformer", "it writes voices one after the other, and its encoder looks ahead at what is kept"
        settings = {"transformer": {"mode": "encoder-decoder"}}
    elif space.ragged:
        name, why = "transformer+ngram", "on small corpora the two together foretell better than either"
    elif space.kind == "tokens":
        name, why = "transformer", "it is the model of token sequences"
    elif side > 40:
        name, why = (
            "vae+flow",
            f"at {side} pixels a flow on the latents of a VAE works on few numbers and so fits a short training",
        )
    elif pieces < 1000:
        name, why = "vae", f"{pieces} training pieces are few, and a VAE learns most from few and does not collapse"
    else:
        name, why = (
            "vae",
            "for small pictures a VAE with a density fitted to its latents is nearest to the real ones for the time",
        )
    models = {k: settings.get(k, {}) | recipe.models.get(k, {}) for k in settings | recipe.models}
    return recipe.model_copy(update={"model": name, "models": models}), f"model: {name}, because {why}"


def usual_place(corpus: Corpus, recipe: Recipe) -> Path:
    """runs/<corpus>-<model> where nobody says another: the run of this very recipe if there is one, else the first free number."""
    settled = settle(choose(recipe, corpus)[0])
    stem = "+".join(Path(stage).stem for stage in settled.stages)
    base = Path("runs") / f"{corpus.path.name}-{stem}"
    places = chain([base], (base.with_name(f"{base.name}-{k}") for k in count(2)))
    return next(p for p in places if not p.exists() or (Run.exists(p) and _same(Run.open(p), settled, corpus)))


def _same(run: Run, settled: Recipe, corpus: Corpus) -> bool:
    return (
        not differences(run.recipe, rebased(settled, Path(), run.path))
        and run.facts["corpus"]["fingerprint"] == corpus.fingerprint
    )


def _open_or_create(path: Path, recipe: Recipe, corpus: Corpus, spec: DataSpec, **facts: Any) -> Run:
    """The run at `path` if it is this recipe on this corpus, or a new one. Raises RunError saying what differs."""
    recipe = rebased(recipe, Path(), path)
    if agreed(int(Run.exists(path))):
        run = Run.open(path)
        if changes := differences(run.recipe, recipe):
            raise RunError(
                f"{path} is a run of another recipe ({'; '.join(changes[:3])}); choose another folder with -o"
            )
        if run.facts["corpus"]["fingerprint"] != corpus.fingerprint:
            raise RunError(
                f"{path} was trained on another corpus or another state of it; choose another folder with -o"
            )
        return run
    about = {
        k: corpus.facts.get(k) for k in ("name", "fingerprint", "modality", "counts", "labels", "licences", "owners")
    }
    about["path"] = os.path.relpath(corpus.path, path)
    only_here(lambda: Run.create(path, recipe, {"spec": spec.to_json(), "corpus": about, **facts}))
    return Run.open(path)


def _stage(
    run: Run, corpus: Corpus, minutes: float | None, interruption: Interruption, loggers: tuple[str, ...]
) -> Iterator[Progress]:
    """Train one model to its end; on a non-finite loss go back once to the last good checkpoint at half the rate."""
    while True:
        try:
            yield from _attempt(run, corpus, minutes, interruption, loggers)
            return
        except TrainingError as error:
            if run.facts.get("rolled_back"):
                raise TrainingError(
                    f"{error}, again after going back to half the rate; lower train.lr or raise train.clip"
                ) from None
            reason = str(error)
        run.facts["rolled_back"] = reason
        only_here(run.note)
        only_here(lambda: forget_rounds(run))
        yield said(run.stage, f"{reason}; back to the last checkpoint, at half the rate")


def _attempt(
    run: Run, corpus: Corpus, minutes: float | None, interruption: Interruption, loggers: tuple[str, ...]
) -> Iterator[Progress]:
    seed_everything(run.recipe.seed, -1, 0)
    checkpoint = run.newest()
    if checkpoint is None and run.recipe.start:
        model = started(run)
        yield said(run.stage, run.facts["start"]["words"])
    else:
        model = run.build()
    plan = make_plan(model, {**run.recipe.train, "seed": run.recipe.seed})
    if model.perceptual:
        look_through(model, run, plan.device)
    model = taught(run, model, rounds_of(run))
    plan = replace(plan, lr_scale=plan.lr_scale * (0.5 if run.facts.get("rolled_back") else 1.0))
    restored = (checkpoint.tensors, {**checkpoint.facts, "lr_scale": plan.lr_scale}) if checkpoint else None
    only_here(lambda: run.forget_log_after(checkpoint.facts["step"] if checkpoint else 0))
    batches = partial(corpus.batches, plan.batch_size, plan.seed, rank=rank(), world=world(), augment=_augment(corpus))
    if run.recipe.adapter.get("prior"):
        batches = beside(batches, prior_of(run), run.recipe.adapter["prior"], plan.seed)
    held = held_by(run, corpus, model)
    if checkpoint is None and run.recipe.start:
        held.begin(TrainState(model, plan))
    budget = Budget(_minutes(minutes, plan))
    yield from drive(run, corpus, loop(model, batches, plan, restored), held, budget, interruption, loggers)


def started(run: Run) -> Model:
    """The model of a run with what fits of its start laid in; what was taken, left and new is noted in its facts.

    Raises RunError for a damaged start or one that has changed, SettingError where nothing at all fits.
    """
    start = Run.open(Path(run.recipe.start))  # type: ignore[arg-type]
    mark = identity(start)
    if run.facts.get("start", {}).get("fingerprint", mark) != mark:
        raise RunError(f"{start.path} is no longer the run that {run.path} began from; train with another -o")
    model = run.plain()
    report = warm(model, run.stage, start)
    if not report.taken and not (run.codec and run.codec.facts.get("start", {}).get("taken")):
        raise nothing_fits(run.stage, start)
    run.facts["start"] = {**report.to_json(), "fingerprint": mark, "words": report.words}
    only_here(run.note)
    run.adapt(model)
    return model


def look_through(model: Model, run: Run, device: str) -> None:
    """Give a model with a perceptual distance the frozen run it looks through; that run must stay what it was while this one is trained.

    Raises SettingError where that run holds no layers or knows other pieces, RunError where it is gone or has changed.
    """
    eyes = Run.open(os.path.relpath((run.path / model.perceptual).resolve()))  # type: ignore[operator]
    seeing = eyes.load_model(device)
    if not hasattr(seeing, "layers") or seeing.spec.space != model.spec.space:
        raise SettingError(
            f"perceptual should be a run of `maquette pretrain` on grids of shape {model.spec.space.shape}; {eyes.path} is one of "
            f"{eyes.recipe.model} on {seeing.spec.space.kind} of shape {seeing.spec.space.shape}"
        )
    known = run.facts.setdefault("perceptual", identity(eyes))
    if known != identity(eyes):
        raise RunError(f"{eyes.path} is no longer the run {run.path} looks through; train with another -o")
    lend_eyes(model, seeing.layers)


def _minutes(minutes: float | None, plan: Plan) -> float | None:
    return minutes if minutes or plan.steps else DEFAULT_MINUTES


def _augment(corpus: Corpus) -> Callable | None:
    """Pieces are varied as their modality allows; codes are not."""
    if corpus.facts.get("codec"):
        return None
    return partial(catalog.modality(corpus.facts["modality"]).augment, condition=corpus.spec.condition)
