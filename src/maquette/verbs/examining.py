"""The audit of a task head: how often it is right on pieces it never saw, beside what is right without learning."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette import files
from maquette.corpus import Corpus
from maquette.errors import CorpusError
from maquette.finding import Finding, interval, mean_interval, resamples, wilson
from maquette.loop import pick_device, seed_everything
from maquette.nets import damage
from maquette.page import Exhibit, Section, figures, page, table
from maquette.piece import Modality
from maquette.run import Run
from maquette.space import Batch

MOST = 2_000  # pieces of the test split that are judged
CLASSES = 50  # names whose recall is a finding of its own
WHERE = "test split"
SHOWN = 12  # pieces on the page


@dataclass(frozen=True)
class Examined:
    """findings, sentences, tables for audit.json, and sections of the page beside the figures."""

    findings: list[Finding]
    verdict: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)


def examine(
    run: Run, corpus: Corpus, modality: Modality, folder: Path, about: dict[str, Any], device: str = "auto"
) -> tuple[tuple[Finding, ...], tuple[str, ...], Path]:
    """(findings, verdict, folder), with audit.json and audit.html in it. Raises CorpusError where the test split knows no answer."""
    model = run.load_model(pick_device(device))
    if corpus.size("test") == 0:
        raise CorpusError(f"the test split of {corpus.path} is empty; prepare it with another --split")
    seed_everything(0, 0, 0)
    with torch.no_grad():
        found = EXAMINED[run.stage](model, corpus, modality)
    told = {"corpus": {"name": corpus.facts["name"], "fingerprint": corpus.fingerprint}, "verdict": found.verdict}
    figures_ = [asdict(f) for f in found.findings]
    files.write_json(folder / "audit.json", {"version": 1, **about, **told, **found.facts, "findings": figures_})
    words = ", ".join(f"{k} {v}" for k, v in about.items())
    lead = (
        "Floor: the same figure for what is right without learning. Intervals: Wilson's for shares, else by bootstrap."
    )
    sections = [*found.sections, Section("All figures", lead, table(found.findings))]
    text = page(
        f"Audit of {about['run']}",
        found.verdict,
        f"{words}; corpus {corpus.facts['name']} ({corpus.fingerprint}).",
        sections,
    )
    files.write_text(folder / "audit.html", text)
    return tuple(found.findings), tuple(found.verdict), folder


def whole(corpus: Corpus, split: str, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Whole pieces of a split, at most `MOST`, spread evenly; sequences to their end."""
    numbers = corpus.numbers(split)
    if len(numbers) > MOST:
        numbers = numbers[np.arange(MOST) * len(numbers) // MOST]
    step = 16 if corpus.spec.space.ragged else 256
    for start in range(0, len(numbers), step):
        yield corpus.take(numbers[start : start + step]).to(device)


def known(model: Any, corpus: Corpus, split: str) -> Tensor:
    """(N, width of the field) of a split, of the pieces where it is known"""
    asked = corpus.conditions(split)[:, model.columns]  # type: ignore[index]
    return asked[~asked.isnan().all(1)]


def answered(model: Any, corpus: Corpus, say: Callable[[Tensor], Any]) -> tuple[list[Any], Tensor]:
    """What `say` gives for each piece of the test split of which the answer is known, and these. Raises CorpusError where there is none."""
    said, asked = [], []
    for batch in whole(corpus, "test", model.device):
        truth = model.asked(batch)
        there = ~truth.isnan().all(1)
        if bool(there.any()):
            said.extend(say(batch.x[there]))
            asked.append(truth[there].cpu())
    if not asked:
        raise CorpusError(
            f"`{model.field.name}` is known of no piece of the test split of {corpus.path}; nothing can be measured"
        )
    return said, torch.cat(asked)


# ---- classify


def classify(model: Any, corpus: Corpus, modality: Modality) -> Examined:
    rows, asked = answered(model, corpus, lambda x: model.probabilities(x).cpu())
    p = torch.stack(rows)
    return _one_name(model, corpus, p, asked[:, 0].long()) if model.single else _tags(model, corpus, p, asked > 0.5)


def _one_name(model: Any, corpus: Corpus, p: Tensor, truth: Tensor) -> Examined:
    names, n = model.names, len(truth)
    usual = int(known(model, corpus, "train")[:, 0].long().bincount(minlength=len(names)).argmax())
    floor, best = float((truth == usual).double().mean()), p.argmax(1)
    right = best == truth
    share, sure = float(right.double().mean()), p.max(1).values >= model.sure
    nats = -p.gather(1, truth[:, None]).squeeze(1).clamp_min(1e-9).log()
    sentence = f"{share:.1%} of {n:,} held-out pieces are named rightly; always saying {names[usual]!r} would be right for {floor:.1%}."
    findings = [
        Finding("accuracy", WHERE, share, *wilson(share, n), floor, n, "higher", sentence, "share"),
        _mean(
            "nats of the right name",
            nats,
            None,
            "lower",
            "How surprised it is by the right name; 0 would be never.",
            "nats",
        ),
        *_surely(right, sure, model.sure),
        *(f for i, name in enumerate(names[:CLASSES]) if (f := _recall(name, right[truth == i])) is not None),
    ]
    counts = torch.zeros(len(names), len(names), dtype=torch.long).index_put_(
        (truth, best), torch.ones(n, dtype=torch.long), True
    )
    confusion = {"names": list(names), "true_by_said": counts.tolist()}
    lead = "Rows: the right name; columns: what was said. The last column is the share of the row that was right."
    section = Section("What is taken for what", lead, confusion_table(names, counts))
    return Examined(findings, [sentence, *_mixed(names, counts)], {"confusion": confusion}, [section])


def _surely(right: Tensor, sure: Tensor, level: float) -> list[Finding]:
    share, n = float(sure.double().mean()), len(sure)
    words = (
        f"It answers {share:.1%} of the pieces and abstains from the others, where it is less than {level:.0%} sure."
    )
    found = [Finding("answered", WHERE, share, *wilson(share, n), None, n, "higher", words, "share")]
    if 0 < int(sure.sum()) < n:
        among, m = float(right[sure].double().mean()), int(sure.sum())
        words = f"Of those that it answers {among:.1%} are right."
        found.append(
            Finding(
                "accuracy of what is answered",
                WHERE,
                among,
                *wilson(among, m),
                float(right.double().mean()),
                m,
                "higher",
                words,
                "share",
            )
        )
    return found


def _recall(name: str, right: Tensor) -> Finding | None:
    n = len(right)
    if not n:
        return None
    share = float(right.double().mean())
    return Finding(
        f"recall of {name}",
        WHERE,
        share,
        *wilson(share, n),
        None,
        n,
        "higher",
        f"Of {n} pieces of {name} {share:.0%} are found.",
        "share",
    )


def _mixed(names: Sequence[str], counts: Tensor) -> list[str]:
    off = counts - counts.diag().diag()
    if not int(off.max()):
        return []
    i, j = divmod(int(off.argmax()), len(names))
    return [f"Most often {names[i]!r} is taken for {names[j]!r}: {int(off[i, j])} of {int(counts[i].sum())} times."]


def confusion_table(names: Sequence[str], counts: Tensor) -> str:
    """As HTML; at most `CLASSES` names."""
    few = range(min(len(names), CLASSES))
    head = "".join(f"<th>{escape(names[j])}</th>" for j in few)
    rows = []
    for i in few:
        cells = "".join(
            f'<td class="number" data-label="{escape(names[j])}"><span>{int(counts[i, j])}</span></td>' for j in few
        )
        share = float(counts[i, i]) / max(1, int(counts[i].sum()))
        rows.append(
            f'<tr><th>{escape(names[i])}</th>{cells}<td class="number" data-label="right"><span>{share:.0%}</span></td></tr>'
        )
    return f"<table><thead><tr><th></th>{head}<th>right</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _tags(model: Any, corpus: Corpus, p: Tensor, truth: Tensor) -> Examined:
    said, n = p > 0.5, len(truth)
    usual = known(model, corpus, "train").nanmean(0) > 0.5
    right, floor = (said == truth).double().mean(1), float((usual == truth).double().mean())
    exact = float((said == truth).all(1).double().mean())
    sentence = f"{float(right.mean()):.1%} of the tags of {n:,} held-out pieces are told rightly; saying what is usual, {floor:.1%} would be."
    findings = [
        _mean("tags told rightly", right, floor, "higher", sentence),
        Finding(
            "all tags right",
            WHERE,
            exact,
            *wilson(exact, n),
            float((usual == truth).all(1).double().mean()),
            n,
            "higher",
            f"Of {exact:.1%} of the pieces every tag is right.",
            "share",
        ),
        *(f for i, name in enumerate(model.names[:CLASSES]) if (f := _recall(name, said[truth[:, i], i])) is not None),
    ]
    return Examined(findings, [sentence])


# ---- regress


def regress(model: Any, corpus: Corpus, modality: Modality) -> Examined:
    rows, asked = answered(model, corpus, lambda x: model.numbers(x).cpu())
    f, n = model.field, len(rows)
    said, truth = torch.stack(rows).double(), asked[:, 0].double() * f.std + f.mean
    mean = float((known(model, corpus, "train").double() * f.std + f.mean).mean())
    squared, usual = (said - truth).square(), (truth - mean).square()
    weights = resamples(n, 0)
    rmse, floor = float(squared.mean().sqrt()), float(usual.mean().sqrt())
    around = float((truth - truth.mean()).square().mean())
    r2 = 1 - float(squared.mean()) / max(around, 1e-12)
    second = (weights @ truth.square()) / n - ((weights @ truth) / n).square()
    spread = interval(1 - (weights @ squared) / n / second.clamp_min(1e-12))
    sentence = f"`{f.name}` of {n:,} held-out pieces is missed by {rmse:.4g} (root mean square); always saying {mean:.4g} misses it by {floor:.4g}."
    findings = [
        Finding("RMSE", WHERE, rmse, *interval(((weights @ squared) / n).sqrt()), floor, n, "lower", sentence, f.name),
        _mean(
            "MAE",
            squared.sqrt(),
            float(usual.sqrt().mean()),
            "lower",
            "The mean distance from the right number.",
            f.name,
        ),
        Finding(
            "R2",
            WHERE,
            r2,
            *spread,
            0.0,
            n,
            "higher",
            f"{r2:.0%} of what varies is explained; the mean explains nothing.",
            "share",
        ),
    ]
    return Examined(findings, [sentence])


# ---- caption


def caption(model: Any, corpus: Corpus, modality: Modality) -> Examined:
    said, asked = answered(model, corpus, model.written)
    truth = [model.spoken([int(w) for w in row[~row.isnan()].tolist()]) for row in asked]
    train = Counter(model.spoken([int(w) for w in row[~row.isnan()].tolist()]) for row in known(model, corpus, "train"))
    usual = train.most_common(1)[0][0]
    exact = torch.tensor([float(a == b) for a, b in zip(said, truth, strict=True)])
    near = torch.tensor([overlap(a, b) for a, b in zip(said, truth, strict=True)])
    floor = torch.tensor([overlap(usual, b) for b in truth])
    share, n = float(exact.mean()), len(truth)
    sentence = f"The words of {n:,} held-out pieces are met by {float(near.mean()):.1%} (F1); {usual!r} always: {float(floor.mean()):.1%}."
    same = f"{share:.1%} of the captions are word for word the right ones."
    findings = [
        _nats(model, corpus),
        Finding(
            "same words",
            WHERE,
            share,
            *wilson(share, n),
            sum(t == usual for t in truth) / n,
            n,
            "higher",
            same,
            "share",
        ),
        _mean("words met", near, float(floor.mean()), "higher", sentence),
    ]
    shown = [{"said": a, "right": b} for a, b in zip(said[:SHOWN], truth[:SHOWN], strict=True)]
    lines = "".join(
        f"<li>{escape(s['said'])} <span class=soft>(right: {escape(s['right'])})</span></li>" for s in shown
    )
    section = Section("What it says", "Of the first held-out pieces, not chosen.", f"<ul>{lines}</ul>")
    return Examined(findings, [sentence], {"captions": shown}, [section])


def overlap(said: str, right: str) -> float:
    """F1 of the words, each counted as often as it occurs.

    >>> overlap("a red cat", "a cat")
    0.8
    """
    a, b = Counter(said.split()), Counter(right.split())
    both = sum((a & b).values())
    return 2 * both / max(1, a.total() + b.total())


def _nats(model: Any, corpus: Corpus) -> Finding:
    """Nats a word, beside those of words by how often they occur in training."""
    nats, counts, words = [], [], []
    for batch in whole(corpus, "test", model.device):
        n, c = model.judged(batch)
        nats.append(n.cpu().double())
        counts.append(c.cpu().double())
        words.append(model.targets(batch).cpu())
    nats_, counts_, target = torch.cat(nats), torch.cat(counts), torch.cat(words)
    seen = torch.cat([model.targets(b).flatten().cpu() for b in whole(corpus, "train", model.device)])
    often = seen[seen >= 0].bincount(minlength=model.end + 1).double() + 1
    floor = float(-(often / often.sum()).log()[target[target >= 0]].mean())
    weights, value = resamples(len(nats_), 0), float(nats_.sum() / counts_.sum())
    span = interval((weights @ nats_) / (weights @ counts_))
    sentence = f"{value:.3f} nats a word; words by how often they occur in training cost {floor:.3f}."
    return Finding("nats a word", WHERE, value, *span, floor, len(nats_), "lower", sentence, "nats")


# ---- restore


def restore(model: Any, corpus: Corpus, modality: Modality) -> Examined:
    return _tokens(model, corpus) if model.kind == "impute" else _pieces(model, corpus, modality)


def _pieces(model: Any, corpus: Corpus, modality: Modality) -> Examined:
    """Each held-out piece is damaged once, as while learning."""
    error: dict[str, list[Tensor]] = {"restored": [], "damaged": [], "plain": []}
    alike: dict[str, list[Tensor]] = {k: [] for k in error}
    first: list[Tensor] = []
    for batch in whole(corpus, "test", model.device):
        left, hidden = model.damaged(batch.x)
        ways = {
            "damaged": left,
            "plain": model.plain(left, hidden),
            "restored": model.restored(left, hidden).clamp(-1, 1),
        }
        for name, x in ways.items():
            error[name].append(damage.squared(x, batch.x, hidden).cpu())
            if batch.x.ndim == 4:
                alike[name].append(damage.likeness(x, batch.x).cpu())
        if not first:
            first = [
                t.cpu()
                for row in zip(
                    batch.x[:SHOWN], *(ways[k][:SHOWN] for k in ("damaged", "plain", "restored")), strict=True
                )
                for t in row
            ]
    mse = {k: torch.cat(v).double() for k, v in error.items()}
    value, before, plain = (float(damage.decibels(mse[k].mean())) for k in ("restored", "damaged", "plain"))
    n, part = len(mse["restored"]), " of what was missing" if model.kind == "inpaint" else ""
    sentence = (
        f"Restored pieces are at {value:.2f} dB{part}, damaged ones at {before:.2f} dB, and {PLAIN[model.kind]} brings them to {plain:.2f} dB "
        f"({n:,} held-out pieces, their errors together)."
    )
    weights = resamples(n, 0)
    drawn = {k: (weights @ mse[k]) / n for k in mse}
    left = float(mse["restored"].sum() / mse["damaged"].sum().clamp_min(1e-12))
    share = interval(drawn["restored"] / drawn["damaged"].clamp_min(1e-12))
    floor = float(mse["plain"].sum() / mse["damaged"].sum().clamp_min(1e-12))
    findings = [
        Finding(
            "PSNR", WHERE, value, *interval(damage.decibels(drawn["restored"])), plain, n, "higher", sentence, "dB"
        ),
        Finding(
            "error left",
            WHERE,
            left,
            *share,
            floor,
            n,
            "lower",
            f"{left:.1%} of the squared error of the damage is left.",
            "share",
        ),
    ]
    if alike["restored"]:
        like = {k: torch.cat(v) for k, v in alike.items()}
        words = f"Structural likeness; damaged pieces have {float(like['damaged'].mean()):.3f}."
        findings.append(_mean("SSIM", like["restored"], float(like["plain"].mean()), "higher", words, ""))
    lead = "Each row of four: the piece, what was left of it, the same repaired without learning, and restored."
    sections = [
        Section(
            "Restored", lead, figures([Exhibit(_png(first, modality), "held-out pieces, the first, not chosen")], "two")
        )
    ]
    return Examined(findings, [sentence], {"damaged_psnr": before, "plain_psnr": plain}, sections)


PLAIN = {
    "denoise": "a median of neighbours",
    "enlarge": "bicubic enlargement",
    "inpaint": "filling them from their rims",
}


def _png(rows: list[Tensor], modality: Modality) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return modality.sheet([modality.to_piece(x) for x in rows], Path(folder) / "sheet.png", 8).read_bytes()


def _tokens(model: Any, corpus: Corpus) -> Examined:
    """Each window is hidden in part, as while learning."""
    often = torch.zeros(corpus.spec.space.vocabulary)
    for batch in corpus.once("train", limit=MOST):
        often += batch.x.flatten().bincount(minlength=len(often))
    usual, right, floor = int(often.argmax()), [], []
    for batch in corpus.once("test", 64, MOST):
        x = batch.x.to(model.device)
        hidden = model.missing(x)
        said = model.logits(x, hidden).argmax(-1)
        right.append(((said == x) & hidden).sum(1) / hidden.sum(1))
        floor.append(((x == usual) & hidden).sum(1) / hidden.sum(1))
    share, plain = torch.cat(right).cpu(), float(torch.cat(floor).mean())
    sentence = f"Of the hidden tokens {float(share.mean()):.1%} are foretold rightly; always saying the most frequent one, {plain:.1%} would be."
    return Examined([_mean("hidden tokens foretold", share, plain, "higher", sentence)], [sentence])


def _mean(
    name: str, scores: Tensor, floor: float | None, direction: Any, sentence: str, unit: str = "share"
) -> Finding:
    """The mean of one score a piece, with its bootstrap interval."""
    return Finding(
        name,
        WHERE,
        float(scores.double().mean()),
        *mean_interval(scores, 0),
        floor,
        len(scores),
        direction,
        sentence,
        unit,
    )


EXAMINED: dict[str, Callable[[Any, Corpus, Modality], Examined]] = {
    "classify": classify,
    "regress": regress,
    "caption": caption,
    "restore": restore,
}
