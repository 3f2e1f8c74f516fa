"""The data card of a corpus: README.md as Hugging Face reads it (YAML front matter; Pushkarna 2022, "Data Cards"). Nothing is invented."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

HUB = {"CC0-1.0": "cc0-1.0", "MIT": "mit", "OFL-1.1": "ofl-1.1", "Apache-2.0": "apache-2.0", "Unlicense": "unlicense"}
SHOWN = 20  # licences, owners or labels that are listed


def front(fields: Mapping[str, Any]) -> str:
    """YAML front matter; every value is JSON, which YAML contains."""
    return "---\n" + "".join(f"{k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in fields.items()) + "---\n"


def hub_licence(counts: Mapping[str, int]) -> str:
    """The Hub's name of the one licence of all pieces; "unknown" where one piece's is not known, "other" where they are several."""
    if not counts or "unknown" in counts:
        return "unknown"
    name = next(iter(counts))
    if len(counts) > 1:
        return "other"
    return name.lower() if re.match(r"CC-BY", name) else HUB.get(name, "other")


def data_card(facts: Mapping[str, Any]) -> str:
    """README.md of a corpus folder, from its facts alone."""
    name, counts = _plain(facts.get("name") or "unknown"), facts.get("counts") or {}
    modality = (facts.get("modality") or {}).get("name", "unknown")
    head = {
        "pretty_name": str(facts.get("name") or "unknown"),
        "license": hub_licence(facts.get("licences") or {}),
        "tags": ["maquette", modality],
    }
    rows = [
        ("kind of content", modality),
        ("pieces", _counted(counts)),
        ("set aside when it was read", _number(facts.get("quarantined"))),
        ("on an opt-out list", _number(facts.get("opted_out"))),
        ("kept out by a policy", _counted(facts.get("set_apart"), "none")),
        ("exact copies left out", _number((facts.get("duplicates") or {}).get("exact"))),
        ("fingerprint", f"`{facts.get('fingerprint', 'unknown')}`"),
    ]
    table = "".join(f"| {key} | {value} |\n" for key, value in rows)
    parts = [f"# {name}\n\nA corpus made by Maquette from one collection.\n\n| | |\n|---|---|\n{table}"]
    for title, key in (("Licences", "licences"), ("Owners", "owners"), ("Labels", "labels")):
        parts.append(f"## {title}\n\n{_list(facts.get(key) or {})}")
    parts.append(
        "## What is not known\n\nWho chose the pieces, why, and whether the people in them agreed: unknown, unless it is said above.\n"
    )
    return front(head) + "\n" + "\n".join(parts)


def _plain(text: object) -> str:
    """One line that no Markdown table or heading stumbles over."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:,}"


def _counted(counts: Mapping[str, int] | None, empty: str = "unknown") -> str:
    return ", ".join(f"{n:,} {_plain(k)}" for k, n in (counts or {}).items()) or (
        "unknown" if counts is None else empty
    )


def _list(counts: Mapping[str, int]) -> str:
    lines = [f"- {_plain(k)}: {n:,}\n" for k, n in list(counts.items())[:SHOWN]]
    more = [f"- and {len(counts) - SHOWN:,} more\n"] if len(counts) > SHOWN else []
    return "".join(lines + more) or "unknown\n"
