"""audit: a run and its corpus in, findings out: how good, how varied and how new, beside what real pieces score themselves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette import catalog, files
from maquette.corpus import Corpus
from maquette.errors import CorpusError, RunError, SettingError
from maquette.features import BATCH, Known, Lent, Untrained, judge_of
from maquette.finding import Finding, Material
from maquette.loop import pick_device
from maquette.neighbours import Several, distinct
from maquette.page import Exhibit, Section, figures, page, table
from maquette.piece import Modality
from maquette.run import Run, identity
from maquette.space import SampleRequest
from maquette.verbs import copies, reading, variations
from maquette.verbs.carding import carded
from maquette.verbs.costing import cost_of, told
from maquette.verbs.examining import examine
from maquette.verbs.fitting import fitted_to
from maquette.verbs.heads import is_task
from maquette.verbs.lending import chosen, passed_over
from maquette.verbs.measuring import FEWEST, measure, novelty, repeats, verdict
from maquette.verbs.onepass import Kept, View, finite, gaps
from maquette.verbs.sensing import Sensed
from maquette.verbs.telling import labels_told, teller_of, unlabelled

MOST = 2_000  # pieces that are judged where nothing else is asked
CHUNK = 64  # pieces made at once
SHOWN = 48  # pieces on a sample sheet
PAIRS = 12  # closest pairs that are shown


@dataclass(frozen=True)
class Pair:
    """A generated piece and the training piece nearest to it.

    made       its row among the generated pieces (and its seed, counted from the audit's first)
    train      the number of the training piece in the corpus
    space      where they are nearest
    share      of the held-out pieces that lie nearer to a training piece; small is suspicious. NaN without held-out pieces
    """

    made: int
    train: int
    space: str
    share: float


@dataclass(frozen=True)
class Evidence:
    """All that was measured: findings, sentences, pairs (nearest first) and the distances behind them."""

    findings: tuple[Finding, ...]
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    distances: dict[str, tuple[Tensor, Tensor]]  # space -> (generated_to_train, test_to_train)
    judge: Known | Lent
    features: dict[str, tuple[Tensor, Tensor]]  # space -> (generated, test without twins)
    copies: dict[str, Any]  # verdicts, as they stand in audit.json
    series: Tensor | None = None  # (k, 1 + m, *shape): pieces and their variations

    def find(self, name: str, space: str = "judge") -> Finding:
        return next(f for f in self.findings if (f.name, f.space) == (name, space))


@dataclass(frozen=True)
class Audit:
    """Findings and sentences with the files that hold them; evidence: what is behind those of features."""

    findings: tuple[Finding, ...]
    verdict: tuple[str, ...]
    folder: Path
    evidence: Evidence | Sensed | None = None

    @property
    def words(self) -> str:
        return "\n".join(self.verdict)

    @property
    def page(self) -> Path:
        return self.folder / "audit.html"


@carded
def audit(
    run: Run,
    corpus: Corpus | None = None,
    *,
    against: Corpus | None = None,
    samples: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    judge: Run | str | Path | None = None,
    canaries: Path | None = None,
) -> Audit:
    """Sample from the run and compare with the test split; writes audit.json, audit.html and closest.png.

    corpus   the one it was trained on, where that has moved
    against  another one, to which it is compared as if it had been trained on that: how far it is before it is adapted
    samples  none: as many as the test split has, at least 48 and at most 2,000. Raises RunError, CorpusError, SettingError.
    judge    a run with features (`maquette pretrain`) or an encoder of others (see encoders.py) in which pieces are compared; "own": an
             encoder trained for the audit; none: a pretext run of the same corpus that lies beside the run, else own
    canaries  a file of what was planted in the training pieces of a run of texts or music, see docs/passages.md
    """
    if against is not None:
        corpus = fitted_to(run, against)
    corpus = corpus or corpus_of(run)
    if against is None and corpus.fingerprint != run.facts["corpus"]["fingerprint"]:
        raise CorpusError(
            f"{corpus.path} is not the corpus {run.path} was trained on, or was prepared anew since; an audit against it "
            "would mean nothing. Give the right one with --corpus"
        )
    n = max(SHOWN, min(corpus.size("test"), MOST)) if samples is None else samples
    if n < 1:
        raise SettingError(f"samples should be >= 1; {samples} came")
    modality = catalog.modality(corpus.facts["modality"])
    folder = Path(out) if out else run.path / ("audit" if against is None else f"audit-{against.path.name}")
    about: dict[str, Any] = {
        "run": run.path.name,
        "weights": identity(run),
        "model": run.recipe.model,
        "first_seed": seed,
    }
    if is_task(run.stage):
        return Audit(
            *examine(run, corpus, modality, folder, {k: about[k] for k in ("run", "weights", "model")}, device)
        )
    lent, passed = chosen(judge, run, corpus), passed_over(judge, run, corpus)
    if corpus.spec.space.ragged:
        found = reading.read(run, corpus, modality, samples, seed, device, canaries, lent, passed)
        about["cost"] = cost_of(run, found.seconds, len(found.works.generated))
        reading.write(found, corpus, modality, folder, about)
        return Audit(found.findings, found.verdict, folder, found.sensed)
    if canaries:
        raise SettingError("canaries are ranked by the likelihood of sequences; pieces of this corpus are none")
    started = time.perf_counter()
    generated = as_written(draw(run, n, seed, device), modality)
    about["cost"] = cost_of(run, time.perf_counter() - started, n)
    asked = run.usual_condition(range(seed, seed + n))
    evidence = assess(generated, corpus, seed=seed, noun=modality.pretty or "pieces", judge=lent, asked=asked)
    evidence = variations.examined(evidence, run, generated, modality, seed, device)
    evidence = replace(evidence, notes=(*passed, *evidence.notes))
    return write(evidence, generated, corpus, modality, folder, about)


def corpus_of(run: Run, otherwise: str = "say where it is with --corpus") -> Corpus:
    """The corpus where it lay when the run was trained. Raises CorpusError; otherwise: what to do where it is gone."""
    path = (run.path / run.facts["corpus"]["path"]).resolve()
    if not path.exists():
        raise CorpusError(f"the corpus of {run.path} is no longer at {path}; {otherwise}")
    return Corpus.open(path)


def draw(run: Run, n: int, seed: int, device: str = "auto") -> Tensor:
    """(n, *space.shape): pieces of seeds seed..seed + n - 1, labels as often as in training."""
    sampler = run.sampler(pick_device(device))
    seeds = range(seed, seed + n)
    chunks = [tuple(seeds[i : i + CHUNK]) for i in range(0, n, CHUNK)]
    return torch.cat([sampler.sample(SampleRequest(c, run.usual_condition(c))) for c in chunks])


def as_written(generated: Tensor, modality: Modality) -> Tensor:
    """What a person gets: through the same rounding and clipping as real pieces. Raises RunError for values that are not finite."""
    broken = int((~generated.flatten(1).isfinite().all(1)).sum()) if generated.is_floating_point() else 0
    if broken:
        raise RunError(
            f"{broken} of {len(generated)} generated pieces hold values that are not finite; train again with a lower rate"
        )
    return torch.stack([modality.to_tensor(modality.to_piece(x)) for x in generated])


# ---- measuring


def assess(
    generated: Tensor,
    corpus: Corpus,
    *,
    seed: int = 0,
    noun: str = "pieces",
    judge: Known | Lent | None = None,
    asked: Tensor | None = None,
) -> Evidence:
    """generated (n, *space.shape) against a corpus, by every file of metrics/. asked (n, condition.width): what each should be."""
    if generated.shape[1:] != corpus.spec.space.shape:
        raise SettingError(f"pieces of shape {corpus.spec.space.shape} are judged; {tuple(generated.shape[1:])} came")
    known = judge or judge_of(corpus)
    spaces = {"judge": known.judge, "pixels": Untrained(corpus.spec.space)}
    held = min(corpus.size("test"), max(len(generated), MOST))
    made = embed(spaces, generated.split(BATCH))
    test = embed(spaces, (b.x for b in corpus.once("test", BATCH, held)))
    nearest = {s: Several(torch.cat([made[s], test[s]])) for s in spaces}
    kept = {s: Kept(corpus.size("train")) for s in spaces}
    views = [View(s, spaces[s].embed, looker) for s in spaces for looker in (nearest[s], kept[s])]
    told = copies.copies(generated, corpus, known, views)
    teller = teller_of(known, corpus)
    labels = None if teller is None or held < FEWEST else labels_told(teller, generated, asked, corpus, held)
    found: list[Finding] = []
    notes, distances, features, few = [], {}, {}, min(held, len(generated)) < FEWEST
    for space in spaces:
        to_train = nearest[space].distance[:, 0].split([len(generated), held])
        distances[space] = to_train
        single = distinct(test[space])
        notes += repeats(made[space], test[space], single, space, noun)
        features[space] = made[space], test[space][single]
        train = kept[space].spread(min(len(generated), corpus.size("train")))
        apart = gaps(kept[space], nearest[space].index[:, 0]).split([len(generated), held])
        material = Material(space, noun, made[space], test[space][single], train, *to_train, seed, gaps=apart)
        material = replace(material, labels=labels) if space == "judge" else material
        found += [] if few or len(single) < FEWEST else measure(material)
    if few:
        notes.append(f"fewer than {FEWEST} generated or held-out {noun}: nothing was measured against them")
    pairs = closest({s: nearest[s] for s in spaces}, distances, len(generated))
    notes += [why for why in [unlabelled(corpus)] if why and teller is None]
    said = verdict(found, len(generated), noun, held)
    found += copies.finding(told, noun)
    said = (*said[:2], said[2] + copies.added(told))
    return Evidence(tuple(found), said, tuple(notes), pairs, distances, known, features, told)


@torch.inference_mode()
def embed(spaces: dict[str, Any], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Space -> features (N, D) of all batches."""
    rows: dict[str, list[Tensor]] = {s: [] for s in spaces}
    for x in batches:
        for space, embedder in spaces.items():
            rows[space].append(embedder.embed(x))
    return {s: finite(torch.cat(r) if r else torch.zeros(0, 1), s) for s, r in rows.items()}


def closest(nearest: dict[str, Several], distances: dict[str, tuple[Tensor, Tensor]], n: int) -> tuple[Pair, ...]:
    """Every generated piece with its nearest training piece, the most suspicious first: by the distance in the space where it is
    smallest beside what is usual for held-out pieces."""
    spaces = list(distances)
    ratios = torch.stack([made / _usual(test, made) for made, test in distances.values()])
    smallest, which = ratios.min(0)
    pairs = []
    for i in smallest.argsort().tolist():
        space = spaces[int(which[i])]
        made, test = distances[space]
        share = float((test < made[i]).double().mean()) if len(test) else float("nan")
        pairs.append(Pair(i, int(nearest[space].index[i, 0]), space, share))
    return tuple(pairs[:n])


def _usual(test: Tensor, made: Tensor) -> Tensor:
    return (test if len(test) else made).median().clamp_min(1e-12)


# ---- files


def write(
    evidence: Evidence, generated: Tensor, corpus: Corpus, modality: Modality, folder: Path, about: dict[str, Any]
) -> Audit:
    """audit.json, closest.png and audit.html. Raises StorageError."""
    folder = Path(folder)
    shown = evidence.pairs[:PAIRS]
    both = [t for pair in shown for t in (generated[pair.made], _trained(corpus, pair))]
    captions = [c for pair in shown for c in (f"made {pair.made}", f"train {pair.train}")]
    modality.sheet([modality.to_piece(x) for x in both], folder / "closest.png", columns=8, captions=captions)
    files.write_json(folder / "audit.json", to_json(evidence, corpus, about))
    files.write_text(folder / "audit.html", to_html(evidence, generated, corpus, modality, about))
    return Audit(evidence.findings, evidence.verdict, folder, evidence)


def to_json(evidence: Evidence, corpus: Corpus, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        **about,
        "corpus": {"name": corpus.facts["name"], "fingerprint": corpus.fingerprint},
        "judge": {"hash": evidence.judge.hash, "words": evidence.judge.words},
        "pixels": {"hash": (pixels := Untrained(corpus.spec.space)).hash, "words": pixels.words},
        "verdict": list(evidence.verdict),
        "notes": list(evidence.notes),
        "findings": [asdict(f) for f in evidence.findings],
        "closest": [{k: v for k, v in asdict(p).items() if v == v} for p in evidence.pairs[:PAIRS]],
        **evidence.copies,
    }


def to_html(evidence: Evidence, generated: Tensor, corpus: Corpus, modality: Modality, about: dict[str, Any]) -> str:
    noun = modality.pretty or "pieces"
    about_words = (
        f"{told(about)}; corpus {corpus.facts['name']} ({corpus.fingerprint}). Judge: {evidence.judge.words}, {evidence.judge.hash}. "
        f"Pixels: {Untrained(corpus.spec.space).hash}."
    )
    sections = [_samples(generated, corpus, modality, noun), _pairs(evidence, generated, corpus, modality, about, noun)]
    sections += variations.section(evidence.series, modality, _png)
    if evidence.findings:
        lead = (
            "Floor: the same figure with real training pieces in the place of generated ones. Judge: the encoder named "
            f"above; pixels: {Untrained(corpus.spec.space).words}, a cross-check. Intervals by bootstrap."
        )
        sections += [novelty(evidence.distances["judge"], noun), Section("All figures", lead, table(evidence.findings))]
    if evidence.notes:
        sections.append(Section("Notes", ". ".join(evidence.notes) + ".", ""))
    return page(f"Audit of {about.get('run', 'a run')}", evidence.verdict, about_words, sections)


def _samples(generated: Tensor, corpus: Corpus, modality: Modality, noun: str) -> Section:
    real = corpus.tensor("test", SHOWN).x
    exhibits = [
        Exhibit(
            _png(list(generated[:SHOWN]), modality, 8),
            f"generated {noun}, the first {min(SHOWN, len(generated))}, not chosen",
        ),
        *([Exhibit(_png(list(real), modality, 8), f"held-out {noun}")] if len(real) else []),
    ]
    return Section(f"The {noun}", "What came out, beside what the model never saw.", figures(exhibits, "two"))


def _pairs(
    evidence: Evidence, generated: Tensor, corpus: Corpus, modality: Modality, about: dict[str, Any], noun: str
) -> Section:
    if evidence.copies["copies"]:
        return copies.section(evidence.copies, generated, corpus, modality, about.get("first_seed", 0), _png)
    exhibits = [
        Exhibit(
            _png([generated[p.made], _trained(corpus, p)], modality, 2),
            f"seed {about.get('first_seed', 0) + p.made} | training {p.train}{_source(corpus, p)}{_share(p, noun)}",
        )
        for p in evidence.pairs[:PAIRS]
    ]
    lead = f"Left: generated. Right: the training piece nearest to it. The nearest of {len(evidence.pairs):,} pairs. {copies.told(evidence.copies)}"
    return Section("Closest pairs", lead, figures(exhibits, "pairs"))


def _share(pair: Pair, noun: str) -> str:
    return f"; {pair.share:.1%} of held-out {noun} lie nearer ({pair.space})" if pair.share == pair.share else ""


def _source(corpus: Corpus, pair: Pair) -> str:
    source = corpus.facts_of(pair.train).get("source")
    return f" ({source})" if source else ""


def _trained(corpus: Corpus, pair: Pair) -> Tensor:
    return corpus.take(torch.tensor([pair.train]).numpy()).x[0]


def _png(xs: list[Tensor], modality: Modality, columns: int) -> bytes:
    """A sheet as the bytes of a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        pieces = [modality.to_piece(x) for x in xs]
        return modality.sheet(
            pieces, Path(folder) / "sheet.png", min(columns, len(xs)) or round(sqrt(len(xs)))
        ).read_bytes()
