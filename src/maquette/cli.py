"""The command line: each verb a command, each error one sentence. Torch is loaded when a verb needs it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maquette import __version__
from maquette.errors import MaquetteError, UsageError

if TYPE_CHECKING:
    from maquette.recipe import Recipe
    from maquette.run import Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train generative models on your own content and make new content from them.",
)

Out = Annotated[Path | None, typer.Option("--out", "-o", help="folder to write")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, e.g. gan.loss=hinge or size=64; may repeat")
]
Model = Annotated[str | None, typer.Option(help="a model, or codec+model such as vqvae+transformer; auto chooses")]
Minutes = Annotated[float | None, typer.Option(help="of training")]
Size = Annotated[str | None, typer.Option(help="of the networks: tiny, small, medium, large")]
Seed = Annotated[int | None, typer.Option(help="of weights, order and noise")]
Trackers = Annotated[str, typer.Option("--log", help="tensorboard,wandb; log.jsonl is always written")]
Labels = Annotated[str, typer.Option(help="marks that machines read: eu, cn, both, off")]
Conditions = Annotated[list[str] | None, typer.Option("--condition", "-c", help="what to ask for: label=dragon")]


def main() -> None:
    """The entry point: a MaquetteError becomes one sentence and an exit status, never a traceback."""
    try:
        app()
    except MaquetteError as error:
        typer.secho(f"maquette: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        typer.secho("maquette: stopped", err=True)
        sys.exit(130)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"maquette {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


@app.command()
def create(
    source: Annotated[Path, typer.Argument(help="a folder, archive or file of content")],
    out: Out = None,
    minutes: Minutes = 5.0,
    model: Model = None,
    size: Size = None,
    seed: Seed = None,
    n: Annotated[int, typer.Option("-n", help="new pieces")] = 16,
    labels: Labels = "eu",
    settings: Settings = None,
) -> None:
    """prepare + train + generate + audit in one line."""
    from maquette.api import to_recipe
    from maquette.provenance.finishing import Marks
    from maquette.verbs.train import usual_place

    _take_cores()  # before training, whose own load would look like another's afterwards
    marks = Marks(labels)
    recipe = to_recipe(None, {"model": model, "minutes": minutes, "size": size, "seed": seed}, [])
    corpus = _prepare(source, None, "auto", [])
    recipe = to_recipe(recipe, {}, settings or [])
    place = out or usual_place(corpus, recipe)
    if not _watch(corpus, recipe, place, ()):
        return
    from maquette.run import Run

    run = Run.open(place)
    _make(run, n, _wish(seed=seed or 0), None, marks=marks)
    _audit(run, None)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="a folder, archive or file of content")],
    out: Out = None,
    modality: Annotated[str, typer.Option(help="kind of content; auto: seen from the files")] = "auto",
    split: Annotated[str, typer.Option(help="shares of train, validation and test")] = "0.7,0.15,0.15",
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    policy: Annotated[
        Path | None, typer.Option(help="TOML file that says what may enter, by licence and words")
    ] = None,
    opt_out: Annotated[Path | None, typer.Option(help="list of SHA-256 of files that may not enter")] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="texts or tunes to plant in the train split, to be ranked by audit")
    ] = None,
    settings: Settings = None,
) -> None:
    """Read, clean, number and split content; report on it in words."""
    choices = {"split": _shares(split), "seed": seed, "policy": policy, "opt_out": opt_out, "canaries": canaries}
    _prepare(source, out, modality, settings or [], **choices)


@app.command()
def train(
    corpus: Annotated[Path, typer.Argument(help="a corpus folder")],
    out: Out = None,
    model: Model = None,
    recipe: Annotated[Path | None, typer.Option(help="a TOML recipe")] = None,
    start: Annotated[str | None, typer.Option(help="a run whose weights it begins from, by name and shape")] = None,
    minutes: Minutes = None,
    size: Size = None,
    seed: Seed = None,
    settings: Settings = None,
    log: Trackers = "",
) -> None:
    """Train a model; Ctrl-C saves, the same line resumes."""
    from maquette.api import to_recipe
    from maquette.corpus import Corpus
    from maquette.verbs.train import usual_place

    choices = {"model": model, "start": start, "minutes": minutes, "size": size, "seed": seed}
    chosen = to_recipe(recipe, choices, settings or [])
    opened = Corpus.open(corpus)
    _watch(opened, chosen, out or usual_place(opened, chosen), _names(log))


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="a run to begin from")],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the new run")],
    corpus: Annotated[
        Path | None,
        typer.Argument(help="a corpus of what it shall learn; with --feedback the run's own, where it has moved"),
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="ratings.jsonl of `maquette rate`: learn what is liked of its own pieces")
    ] = None,
    method: Annotated[str | None, typer.Option(help="full, head or lora; none: full, and head for a task")] = None,
    task: Annotated[str | None, typer.Option(help="a head on the run: classify, regress, caption or restore")] = None,
    minutes: Minutes = None,
    seed: Seed = None,
    settings: Settings = None,
    log: Trackers = "",
) -> None:
    """Fit a trained run to other content, or put a task head on it; the same line resumes."""
    from maquette.corpus import Corpus
    from maquette.recipe import parse_assignment
    from maquette.verbs.adapt import adapting

    _take_cores()
    given = dict(parse_assignment(a) for a in settings or [])
    if feedback:
        if task:
            raise UsageError(
                "feedback is about what a run makes, a task about what it says: give one of --feedback and --task"
            )
        options = {"method": method or "full", "minutes": minutes, "seed": seed, "given": given, "loggers": _names(log)}
        _learn(_run_at(run), feedback, corpus, out, options)
        return
    if corpus is None:
        raise UsageError("adapt to what? give a corpus, or --feedback ratings.jsonl")
    options = {"task": task, "method": method, "minutes": minutes, "seed": seed, "given": given, "loggers": _names(log)}
    opened = Corpus.open(corpus)
    _follow(adapting(_run_at(run), opened, out, **options), opened, out)


@app.command()
def rate(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    n: Annotated[int, typer.Option("-n", help="pieces, or pairs, to judge")] = 20,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="which of two is better, instead of likes and dislikes")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="write a sheet to judge in a browser, instead of asking here")
    ] = None,
    take: Annotated[Path | None, typer.Option("--import", help="add the ratings.jsonl that a sheet gave")] = None,
    rater: Annotated[str, typer.Option(help="who judges")] = "",
    condition: Conditions = None,
    prompt: Annotated[str | None, typer.Option(help="how pieces begin")] = None,
    form: Annotated[str | None, typer.Option(help="a form that always holds")] = None,
    seed: Annotated[int, typer.Option(help="of the first piece, at least; none is asked about twice")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Say which pieces of a run you like; ratings land in RUN/ratings.jsonl."""
    from maquette.verbs import rate as verb

    _take_cores()
    opened = _run_at(run)
    options = {"pairs": pairs, "rater": rater, "device": device}
    options["wish"] = _wish(seed=seed, condition=_pairs(condition or []), prompt=prompt, form=form)
    if take:
        typer.echo(f"ratings: {verb.take(opened, take)} new in {opened.path / verb.FILE}")
    elif html:
        typer.echo(f"sheet: {verb.sheet(opened, html, n, **options)}")
    else:
        ask = verb.asker(_line, typer.echo, opened.path / "rating", colours=sys.stdout.isatty())
        typer.echo(f"ratings: {verb.rate(opened, ask, n, **options)} new in {opened.path / verb.FILE}")


def _line(question: str) -> str:
    """An answer from the terminal; its end is the end of the questions."""
    try:
        return input(question)
    except EOFError:
        return "q"


@app.command()
def pretrain(
    corpus: Annotated[Path, typer.Argument(help="a corpus folder; its labels are not looked at")],
    out: Out = None,
    task: Annotated[
        str,
        typer.Option(help="masked, rotation, contrast, or several joined by +; auto: contrast, of sequences masked"),
    ] = "auto",
    minutes: Minutes = None,
    size: Size = None,
    seed: Seed = None,
    settings: Settings = None,
    log: Trackers = "",
) -> None:
    """Learn from pieces alone: a start for other runs, and a judge."""
    from maquette.api import to_recipe
    from maquette.corpus import Corpus
    from maquette.verbs.pretrain import recipe_for
    from maquette.verbs.train import usual_place

    opened = Corpus.open(corpus)
    chosen = to_recipe(recipe_for(task, opened, {"minutes": minutes, "size": size, "seed": seed}), {}, settings or [])
    _watch(opened, chosen, out or usual_place(opened, chosen), _names(log))


@app.command()
def tune(
    corpus: Annotated[Path, typer.Argument(help="a corpus folder")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the study; none: <corpus>.tune/<model>")] = None,
    model: Model = None,
    trials: Annotated[int, typer.Option(help="of the whole study, over all processes")] = 20,
    minutes: Annotated[float, typer.Option(help="of this process, for all its trials together")] = 30.0,
    size: Size = None,
    seed: Seed = None,
    settings: Settings = None,
) -> None:
    """Search the best settings by short trainings, judged on the validation split; the same line goes on, in several processes too."""
    from maquette.api import to_recipe
    from maquette.corpus import Corpus
    from maquette.verbs.tune import tuning

    _take_cores()
    recipe = to_recipe(None, {"model": model, "size": size, "seed": seed}, settings or [])
    for event in tuning(Corpus.open(corpus), recipe, trials=trials, minutes=minutes, out=out):
        if isinstance(event, str):
            typer.echo(event)
            continue
        typer.echo(event.words)
        typer.echo(f"report: {event.report}\nrecipe: {event.best}\nnext: {event.next}")


@app.command()
def generate(
    run: Annotated[Path | None, typer.Argument(help="a run folder; with --like it may be left out")] = None,
    n: Annotated[int, typer.Option("-n", help="new pieces")] = 16,
    seed: Annotated[int, typer.Option(help="of the first piece; piece k has seed + k")] = 0,
    condition: Conditions = None,
    source: Annotated[str | None, typer.Option(help="a file to vary, continue or infill")] = None,
    keep: Annotated[
        str | None, typer.Option(help="what stays of --source: a mask picture; soprano; bars=1-4; lines=1-2")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="how it begins")] = None,
    form: Annotated[
        str | None, typer.Option(help="a form that always holds: 五言绝句, haiku, lines=4, /regex/")
    ] = None,
    rules: Annotated[str, typer.Option(help="that always hold: rhyme; ranges,crossing,parallels")] = "",
    bars: Annotated[int | None, typer.Option(help="of music")] = None,
    length: Annotated[int | None, typer.Option(help="most tokens of a piece")] = None,
    formats: Annotated[str, typer.Option("--format", help="what to write: png; mid,wav,musicxml,svg; txt,json")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="show one text while it is written")] = False,
    series: Annotated[
        int, typer.Option(help="pieces of each series, that of a seed and its variations; -n says how many series")
    ] = 0,
    vary: Annotated[
        float | None, typer.Option(help="how much of a variation is new, 0 to 1: of --series (usual: 0.3) or --source")
    ] = None,
    interpolate: Annotated[tuple[int, int] | None, typer.Option(help="two seeds to walk between")] = None,
    frames: Annotated[int, typer.Option(help="of --interpolate")] = 24,
    like: Annotated[Path | None, typer.Option(help="a piece to make again, from its own metadata")] = None,
    temperature: Annotated[float, typer.Option(help="1 is as trained; lower is safer")] = 1.0,
    guidance: Annotated[float, typer.Option(help="1 is off; higher obeys the condition more")] = 1.0,
    steps: Annotated[int | None, typer.Option(help="of the solver (flow)")] = None,
    top_k: Annotated[int, typer.Option(help="likeliest tokens only; 0 is off")] = 0,
    top_p: Annotated[float, typer.Option(help="smallest set of tokens with this probability; 1 is off")] = 1.0,
    repetition: Annotated[float, typer.Option(help="tokens of late are this many times less likely; 1 is off")] = 1.0,
    adapter: Annotated[
        list[str] | None, typer.Option(help="a run of adapt --method lora and its weight: runs/style:0.7; may repeat")
    ] = None,
    liked: Annotated[bool, typer.Option("--liked", help="each the best of several, by RUN/ratings.jsonl")] = False,
    of: Annotated[int, typer.Option("--of", help="how many each of --liked is the best of")] = 8,
    new: Annotated[
        bool, typer.Option("--new", help="draw a copy of a training piece again, with the next seeds")
    ] = False,
    labels: Labels = "eu",
    visible: Annotated[
        bool,
        typer.Option(
            "--visible", help="a mark people see or hear: AI on pictures, words on texts and scores, tones before sound"
        ),
    ] = False,
    sign: Annotated[bool | None, typer.Option("--sign/--no-sign", help="by C2PA; usual where it is installed")] = None,
    watermark: Annotated[bool, typer.Option("--watermark", help="a keyed one, in pictures from 64 pixels")] = False,
    policy: Annotated[
        Path | None, typer.Option(help="what is asked and made is held against it; none: RUN/policy.toml")
    ] = None,
    out: Out = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Make new pieces; each file carries what is needed to make it again. Of a run of a task: what it says about --source."""
    from maquette.provenance.finishing import Marks
    from maquette.verbs.heads import answers

    marks = Marks(labels, sign, watermark, visible)
    wish = _wish(
        seed=seed,
        condition=_pairs(condition or []),
        source=source,
        keep=keep,
        temperature=temperature,
        guidance=guidance,
        steps=steps,
        top_k=top_k,
        top_p=top_p,
        repetition=repetition,
        prompt=prompt,
        form=form,
        rules=tuple(r.strip() for r in rules.split(",") if r.strip()),
        bars=bars,
        length=length,
        adapters=tuple(adapter or ()),
        liked=liked,
        of=of,
        series=series,
        vary=vary,
    )
    if new and (liked or like or stream or interpolate):
        raise UsageError("--new draws pieces again; drop --liked, --like, --stream or --interpolate")
    if series and (new or like or stream or interpolate):
        raise UsageError("--series makes whole new pieces; drop --new, --like, --stream or --interpolate")
    if vary is not None and (stream or interpolate):
        raise UsageError("--vary makes variations of a whole piece; drop --stream or --interpolate")
    if liked and (like or stream or interpolate):
        raise UsageError("--liked chooses among whole new pieces; drop --like, --stream or --interpolate")
    if not like:
        _take_cores()
    if stream:
        opened = _run_at(run)
        _stream(opened, wish, device, marks, _guard(opened, wish, policy))
        return
    if like:
        opened, wish, interpolate, n = _like(like, run, n)
    else:
        opened = _run_at(run)
    guard = _guard(opened, wish, policy)
    answering = answers(opened, wish.adapters)
    if new and answering:
        raise UsageError(f"--new draws pieces again, and {run} answers about --source; drop --new")
    if answering and vary is not None:
        raise UsageError(f"--vary makes variations, and {run} answers about --source; drop --vary")
    if answering:
        _answered(opened, wish, out, device, marks, guard)
    elif interpolate:
        _walk(opened, interpolate, frames, wish, out, device, marks, guard)
    else:
        wanted = tuple(f".{f.strip().lstrip('.')}" for f in formats.split(",") if f.strip())
        _make(opened, n, wish, out, device, wanted, marks=marks, new=new, guard=guard)


@app.command()
def audit(
    runs: Annotated[list[Path], typer.Argument(help="a run folder; several are compared with the first")],
    corpus: Annotated[Path | None, typer.Option(help="the corpus, where it has moved")] = None,
    against: Annotated[Path | None, typer.Option(help="another corpus to compare it with")] = None,
    out: Out = None,
    samples: Annotated[
        int | None, typer.Option(help="pieces to judge; none: as many as the test split, at most 2,000")
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            help="what judges: a pretext run, an .onnx file, a Hugging Face folder, or own: an encoder trained for the audit"
        ),
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="a policy whose gates must hold; exit status 1 where not")] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="what was planted in the training texts or tunes to be ranked")
    ] = None,
) -> None:
    """Say how good, how varied and how new the pieces of a run are; of several runs, which is better in what."""
    _take_cores()
    if len(runs) == 1:
        _audit(_run_at(runs[0]), corpus, out, samples, against, judge, policy, canaries)
    elif policy:
        raise UsageError("--policy judges one run; give one, or leave the policy away")
    else:
        options = {"judge": judge} | ({"canaries": canaries} if canaries else {})
        _compare([_run_at(r) for r in runs], corpus, out=out, samples=samples, against=against, **options)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    out: Out = None,
    to: Annotated[str, typer.Option(help="the library that shall read it: huggingface")] = "huggingface",
    allow_copies: Annotated[
        str, typer.Option(help="why copies may be handed on though a licence forbids it; logged")
    ] = "",
) -> None:
    """Write a run in the layout of another library."""
    from maquette.verbs.export import export as verb

    typer.echo(f"export: {verb(_run_at(run), out, to, allow_copies)}")


@app.command()
def verify(paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="files that Maquette wrote")]) -> None:
    """Who made a file, with what, and is it untouched; exit status 1 where that is not shown."""
    from maquette.verbs.verify import verify as verb
    from maquette.verbs.verify import words

    good = True
    for path in paths:
        try:
            found = verb(path)
        except MaquetteError as error:
            typer.secho(f"maquette: {error}", err=True)
            good = False
            continue
        typer.echo(words(found))
        good = good and found.untouched
    if not good:
        raise typer.Exit(1)


@app.command()
def show(
    what: Annotated[
        str | None, typer.Argument(help="a name, a corpus, a run, a recipe or a piece; nothing: all names")
    ] = None,
) -> None:
    """List what there is, or describe one thing."""
    from maquette.show import show as describe

    describe(what)


def _prepare(source: Path, out: Path | None, modality: str, assignments: list[str], **choices: Any) -> Any:
    from maquette.recipe import parse_assignment
    from maquette.verbs.doctor import report
    from maquette.verbs.prepare import prepare as verb

    given = dict(parse_assignment(a) for a in assignments)
    settings = {k.removeprefix("prepare."): v for k, v in given.items()}
    from maquette.screen import reading

    with reading() as progress:
        corpus = verb(source, out, modality=modality, settings=settings, progress=progress, **choices)
    typer.echo(report(corpus))
    typer.echo(f"corpus: {corpus.path}")
    return corpus


def _shares(text: str) -> list[float]:
    """ "0.7,0.15,0.15" -> [0.7, 0.15, 0.15]"""
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise UsageError(f"--split takes three shares that sum to 1, as 0.7,0.15,0.15; {text!r} came") from None


def _learn(run: Run, feedback: Path, corpus: Path | None, out: Path, options: dict[str, Any]) -> None:
    from maquette.corpus import Corpus
    from maquette.verbs.learn import learning
    from maquette.verbs.taste import needed_corpus

    own = needed_corpus(run, Corpus.open(corpus) if corpus else None)
    _follow(learning(run, feedback, out, corpus=own, **options), own, out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(x.strip() for x in text.split(",") if x.strip())


def _watch(corpus: Any, recipe: Recipe, out: Path, loggers: tuple[str, ...]) -> bool:
    """Train with a live view; True when training came to its end."""
    from maquette.verbs.train import training

    return _follow(training(corpus, recipe, out, loggers=loggers), corpus, out)


def _follow(progress: Any, corpus: Any, out: Path) -> bool:
    from maquette.screen import watch

    finished = watch(progress, corpus)
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"run: {out}" if finished else f"stopped and saved: {out}; the same line goes on")
        _card(out)
    return finished


def _make(
    run: Run,
    n: int,
    wish: Any,
    out: Path | None,
    device: str = "auto",
    formats: tuple[str, ...] = (),
    *,
    marks: Any,
    new: bool = False,
    guard: Any = None,
) -> None:
    from maquette.verbs.generate import generating, next_folder, save
    from maquette.verbs.generate import sheet as sheet_of
    from maquette.verbs.guarding import APART

    _tell(marks)
    folder = out or next_folder(run)
    pieces = []
    made = _new(run, n, wish, device) if new else generating(run, n, wish, device)
    for piece in guard.passed(made, lambda p: save([p], folder / APART, formats, marks)) if guard else made:
        pieces.append(piece)
        save([piece], folder, formats, marks)
    _flags(guard, folder)
    typer.echo(f"pieces: {len(pieces)} in {folder}")
    if pieces:
        typer.echo(f"sheet: {sheet_of(pieces, folder, marks)}")


def _guard(run: Run, wish: Any, policy: Path | None) -> Any:
    """The policy that a call is held against, where there is one; what is asked is held against it now."""
    from maquette.verbs.guarding import guard_of

    if (guard := guard_of(run, policy)) is not None:
        guard.ask(run, wish)
    return guard


def _flags(guard: Any, folder: Path) -> None:
    if guard is not None:
        path = guard.write(folder)
        typer.echo("\n".join([*guard.lines(), f"flags: {path}"]))


def _new(run: Run, n: int, wish: Any, device: str) -> Any:
    from maquette.verbs.renewing import new

    made = new(run, n, wish, device)
    typer.echo(made.words)
    return made.pieces


def _tell(marks: Any) -> None:
    """Once, on the machine's first pieces: that they have papers, and where the key lies."""
    if marks.news:
        typer.echo(marks.news)


def _answered(run: Run, wish: Any, out: Path | None, device: str, marks: Any, guard: Any) -> None:
    from maquette.verbs.answer import answer, save
    from maquette.verbs.generate import next_folder

    found = answer(run, wish, device)
    for line in guard.said(found.facts["answer"]) if guard and "answer" in found.facts else ():
        typer.echo(line)
    typer.echo(f"{found.words}\nanswer: {save(found, out or next_folder(run), marks)}")


def _stream(run: Run, wish: Any, device: str, marks: Any, guard: Any) -> None:
    from maquette.piece import Piece
    from maquette.verbs.generate import streaming

    if guard:
        guard.before_streaming()
    written = ""
    typer.echo(marks.shown(""), nl=False)
    for part in streaming(run, wish, device):
        typer.echo(part, nl=False)
        written += part
    typer.echo("")
    for line in guard.said({"text": written}, Piece(written)) if guard else ():
        typer.echo(line)


def _walk(
    run: Run, seeds: tuple[int, int], frames: int, wish: Any, out: Path | None, device: str, marks: Any, guard: Any
) -> None:
    from maquette.verbs.generate import interpolate as verb
    from maquette.verbs.generate import next_folder, papered, save
    from maquette.verbs.generate import sheet as sheet_of
    from maquette.verbs.guarding import APART

    _tell(marks)
    folder = out or next_folder(run)
    pieces = verb(run, *seeds, frames, wish, device)
    if guard:
        pieces = list(guard.passed(pieces, lambda p: save([p], folder / APART, marks=marks)))
        _flags(guard, folder)
    if not pieces:
        return
    save(pieces, folder, marks=marks)
    seen = [replace(piece, content=marks.shown(piece.content)) for piece in pieces]
    film = papered(pieces[0].modality.animate(seen + seen[::-1], folder / "way.gif"), pieces, marks)
    typer.echo(f"frames: {len(pieces)} in {folder}\nsheet: {sheet_of(pieces, folder, marks)}\nanimation: {film}")


def _audit(
    run: Run,
    corpus: Path | None,
    out: Path | None = None,
    samples: int | None = None,
    against: Path | None = None,
    judge: Path | None = None,
    policy: Path | None = None,
    canaries: Path | None = None,
) -> None:
    from maquette.corpus import Corpus
    from maquette.guard.policy import load
    from maquette.verbs.audit import audit as verb
    from maquette.verbs.gating import gated

    asked = load(policy) if policy else None
    opened, other = (Corpus.open(p) if p else None for p in (corpus, against))
    made = verb(run, opened, against=other, samples=samples, out=out, judge=judge, canaries=canaries)
    typer.echo(made.words)
    typer.echo(f"report: {made.page}")
    _card(run.path)
    if asked and not gated(asked, made.findings, made.folder, typer.echo):
        raise typer.Exit(1)


def _card(run: Path) -> None:
    """Say so where a card was edited by a person, and the new one lies beside it."""
    from maquette.verbs.carding import BESIDE, NAME, is_ours

    if (run / NAME).is_file() and not is_ours(run / NAME):
        beside = run / BESIDE
        new = f"; the new one is {beside}" if beside.is_file() and is_ours(beside) else ""
        typer.echo(f"card: {run / NAME} was edited by hand and stays as it is{new}")


def _compare(runs: list[Run], corpus: Path | None, *, against: Path | None, **options: Any) -> None:
    from maquette.corpus import Corpus
    from maquette.verbs.comparing import compare

    opened, other = (Corpus.open(p) if p else None for p in (corpus, against))
    made = compare(runs, opened, against=other, **options)
    typer.echo(f"{made.words}\nreport: {made.page}")


def _wish(**asked: Any) -> Any:
    from maquette.verbs.generate import Wish

    return Wish(**asked)


def _run_at(path: Path | None) -> Run:
    from maquette.run import Run

    if path is None:
        raise UsageError("which run? maquette generate runs/mine; `maquette show runs` lists those at hand")
    return Run.open(path)


def _take_cores(threads: int | None = None) -> None:
    """This process computes on so many threads; none: on the cores that nobody else keeps busy. The library leaves them to its caller."""
    import torch

    from maquette.loop import idle_cores

    torch.set_num_threads(threads or idle_cores())


def _like(piece: Path, run: Path | None, n: int) -> tuple[Run, Any, tuple[int, int] | None, int]:
    """The run, wish and way of a piece that was made before, from the metadata in its file, and the threads it was made with."""
    from maquette.show import papers_of
    from maquette.verbs.generate import like as verb
    from maquette.verbs.generate import threads_of

    facts = papers_of(piece)
    if threads := threads_of(facts):
        _take_cores(threads)
    opened = _run_at(run or Path(facts["run"]))
    return opened, verb(facts, opened), facts.get("interpolate"), n if run else 1


def _pairs(texts: list[str]) -> dict[str, str]:
    """["label=dragon,mood=calm"] -> {"label": "dragon", "mood": "calm"}; a part without a sign belongs to the value before it."""
    found: dict[str, str] = {}
    last = ""
    for part in (p for text in texts for p in text.split(",")):
        key, sign, value = part.partition("=")
        if sign:
            last = key.strip()
            found[last] = value.strip()
        elif last:
            found[last] += f",{part}"
        else:
            raise UsageError(f"a condition is given as name=value; {part!r} came")
    return found


if __name__ == "__main__":
    main()
