"""What a study found, in words: best.toml, report.md and report.html, with an honest remark on luck."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from maquette import files
from maquette.corpus import Corpus
from maquette.page import Section, page
from maquette.recipe import Recipe, to_toml
from maquette.verbs.searching import rounded, tried
from maquette.verbs.study import Study

ENOUGH = 6  # whole trials below which nothing is said of what mattered


@dataclass(frozen=True)
class Tuned:
    """value, usual: the figure of the best trial and of the usual settings (None where those were not tried to their end);
    repeats: figures of the best and of the usual settings with other seeds; recipe: what best.toml says."""

    folder: Path
    recipe: Recipe
    value: float
    usual: float | None
    repeats: tuple[tuple[float, ...], tuple[float, ...]]
    importances: Mapping[str, float]
    verdict: tuple[str, ...]
    next: str

    @property
    def best(self) -> Path:
        return self.folder / "best.toml"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def words(self) -> str:
        return "\n".join(self.verdict)


def summary(study: Study, corpus: Corpus, recipe: Recipe, usual: Mapping[str, Any], figure: str) -> Tuned:
    """Read the study, choose, and write the three files. Raises StorageError."""
    with study.alone():
        trials = [t for t in study.trials.get_trials() if t.state.name in ("COMPLETE", "PRUNED")]
        again = [t for t in study.repeats.get_trials() if t.state.name == "COMPLETE"]
    best = study.best
    base = next((t.value for t in trials if t.state.name == "COMPLETE" and t.params == dict(usual)), None)
    same = best.params == dict(usual)
    repeats = tuple(tuple(t.value for t in again if t.user_attrs["params"] == rounded(p)) for p in (best.params, usual))
    fails = not same and all(repeats) and mean(repeats[0]) >= mean(repeats[1])
    chosen = tried(recipe, rounded(usual if fails else best.params))
    weights = importances(study)
    verdict = (
        _found(trials, best.value, base, same, figure),
        _luck(repeats, same, fails),
        _mattered(weights),
        _limits(study, recipe),
    )
    line = f"maquette train {corpus.path} --recipe {study.folder / 'best.toml'}"
    made = Tuned(study.folder, chosen, best.value, base, repeats, weights, verdict, line)  # type: ignore[arg-type]
    _write(made, trials, corpus, figure)
    return made


def importances(study: Study) -> dict[str, float]:
    """Share of each setting in what tells good trials from the rest, by PED-ANOVA (Watanabe 2023, arXiv:2304.10255)."""
    import optuna

    whole = [t.value for t in study.trials.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    if len(whole) < ENOUGH or len(set(whole)) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    found = optuna.importance.get_param_importances(study.trials, evaluator=evaluator)
    return {k: v for k, v in found.items() if v == v}


def _found(trials: Sequence[Any], best: float, base: float | None, same: bool, figure: str) -> str:
    short = sum(t.state.name == "PRUNED" for t in trials)
    count = f"Of {len(trials)} trials ({short} cut short) the best"
    if same:
        return f"{count} is that of the usual settings, at {best:.4g} {figure}."
    beside = "" if base is None else f"; the usual settings are at {base:.4g}"
    return f"{count} is at {best:.4g} {figure}{beside}. Smaller is better."


def _luck(repeats: tuple[tuple[float, ...], ...], same: bool, fails: bool) -> str:
    """Whether a gain survives other seeds; the best of many trials owes a part of its figure to luck."""
    best, usual = (", ".join(f"{v:.4g}" for v in values) for values in repeats)
    if same:
        again = f" Other seeds give {usual}." if usual else ""
        return f"Nothing that was tried beats the usual settings.{again}"
    if usual and not best:
        return f"The usual settings give {usual} with other seeds; the best were not repeated yet, and the same line again does."
    if not all(repeats):
        return "The time did not allow to repeat the best with another seed, so a part of its lead may be luck; the same line with more minutes does."
    told = f"With other seeds the best settings give {best}, the usual ones {usual}"
    if fails:
        return f"{told}: the gain does not survive, it was luck, and best.toml holds the usual settings."
    if max(repeats[0]) < min(repeats[1]):
        few = " (one repeat each proves little)" if min(map(len, repeats)) < 2 else ""
        return f"{told}: the gain survives{few}."
    return f"{told}: better on the mean, but not every time; the gain is about as large as luck."


def _mattered(weights: Mapping[str, float]) -> str:
    if not weights:
        return f"Which settings mattered cannot be said from fewer than {ENOUGH} whole trials."
    first = ", ".join(f"{k} ({v:.0%})" for k, v in sorted(weights.items(), key=lambda kv: -kv[1])[:3])
    return f"What told good trials from the rest: {first}. From so few trials this is a hint, no proof."


def _limits(study: Study, recipe: Recipe) -> str:
    minutes = recipe.minutes or study.trials.user_attrs.get("minutes")
    length = f"{60 * minutes:.0f} seconds" if minutes else f"{recipe.train['steps']} steps"
    return (
        f"Every trial trained for {length}; a much longer training may want a lower rate and a wider model. "
        "The test split was not looked at: `maquette audit` still judges by pieces that nothing was chosen by."
    )


# ---- files


def _write(made: Tuned, trials: Sequence[Any], corpus: Corpus, figure: str) -> None:
    rows = _rows(trials)
    head = f"# {made.recipe.model} tuned on {corpus.facts['name']}"
    lines = [head, *made.verdict, f"    {made.next}", f"Figure: {figure}.", _markdown(rows)]
    files.write_text(made.best, to_toml(made.recipe))
    files.write_text(made.folder / "report.md", "\n\n".join(lines) + "\n")
    sections = [
        Section("Next", "The line to type.", f"<pre>{html.escape(made.next)}</pre>"),
        Section("Settings", "By how much they tell good trials from the rest.", _html(_weights(made.importances))),
        Section("Trials", f"Best first. Figure: {figure}.", _html(rows)),
    ]
    about = f"{made.folder}; corpus {corpus.facts['name']} ({corpus.fingerprint})."
    files.write_text(made.report, page(head[2:], made.verdict, about, sections))


def _rows(trials: Sequence[Any]) -> list[dict[str, str]]:
    """Whole trials first, the best at the top; then those that were cut short."""
    order = sorted(trials, key=lambda t: (t.state.name != "COMPLETE", t.value if t.state.name == "COMPLETE" else 0.0))
    return [
        {
            "trial": str(t.number + 1),
            "figure": f"{t.value:.4g}" if t.state.name == "COMPLETE" else t.user_attrs.get("broke", "cut short"),
            "steps": f"{t.user_attrs.get('steps', 0):,}" if t.state.name == "COMPLETE" else "",
            "seconds": f"{t.user_attrs.get('seconds', 0):g}",
            **{k: "usual" if v is None else str(v) for k, v in rounded(t.params).items()},
        }
        for t in order
    ]


def _weights(weights: Mapping[str, float]) -> list[dict[str, str]]:
    return [{"setting": k, "share": f"{v:.0%}"} for k, v in weights.items()] or [{"setting": "too few whole trials"}]


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row[h].replace("|", "/") for h in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(rows: Sequence[Mapping[str, str]]) -> str:
    heads = "".join(f"<th>{html.escape(h)}</th>" for h in rows[0])
    body = "".join(f"<tr>{''.join(_cell(k, v) for k, v in row.items())}</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(head: str, value: str) -> str:
    return f'<td data-label="{html.escape(head)}"><span>{html.escape(value)}</span></td>'
