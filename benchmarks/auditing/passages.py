"""Copies of sequences: planted exact and altered copies of training poems and chorales, and false alarms on test pieces.

poems     3,000 poems, 70 / 15 / 15: exact copies; one character, and four characters, replaced by others of the poems
chorales  382 chorales in sixteenths, four voices, 45 / 30 / 25 (so that 99 or more validate): exact copies, transposed by 1-6 semitones,
          one note moved by 1-2 semitones, both

`copy` is the share called a copy, `told` the share called a copy or close. Pieces are cut to what a model writes at once. False alarms
are of test pieces; real twins between the splits (a tune that was harmonised twice) count among them.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from results import data, spread

from maquette import catalog
from maquette.copying import Verdict
from maquette.corpus import Corpus
from maquette.piece import Piece, Works
from maquette.scores.score import Score
from maquette.verbs.passages import copies_of, cut
from maquette.verbs.prepare import prepare

POEMS, PLANTED = 3_000, 60
Change = Callable[[Any, np.random.Generator], Any]


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        return {"passages": {kind: over(seeds, kind, Path(name)) for kind in ("poems", "chorales")}}


def over(seeds: Sequence[int], kind: str, folder: Path) -> dict[str, Any]:
    make, changes = KINDS[kind]
    rows = [one(make(folder / f"{kind}-{seed}", seed), changes, seed) for seed in seeds]
    return {key: spread([row[key] for row in rows]) for key in rows[0]}


def one(corpus: Corpus, changes: dict[str, Change], seed: int) -> dict[str, float]:
    modality, chance = catalog.modality(corpus.facts["modality"]), np.random.default_rng(seed)
    known = cut(corpus, modality, "train", PLANTED)
    planted = [Piece(change(p.content, chance), {}, modality) for change in changes.values() for p in known]
    test = cut(corpus, modality, "test", corpus.size("test"))
    begun = time.process_time()
    copies = copies_of(Works(planted, test, [], lambda: corpus.pieces("train")), corpus, modality)
    found = {"seconds": time.process_time() - begun, "test_pieces": float(len(test))}
    for k, name in enumerate(changes):
        found |= shares(name, copies.verdicts[k * len(known) : (k + 1) * len(known)])
    return found | shares("false_alarms", copies.held)


def shares(name: str, verdicts: Sequence[Verdict]) -> dict[str, float]:
    words = [v.verdict for v in verdicts]
    return {f"{name}_copy": words.count("copy") / len(words), f"{name}_told": 1 - words.count("new") / len(words)}


# ---- poems


def poems(folder: Path, seed: int) -> Corpus:
    folder.mkdir()
    with tarfile.open(data("tang_poems", "poet.tang.0-29000.tar.gz")) as archive:
        members = (archive.extractfile(m) for m in archive if m.isfile() and m.name.endswith(".json"))
        texts = ["\n".join(poem["paragraphs"]) for file in members for poem in json.load(file)]  # type: ignore[arg-type]
    chosen = np.random.default_rng(seed).permutation(len(texts))[:POEMS]
    rows = [{"text": texts[i]} for i in chosen if len(texts[i]) > 1]
    (folder / "poems.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    settings = {"tokens": "characters", "unit": "record", "context": 96}
    return prepare(folder / "poems.json", folder / "corpus", modality="text", settings=settings, seed=seed)


def rewritten(many: int) -> Change:
    def change(text: str, chance: np.random.Generator) -> str:
        letters = list(text)
        places = [k for k, c in enumerate(letters) if c.isalnum()]
        for k in chance.choice(places, min(many, len(places)), replace=False):
            letters[k] = chance.choice(list("山水月風花雲天人春秋"))
        return "".join(letters)

    return change


# ---- chorales


def chorales(folder: Path, seed: int) -> Corpus:
    source, settings = data("jsb_chorales", "Jsb16thSeparated.json"), {"voices": 4, "context": 256}
    return prepare(source, folder, modality="music", settings=settings, split=(0.45, 0.3, 0.25), seed=seed)


def transposed(piece: Score, chance: np.random.Generator) -> Score:
    notes = piece.notes.copy()
    notes[:, 2] += chance.integers(1, 7) * chance.choice([-1, 1])
    return Score(notes, piece.steps, piece.grid)


def misplayed(piece: Score, chance: np.random.Generator) -> Score:
    notes = piece.notes.copy()
    notes[chance.integers(len(notes)), 2] += chance.integers(1, 3) * chance.choice([-1, 1])
    return Score(notes, piece.steps, piece.grid)


KINDS: dict[str, tuple[Callable[[Path, int], Corpus], dict[str, Change]]] = {
    "poems": (poems, {"exact": lambda text, _: text, "one_edit": rewritten(1), "four_edits": rewritten(4)}),
    "chorales": (
        chorales,
        {
            "exact": lambda piece, _: piece,
            "transposed": transposed,
            "one_note": misplayed,
            "transposed_one_note": lambda piece, chance: misplayed(transposed(piece, chance), chance),
        },
    ),
}
