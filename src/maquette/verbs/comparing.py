"""audit of several runs: each beside the same held-out pieces, from the same seeds, then every figure of one beside that of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from maquette import files
from maquette.corpus import Corpus
from maquette.errors import CorpusError, SettingError
from maquette.finding import Finding, interval, resamples
from maquette.metrics.diversity import K, covered, recalled
from maquette.metrics.fidelity import crowd
from maquette.page import Section, number, page
from maquette.run import Run
from maquette.verbs.audit import Audit, audit, corpus_of
from maquette.verbs.lending import OWN, pretext_beside

FIRST, SECOND, NEITHER = "first", "second", "neither"


@dataclass(frozen=True)
class Difference:
    """One figure of two runs.

    first, second  what each scored
    low, high      the interval of first minus second from paired resamples; None where no scores of single pieces exist
    better         "first", "second", or "neither": no difference is found
    """

    first: Finding
    second: Finding
    low: float | None
    high: float | None
    better: str

    @property
    def name(self) -> str:
        return f"{self.first.name} in {self.first.space}"


@dataclass(frozen=True)
class Comparison:
    """The first run beside one other: names, differences, and the sentence that sums them up."""

    names: tuple[str, str]
    differences: tuple[Difference, ...]
    words: str


@dataclass(frozen=True)
class Compared:
    """The audits of all runs and the comparisons of the first with each other one."""

    audits: tuple[Audit, ...]
    comparisons: tuple[Comparison, ...]
    folder: Path

    @property
    def words(self) -> str:
        return "\n".join(c.words for c in self.comparisons)

    @property
    def page(self) -> Path:
        return self.folder / "comparison.html"


def compare(
    runs: Sequence[Run], corpus: Corpus | None = None, *, out: Path | None = None, seed: int = 0, **options: Any
) -> Compared:
    """Audit each run, then write comparison.json and comparison.html. options: those of `audit`.

    Raises SettingError for fewer than two runs, CorpusError for runs of different corpora.
    """
    if len(runs) < 2:
        raise SettingError(f"a comparison takes two runs or more; {len(runs)} came")
    same_corpus(runs)
    corpus = corpus or (None if options.get("against") else corpus_of(runs[0]))
    options["judge"] = options.get("judge") or (pretext_beside(runs, corpus) if corpus else None) or OWN
    names = names_of(runs)
    folder = Path(out) if out else runs[0].path / ("comparison-" + "-".join(names[1:]))
    audits = [audit(r, corpus, seed=seed, out=folder / n, **options) for r, n in zip(runs, names, strict=True)]
    found = tuple(beside(audits[0], a, (names[0], n), seed) for a, n in zip(audits[1:], names[1:], strict=True))
    return write(Compared(tuple(audits), found, folder), names)


def same_corpus(runs: Sequence[Run]) -> None:
    """Raises CorpusError where two runs were trained on different corpora: their figures have nothing in common."""
    first = runs[0].facts["corpus"]
    for run in runs[1:]:
        own = run.facts["corpus"]
        if own["fingerprint"] != first["fingerprint"]:
            raise CorpusError(
                f"{runs[0].path} was trained on the corpus {first['name']} ({first['fingerprint']}), {run.path} on {own['name']} "
                f"({own['fingerprint']}); figures of different corpora cannot be compared. Audit each for itself, or train both on one"
            )


def names_of(runs: Sequence[Run]) -> list[str]:
    """The folders' names; numbered where two are alike."""
    names = [r.path.resolve().name for r in runs]
    return names if len(set(names)) == len(names) else [f"{i + 1}-{n}" for i, n in enumerate(names)]


def beside(one: Audit, other: Audit, names: tuple[str, str], seed: int = 0) -> Comparison:
    """All figures that both have."""
    others = {(f.name, f.space): f for f in other.findings}
    pairs = [(f, others[f.name, f.space]) for f in one.findings if (f.name, f.space) in others]
    found = tuple(difference(a, b, paired(one, other, a, seed)) for a, b in pairs)
    return Comparison(names, found, sentence(found, names))


def paired(one: Audit, other: Audit, f: Finding, seed: int) -> tuple[float, float] | None:
    """The interval of the difference, each piece drawn as often for both; None without a score for every piece."""
    a, b = (scores(x, f) for x in (one, other))
    return paired_interval(a, b, seed) if a is not None and b is not None and len(a) == len(b) else None


def paired_interval(a: Tensor, b: Tensor, seed: int) -> tuple[float, float]:
    """Scores (N,), (N,) of the same pieces -> the interval of the difference of their means."""
    return interval(resamples(len(a), seed) @ (a - b).double() / len(a))


def scores(of: Audit, f: Finding) -> Tensor | None:
    """One score a piece: of generated ones, matched by seed, for precision; of the same held-out ones for recall and coverage."""
    rules = {"precision": lambda made, test: (crowd(made, test) > 0).double(), "recall": recalled, "coverage": covered}
    if of.evidence is None or f.name not in rules or f.space not in of.evidence.features:
        return None
    made, test = of.evidence.features[f.space]
    return rules[f.name](made, test) if min(len(made), len(test)) > K else None


def difference(a: Finding, b: Finding, between: tuple[float, float] | None) -> Difference:
    """Which is better: where the interval of the difference leaves out 0, or, without one, where the two intervals do not meet."""
    low, high = between or (a.low - b.high, a.high - b.low)
    apart = low > 0 or high < 0
    better = winner(a, b) if apart else NEITHER
    return Difference(a, b, *(between or (None, None)), better)


def winner(a: Finding, b: Finding) -> str:
    def loss(f: Finding) -> float:
        return {"higher": -f.value, "lower": f.value, "near": abs(f.value - (f.reference or 0.0))}[f.direction]

    return NEITHER if loss(a) == loss(b) else FIRST if loss(a) < loss(b) else SECOND


# ---- in words and files


def sentence(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """One sentence: which is better in what, and where no difference is found."""
    told = dict(zip((FIRST, SECOND), names, strict=True))
    parts = [f"{told[k]} is better in {_list(found, k)}" for k in told if any(d.better == k for d in found)]
    parts += [f"no difference is found in {_list(found, NEITHER)}"] if any(d.better == NEITHER for d in found) else []
    return f"{names[0]} beside {names[1]}: {'; '.join(parts) or 'they share no figure'}."


def _list(found: Sequence[Difference], better: str) -> str:
    """Names of figures, the spaces of each together."""
    spaces: dict[str, list[str]] = {}
    for d in found:
        if d.better == better:
            spaces.setdefault(d.first.name, []).append(d.first.space)
    return ", ".join(f"{name} ({' and '.join(s)})" for name, s in spaces.items())


def write(compared: Compared, names: Sequence[str]) -> Compared:
    """comparison.json and comparison.html. Raises StorageError."""
    facts = {"version": 1, "runs": list(names), "comparisons": [to_json(c) for c in compared.comparisons]}
    files.write_json(compared.folder / "comparison.json", facts)
    files.write_text(compared.page, to_html(compared, names))
    return compared


def to_json(c: Comparison) -> dict[str, Any]:
    return {"runs": list(c.names), "words": c.words, "differences": [asdict(d) for d in c.differences]}


def to_html(compared: Compared, names: Sequence[str]) -> str:
    lead = (
        "Difference: first minus second, from resamples in which each piece is drawn as often for both; where a figure has no score for "
        "every piece, the two intervals stand alone, and a difference is found only where they do not meet. No correction is made "
        "for the number of figures: of twenty without any difference one may seem to differ."
    )
    sections = [Section(f"{c.names[0]} beside {c.names[1]}", lead, _table(c)) for c in compared.comparisons]
    verdicts = [
        Section(f"What the audit of {n} says", f"All of it: {n}/audit.html", f"<p>{escape(a.words)}</p>")
        for n, a in zip(names, compared.audits, strict=True)
    ]
    about = "The same seeds, the same held-out pieces, the same judge."
    return page(f"{', '.join(names)} compared", [c.words for c in compared.comparisons], about, [*sections, *verdicts])


def _table(c: Comparison) -> str:
    heads = ("Figure", c.names[0], c.names[1], "Difference", "Floor", "Better")
    rows = "".join(_row(d, c.names, heads) for d in c.differences)
    return (
        f"<table><thead><tr>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(d: Difference, names: tuple[str, str], heads: Sequence[str]) -> str:
    floor = "none" if d.first.reference is None else number(d.first.reference)
    between = "no scores of single pieces" if d.low is None else f"{number(d.low)} to {number(d.high or 0.0)}"
    better = {FIRST: names[0], SECOND: names[1], NEITHER: "no difference found"}[d.better]
    cells = (d.name, _with_interval(d.first), _with_interval(d.second), between, floor, better)
    filled = (f'<td data-label="{escape(h)}"><span>{escape(x)}</span></td>' for h, x in zip(heads, cells, strict=True))
    return f"<tr>{''.join(filled)}</tr>"


def _with_interval(f: Finding) -> str:
    return f"{number(f.value)} ({number(f.low)} to {number(f.high)})"
