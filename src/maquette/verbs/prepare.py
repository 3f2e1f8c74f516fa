"""prepare: a person's folder -> a Corpus: read, clean, quarantine, deduplicate, number, split once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maquette import cards, catalog, corpus, duplicates, files, licences, sources
from maquette.building import building
from maquette.condition import Condition, fit_condition
from maquette.corpus import Corpus
from maquette.errors import ContentError, CorpusError, MaquetteError, SettingError, UnknownName, Unreadable, UsageError
from maquette.guard.policy import Policy, load
from maquette.piece import Modality, Piece
from maquette.ragged import Ragged, forget
from maquette.sources import Found, Refused
from maquette.space import Batch, Codec, DataSpec
from maquette.splitting import SPLITS, split_groups
from maquette.verbs import doctor, planting
from maquette.verbs.screening import Screen
from maquette.writing import CorpusWriter, RaggedWriter

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many (0: not known)
BOOKKEEPING = {
    "file_name",
    "source",
    "member",
    "pixels",
    "animated",
    "license",
    "licence",
    "owner",
    "url",
    "id",
    "sha256",
    "canary",
}
TRIED = 3  # files that are opened where their names do not say which modality they are of
KEPT = 128 << 20  # bytes of pieces that are held between the two passes instead of being decoded twice


def prepare(
    source: str | Path,
    out: str | Path | None = None,
    *,
    modality: str = "auto",
    settings: Mapping[str, Any] | None = None,
    split: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    progress: Progress | None = None,
    policy: str | Path | None = None,
    opt_out: str | Path | None = None,
    canaries: str | Path | None = None,
) -> Corpus:
    """Make the corpus `out` (corpora/<name> by default) from a folder, archive or file; at once where it stands already.

    settings are the modality's own (`maquette show image`); split the shares of train, validation and test.
    policy: a TOML file that says what may enter, by licence ([licences]) and by words; opt_out: a list of SHA-256 of files that may not.
    canaries: texts or tunes that are planted in the train split alone, so that audits can say how far they are exposed (see planting.py).
    Raises ContentError where nothing can be used, SettingError, UnknownName, UsageError, StorageError.
    """
    source = Path(source)
    out = Path(out) if out is not None else Path("corpora") / sources.name_of(source)
    split = _checked_split(split)
    listed = sources.listing(source)
    settings = dict(settings or {})
    asked = {"modality": modality, "settings": settings, "split": split, "seed": seed} | _named(settings)
    rules = load(Path(policy)) if policy else Policy()
    terms = rules.licences.terms
    out_of_it = licences.opted_out(Path(opt_out)) if opt_out else frozenset()
    if policy or opt_out:
        asked["consent"] = [repr(terms), sorted(out_of_it)]
    if rules.screens("training"):
        asked["policy"] = rules.fingerprint
    if canaries:
        asked["canaries"] = hashlib.blake2b(planting.content(Path(canaries)), digest_size=16).hexdigest()
    stamp = files.fingerprint([listed.stamp, sorted(listed.refused), asked])
    if standing := _standing(out, stamp):
        return standing
    _may_be_replaced(out, source)
    with files.full_disk_in_words(out), building(out) as folder:
        work = _Work(source, folder, split, seed, progress or (lambda *_: None), terms, out_of_it)
        work.screen = Screen(rules, folder)
        work.canaries = Path(canaries) if canaries else None
        work.gather(listed, modality, settings)
        work.look()
        work.write()
        work.finish(stamp)
    return Corpus.open(out)


def encode(source: Corpus, codec: Codec, out: str | Path, codec_facts: Mapping[str, Any]) -> Corpus:
    """The corpus of codes of a corpus: same numbers, splits, conditions and facts; at once where it stands already.

    codec_facts say where the codec comes from (its run and fingerprint); they are kept in facts["codec"].
    """
    out = Path(out)
    mark = files.fingerprint({"of": source.fingerprint, "codec": dict(codec_facts)})
    if (standing := _standing(out, mark, "fingerprint")) is not None:
        return standing
    _may_be_replaced(out, source.path)
    space = codec.code_space
    kind = np.float32 if space.kind != "tokens" else np.uint16 if space.vocabulary <= 1 << 16 else np.int32
    spec = DataSpec(space, source.spec.condition, "categorical" if space.kind == "tokens" else "gaussian")
    with files.full_disk_in_words(out), building(out) as folder, torch.no_grad():
        writer = CorpusWriter(folder, space, kind)
        lines = source.lines()
        for batch in _everything(source):
            for codes in codec.encode(batch.x).cpu().numpy().astype(kind):
                writer.add(codes, next(lines))
        writer.close()
        splits = {name: source.numbers(name) for name in SPLITS}
        conditions = (
            None if source.spec.condition is None else np.load(source.path / "conditions.npy", allow_pickle=False)
        )
        facts = {**source.facts, "fingerprint": mark, "spec": spec.to_json(), "codec": dict(codec_facts), "stamp": mark}
        writer.finish(splits, conditions, facts)
    return Corpus.open(out)


def _everything(source: Corpus, batch_size: int = 256) -> Iterator[Batch]:
    for start in range(0, len(source), batch_size):
        yield source.take(np.arange(start, min(start + batch_size, len(source))))


@dataclass
class _Work:
    """One making of a corpus, step after step, in a folder that becomes the corpus at the end."""

    source: Path
    folder: Path
    split: tuple[float, ...]
    seed: int
    progress: Progress
    terms: licences.Terms = field(default_factory=licences.Terms)
    out_of_it: frozenset[str] = frozenset()
    opted_out: int = 0
    set_apart: Counter[str] = field(default_factory=Counter)  # licences of files the policy keeps out
    refused: Refused = field(default_factory=dict)
    copies: int = 0
    partly: set[str] = field(default_factory=set)  # files of many pieces of which only the beginning can be read
    screen: Screen = field(default_factory=Screen)
    canaries: Path | None = None
    planted: int = 0  # of them, behind all other pieces

    def gather(self, listed: sources.Listing, modality: str, settings: Mapping[str, Any]) -> None:
        """The files, the modality that reads them, and what their folders and metadata say."""
        suffixes = {name: catalog.find("modalities", name).suffixes for name in catalog.names("modalities")}
        kinds = [catalog.find("modalities", name) for name in suffixes]
        all_suffixes = tuple(s for one in kinds for s in (*one.suffixes, *one.companions))
        found, self.refused, others = sources.unpacked(
            listed, self.folder / "unpacked", (*all_suffixes, *sources.METADATA)
        )
        self.name = _choose(modality, suffixes, found, self.source)
        kind = catalog.find("modalities", self.name)
        self.settings = catalog.check(kind, settings, self.name)
        self.modality: Modality = kind(**self.settings)
        self.modality.files = sum(f.name.lower().endswith(kind.suffixes) for f in found)
        rows = sources.metadata(found, self.refused)
        self.files = [f for f in found if f.name.lower().endswith(kind.suffixes)]
        read = (*kind.suffixes, *kind.companions)
        others.update(
            sources.ending(n) for n, _ in found if not n.lower().endswith(read) and not sources.is_metadata(n)
        )
        self.others = dict(others.most_common())
        if not self.files and modality == "auto":
            raise ContentError(doctor.nothing_known(self.source, suffixes, self.others, self.refused))
        if not self.files:
            raise ContentError(doctor.nothing(self.source, kind, self.name, suffixes, self.others, self.refused))
        named = zip(self.files, sources.labels([f.name for f in self.files]), strict=True)
        self.known = {f.name: ({"label": label} if label else {}, rows.get(f.name, {})) for f, label in named}
        self.consent: dict[str, dict[str, str]] = {}
        around: dict[Path, dict[str, str]] = {}
        for file in self.files:
            self._ask(file, around)

    def _ask(self, file: Found, around: dict[Path, dict[str, str]]) -> None:
        """Whose a file is and whether it may be used; what may not goes to quarantine with the reason."""
        try:
            near = licences.beside(file.path, self.source, around) if file.path.is_relative_to(self.source) else {}
            self.consent[file.name] = near | licences.of_row(self.known[file.name][1])
        except ContentError as error:
            self.refused.setdefault(file.name, str(error))
            return
        licence = self.consent[file.name].get("license", licences.UNKNOWN)
        if self.out_of_it and licences.sha256(file.path) in self.out_of_it:
            self.opted_out += 1
            self.refused.setdefault(file.name, "it is on the opt-out list")
        elif reason := self.terms.reason(licence):
            self.set_apart[licence] += 1
            self.refused.setdefault(file.name, reason)

    def pieces(self, what: str) -> Iterator[tuple[Found, Piece]]:
        """Every piece that can be read; the rest goes to quarantine and is not tried again."""
        for number, file in enumerate(self.files):
            if number % 64 == 0:
                self.progress(what, number, len(self.files))
            if self.refused.get(file.name, "") and file.name not in self.partly:
                continue
            begun = False
            try:
                for piece in self.modality.read(file.path):
                    begun = True
                    yield file, piece
            except Unreadable as error:
                self.refused.setdefault(file.name, str(error).removeprefix(f"{file.path.name}: "))
                if begun:  # a file of many pieces that ends early: what came before is used
                    self.partly.add(file.name)

    def look(self) -> None:
        """The first pass: what the modality has to know of all pieces."""
        self.seen = 0

        self.held: list[tuple[Found, Piece]] | None = []
        fitted = self.modality.fit(self._looked_at())
        if not self.seen:
            raise ContentError(doctor.nothing_left(self.source, self.modality.pretty, self.refused))
        self.modality.restore(fitted)
        self.fitted = fitted
        self.planting = planting.pieces(self.modality, self.canaries) if self.canaries else []

    def _looked_at(self) -> Iterator[Piece]:
        held = 0
        for file, piece in self.pieces("looking"):
            self.seen += 1
            held += _weight(piece.content) + 1000
            if held > KEPT or "member" in piece.facts:  # arrays are read faster than held
                self.held = None
            if self.held is not None:
                self.held.append((file, piece))
            yield piece

    def write(self) -> None:
        """The second pass: clean, number and store; of exact copies the first is kept."""
        writer: CorpusWriter | RaggedWriter | None = None
        self.sketches: list[np.ndarray] = []
        first: dict[bytes, int] = {}
        content = hashlib.blake2b(digest_size=16)
        self.rows: list[Mapping[str, Any]] = []
        self.licences: Counter[str] = Counter()
        self.owners: Counter[str] = Counter()
        interned: dict[str, Mapping[str, Any]] = {}
        for file, piece in self.held or self.pieces("cleaning"):
            try:
                piece = self.modality.clean(piece)
                stored = np.ascontiguousarray(self.modality.to_array(piece))
                facts = self._facts(file, piece)
                self.screen.look(_source(file, piece), piece, facts, BOOKKEEPING)
            except ContentError as error:
                self.refused.setdefault(_source(file, piece), str(error))
                continue
            if writer is None:
                writer = self._writer(stored)
            mark = hashlib.blake2b(stored, digest_size=8).digest()
            if first.setdefault(mark, len(writer)) < len(writer):
                self.copies += 1
                continue
            line = _line(facts)
            content.update(mark + line)
            writer.add(stored, line)
            if (sketch := self.modality.sketch(piece)) is not None:
                self.sketches.append(sketch)
            self.licences[str(facts.get("license", "unknown"))] += 1
            self.owners[str(facts.get("owner", "unknown"))] += 1
            row = {k: v for k, v in facts.items() if k not in BOOKKEEPING}
            self.rows.append(interned.setdefault(_to_json(row), row))
        if writer is None or len(writer) < doctor.FEWEST:
            raise ContentError(
                doctor.too_few(self.source, self.modality.pretty, len(writer or ()), self.copies, self.refused)
            )
        self.held = None
        self._plant(writer, first, content)
        self.writer, self.stored, self.content = writer, writer.close(), content.hexdigest()

    def _plant(self, writer: CorpusWriter | RaggedWriter, first: dict[bytes, int], content: Any) -> None:
        """The canaries, of which nothing is known but their number. Raises UsageError where one stands among the pieces already."""
        for number, piece in enumerate(self.planting, 1):
            stored = np.ascontiguousarray(self.modality.to_array(piece))
            mark = hashlib.blake2b(stored, digest_size=8).digest()
            if first.setdefault(mark, len(writer)) < len(writer):
                writer.close()
                raise UsageError(
                    f"canary {number} of {self.canaries} is among the pieces already; chance did not draw it, take another"
                )
            line = _line({"source": f"{self.canaries.name}#{number}", "canary": number})
            content.update(mark + line)
            writer.add(stored, line)
            self.rows.append({})
            self.planted += 1

    def _writer(self, stored: np.ndarray) -> CorpusWriter | RaggedWriter:
        if self.modality.ragged:
            return RaggedWriter(self.folder, stored.dtype)
        return CorpusWriter(self.folder, self.modality.space, stored.dtype)

    def _facts(self, file: Found, piece: Piece) -> dict[str, Any]:
        folder, row = self.known[file.name]
        own = {k: v for k, v in piece.facts.items() if k not in ("source", "member")}
        facts = {**folder, **own, **row, "source": _source(file, piece)}
        facts.pop("licence", None)  # one spelling inside
        facts |= self.consent.get(file.name, {}) | self._own_consent(own)
        if "label" in facts:
            facts["label"] = str(facts["label"])
        return facts

    def _own_consent(self, own: Mapping[str, Any]) -> dict[str, str]:
        """Licence and owner that a record of a file states itself. Raises Unreadable where the policy keeps it out."""
        said = licences.of_row(own, "the record")
        if "license" in said and (reason := self.terms.reason(said["license"])):
            self.set_apart[said["license"]] += 1
            raise Unreadable(reason)
        return said

    def finish(self, stamp: str) -> None:
        """Twins, split, conditions, the facts, and the report's advice."""
        self.progress("comparing", 0, len(self.rows))
        real = len(self.rows) - self.planted
        group = self._groups(real)
        labels = [row.get("label") for row in self.rows[:real]]
        group, dissolved = (np.arange(len(group)), True) if len(np.unique(group)) < doctor.FEWEST else (group, False)
        splits = split_groups(group, labels, self.split, self.seed)
        canaries = np.arange(real, len(self.rows))
        real_train, splits["train"] = splits["train"], np.append(splits["train"], canaries)
        fitted = self._learnt({**self.fitted, "pieces": len(splits["train"])}, real_train)
        rows = [self.rows[i] for i in splits["train"].tolist()]
        condition = fit_condition(rows, always=self.modality.fields())
        tokens = self.writer.count(splits["train"]) if isinstance(self.writer, RaggedWriter) else 0
        spec = DataSpec(self.modality.space, condition, self.modality.likelihood, tokens)
        if self.planted:
            planting.fair(self.modality, self.canaries)
            planting.fit([self.writer.count(canaries[k : k + 1]) for k in range(self.planted)], spec.space.shape[0])
        sizes = np.unique(group, return_counts=True)[1]
        facts = {
            "name": sources.name_of(self.source),
            "modality": {"name": self.name, "settings": self.settings, "fitted": fitted},
            "spec": spec.to_json(),
            "counts": {name: len(numbers) for name, numbers in splits.items()},
            "labels": dict(sorted(Counter(x for x in labels if x is not None).items())),
            "licences": dict(self.licences.most_common()),
            "owners": dict(self.owners.most_common()),
            "opted_out": self.opted_out,
            "set_apart": dict((self.set_apart + self.screen.apart).most_common()),
            **self.screen.facts(),
            **({"canaries": planting.keep(self.canaries, self.folder, self.planted)} if self.planted else {}),
            "duplicates": {
                "exact": self.copies,
                "near": int(len(group) - len(sizes)),
                "groups": int((sizes > 1).sum()),
            },
            "quarantined": len(self.refused),
            "other_files": self.others,
            "source": sources.name_of(self.source),
            "codec": None,
            "stamp": stamp,
        }
        choices = [self.name, self.settings, fitted, self.split, self.seed, facts["spec"]]
        self.modality.restore(fitted)
        facts["fingerprint"] = files.fingerprint([self.content, choices])
        facts["advice"] = doctor.advice(facts, self.modality, dissolved, self.refused)
        lines = "".join(
            json.dumps({"file": k, "reason": v}, ensure_ascii=False) + "\n" for k, v in self.refused.items()
        )
        files.write_text(self.folder / "quarantine.jsonl", lines)
        self.screen.write()
        files.write_text(self.folder / "README.md", cards.data_card(facts))
        shutil.rmtree(self.folder / "unpacked", ignore_errors=True)
        self.writer.finish(splits, encoded(condition, self.rows), facts)

    def _learnt(self, fitted: dict[str, Any], train: np.ndarray) -> dict[str, Any]:
        """What the modality learns from the train split alone; then what was stored becomes tokens."""
        if not isinstance(self.stored, Ragged):
            return fitted
        self.progress("learning", 0, len(train))
        stored = self.stored
        self.modality.restore(fitted)
        fitted |= self.modality.learn(lambda: stored.once(train.tolist()))
        self.modality.restore(fitted)
        self.writer.tokens(stored, self.modality.encode, self.modality.space)
        return fitted

    def _groups(self, real: int) -> np.ndarray:
        if self.sketches:
            return self.modality.twins(np.stack(self.sketches))
        if self.modality.ragged or self.modality.space.kind != "grid" or len(self.modality.space.axes) != 2:
            return np.arange(real)  # near twins are known for pictures only
        known = duplicates.signatures(self._blocks())
        return duplicates.groups(known, self._load)

    def _blocks(self, rows: int = 1024) -> Iterator[np.ndarray]:
        for shard in self.stored:
            for start in range(0, len(shard), rows):
                yield shard[start : start + rows]
            forget(shard)

    def _load(self, numbers: np.ndarray) -> np.ndarray:
        found = corpus.take(self.stored, numbers)
        for shard in self.stored:
            forget(shard)
        return found


def _weight(content: Any) -> int:
    """Bytes that a piece takes while it is held; what cannot be told is too heavy to hold."""
    return 4 * len(content) if isinstance(content, str | bytes) else getattr(content, "nbytes", KEPT)


_to_json = json.JSONEncoder(ensure_ascii=False, default=str).encode  # made once; `json.dumps` would make one a piece


def _line(facts: Mapping[str, Any]) -> bytes:
    return (_to_json(facts) + "\n").encode("utf-8", "backslashreplace")


def _source(file: Found, piece: Piece) -> str:
    return f"{file.name}#{piece.facts['member']}" if "member" in piece.facts else file.name


# ---- before the work


def _checked_split(split: Sequence[float]) -> tuple[float, ...]:
    shares = tuple(float(x) for x in split)
    if len(shares) != 3 or not all(0 < x < 1 for x in shares) or abs(sum(shares) - 1) > 1e-6:
        raise SettingError(f"split should be three shares above 0 that sum to 1, as 0.7 0.15 0.15; {list(split)} came")
    return shares


def _standing(out: Path, stamp: str, key: str = "stamp") -> Corpus | None:
    """The corpus that stands at `out`, where it was made of the same things in the same way and is whole."""
    with suppress(CorpusError):
        if corpus.read_facts(out).get(key) == stamp:
            return Corpus.open(out)
    return None


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the files that settings name, such as a tokenizer.json: where one changes, the corpus does."""
    found = {k: os.stat(v) for k, v in settings.items() if isinstance(v, str) and os.path.isfile(v)}
    return {"files": {k: [s.st_size, s.st_mtime_ns] for k, s in found.items()}} if found else {}


def _may_be_replaced(out: Path, source: Path) -> None:
    """Only a corpus is ever replaced. Raises UsageError."""
    if blocked := next((p for p in out.absolute().parents if p.exists() and not p.is_dir()), None):
        raise UsageError(f"{out} cannot be made, for {blocked} is a file; choose another folder with -o")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is a file or a link; choose another folder with -o")
    if out.is_dir() and any(out.iterdir()) and not (out / "corpus.json").is_file():
        raise UsageError(f"{out} is not empty and no corpus, so it is left alone; choose another folder with -o")
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{out} holds the source {source}; choose another folder with -o")


# ---- which modality, and what to say when nothing fits


def _choose(asked: str, suffixes: Mapping[str, tuple[str, ...]], found: list[Found], source: Path) -> str:
    """The modality that reads most of the files; where several do by their names, the first that finds a piece in one."""
    if asked != "auto":
        catalog.find("modalities", asked)
        return asked
    counts = {name: sum(f.name.lower().endswith(known) for f in found) for name, known in suffixes.items()}
    most = max(counts.values())
    if not most:
        return "image"
    best = [name for name, count in counts.items() if count == most]
    tried = [f for f in found if f.name.lower().endswith(suffixes[best[0]])][:TRIED] if len(best) > 1 else []
    return next((name for file in tried for name in best if _finds(name, file)), best[0])


def _finds(name: str, file: Found) -> bool:
    """Whether a modality finds a piece in a file."""
    with suppress(MaquetteError):
        return next(iter(catalog.find("modalities", name)().read(file.path)), None) is not None
    return False


# ---- the split and the conditions


def conditions_of(condition: Condition | None, facts: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """`encoded` of all that is known of pieces, bookkeeping set aside."""
    return encoded(condition, [{k: v for k, v in row.items() if k not in BOOKKEEPING} for row in facts])


def encoded(condition: Condition | None, rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """(N, condition.width) float32; a value that the train split does not know is NaN."""
    if condition is None:
        return None
    known: dict[int, list[float]] = {}
    found = np.empty((len(rows), condition.width), np.float32)
    for i, row in enumerate(rows):  # rows that say the same are the same object
        if id(row) not in known:
            known[id(row)] = _encode(condition, row)
        found[i] = known[id(row)]
    return found


def _encode(condition: Condition, row: Mapping[str, Any]) -> list[float]:
    values: list[float] = []
    for one in condition.fields:
        alone = Condition([one])
        try:
            values += alone.encode({one.name: row.get(one.name)})
        except (UnknownName, SettingError):
            values += alone.encode({})
    return values
