"""Put the measured figures of benchmarks/results/*.json, and the settings of models, into README.md and docs/*.md.

    python docs/tables.py

A page marks a place with `<!-- table NAME -->` and `<!-- end -->`; what stands between is replaced. Nothing here is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maquette import catalog

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"(<!-- table (?P<name>[\w.:@-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def markdown(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def source(name: str, part: str = "") -> str:
    """What was typed where; of a benchmark in parts, the command of each part that is known, or of one."""
    found = result(name)
    runs = found["figures"].get("runs", {})
    chosen = {part: runs[part]} if part in runs else runs
    told = "; ".join(f"{k}: `{r['command']}`, {r['date']}" for k, r in chosen.items())
    if told:
        return f"\n{told}; {found['machine']['cpu']}, {found['machine']['cores']} cores.\n"
    return f"\n`{found['command']}`, seed {found['seed']}, {found['machine']['cpu']}, {found['machine']['cores']} cores, {found['date']}.\n"


def images() -> str:
    figures = result("images")["figures"]
    rows = []
    for name, row in figures["rows"].items():
        cells = [f"{row[key]:.2f}" for key in ("fd", "fd_pixels", "coverage", "precision")]
        rows.append([name, cells[0], figures["fd_ratio"].get(name, ""), *cells[1:], f"{row['seconds']:.0f}"])
    head = ["model", "Frechet distance", "share of fixed-sigma", "in pixels", "coverage", "precision", "CPU-seconds"]
    return markdown(head, rows) + source("images")


def flat(name: str, what: str = "") -> Callable[[], str]:
    """Every figure of a file, or of one part of it, or those whose names begin with `what`, one a row; `what@part`: that part measured them."""
    what, _, part = what.partition("@")

    def table() -> str:
        figures = result(name)["figures"]
        named = {k: v for k, v in figures.items() if k.startswith(what) and k != "runs"}
        whole = figures.get(what)
        return markdown(["figure", "value"], list(_rows(whole if isinstance(whole, dict) else named))) + source(
            name, part or what
        )

    return table


def text() -> str:
    rows = [[name, row["nats"], row["seconds"]] for name, row in result("text")["figures"]["rows"].items()]
    return markdown(["model", "nats a character", "process seconds of training"], rows) + source("text")


def _rows(figures: dict[str, Any], prefix: str = ""):
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else value]


def settings(name: str) -> str:
    wing = next(w for w in (*catalog.TRAINABLE, "modalities") if name in catalog.names(w))
    rows = [
        [f"`{r['name']}`", r["type"].replace("|", "or"), r["default"], r["description"]]
        for r in catalog.table(catalog.find(wing, name))
    ]
    return markdown(["setting", "type", "default", "what it is"], rows)


def content(name: str) -> str | None:
    """None where the benchmark has not run."""
    kind, _, what = name.partition(":")
    if kind == "settings":
        return settings(what)
    if not result(kind):
        return None
    own = {"images": images, "text": text}
    return own[kind]() if kind in own else flat(kind, what)()


def fill(page: Path) -> bool:
    """Fill the places of one page; True when something changed."""
    text = page.read_text(encoding="utf-8")

    def put(match: re.Match[str]) -> str:
        made = content(match["name"])
        return match[0] if made is None else f"{match[1]}{made}{match[4]}"

    filled = PLACE.sub(put, text)
    if filled != text:
        page.write_text(filled, encoding="utf-8")
    return filled != text


if __name__ == "__main__":
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if page.is_file() and fill(page):
            print(f"filled {page.relative_to(ROOT)}")
