"""Restyle a model of the house with few examples: a base is trained, then adapted; audits before and after say what that was worth.

python examples/restyle.py digits restyle/digits       # MNIST -> one hand (slanted and bold) from 50 examples
python examples/restyle.py tiles restyle/tiles         # monsters of a dungeon -> one family of them from some 40
python examples/restyle.py text restyle/text           # Shakespeare -> the manual of Python from 20 kB
python examples/restyle.py chorales restyle/chorales   # Bach's chorales in major -> those in minor from 30

The content is looked for in $MAQUETTE_DATA (see CONTRIBUTING.md). --minutes of training of the base; adapting takes a third of it.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import tarfile
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

import maquette as mq

DATA = Path(os.environ.get("MAQUETTE_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))
SLANT = 0.45  # columns a row


class Voice(NamedTuple):
    """What a base learns, what it shall become, and how."""

    base: mq.Corpus
    few: mq.Corpus
    model: str
    adapt: dict


def digits(folder: Path) -> Voice:
    """One hand: digits that no base has seen, slanted and bold."""
    with gzip.open(DATA / "mnist" / "t10k-images-idx3-ubyte.gz") as stream:
        pixels = np.frombuffer(stream.read(), np.uint8, offset=16)
    for k, digit in enumerate(pixels.reshape(-1, 28, 28)[:250]):
        slanted = Image.fromarray(digit).transform((28, 28), Image.Transform.AFFINE, (1, SLANT, -14 * SLANT, 0, 1, 0))
        save(slanted.filter(ImageFilter.MaxFilter(3)), folder / "hand" / f"{k}.png")
    base = mq.prepare(DATA / "mnist" / "train-images-idx3-ubyte.gz", folder / "mnist")
    few = mq.prepare(folder / "hand", folder / "hand-corpus", split=(0.2, 0.1, 0.7))
    return Voice(base, few, "vae", {"method": "full"})


def tiles(folder: Path) -> Voice:
    """The animals; the base sees all other monsters."""
    pictures = {}
    with tarfile.open(DATA / "crawl_tiles" / "crawl_tiles_Nov-2015.tar.gz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if "mon" in parts[:-1] and member.name.endswith(".png"):
                pictures["_".join(parts[-2:])] = (parts[-2], archive.extractfile(member).read())  # type: ignore[union-attr]
    for name, (family, content) in pictures.items():
        save(Image.open(io.BytesIO(content)), folder / ("few" if family == "animals" else "others") / name)
    few = mq.prepare(folder / "few", folder / "few-corpus", split=(0.53, 0.1, 0.37))
    return Voice(mq.prepare(folder / "others", folder / "others-corpus"), few, "vae+flow", {"prior": 0.25})


def text(folder: Path) -> Voice:
    """Technical prose of 20 kB, with as much held out."""
    topics = import_module("pydoc_data.topics").topics
    manual = " ".join(" ".join(topics[k] for k in sorted(topics)).split())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manual.txt").write_text(manual[:50_000], encoding="utf-8")
    settings = {"tokens": "bytes", "passage": 1000, "context": 128}
    base = mq.prepare(DATA / "tinyshakespeare" / "input.txt", folder / "shakespeare", **settings)
    few = mq.prepare(folder / "manual.txt", folder / "manual", split=(0.4, 0.1, 0.5), **settings)
    return Voice(base, few, "transformer", {})


def chorales(folder: Path) -> Voice:
    """Chorales that begin on a minor chord; the base knows those that do not."""
    found = json.loads((DATA / "jsb_chorales" / "Jsb16thSeparated.json").read_text())
    pieces = {"major": [], "minor": []}
    for piece in (p for split in found.values() for p in split):
        pieces["minor" if minor(piece) else "major"].append(piece)
    for mode, some in pieces.items():
        (folder / mode).mkdir(parents=True, exist_ok=True)
        for k, piece in enumerate(some):
            (folder / mode / f"{k}.json").write_text(json.dumps(piece))
    few = mq.prepare(folder / "minor", folder / "minor-corpus", split=(0.2, 0.2, 0.6))
    return Voice(mq.prepare(folder / "major", folder / "major-corpus"), few, "auto", {})


def minor(piece: list[list[int]]) -> bool:
    """Whether a small third stands above the first bass (the last chord is major in most chorales in minor)."""
    first = [note for note in piece[0] if note >= 0]
    return any((note - min(first)) % 12 == 3 for note in first)


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def main(name: str, folder: Path, minutes: float) -> None:
    voice = {"digits": digits, "tiles": tiles, "text": text, "chorales": chorales}[name](folder)
    base = mq.train(voice.base, model=voice.model, minutes=minutes, out=folder / "base")
    before = base.audit(against=voice.few)
    after = mq.adapt(base, voice.few, folder / "adapted", minutes=minutes / 3, **voice.adapt).audit()
    print(f"before: {before.words}\nafter: {after.words}\nreports: {before.page} {after.page}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voice", choices=["digits", "tiles", "text", "chorales"])
    parser.add_argument("folder", type=Path, help="where all comes to lie")
    parser.add_argument("--minutes", type=float, default=3.0)
    args = parser.parse_args()
    main(args.voice, args.folder, args.minutes)
