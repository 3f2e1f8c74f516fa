"""Train every family on MNIST and on the crawl tiles, label by label, and put a sheet of each into docs/gallery/ for docs/gallery.md.

    python docs/gallery.py --minutes 2          # of training each, on as many cores as are idle

Columns are labels, rows are seeds; nothing is picked.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import torch
from data import data

from maquette import catalog
from maquette.corpus import Corpus
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.space import SampleRequest
from maquette.verbs.prepare import prepare
from maquette.verbs.train import training

FAMILIES = ["vae", "vae+flow", "flow", "gan", "vqvae+transformer"]
HERE = Path(__file__).parent / "gallery"
ROWS, COLUMNS = 4, 10


def main(minutes: float, families: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mnist, tiles = Path(folder) / "mnist", Path(folder) / "tiles"
        mnist.mkdir()
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            shutil.copy(data("mnist", name), mnist)
        corpora = {
            "mnist": prepare(mnist, Path(folder) / "corpora" / "mnist"),
            "tiles": prepare(data("crawl_tiles"), tiles),
        }
        for what, corpus in corpora.items():
            real(what, corpus)
            for family in families:
                made(what, corpus, family, minutes, Path(folder) / "runs" / f"{what}-{family}")


def labels(corpus: Corpus) -> list[str]:
    """The most frequent ones, in order."""
    counts = corpus.facts["labels"]
    return sorted(sorted(counts, key=lambda name: -counts[name])[:COLUMNS])


def real(what: str, corpus: Corpus) -> None:
    field = next(k for k, (f, _) in enumerate(corpus.spec.condition.slices()) if f.name == "label")
    names = corpus.spec.condition.fields[field].values
    column = corpus.spec.condition.slices()[field][1].start
    batch = corpus.tensor("validation")
    rows = [batch.x[batch.condition[:, column] == names.index(name)][:ROWS] for name in labels(corpus)]
    sheet(what, "real", corpus, [rows[c][r] for r in range(ROWS) for c in range(len(rows)) if r < len(rows[c])])


def made(what: str, corpus: Corpus, family: str, minutes: float, out: Path) -> None:
    last = None
    for progress in training(corpus, make_recipe({"model": family, "minutes": minutes}), out):
        last = progress
    sampler = Run.open(out).sampler()
    wish = torch.tensor([corpus.spec.condition.encode({"label": name}) for _ in range(ROWS) for name in labels(corpus)])
    sheet(what, family.replace("+", "-"), corpus, sampler.sample(SampleRequest(tuple(range(len(wish))), wish)))
    print(what, family, last.step, flush=True)


def sheet(what: str, name: str, corpus: Corpus, rows) -> None:
    modality = catalog.modality(corpus.facts["modality"])
    modality.sheet([modality.to_piece(x) for x in rows], HERE / f"{what}-{name}.png", columns=len(labels(corpus)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    args = parser.parse_args()
    main(args.minutes, args.families)
