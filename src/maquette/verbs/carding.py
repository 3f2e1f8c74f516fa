"""The model card in a run's folder (Mitchell 2019): written by train, filled in by audit; one that a person edited stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from maquette import cards, catalog, files
from maquette.errors import RunError
from maquette.run import Run, identity
from maquette.space import GenerativeModel

NAME, BESIDE = "README.md", "README.new.md"
STAMP = "<!-- written by Maquette ({}); once this file is edited it is not written over -->\n"
STAMPED = re.compile(r"(.*)<!-- written by Maquette \(([0-9a-f]{16})\)[^\n]*-->\n?", re.DOTALL)


def keep_card(run: Run) -> Path | None:
    """Write what is known now to README.md; to README.new.md where a person edited that; None where both were edited."""
    text = card(run)
    for place in (run.path / NAME, run.path / BESIDE):
        if not place.exists() or is_ours(place):
            return files.write_text(place, text + STAMP.format(files.fingerprint(text)))
    return None


def card(run: Run) -> str:
    facts, newest, audit = run.facts, run.best(()) or run.newest(()), _audit_of(run)
    steps, seconds = newest and newest.facts["step"], facts.get("cpu_seconds")
    rows = {
        "steps of training": f"{steps:,}" if steps is not None else "unknown",
        "seconds of processor": "unknown" if seconds is None else f"{seconds:,.0f}",
    }
    use = "```\nmaquette generate FOLDER -n 16\n```" if _generates(run) else ""
    return cards.model_card(facts["corpus"], run.recipe.model_dump(), audit, rows=rows, use=use)


def _generates(run: Run) -> bool:
    return issubclass(catalog.trainable(run.stage), GenerativeModel)


def _audit_of(run: Run) -> dict[str, Any] | None:
    """What was found of these very weights; None where there is nothing, or only of others."""
    from maquette.verbs.export import audit_of

    try:
        found = audit_of(run)
        return found if found and found.get("weights") == identity(run) else None
    except RunError:
        return None


def is_ours(place: Path) -> bool:
    """Written by us and not edited since."""
    found = STAMPED.fullmatch(place.read_bytes().decode("utf-8", "replace"))
    return bool(found) and files.fingerprint(found[1]) == found[2]


def carded(audit: Callable[..., Any]) -> Callable[..., Any]:
    """An audit that fills in the run's card, where it is the one that lies in the run."""

    @wraps(audit)
    def audited(run: Run, *args: Any, **options: Any) -> Any:
        made = audit(run, *args, **options)
        if made.folder == run.path / "audit":
            keep_card(run)
        return made

    return audited
