"""lending: a judge of an audit that was trained elsewhere, a run or an encoder of others, and the proof that it shares no weights with the run
that is judged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from maquette import catalog, reader
from maquette.corpus import Corpus
from maquette.encoders import encoder_at
from maquette.errors import MaquetteError, SettingError
from maquette.features import Lent, shown
from maquette.run import Run, identity

OWN = "own"  # asks for the encoder that is trained for the audit
PASSES = 10  # over a small train split, that a pretext run has made where it judges unasked


def chosen(judge: Run | str | Path | None, run: Run, corpus: Corpus) -> Lent | None:
    """The judge that was asked for; where none was, a pretext run of the same corpus that lies beside the run. None: an encoder trained for
    the audit. Raises what `lend` raises.
    """
    if not isinstance(judge, Run) and str(judge) == OWN:
        return None
    judge = judge if judge is not None else pretext_beside([run], corpus)
    return None if judge is None else lend(judge, run, corpus)


def pretext_beside(runs: Sequence[Run], corpus: Corpus) -> Run | None:
    """The pretext run of the most steps, among the folders beside these runs, that has finished on the train split of this corpus, shares no
    weights with any of them, and has learnt for long enough."""
    found = [(steps, pre) for steps, pre in _beside(runs, corpus) if not too_short(pre, steps, corpus)]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def passed_over(judge: Run | str | Path | None, run: Run, corpus: Corpus) -> list[str]:
    """What is to be said of pretext runs that might have judged, had they learnt for longer; nothing where a judge was asked for."""
    if judge is not None:
        return []
    whys = [(pre, too_short(pre, steps, corpus)) for steps, pre in _beside([run], corpus)]
    return [
        f"{pre.path.name} was passed over as the judge: {why}; --judge takes it all the same"
        for pre, why in whys
        if why
    ]


def too_short(pre: Run, steps: int, corpus: Corpus) -> str:
    """Why a pretext run has learnt for too short a time to judge unasked: it saw fewer pieces than the audit's own encoder does, and fewer
    than `PASSES` times the train split. "" where it has not."""
    size = pre.recipe.train.get("batch_size") or pre.build().batch_size
    own, each = (
        (reader.shown(corpus), reader.windows(corpus))
        if corpus.spec.space.kind == "tokens"
        else (shown(corpus), corpus.size("train"))
    )
    least, seen = min(own, PASSES * each), steps * size
    return f"it saw {seen:,} pieces in training, and {least:,} are the least to be relied on" if seen < least else ""


def _beside(runs: Sequence[Run], corpus: Corpus) -> list[tuple[int, Run]]:
    """(steps, run) of the pretext runs in folders beside these that could judge them."""
    places = {place for run in runs for place in run.path.resolve().parent.glob("*/run.json")}
    opened = (_open(place.parent) for place in sorted(places))
    return [(steps, pre) for pre in opened if pre and (steps := _fits(pre, runs, corpus))]


def _open(folder: Path) -> Run | None:
    with suppress(MaquetteError, KeyError, OSError):
        run = Run.open(folder)
        return run if run.stage in catalog.names("pretext") else None
    return None


def _fits(pre: Run, runs: Sequence[Run], corpus: Corpus) -> int:
    """The steps it has learnt for; 0 where it cannot judge."""
    with suppress(MaquetteError, KeyError, OSError):
        newest = pre.newest(())
        if newest and pre.spec.space == corpus.spec.space and pre.facts["corpus"]["fingerprint"] == corpus.fingerprint:
            for run in runs:
                strangers(run, pre)
            return newest.facts["step"] if newest.facts["step"] >= (newest.facts["steps"] or float("inf")) else 0
    return 0


def lend(judge: Run | str | Path, run: Run, corpus: Corpus) -> Lent:
    """The features of a run, or of an encoder of others, as the judge of `run` on a corpus. Raises SettingError where there are none, where
    they were made for other pieces, or where run and judge share weights; MissingExtra.
    """
    space = corpus.spec.space
    if not isinstance(judge, Run) and Path(judge).exists() and not Run.exists(Path(judge)):
        if space.kind != "grid":
            raise SettingError(
                f"sequences are judged by a run of `maquette pretrain`; encoders of others, such as {judge}, read pictures"
            )
        found = encoder_at(Path(judge), space)
        return Lent(found.embedder, corpus, found.hash, found.words)
    return _of_run(judge if isinstance(judge, Run) else Run.open(judge), run, corpus)


def _of_run(judge: Run, run: Run, corpus: Corpus) -> Lent:
    if judge.codec is not None or not hasattr(model := judge.load_model(), "embed"):
        raise SettingError(
            f"{judge.path} is a run of {judge.recipe.model}, which holds no features; a run of `pretrain` does"
        )
    space = corpus.spec.space
    if judge.spec.space != space:
        raise SettingError(
            f"{judge.path} knows pieces of shape {judge.spec.space.shape}, those of this corpus have {space.shape}; pretrain on a corpus of "
            "that shape"
        )
    strangers(run, judge)
    source = judge.facts["corpus"]
    same = "this corpus" if source["fingerprint"] == corpus.fingerprint else f"the corpus {source['name']}"
    blind = " without labels" if model.probed else ""
    limit = reader.surveyed(corpus) if space.kind == "tokens" else 5_000
    words = f"the features of {judge.path.name}, a run of {judge.recipe.model} that learnt from {same}{blind}"
    return Lent(model, corpus, identity(judge), words, limit)


def strangers(run: Run, judge: Run) -> None:
    """Raises SettingError where the two share weights (one began from the other, or both from a third), or the run learnt to please the judge."""
    ours, theirs = lineage(run), lineage(judge)
    shared = [mark for mark in ours if mark in theirs]
    if shared:
        at = ours[shared[0]]
        told = {str(judge.path): f"{run.path} began from it", str(run.path): f"it began from {run.path}"}
        how = told.get(at, f"both began from {at}")
    elif run.facts.get("perceptual") in theirs:
        how = f"{run.path} was trained to please it (perceptual)"
    else:
        return
    raise SettingError(
        f"{judge.path} may not judge {run.path}: {how}, and a judge that shares what the generator learnt is partial to it. Give another --judge, "
        "or none: then an encoder is trained for the audit"
    )


def lineage(run: Run) -> dict[str, str]:
    """Marks of weights that are in a run, and where they came from: its own, those of its codec and partner, and of all that it began from,
    as far as those runs can still be found. A mark is a fingerprint of weights, or a folder, for a start may have been trained on since."""
    found = {str(run.path.resolve()): str(run.path), identity(run): str(run.path)}
    for part in (run.codec, run.partner):
        found |= lineage(part) if part is not None else {}
    if start := run.facts.get("start"):
        found |= {str(Path(start["run"]).resolve()): start["run"], start["fingerprint"]: start["run"]}
        with suppress(MaquetteError):
            found |= lineage(Run.open(start["run"]))
    return found
