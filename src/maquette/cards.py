"""Cards of corpora and models as Hugging Face reads them (Pushkarna 2022, "Data Cards"; Mitchell 2019, "Model Cards"). Nothing is invented."""

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
        *([("flagged by a policy", _counted(facts["flags"], "none"))] if "flags" in facts else []),
        *(
            [("canaries planted in the train split", _number(facts["canaries"]["planted"]))]
            if "canaries" in facts
            else []
        ),
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


def model_card(
    facts: Mapping[str, Any],
    recipe: Mapping[str, Any],
    audit: Mapping[str, Any] | None = None,
    *,
    rows: Mapping[str, str] | None = None,
    head: Mapping[str, Any] | None = None,
    use: str = "",
) -> str:
    """README.md of a run. facts: its corpus's; recipe: the settled one; audit: audit.json.

    rows, head and use: what an export adds to the table, to the front matter, and as the section on use.
    """
    kind = (facts.get("modality") or {}).get("name", "unknown")
    model, name = str(recipe.get("model") or "unknown"), _plain(facts.get("name") or "unknown")
    top = {"license": "unknown", "tags": ["maquette", kind, *model.split("+")]} | dict(head or {})
    table = {
        "kind of content": kind,
        "model": f"{_plain(model)}, size {_plain(recipe.get('size') or 'unknown')}",
        "pieces it was made from": _counted(facts.get("counts")),
        "their licences": _counted(facts.get("licences")),
        "their owners": _several(facts.get("owners")),
        "fingerprint of the corpus": f"`{facts.get('fingerprint') or 'unknown'}`",
        "seed": str(recipe.get("seed", "unknown")),
        "began from": _plain(recipe.get("start") or "nothing: random weights"),
    } | dict(rows or {})
    lines = "".join(f"| {key} | {value} |\n" for key, value in table.items())
    parts = [f"# {name}\n\nA generative model made by Maquette from the collection below.\n\n| | |\n|---|---|\n{lines}"]
    parts += [f"## Use\n\n{use}\n"] if use else []
    parts.append(f"## How good, how varied, how new\n\n{_audited(audit)}")
    return front(top) + "\n" + "\n".join([*parts, LIMITS])


def _audited(audit: Mapping[str, Any] | None) -> str:
    """The verdict and every figure beside its floor; or that nothing was measured."""
    if not audit:
        return "Unknown: this run was not audited (`maquette audit`), so no figures of quality or copying are stated.\n"
    said = "".join(f"- {_plain(sentence)}\n" for sentence in audit.get("verdict") or [])
    heads = "\n| figure | value | 95% interval | floor | pieces |\n|---|---|---|---|---|\n"
    figures = "".join(map(_figure, audit.get("findings") or []))
    return said + _copied(audit) + (heads + figures if figures else "")


def _copied(audit: Mapping[str, Any]) -> str:
    """How many of the audit's pieces are copies; or why that is not told."""
    found, untold = audit.get("copied"), audit.get("copies_untold")
    if found:
        interval = f"95% interval {found['low']:.1%} to {found['high']:.1%}"
        return f"- Copies of training pieces: {found['copy']:,} of {found['n']:,} ({interval}).\n"
    return f"- Copies of training pieces: not told, {_plain(untold)}.\n" if untold else ""


def _figure(f: Mapping[str, Any]) -> str:
    floor = "none" if f["reference"] is None else f"{f['reference']:.4g}"
    return f"| {_plain(f['name'])} ({_plain(f['space'])}) | {f['value']:.4g} | {f['low']:.4g} to {f['high']:.4g} | {floor} | {f['n']:,} |\n"


def _several(counts: Mapping[str, int] | None) -> str:
    first = dict(list((counts or {}).items())[:SHOWN])
    return _counted(first) + (f" and {len(counts) - SHOWN:,} more" if counts and len(counts) > SHOWN else "")


LIMITS = """## What is not known

A licence for the weights: unknown, until whoever hands them on names one. Whether the owners of the pieces agreed to training: unknown,
unless their licences say it. Figures compare with held-out pieces of the same collection and say nothing of any other. The model may repeat
pieces it was made from.
"""


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
