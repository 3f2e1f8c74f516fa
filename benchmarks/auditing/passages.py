"""Copies of sequences: planted exact and altered copies of training poems and chorales, and false alarms on held-out pieces.

poems     5,000 poems, 2,100 of which train: exact copies; one to four characters replaced by others of the poems
chorales  382 chorales in sixteenths, four voices, 44 / 28 / 28 (so that 99 or more validate): exact copies, one note moved by 1-2
          semitones, transposed by 1-6 semitones, transposed with one note moved

Recall is the share of planted copies that are called `copy`, of the worst alteration; a false alarm is a test piece that is. Validation
pieces calibrate, no test piece does. `false_alarms_close_too` counts those that are called close, too. Each piece is judged by itself, so
more copies than 1 % are planted, and 2,000 pieces are judged of the poems. Pieces are cut to what a model writes at once. Real twins
between the splits (a tune that was harmonised twice) count among the false alarms.
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
from maquette.verbs import passages
from maquette.verbs.prepare import prepare

POEMS, JUDGED, PLANTED = 5_000, 2_000, 60  # PLANTED: of each kind
Change = Callable[[Any, np.random.Generator], Any]


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {"passages": {}, "copying": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in KINDS:
            rows = [one(name, Path(folder) / f"{name}-{seed}", seed) for seed in seeds]
            told = {key: spread([row[key] for row in rows]) for key in rows[0]}
            altered = [f"{kind}_copy" for kind in KINDS[name][1] if kind != "exact"]
            found["copying"][name] = {
                "exact_recall": told["exact_copy"]["mean"],
                "altered_recall": min(told[key]["mean"] for key in altered),
                "false_alarms": told["held_out_copy"]["mean"],
                "false_alarms_close_too": told["held_out_told"]["mean"],
            }
            found["passages"][name] = told
    return found


def one(name: str, folder: Path, seed: int) -> dict[str, float]:
    make, changes = KINDS[name]
    corpus = make(folder, seed)
    modality, chance = catalog.modality(corpus.facts["modality"]), np.random.default_rng(seed)
    known = taken(corpus, modality, "train", PLANTED)
    planted = [Piece(change(p.content, chance), {}, modality) for change in changes.values() for p in known]
    test = taken(corpus, modality, "test", JUDGED - len(planted))
    begun = time.process_time()
    copies = passages.copies_of(Works([*planted, *test], [], [], lambda: corpus.pieces("train")), corpus, modality)
    assert "test" not in copies.calibrated, "test pieces are counted and may not calibrate"
    found = {"seconds": time.process_time() - begun, "held_out": float(len(test))}
    for k, kind in enumerate(changes):
        found |= shares(kind, copies.verdicts[k * len(known) : (k + 1) * len(known)])
    return found | shares("held_out", copies.verdicts[len(planted) :])


def taken(corpus: Corpus, modality: Any, split: str, most: int) -> list[Piece]:
    return passages.taken(corpus, modality, passages.spread(corpus.numbers(split), most))


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
    split = (0.42, 0.18, 0.4)
    return prepare(folder / "poems.json", folder / "corpus", modality="text", settings=settings, split=split, seed=seed)


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
    source, settings = data("jsb_chorales", "Jsb16thSeparated.json"), {"voices": 4}
    return prepare(source, folder, modality="music", settings=settings, split=(0.44, 0.28, 0.28), seed=seed)


def transposed(piece: Score, chance: np.random.Generator) -> Score:
    notes = piece.notes.copy()
    notes[:, 2] += chance.integers(1, 7) * chance.choice([-1, 1])
    return Score(notes, piece.steps, piece.grid)


def misplayed(piece: Score, chance: np.random.Generator) -> Score:
    notes = piece.notes.copy()
    notes[chance.integers(len(notes)), 2] += chance.integers(1, 3) * chance.choice([-1, 1])
    return Score(notes, piece.steps, piece.grid)


KINDS: dict[str, tuple[Callable[[Path, int], Corpus], dict[str, Change]]] = {
    "poems": (poems, {"exact": lambda text, _: text} | {f"edits_{k}": rewritten(k) for k in range(1, 5)}),
    "chorales": (
        chorales,
        {
            "exact": lambda piece, _: piece,
            "one_note": misplayed,
            "transposed": transposed,
            "transposed_one_note": lambda piece, chance: misplayed(transposed(piece, chance), chance),
        },
    ),
}
