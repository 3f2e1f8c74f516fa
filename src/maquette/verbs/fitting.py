"""Fitting a corpus to a run: the same pieces, split as they are, but read as the run's own corpus was: its size, vocabulary, conditions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from maquette import catalog, files
from maquette.building import building
from maquette.corpus import Corpus
from maquette.errors import SettingError, SpaceError, Unreadable
from maquette.piece import Modality
from maquette.run import Run
from maquette.space import DataSpec
from maquette.splitting import SPLITS
from maquette.verbs.prepare import conditions_of
from maquette.writing import CorpusWriter, RaggedWriter

STRANGE = 0.1  # share of tokens that the run does not know, above which a corpus is refused


def fitted_to(run: Run, corpus: Corpus, own_conditions: bool = False) -> Corpus:
    """The corpus as the run's model needs it: itself where it fits already, else one made beside it, at once where it stands.

    own_conditions: what is known of its pieces stays as it is, for a task head learns the corpus's columns and not the run's.

    Raises SettingError for another modality or a vocabulary that does not cover it, SpaceError for what cannot be made to fit.
    """
    wanted = wanted_by(run)
    if own_conditions:
        wanted = replace(wanted, condition=corpus.spec.condition)
    kind = run.facts["corpus"]["modality"]
    if kind["name"] != corpus.facts["modality"]["name"]:
        theirs, ours = kind["name"], corpus.facts["modality"]["name"]
        raise SettingError(
            f"{run.path} learnt {theirs} pieces, and {corpus.path} holds {ours}; both should be of one kind"
        )
    same_space = corpus.spec.space == wanted.space
    same_reading = not wanted.space.ragged or corpus.facts["modality"]["fitted"] == kind["fitted"]
    if same_space and same_reading and corpus.spec.condition == wanted.condition:
        return corpus
    mark = files.fingerprint([corpus.fingerprint, kind, wanted.to_json()])
    place = corpus.path.with_name(f"{corpus.path.name}.fitted") / mark
    if not (place / "corpus.json").is_file():
        _make(corpus, wanted, kind, mark, place, as_stored=same_space and same_reading)
    return Corpus.open(place)


def wanted_by(run: Run) -> DataSpec:
    """What pieces have to look like, before any codec, and the conditions of the run's last stage."""
    return replace((run.codec or run).spec, condition=run.spec.condition)


def _make(corpus: Corpus, wanted: DataSpec, kind: dict, mark: str, place: Path, as_stored: bool) -> None:
    modality = catalog.modality(kind)
    with files.full_disk_in_words(place), building(place) as folder:
        contents = _stored(corpus) if as_stored else _read_again(corpus, modality)
        first = next(contents, None)
        if first is None:
            raise SpaceError(
                f"no piece of {corpus.path} can be read as {modality.pretty} of shape {wanted.space.shape}"
            )
        ragged = wanted.space.ragged
        writer = RaggedWriter(folder, first[1].dtype) if ragged else CorpusWriter(folder, wanted.space, first[1].dtype)
        kept, rows = [], []
        for number, content in chain([first], contents):
            facts = corpus.facts_of(number)
            writer.add(content, (json.dumps(facts, ensure_ascii=False) + "\n").encode())
            kept.append(number)
            rows.append(facts)
        stored = writer.close()
        if isinstance(writer, RaggedWriter):
            writer.tokens(stored, (lambda x: x) if as_stored else modality.encode, wanted.space)
            _known(folder, modality, corpus)
        place_of = {number: k for k, number in enumerate(kept)}
        splits = {s: np.array([place_of[n] for n in corpus.numbers(s).tolist() if n in place_of]) for s in SPLITS}
        tokens = writer.count(splits["train"]) if isinstance(writer, RaggedWriter) else 0
        spec = replace(wanted, tokens=tokens)
        facts = {
            **corpus.facts,
            "modality": kind,
            "spec": spec.to_json(),
            "counts": {name: len(numbers) for name, numbers in splits.items()},
            "fingerprint": mark,
            "stamp": mark,
            "fitted_from": corpus.fingerprint,
        }
        writer.finish(splits, conditions_of(spec.condition, rows), facts)


def _stored(corpus: Corpus) -> Iterator[tuple[int, np.ndarray]]:
    """(number, content) as it lies there; of a ragged corpus tokens without their end."""
    for number in range(len(corpus)):
        content = corpus.raw(np.array([number]))[0]
        yield number, content[:-1] if corpus.spec.space.ragged else content


def _read_again(corpus: Corpus, modality: Modality) -> Iterator[tuple[int, np.ndarray]]:
    """Made pieces again by the corpus's own modality, and cleaned and numbered by the run's; what cannot be is left out."""
    own = catalog.modality(corpus.facts["modality"])
    for number in range(len(corpus)):
        piece = own.to_piece(corpus.take(np.array([number])).x[0], corpus.facts_of(number))
        try:
            yield number, np.ascontiguousarray(modality.to_array(modality.clean(piece)))
        except Unreadable:
            continue


def _known(folder: Path, modality: Modality, corpus: Corpus) -> None:
    """Raise SettingError where too much of what is new has no token."""
    unknown = modality.unknown
    tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
    share = float((tokens == unknown).mean()) if unknown >= 0 else 0.0
    if share > STRANGE:
        raise SettingError(
            f"{share:.0%} of {corpus.path} are characters that the run has never seen, and it could not write them; "
            f"prepare the run's corpus with --set tokens=bytes and train again, for bytes know all"
        )
