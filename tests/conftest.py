"""A small world for tests: pictures of circles and squares, a corpus of them, models of a few hundred numbers."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest


def draw(kind: str, k: int, side: int = 16) -> PIL.Image.Image:
    """A circle or a square of varying place, size and shade."""
    chance = np.random.default_rng([k, kind == "circle"])
    picture = PIL.Image.new("L", (side, side), 255)
    radius = int(chance.integers(3, side // 2 - 1))
    x, y = chance.integers(radius, side - radius, 2)
    box = (x - radius, y - radius, x + radius - 1, y + radius - 1)
    pen = PIL.ImageDraw.Draw(picture)
    (pen.ellipse if kind == "circle" else pen.rectangle)(box, fill=int(chance.integers(0, 120)))
    return picture


@pytest.fixture(autouse=True, scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test touches the keys of the person who runs it."""
    place = tmp_path_factory.mktemp("keys")
    os.environ["MAQUETTE_KEYS"] = str(place)
    return place


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a subfolder for circles and one for squares, 60 pictures each."""
    root = tmp_path_factory.mktemp("content") / "shapes"
    for kind in ("circle", "square"):
        (root / kind).mkdir(parents=True)
        for k in range(60):
            draw(kind, k).save(root / kind / f"{k:03d}.png")
    return root


@pytest.fixture(scope="session")
def corpus(pictures: Path, tmp_path_factory: pytest.TempPathFactory):
    from maquette.verbs.prepare import prepare

    return prepare(pictures, tmp_path_factory.mktemp("corpora") / "shapes", settings={})
