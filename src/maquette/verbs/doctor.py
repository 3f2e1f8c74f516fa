"""The doctor's report: what a person should know before training, and what is said when there is nothing to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette import catalog
from maquette.corpus import Corpus
from maquette.piece import Modality
from maquette.sources import Found, Refused

FEWEST = 3  # pieces that can be split


def report(made: Corpus) -> str:
    """What a person should know before training, in words."""
    facts = made.facts
    counts, twins = facts["counts"], facts["duplicates"]
    pretty = catalog.find("modalities", facts["modality"]["name"]).pretty
    steering = (
        ", ".join(f"{f.name} ({f.kind})" for f in made.spec.condition.fields) if made.spec.condition else "nothing"
    )
    lines = [
        f"{facts['name']}: {len(made):,} {pretty}, {_shape(made)}",
        f"split: {counts['train']:,} train, {counts['validation']:,} validation, {counts['test']:,} test",
        f"labels: {_listed(facts['labels']) or 'none'}",
        f"steered by: {steering}",
        f"duplicates: {twins['exact']:,} exact copies left out; {twins['near']:,} near twins, kept on one side of the split",
        f"quarantined: {facts['quarantined']:,}"
        + (f" ({made.path}/quarantine.jsonl says why)" if facts["quarantined"] else ""),
        f"licences: {_listed(facts['licences'])}",
        f"fingerprint: {made.fingerprint}",
    ]
    return "\n".join(lines + [f"- {sentence}" for sentence in facts["advice"]])


def _shape(made: Corpus) -> str:
    space = made.spec.space
    if space.kind == "tokens":
        return f"{space.shape[0]} tokens of {space.vocabulary} each"
    if space.kind == "grid" and len(space.axes) == 2:
        channels = {1: "grey", 3: "RGB", 4: "RGBA"}.get(space.shape[0], f"{space.shape[0]} channels")
        return f"{space.shape[2]}x{space.shape[1]}, {channels}"
    return f"{space.kind} {space.shape}"


def _listed(counts: Mapping[str, int], most: int = 12) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ranked) - most} more" if len(ranked) > most else ""
    return ", ".join(f"{name} {n:,}" for name, n in ranked[:most]) + more


def advice(facts: Mapping[str, Any], modality: Modality, dissolved: bool) -> list[str]:
    count = sum(facts["counts"].values())
    labels, twins = facts["labels"], facts["duplicates"]
    found = modality.advice()
    single = [name for name, n in labels.items() if n == 1]
    if single:
        found.append(
            f"labels with one member are in train only and can hardly be learnt: {', '.join(single[:5])}{' ...' if len(single) > 5 else ''}"
        )
    if len(labels) > 1 and max(labels.values()) > 20 * min(n for n in labels.values()) and not single:
        found.append("some labels are more than 20 times as frequent as others; the rare ones will look worse")
    if dissolved:
        found.append(
            "nearly all pieces are twins of each other, so twins could not be kept on one side of the split; scores will flatter"
        )
    if twins["exact"] + twins["near"] > 0.2 * count:
        found.append(
            "more than a fifth of what came are copies or near twins; new content will be less varied than the count suggests"
        )
    if facts["licences"].get("unknown"):
        found.append(
            f"the licence of {facts['licences']['unknown']:,} pieces is unknown; a column `license` in metadata.csv records it"
        )
    return found


# ---- when nothing fits


def nothing(
    source: Path,
    kind: type[Modality],
    name: str,
    suffixes: Mapping[str, tuple[str, ...]],
    found: list[Found],
    refused: Refused,
) -> str:
    """One sentence or two: what was expected, what came, what to do."""
    endings = Counter(Path(f.name).suffix.lower() or "files without suffix" for f in found)
    there = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(3)) or "no file"
    others = [m for m, known in suffixes.items() if m != name and any(f.name.lower().endswith(known) for f in found)]
    hint = f", did you mean --modality {others[0]}?" if others else ""
    text = f"no {kind.pretty} under {source}: the {name} modality reads {' '.join(kind.suffixes)}; {there} found{hint}"
    return text + (f"; {_some(refused)}" if refused else "")


def nothing_left(source: Path, pretty: str, refused: Refused) -> str:
    return f"none of the {pretty} under {source} can be used; {_some(refused)}"


def too_few(source: Path, pretty: str, count: int, copies: int, refused: Refused) -> str:
    text = f"at least {FEWEST} different {pretty} are needed to train, check and test; {source} has {count}"
    text += f" and {copies} exact copies" if copies else ""
    return text + (f"; {_some(refused)}" if refused else "; add more")


def _some(refused: Refused, most: int = 3) -> str:
    few = "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:most])
    return f"{len(refused)} went to quarantine ({few}{'; ...' if len(refused) > most else ''})"
