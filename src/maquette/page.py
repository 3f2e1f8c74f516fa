"""One self-contained HTML file: no script, no request to anywhere; pictures as data URIs; readable on a phone and on paper."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from torch import Tensor

from maquette.finding import Finding

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #666; --line: #ddd; --paper: #fff; --made: #c2410c; --real: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --soft: #aaa; --line: #444; --paper: #181818; --made: #fb923c; --real: #93b4ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.verdict p { font-size: 1.1rem; margin: .4rem 0; } .soft { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; image-rendering: pixelated; border-radius: 4px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem .75rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--soft); font-weight: 500; font-size: .875rem; }
td, th { padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; max-width: 40rem; } svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg.strip { display: block; max-width: 46rem; font-variant-numeric: tabular-nums; } svg.strip .name { fill: var(--ink); }
svg.strip .track { stroke: var(--line); } svg.strip .reach { stroke: var(--made); stroke-width: 6; stroke-opacity: .4; stroke-linecap: round; }
svg.strip .floor { stroke: var(--real); stroke-width: 2; } h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.scroll { overflow-x: auto; margin-top: 1.5rem; }
svg .made { fill: var(--made); } svg .real { fill: var(--real); } svg line { stroke: var(--ink); }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; border-bottom: 1px solid var(--line); padding: .6rem 0; }
  td { display: contents; } td::before { content: attr(data-label); color: var(--soft); font-size: .875rem; }
  td[data-label=""] > * { grid-column: 1 / -1; } td[data-label=""]::before { display: none; } td > * { min-width: 0; }
}
@media print { body { max-width: none; font-size: 11pt; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
BETTER = {"higher": "higher is better", "lower": "lower is better", "near": "near its floor is best"}
QUESTIONS = {  # words in the names of findings that answer it; the first that fits
    "Representation": ("representation", "share of "),
    "Consistency": ("consistency", "identity", "of a series"),
    "Copying": ("copies", "copied", "C_T", "distance to training", "of training", "authenticity", "closer to training"),
    "Fidelity": ("precision", "density", "KID", "Frechet", "nats", "accuracy", "kept"),
    "Diversity": ("recall", "coverage", "Vendi", "lost kinds", "homogeneity", "distinct", "variety"),
}
ARROW = {"higher": "↑", "lower": "↓", "near": "≈"}
OTHER = "Other"
SHOWN = ("Fidelity", "Consistency", "Diversity", "Representation", "Copying", OTHER)  # their order on the page
ROW = 48  # pixels a finding takes in the plot
LEGEND = (
    "Dot: the value. Bar: its 95% interval. Upright stroke: the floor. Each line has its own scale and includes zero. "
    "↑ higher is better, ↓ lower is better, ≈ near its floor is best."
)


@dataclass(frozen=True)
class Exhibit:
    """A picture file as bytes (PNG) with what stands beneath it and in place of it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    title: str
    lead: str
    body: str


def page(title: str, verdict: Sequence[str], about: str, sections: Sequence[Section]) -> str:
    """The whole file. title, verdict and about are plain text; bodies are HTML made by the functions below."""
    parts = "".join(
        f'<section><h2>{escape(s.title)}</h2><p class="soft">{escape(s.lead)}</p>{s.body}</section>' for s in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<section class="verdict">{"".join(f"<p>{escape(v)}</p>" for v in verdict)}</section>'
        f'<p class="soft">{escape(about)}</p>{parts}</body></html>\n'
    )


def figures(exhibits: Sequence[Exhibit], layout: str) -> str:
    """layout: "two" large ones side by side, or "pairs", many small ones."""
    return f'<div class="{layout}">{"".join(map(_figure, exhibits))}</div>'


def _figure(exhibit: Exhibit) -> str:
    data, words = base64.b64encode(exhibit.png).decode(), escape(exhibit.caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{words}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def table(findings: Sequence[Finding]) -> str:
    """A strip plot of the findings, and beneath it one row a finding; at phone width each row becomes a card."""
    heads = "".join(f"<th>{h}</th>" for h in ("Figure", "Value", "95% interval", "Floor", "N", "In words"))
    rows = "".join(map(_row, findings))
    return (
        strips(findings)
        + f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def strips(findings: Sequence[Finding]) -> str:
    """Each finding on a line of its own: a bar for the interval, a dot for the value, a stroke for the floor; grouped by question."""
    groups = {title: [f for f in findings if question(f) == title] for title in SHOWN}
    parts = "".join(f"<h3>{title}</h3>{_strip(title, rows)}" for title, rows in groups.items() if rows)
    return f'<p class="soft">{LEGEND}</p>{parts}' if parts else ""


def question(f: Finding) -> str:
    """Which question a finding answers, by its name."""
    return next((title for title, words in QUESTIONS.items() if any(w in f.name for w in words)), OTHER)


def _strip(title: str, findings: Sequence[Finding]) -> str:
    """One SVG, whose lengths across are shares of its width and whose type keeps its size on every screen."""
    rows = "".join(_line(f, k * ROW) for k, f in enumerate(findings))
    words = f"{title}: " + "; ".join(map(_told, findings))
    return f'<svg class="strip" style="height:{len(findings) * ROW}px" role="img" aria-label="{escape(words)}">{rows}</svg>'


def _line(f: Finding, top: int) -> str:
    floor = [] if f.reference is None else [f.reference]
    numbers = [x for x in (0.0, f.low, f.value, f.high, *floor) if isfinite(x)]
    first, last = min(numbers), max(numbers)
    across = {x: 2 + 96 * (x - first) / ((last - first) or 1.0) for x in numbers}
    name, middle = escape(f"{f.name} ({f.space})"), top + 32
    marks = [f'<line class="track" x1="2%" x2="98%" y1="{middle}" y2="{middle}"/>']
    if f.low in across and f.high in across:
        span = f'x1="{across[f.low]:.2f}%" x2="{across[f.high]:.2f}%"'
        marks.append(f'<line class="reach" {span} y1="{middle}" y2="{middle}"/>')
    for x in (x for x in floor if x in across):
        marks.append(
            f'<line class="floor" x1="{across[x]:.2f}%" x2="{across[x]:.2f}%" y1="{middle - 9}" y2="{middle + 9}"/>'
        )
    if f.value in across:
        marks.append(f'<circle class="made" cx="{across[f.value]:.2f}%" cy="{middle}" r="4.5"/>')
    value = escape(f"{quantity(f)} {ARROW[f.direction]}")
    texts = f'<text class="name" x="0" y="{top + 16}">{name}</text><text x="100%" y="{top + 16}" text-anchor="end">{value}</text>'
    return f"<g><title>{escape(_told(f))}</title>{texts}{''.join(marks)}</g>"


def _told(f: Finding) -> str:
    floor = "no floor" if f.reference is None else f"floor {number(f.reference)}"
    return f"{f.name} in {f.space} {quantity(f)}, {number(f.low)} to {number(f.high)}, {floor}, {BETTER[f.direction]}"


def _row(f: Finding) -> str:
    floor = "none" if f.reference is None else number(f.reference)
    cells = (
        (
            "",
            f"<span><strong>{escape(f.name)}</strong> <span class=soft>in {escape(f.space)}; {BETTER[f.direction]}</span></span>",
        ),
        ("Value", f"<span><strong>{number(f.value)}</strong> <span class=soft>{escape(f.unit)}</span></span>"),
        ("95% interval", f"<span>{number(f.low)} to {number(f.high)}</span>"),
        ("Floor", f"<span>{floor}</span>"),
        ("N", f"<span>{f.n:,}</span>"),
        ("", f"<span>{escape(f.sentence)}</span>"),
    )
    kinds = ("", "number", "number", "number", "number", "")
    return (
        "<tr>"
        + "".join(
            f'<td class="{kind}" data-label="{label}">{cell}</td>'
            for kind, (label, cell) in zip(kinds, cells, strict=True)
        )
        + "</tr>"
    )


def quantity(f: Finding) -> str:
    """The value with its unit."""
    return f"{number(f.value)} {f.unit}".strip()


def number(x: float) -> str:
    """Three digits that matter, never an exponent where a person would not write one.

    >>> number(0.00012), number(0.9512), number(12.345), number(16800.0), number(0.0)
    ('0.00012', '0.951', '12.3', '16,800', '0')
    """
    if x == 0:
        return "0"
    if abs(x) >= 1000:
        return f"{float(f'{x:.3g}'):,.0f}"
    return f"{x:.3g}" if abs(x) < 1e-4 else f"{float(f'{x:.3g}'):.10g}"


def histogram(made: Tensor, real: Tensor, mark: float, noun: str, bars: int = 36) -> str:
    """Two shares by distance as inline SVG: generated (filled) above the line, held-out below it; `mark` is a dashed line."""
    top = max(float(made.max()), float(real.max()), 1e-9) * 1.0001
    shares = [(d.double() / top * bars).long().bincount(minlength=bars)[:bars] / len(d) for d in (made, real)]
    tallest = max(float(s.max()) for s in shares)
    width, height, middle = 640, 220, 105
    rects = [
        f'<rect class="{kind}" x="{i * width / bars + 1:.1f}" y="{middle - size if kind == "made" else middle:.1f}" '
        f'width="{width / bars - 2:.1f}" height="{size:.1f}"/>'
        for kind, share in zip(("made", "real"), shares, strict=True)
        for i, size in enumerate((share / tallest * 85).tolist())
        if size > 0
    ]
    x = mark / top * width
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="distances to the nearest training piece"><text x="4" y="14">'
        f'generated {escape(noun)} (above)</text><text x="4" y="{height - 6}">held-out {escape(noun)} (below)</text>{"".join(rects)}'
        f'<line x1="0" x2="{width}" y1="{middle}" y2="{middle}"/><line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height - 20}" '
        f'stroke-dasharray="4 3"/><text x="{width - 4}" y="{height - 6}" text-anchor="end">farther from training →</text></svg>'
    )
