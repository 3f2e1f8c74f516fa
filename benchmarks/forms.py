"""Forms that hold: quatrains and rhymes of a model of Tang poems, rules of voice leading and a given voice of a model of chorales.

    python benchmarks/forms.py                    # both, writes benchmarks/results/forms.json
    python benchmarks/forms.py --only tang --minutes 2 --against validation      # how settings are tuned

tang      transformer+ngram on 70 % of 29,581 poems; perplexity a character (punctuation and ends left out) of the quatrains of seven
          characters in the test split, told nothing and told author and title, beside the n-gram alone; then `--count` quatrains with
          their form and half as many asked to rhyme, and the same check on real and on shuffled poems.
music     a transformer (encoder-decoder) on the four voices of 382 chorales; `--bars` bars under all rules, and chorales of the test split
          harmonised from their soprano.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from results import data, update

from maquette import catalog
from maquette.corpus import Corpus
from maquette.recipe import make_recipe
from maquette.rhyme import is_han, rhyme_kept
from maquette.run import Run
from maquette.scores.harmony import faults
from maquette.scores.score import rolls
from maquette.space import Batch
from maquette.verbs.generate import Wish, generating
from maquette.verbs.prepare import prepare
from maquette.verbs.reading import ngram
from maquette.verbs.train import training
from maquette.verse import form_kept

SEED = 0
QUATRAIN = "七言绝句"


def trained(corpus: Corpus, out: Path, minutes: float, model: str, settings: dict | None = None) -> Run:
    recipe = make_recipe(
        {"model": model, "minutes": minutes, "seed": SEED, "models": settings or {}, "train": {"threads": 1}}
    )
    last = None
    for progress in training(corpus, recipe, out):
        last = progress if progress.step else last
    print(last, flush=True)
    return Run.open(out)


# ---- poems


def tang(args: argparse.Namespace, folder: Path) -> dict:
    source = data("tang_poems", "poet.tang.0-29000.tar.gz")
    corpus = prepare(source, folder / "corpus", modality="text", settings={"tokens": "characters", "context": 80})
    text = catalog.modality(corpus.facts["modality"])
    quatrains = [i for i in corpus.numbers(args.against).tolist() if form_kept(content(text, corpus, i), QUATRAIN)]
    print(f"{len(quatrains)} quatrains in {args.against}", flush=True)
    found: dict = {"quatrains": len(quatrains), "perplexity_ngram": perplexity(ngram(corpus), corpus, text, quatrains)}
    print(found, flush=True)
    run = trained(
        corpus, folder / "run", args.minutes, "transformer+ngram", {"transformer": {"condition_dropout": 0.3}}
    )
    model = run.sampler().model
    found["perplexity"] = perplexity(model, corpus.unconditioned(), text, quatrains)
    found["perplexity_told_author_and_title"] = perplexity(model, corpus, text, quatrains)
    found["perplexity_transformer_alone"] = perplexity(model.first, corpus.unconditioned(), text, quatrains)
    print(found, flush=True)
    found |= kept(run, args.count) | real_rhymes(text, corpus, quatrains)
    return found


def content(text, corpus: Corpus, number: int) -> str:
    return text.to_piece(corpus.take(np.array([number])).x[0]).content


@torch.inference_mode()
def perplexity(model, corpus: Corpus, text, numbers: list[int]) -> float:
    """A character, by the exact chain."""
    nats = count = 0.0
    for start in range(0, len(numbers), 64):
        batch = corpus.take(np.array(numbers[start : start + 64]))
        batch = Batch(batch.x, batch.condition, batch.index, torch.full((len(batch.x),), -1))
        written = torch.from_numpy(han(text)[batch.x.numpy()])
        nats += float((model.token_nats(batch) * written).sum())
        count += float(written.sum())
    return round(float(np.exp(nats / count)), 1)


def han(text) -> np.ndarray:
    """(V,) bool: which tokens are Chinese characters; the unknown token counts as one."""
    codes = [ord(c) for c in text.fitted["characters"]]
    return np.concatenate([[False, True], is_han(np.array(codes))])


def kept(run: Run, count: int) -> dict:
    free = [p.content for p in generating(run, count, Wish(form=QUATRAIN))]
    rhymed = [p.content for p in generating(run, count // 2, Wish(form=QUATRAIN, rules=("rhyme",), seed=count))]
    print("\n\n".join(rhymed[:6]), flush=True)
    return {
        "form_kept": share(form_kept(t, QUATRAIN) for t in free + rhymed),
        "rhyme_kept_when_asked": share(rhyme_kept(t) for t in rhymed),
        "rhyme_kept_unasked": share(rhyme_kept(t) for t in free),
    }


def real_rhymes(text, corpus: Corpus, numbers: list[int]) -> dict:
    poems = [content(text, corpus, i) for i in numbers]
    return {
        "rhyme_of_real": share(rhyme_kept(p) for p in poems),
        "rhyme_of_shuffled": share(rhyme_kept(p) for p in shuffled(poems)),
    }


def shuffled(poems: list[str]) -> Iterator[str]:
    """The same lines with all their characters shuffled over all poems; punctuation stays where it is."""
    pool = [c for poem in poems for c in poem if is_han(np.array([ord(c)]))[0]]
    random.Random(SEED).shuffle(pool)
    for poem in poems:
        yield "".join(pool.pop() if is_han(np.array([ord(c)]))[0] else c for c in poem)


def share(claims) -> float:
    known = [bool(c) for c in claims if c is not None]
    return round(sum(known) / len(known), 4)


# ---- music


def music(args: argparse.Namespace, folder: Path) -> dict:
    corpus = prepare(
        data("jsb_chorales", "Jsb16thSeparated.json"), folder / "corpus", modality="music", settings={"voices": 4}
    )
    run = trained(corpus, folder / "run", args.minutes, "transformer", {"transformer": {"mode": "encoder-decoder"}})
    modality = catalog.modality(corpus.facts["modality"])
    pieces = list(generating(run, args.bars // 8, Wish(bars=8, rules=("all",))))
    broken = sum(
        sum(faults(*rolls(p.content, 4)).get(k, 0) for k in ("fifths", "octaves", "crossing", "range")) for p in pieces
    )
    same = []
    for number in corpus.numbers("test")[: args.harmonised].tolist():
        tune = folder / f"{number}.json"
        modality.write(modality.to_piece(corpus.take(np.array([number])).x[0]), tune)
        (made,) = generating(run, 1, Wish(source=str(tune), keep="soprano"))
        theirs, ours = (rolls(modality.one(tune).content, 4)[0][:, 0], rolls(made.content, 4)[0][:, 0])
        same.append(len(theirs) == len(ours) and bool((theirs == ours).all()))
    return {"bars": args.bars // 8 * 8, "violations": int(broken), "soprano_kept": share(same), "harmonised": len(same)}


def main(args: argparse.Namespace) -> None:
    figures = {}
    for name in args.only:
        with tempfile.TemporaryDirectory() as temporary:
            folder = args.keep / name if args.keep else Path(temporary)
            figures[name] = {"tang": tang, "music": music}[name](args, folder)
        print(name, figures[name], flush=True)
    if args.against == "test":
        update("forms", figures, SEED)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=["tang", "music"], default=["tang", "music"])
    parser.add_argument("--against", choices=["test", "validation"], default="test")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, each")
    parser.add_argument("--count", type=int, default=1000, help="quatrains")
    parser.add_argument("--bars", type=int, default=1000)
    parser.add_argument(
        "--harmonised", type=int, default=20, help="test chorales that are harmonised from their soprano"
    )
    parser.add_argument("--keep", type=Path, help="a folder in which the corpora and runs stay")
    main(parser.parse_args())
