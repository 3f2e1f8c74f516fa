"""Planted copies, as they are and altered, among held-out pieces: how many are found, and how many held-out pieces are accused.

MNIST: 10,000 training pictures, 2,000 that calibrate and 2,000 that do not. The crawl tiles, laid on white: once with whole folders held out,
for a series (the same tile in other colours, mirrored, step by step) lies in one folder; once split at random, so that series lie on both
sides. 20 copies of each kind are 1 % of 2,000 pieces; ten such draws are planted, 200 of each kind. A verdict depends on the piece and the
calibration alone, not on what else is judged.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import PIL.Image
import torch
from auditing.measures import corpus_of, mnist
from results import data
from torch import Tensor

from maquette.corpus import Corpus
from maquette.features import Known, train_judge
from maquette.verbs.copies import TWINS, calibration, near, verdicts
from maquette.verbs.prepare import prepare

PLANTED = 200  # of each kind: ten draws of 20
HELD = 2_000
KEPT, QUALITY, BRIGHTER = 0.9, 75, 25  # of a side by a crop; of JPEG; levels of 255


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    chance = np.random.default_rng(seeds[0])
    with tempfile.TemporaryDirectory() as place:
        tiles = prepare(data("crawl_tiles"), Path(place) / "tiles", settings={"channels": 3})
        corpora = {
            "mnist": digits(Path(place), seeds[0]),
            "crawl_tiles": by_folder(tiles, chance),
            "crawl_tiles_at_random": tiles,
        }
        return {"copying": {name: figures(corpus, chance) for name, corpus in corpora.items()}}


def digits(place: Path, seed: int) -> Corpus:
    corpus = corpus_of(place / "mnist", mnist(seed)[0][: 10_000 + 2 * HELD])
    parts = np.split(np.arange(10_000 + 2 * HELD), [10_000, 10_000 + HELD])
    return corpus.narrowed(**dict(zip(("train", "validation", "test"), parts, strict=True)))


def by_folder(corpus: Corpus, chance: np.random.Generator, share: float = 0.15) -> Corpus:
    """The same tiles with whole folders held out, about `share` of the tiles in either split."""
    folders = np.array([json.loads(line)["source"].rpartition("/")[0] for line in corpus.lines()])
    names = chance.permutation(np.unique(folders))
    where, room = {}, dict.fromkeys(("validation", "test"), share * len(folders))
    for name in names:
        size = (folders == name).sum()
        split = next((s for s, left in room.items() if size <= left), "train")
        where[name] = split
        if split != "train":
            room[split] -= size
    of = np.array([where[f] for f in folders])
    return corpus.narrowed(**{s: np.flatnonzero(of == s) for s in ("train", "validation", "test")})


def figures(corpus: Corpus, chance: np.random.Generator) -> dict[str, Any]:
    judge, started = (
        Known(train_judge(corpus), ""),
        time.process_time(),
    )  # not one that is kept: it may know another split
    sources = chance.permutation(corpus.numbers("train"))[:PLANTED]
    originals = corpus.raw(sources)
    planted = {name: tensor(alter(originals, chance)) for name, alter in ALTERATIONS.items()}
    held, test = (corpus.tensor(split, HELD).x for split in ("validation", "test"))
    found = near([held, test, *planted.values()], corpus, judge)
    beside = calibration(found.rows(slice(0, len(held))), "validation")
    mine = found.rows(slice(len(held), None))
    said = np.array([v.verdict for v in verdicts(mine, beside)])
    real, rest = said[: len(test)], said[len(test) :].reshape(len(planted), -1)
    usual = found.distance["aligned"][: len(held), 0].median()
    own = (mine.distance["aligned"][: len(test), 0] >= TWINS * usual).numpy()
    copied = {name: share(row == "copy") for name, row in zip(planted, rest, strict=True)}
    return {
        "exact_recall": copied["exact"],
        "altered_recall": min(v for k, v in copied.items() if k != "exact"),
        "false_alarms": share(real[own] == "copy"),
        "recall_by_kind": copied,
        "copy_or_close_recall_by_kind": {n: share(row != "new") for n, row in zip(planted, rest, strict=True)},
        "false_alarms_close_too": share(real[own] != "new"),
        "false_alarms_with_variants": share(real == "copy"),
        "held_out_variants": share(~own),
        "pieces": {
            "train": corpus.size("train"),
            "calibrating": len(beside.near.distance["aligned"]),
            "test": len(test),
        },
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def share(claims: np.ndarray) -> float:
    return round(float(np.mean(claims)), 4)


# ---- alterations of pictures (N, C, H, W) uint8


def cropped(x: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A window of 90 % of each side, anywhere, brought back to size."""
    height, width = x.shape[2:]
    h, w = round(KEPT * height), round(KEPT * width)
    found = []
    for picture in map(opened, x):
        left, top = (int(chance.integers(0, n + 1)) for n in (width - w, height - h))
        found.append(picture.crop((left, top, left + w, top + h)).resize((width, height), PIL.Image.Resampling.BICUBIC))
    return closed(found)


def compressed(x: np.ndarray, _: np.random.Generator) -> np.ndarray:
    found = []
    for picture in map(opened, x):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=QUALITY)
        found.append(PIL.Image.open(stream))
    return closed(found)


def moved(x: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """By one pixel to one of eight sides; what comes in is the colour of the first corner."""
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
    found = []
    for picture in x:
        down, across = steps[int(chance.integers(len(steps)))]
        padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
        padded[:] = np.where(np.pad(np.ones_like(picture), ((0, 0), (1, 1), (1, 1))), padded, picture[:, :1, :1])
        found.append(padded[:, 1 - down : 1 - down + picture.shape[1], 1 - across : 1 - across + picture.shape[2]])
    return np.stack(found)


def brightened(levels: int) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    return lambda x, _: np.clip(x.astype(int) + levels, 0, 255).astype(np.uint8)


def opened(picture: np.ndarray) -> PIL.Image.Image:
    content = picture.transpose(1, 2, 0)
    return PIL.Image.fromarray(content[:, :, 0] if content.shape[2] == 1 else content)


def closed(pictures: Sequence[PIL.Image.Image]) -> np.ndarray:
    content = np.stack([np.asarray(p) for p in pictures])
    return content[:, None] if content.ndim == 3 else content.transpose(0, 3, 1, 2)


def tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x.copy()).float() / 127.5 - 1


ALTERATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda x, _: x,
    "flip": lambda x, _: x[..., ::-1],
    "one-pixel shift": moved,
    "90 % crop": cropped,
    "JPEG 75": compressed,
    "brighter": brightened(BRIGHTER),
    "darker": brightened(-BRIGHTER),
}
