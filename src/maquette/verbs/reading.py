"""The audit of sequences: exact likelihoods beside those of an n-gram, and the modality's own figures beside those of held-out pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette import catalog, files
from maquette.corpus import Corpus
from maquette.features import Lent
from maquette.finding import Finding, interval, resamples
from maquette.likelihood import is_chain, piece_nats
from maquette.loop import pick_device
from maquette.page import Section, page, table
from maquette.piece import Asked, Modality, Piece, Works
from maquette.run import Run
from maquette.space import DataSpec, SampleRequest
from maquette.verbs import extraction, passages, planting
from maquette.verbs.costing import told
from maquette.verbs.generate import condition_of
from maquette.verbs.measuring import alike, novelty
from maquette.verbs.measuring import varied as differing
from maquette.verbs.sensing import Sensed, sense

MOST = 200  # pieces that are written where nothing else is asked
TOKENS = 40_000  # about as many are written at most
JUDGED = 400  # held-out pieces whose likelihood is taken at most
LEARNT = 20_000  # tokens of training pieces whose likelihood is taken, about
SHOWN = 6  # pieces on the page beside as many held-out ones


@dataclass(frozen=True)
class Reading:
    """What was measured: findings, three sentences, and the pieces behind them."""

    findings: tuple[Finding, ...]
    verdict: tuple[str, ...]
    works: Works
    seconds: float  # in which the pieces were written
    copies: passages.Copies
    canaries: tuple[extraction.Canary, ...]
    sensed: Sensed


def read(
    run: Run,
    corpus: Corpus,
    modality: Modality,
    samples: int | None,
    seed: int,
    device: str,
    canaries: Path | None = None,
    judge: Lent | None = None,
    notes: Sequence[str] = (),
) -> Reading:
    """Write pieces and judge them and the model that wrote them. The only place where sequences of the test split are looked at.

    judge: in whose features pieces are compared; none: those of a reader trained for the audit; notes: to be said with what was measured
    """
    sampler = run.sampler(pick_device(device))
    canaries = canaries or planting.planted(run, corpus, sampler.model)
    found = extraction.exposed(sampler.model, corpus.spec, modality, canaries, seed) if canaries else []
    length = corpus.spec.space.shape[0]
    usual = max(8, min(corpus.size("test"), MOST, TOKENS // length))
    started = time.perf_counter()
    made = [modality.to_piece(x) for x in written(run, modality, samples or usual, seed, device)]
    seconds = time.perf_counter() - started
    works = gathered(made, corpus, modality, seed)
    likely = list(likelihoods(run, corpus, modality, seed, device))
    own = modality.findings(works)
    copies = passages.copies_of(works, corpus, modality)
    own += passages.finding(copies, modality.pretty or "pieces")
    heart = (*extraction.extracted(sampler, corpus), *extraction.findings(found))
    asked = condition_of(run, modality, {}, range(seed, seed + len(made)))
    sensed = sense(made, corpus, modality, judge=judge, asked=asked, seed=seed)
    sensed = replace(sensed, notes=(*notes, *sensed.notes))
    words = verdict(likely, own, sensed.findings, modality)
    findings = (*likely, *sensed.findings, *own, *heart)
    return Reading(findings, words, works, seconds, copies, tuple(found), sensed)


def gathered(made: list[Piece], corpus: Corpus, modality: Modality, seed: int) -> Works:
    """New pieces, and as many held-out and training ones, no one twice, cut to the same number of tokens."""

    def real(split: str) -> list[Piece]:
        return passages.taken(corpus, modality, passages.spread(corpus.numbers(split), len(made)))

    return Works(made, real("test"), real("train"), lambda: corpus.pieces("train"), seed=seed)


def written(run: Run, modality: Modality, n: int, seed: int, device: str, chunk: int = 32) -> Iterator[Tensor]:
    """The tokens of pieces of seeds seed ... seed + n - 1, labels as often as in training."""
    sampler, rule = run.sampler(pick_device(device)), modality.start(Asked()).constraint
    for start in range(seed, seed + n, chunk):
        seeds = tuple(range(start, min(start + chunk, seed + n)))
        yield from sampler.sample(SampleRequest(seeds, condition_of(run, modality, {}, seeds), constraint=rule))


def likelihoods(run: Run, corpus: Corpus, modality: Modality, seed: int, device: str) -> Iterator[Finding]:
    """Nats a unit of the test split, the n-gram's as reference; and of as many training pieces: much less there is learning by heart."""
    model = run.sampler(pick_device(device)).model
    if not is_chain(model):
        return
    pieces, nats = piece_nats(model, corpus, "test", JUDGED)  # type: ignore[arg-type]
    counts = units_of(corpus, modality, pieces)
    _, floor = piece_nats(ngram(corpus), corpus, "test", JUDGED)
    told = ", their conditions known" if corpus.spec.condition else ""
    for unit, count in counts.items():
        value, low, high = ratio(nats, count, seed)
        reference = float(floor.sum() / count.sum())
        sentence = (
            f"{value:.3f} nats a {unit} (perplexity {np.exp(value):.3g}) over {len(pieces)} held-out pieces{told}; "
            f"an n-gram that was fitted in seconds needs {reference:.3f}."
        )
        yield Finding(
            f"nats a {unit}", "test split", value, low, high, reference, len(pieces), "lower", sentence, "nats"
        )
    unit = next(iter(counts))
    if corpus.spec.condition is not None:
        yield _told_nothing(model, corpus, unit, counts[unit], float(floor.sum() / counts[unit].sum()), seed)
    some = max(1, round(LEARNT * corpus.size("train") / corpus.tokens_of("train")))
    known, learnt = piece_nats(model, corpus, "train", min(some, JUDGED))  # type: ignore[arg-type]
    value, low, high = ratio(learnt, units_of(corpus, modality, known)[unit], seed)
    held = float(nats.sum() / counts[unit].sum())
    sentence = f"Training pieces cost {value:.3f} nats a {unit}, held-out ones {held:.3f}: the wider apart, the more was learnt by heart."
    yield Finding(
        f"nats a {unit} of training", "train split", value, low, high, held, len(known), "near", sentence, "nats"
    )


def _told_nothing(model: Any, corpus: Corpus, unit: str, count: Tensor, floor: float, seed: int) -> Finding:
    """The same without conditions, some of which may have been measured on the very pieces: key and density give much away."""
    pieces, nats = piece_nats(model, corpus.unconditioned(), "test", JUDGED)
    value, low, high = ratio(nats, count, seed)
    known = ", ".join(f.name for f in corpus.spec.condition.fields)  # type: ignore[union-attr]
    sentence = f"{value:.3f} nats a {unit} where the model is told nothing of {known}, as the n-gram is not."
    return Finding(
        f"nats a {unit}, told nothing", "test split", value, low, high, floor, len(pieces), "lower", sentence, "nats"
    )


def units_of(corpus: Corpus, modality: Modality, numbers: Tensor) -> dict[str, Tensor]:
    """unit -> how many each of these pieces has (N,)"""
    rows = [modality.units(modality.to_piece(corpus.take(np.array([i])).x[0])) for i in numbers.tolist()]
    return {unit: torch.tensor([float(row[unit]) for row in rows], dtype=torch.float64) for unit in rows[0]}


def ratio(nats: Tensor, count: Tensor, seed: int) -> tuple[float, float, float]:
    """(N,), (N,) -> nats a unit over all, and its bootstrap interval over pieces."""
    weights = resamples(len(nats), seed)
    return float(nats.sum() / count.sum()), *interval((weights @ nats) / (weights @ count))


def ngram(corpus: Corpus) -> Any:
    """A modified Kneser-Ney n-gram of the train split: what a report of a model of sequences must be read beside."""
    kind = catalog.find("models", "ngram")
    model = kind(DataSpec(corpus.spec.space, None, "categorical", corpus.spec.tokens))
    model.conclude(lambda: corpus.once("train", limit=model.concluded_on))
    return model.eval()


# ---- in words


def verdict(
    likely: Sequence[Finding], own: Sequence[Finding], sensed: Sequence[Finding], modality: Modality
) -> tuple[str, ...]:
    """How good, how varied and how new: how like held-out pieces they are and how well the model foretells those; in how many neighbourhoods
    they lie; how many are copies. Where pieces were too few to compare, the modality's own first figures of variety and novelty."""
    known = {f.name: f.sentence for f in own}
    varied, new = ([known[name]] if name in known else [] for name in modality.telling[:2])
    new = [known["copies"]] if "copies" in known else new
    if not sensed:
        return (_good(likely), *varied, *new)
    noun = modality.pretty or "pieces"
    return (f"{alike(sensed, noun)}; {_foretold(likely)}.", differing(sensed, noun), *new)


def _foretold(likely: Sequence[Finding]) -> str:
    if not likely:
        return "how well the model foretells held-out ones cannot be said exactly, for it is no chain"
    first = likely[0]
    gain = (first.reference or 0.0) - first.value
    least = f"{first.value:.3f} {first.name}"
    if gain <= 0:
        return f"the model foretells held-out ones no better than an n-gram that is fitted in seconds ({least}): train for longer"
    return f"the model foretells held-out ones better than an n-gram by {gain:.3f} ({least})"


def _good(likely: Sequence[Finding]) -> str:
    words = _foretold(likely)
    return f"{words[0].upper()}{words[1:]}.{f' {likely[0].sentence}' if likely else ''}"


# ---- files


def write(reading: Reading, corpus: Corpus, modality: Modality, folder: Path, about: dict[str, Any]) -> None:
    """audit.json and audit.html. Raises StorageError."""
    facts = {
        "version": 1,
        **about,
        "corpus": {"name": corpus.facts["name"], "fingerprint": corpus.fingerprint},
        **reading.sensed.to_json(),
        "verdict": list(reading.verdict),
        "findings": [asdict(f) for f in reading.findings],
        **passages.to_json(reading.copies, corpus),
        **extraction.to_json(reading.canaries),
    }
    files.write_json(folder / "audit.json", facts)
    files.write_text(folder / "audit.html", _html(reading, corpus, modality, about))


def _html(reading: Reading, corpus: Corpus, modality: Modality, about: dict[str, Any]) -> str:
    words = told(about)
    works = reading.works
    lead = (
        "Floor: an n-gram for likelihoods; training pieces in the place of generated ones where judge or n-grams say how like they are; held-out "
        "pieces cut to the same length for all else. Intervals by bootstrap."
    )
    sections = [
        Section("New", "Written for this audit, seeds in order.", _shown(works.generated, modality)),
        Section("Real", f"Held-out {modality.pretty}, cut to the same length.", _shown(works.held, modality)),
        passages.section(reading.copies, works, corpus, modality),
        *(
            [novelty(reading.sensed.distances["judge"], modality.pretty or "pieces")]
            if reading.sensed.distances
            else []
        ),
        Section("All figures", lead, table(reading.findings)),
        *([Section("Notes", ". ".join(reading.sensed.notes) + ".", "")] if reading.sensed.notes else []),
    ]
    title = f"Audit of {about['run']}"
    return page(
        title,
        reading.verdict,
        f"{words}; corpus {corpus.facts['name']} ({corpus.fingerprint}). {reading.sensed.words}",
        sections,
    )


def _shown(pieces: Sequence[Piece], modality: Modality) -> str:
    return f'<div class="two">{"".join(modality.exhibit(p) for p in pieces[:SHOWN])}</div>'
