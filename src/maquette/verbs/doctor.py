"""The doctor's report: what a person should know before training, and what is said when there is nothing to train on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from maquette import catalog
from maquette.corpus import Corpus
from maquette.piece import Modality
from maquette.sources import ARCHIVES, GONE, Refused

FEWEST = 3  # pieces that can be split
EXAMPLES = 3  # reasons of the quarantine that are said
TABLES = (".csv", ".jsonl", ".json", ".tsv", ".xlsx", ".parquet")  # what may be meant as metadata


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
        f"labels: {_labels(facts['labels'], len(made))}",
        f"steered by: {steering}",
        f"duplicates: {twins['exact']:,} exact copies left out; {twins['near']:,} near twins, kept on one side of the split",
        f"quarantined: {facts['quarantined']:,}{_why(made)}",
        *_kept_out(facts),
        f"licences: {_listed(facts['licences'])}",
        f"fingerprint: {made.fingerprint}",
    ]
    return "\n".join(printable(line) for line in lines + [f"- {sentence}" for sentence in facts["advice"]])


def _kept_out(facts: Mapping[str, Any]) -> list[str]:
    """How many of the quarantined a policy or an opt-out list keeps out; nothing where there are none."""
    said, apart = facts.get("opted_out", 0), facts.get("set_apart") or {}
    lines = [f"opted out: {said:,}, by the opt-out list"] if said else []
    flags = facts.get("flags") or {}
    lines += [f"flagged: by the policy ({_listed(flags)} pieces); each is in flags.jsonl"] if flags else []
    return lines + ([f"set apart: {sum(apart.values()):,} by the policy ({_listed(apart)})"] if apart else [])


def printable(text: str) -> str:
    """Names of files and labels come from anywhere; line ends and control characters in them are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _labels(counts: Mapping[str, int], pieces: int) -> str:
    without = pieces - sum(counts.values())
    return (_listed(counts) + (f", without label {without:,}" if without else "")) if counts else "none"


def _why(made: Corpus) -> str:
    """The first reasons and where the others are, as far as the corpus has them."""
    path = made.path / "quarantine.jsonl"
    if not made.facts["quarantined"] or not path.is_file():
        return ""
    with path.open(encoding="utf-8") as lines:
        first = _examples((row["file"], row["reason"]) for row in map(json.loads, lines))
    return f" ({first}; all reasons are in {path})"


def _shape(made: Corpus) -> str:
    space = made.spec.space
    if space.ragged:
        sizes = f"{made.tokens:,} tokens of {space.vocabulary} kinds, {made.tokens / len(made):,.0f} a piece"
        return f"{sizes}; a model sees {space.shape[0]} at once"
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


def advice(facts: Mapping[str, Any], modality: Modality, dissolved: bool, refused: Refused) -> list[str]:
    """Sentences on what is unusual about a corpus, and on what was not taken."""
    count = sum(facts["counts"].values())
    labels, twins = facts["labels"], facts["duplicates"]
    found = [*modality.advice(), *_not_taken(facts["other_files"], modality.pretty, refused)]
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
    if "canaries" in facts:
        found.append(
            f"{facts['canaries']['planted']:,} canaries were planted in the train split: `maquette audit` says how far a run of it exposes "
            "them; prepare without --canaries for a run that you give away"
        )
    return found


def _not_taken(others: Mapping[str, int], pretty: str, refused: Refused) -> Iterator[str]:
    if others:
        yield f"files that are no {pretty} were passed over: {_listed(others, 5)}"
    if any(ending in TABLES for ending in others):
        yield "a table about the pieces is read when it is named metadata.csv or metadata.jsonl"
    gone = sum(reason.endswith(GONE) for reason in refused.values())
    if gone:
        yield (
            f"{gone:,} rows of metadata name files that are not there, so what they say is lost; "
            "file_name is the path below the folder of the table, as in cats/1.png"
        )


# ---- when nothing fits


def nothing(
    source: Path,
    kind: type[Modality],
    name: str,
    suffixes: Mapping[str, tuple[str, ...]],
    there: Mapping[str, int],
    refused: Refused,
) -> str:
    """One sentence or two: what was expected, what came (endings and how many), what to do."""
    came = ", ".join(f"{n} {ending}" for ending, n in Counter(there).most_common(3)) or "no file"
    others = [m for m, known in suffixes.items() if m != name and any(ending.endswith(known) for ending in there)]
    mend = (
        "convert, rename or unpack them to one of these kinds"
        if there
        else f"put at least {FEWEST} {kind.pretty} there"
    )
    mend = f"did you mean --modality {others[0]}?" if others else mend
    reads = [s for s in kind.suffixes if s.removesuffix(".gz") == s]
    text = (
        f"no {kind.pretty} under {source}: the {name} modality reads {' '.join(reads)}, "
        f"also in archives ({' '.join(ARCHIVES)}); {came} found, {mend}"
    )
    return text + (f"; {_some(refused)}" if refused else "")


def nothing_known(
    source: Path, suffixes: Mapping[str, tuple[str, ...]], there: Mapping[str, int], refused: Refused
) -> str:
    """The same where no modality was asked for."""
    came = ", ".join(f"{n} {ending}" for ending, n in Counter(there).most_common(3)) or "no file"
    mend = "convert, rename or unpack them to one of these kinds" if there else f"put at least {FEWEST} of a kind there"
    kinds = "; ".join(
        f"{m} is {' '.join(s for s in ends if s.removesuffix('.gz') == s)}" for m, ends in suffixes.items()
    )
    text = (
        f"nothing under {source} can be read: {came} found, {mend} ({kinds}), or into an archive ({' '.join(ARCHIVES)})"
    )
    return text + (f"; {_some(refused)}" if refused else "")


def nothing_left(source: Path, pretty: str, refused: Refused) -> str:
    return f"none of the {pretty} under {source} can be used; {_some(refused)}"


def too_few(source: Path, pretty: str, count: int, copies: int, refused: Refused) -> str:
    text = f"at least {FEWEST} different {pretty} are needed to train, check and test; {source} has {count}"
    text += f" and {copies} exact copies of them" if copies else ""
    return text + (f"; {_some(refused)}" if refused else "; add more")


def _some(refused: Refused) -> str:
    return f"{len(refused)} went to quarantine ({_examples(refused.items())})"


def _examples(refused: Iterable[tuple[str, str]]) -> str:
    """The most frequent reasons, each with the first file it befell."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, reason in refused:
        first.setdefault(reason, name)
        counts[reason] += 1
    few = [f"{first[r]}{f' and {n - 1:,} more' if n > 1 else ''}: {r}" for r, n in counts.most_common(EXAMPLES)]
    return printable("; ".join(few) + ("; ..." if len(counts) > EXAMPLES else ""))
