"""show: what there is (modalities, models, recipes, corpora, runs) and what one thing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette import catalog
from maquette.errors import ContentError, UnknownName
from maquette.files import read_json

WINGS = ("modalities", "models", "pretext", "tasks", "adapters")


def show(what: str | None) -> None:
    """Print a list or a description. Raises UnknownName with the nearest name."""
    console = Console()
    if what is None:
        for heading in _headings():
            _list(console, heading)
    elif what in _headings():
        _list(console, what)
    elif Path(what).exists() and not what.endswith(".py"):
        _at_path(console, Path(what))
    else:
        _settings(console, what)


def _headings() -> dict[str, Any]:
    return {
        "modalities": lambda: catalog.names("modalities"),
        **{wing: lambda wing=wing: catalog.names(wing) for wing in WINGS[1:]},
        "recipes": lambda: _found("recipes", "**/*.toml", lambda p: p),
        "corpora": lambda: _found("corpora", "*/corpus.json", lambda p: p.parent),
        "runs": lambda: _found("runs", "*/run.json", lambda p: p.parent),
    }


def _found(folder: str, pattern: str, name: Any) -> list[str]:
    return sorted(str(name(p)) for p in Path(folder).glob(pattern))


def _list(console: Console, heading: str) -> None:
    names = _headings()[heading]()
    console.print(f"[bold]{heading}[/bold]  {', '.join(names) or 'none here'}")


def _settings(console: Console, name: str) -> None:
    """The settings of a model or modality, read from its constructor."""
    wing = next((w for w in WINGS if name in catalog.names(w)), "models" if name.endswith(".py") else None)
    if wing is None:
        raise UnknownName("thing to show", name, [*_headings(), *(n for w in WINGS for n in catalog.names(w))])
    kind = catalog.find(wing, name)
    console.print((kind.__doc__ or name).strip().split("\n\n")[0])
    table = Table("setting", "type", "default", "what it is")
    for row in catalog.table(kind):
        table.add_row(row["name"], row["type"], row["default"], row["description"])
    console.print(table)
    for size, settings in getattr(kind, "sizes", {}).items():
        console.print(f"--size {size}: {', '.join(f'{k}={v}' for k, v in settings.items())}")


def _at_path(console: Console, path: Path) -> None:
    if (path / "corpus.json").is_file():
        from maquette.corpus import Corpus
        from maquette.verbs.doctor import report

        console.print(report(Corpus.open(path)))
    elif (path / "run.json").is_file():
        facts = read_json(path / "run.json")
        console.print((path / "recipe.toml").read_text(encoding="utf-8"), markup=False)
        console.print(f"corpus: {facts['corpus']['name']} ({facts['corpus']['fingerprint']})")
    elif path.suffix == ".toml":
        console.print(path.read_text(encoding="utf-8"), markup=False)
    else:
        console.print_json(json.dumps(papers_of(path)))


def papers_of(path: Path) -> dict[str, Any]:
    """What a generated file says of itself. Raises ContentError where it says nothing."""
    if not path.is_file():
        raise ContentError(f"no file {path}; give the path of a piece that Maquette made")
    for name in catalog.names("modalities"):
        kind = catalog.find("modalities", name)
        if path.suffix.lower() in kind.suffixes:
            facts = kind.read_facts(path)
            if facts:
                return facts
    raise ContentError(
        f"{path} carries no papers of Maquette: another program made it, or re-saved it without its metadata"
    )
