"""Pictures of MNIST: our five roads, the fixed-sigma VAE with our own nets, and pythae, for the same CPU time.

    python benchmarks/images.py                                   # all rows, three seeds
    python benchmarks/images.py --rows fixed-sigma vae            # some rows again, beside their own reference: the others stay as they are
    python benchmarks/images.py --rows vae flow --seeds 0         # without the reference or all seeds: printed, not written

Every row learns from the same train split (42,000 pictures, no labels) for `--seconds` of CPU time on one thread, and is judged by the same
`--samples` pieces against MNIST's own test file (t10k), which no trial of ours has touched, in the features of one classifier that is
trained on the train split and shares nothing with any row. `--against validation` judges by the validation split instead: so defaults are
tuned. Frechet distances are biased upward in small samples, so there are 10,000 pieces (real against real then scores a fifth of what
2,000 do); coverage and precision are those of the first 2,000. Ratios are to the fixed-sigma VAE of the same seed; rows that are only there
for comparison run with the first seed alone. pythae runs in an environment of its own that is made when it is not there (.venv-pythae).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from results import data, update

from maquette.catalog import find
from maquette.corpus import Corpus
from maquette.features import Pixels, train_judge
from maquette.files import write_with
from maquette.loop import loop, make_plan, seed_everything
from maquette.metrics.diversity import covered
from maquette.metrics.fidelity import frechet_distance, precision
from maquette.recipe import make_recipe, settle
from maquette.space import Batch, Codec, DataSpec, Model, SampleRequest
from maquette.verbs.drive import Budget
from maquette.verbs.prepare import prepare

HERE = Path(__file__).parent
BASELINES = {  # our own nets, sampled from N(0, I)
    "fixed-sigma": {
        "sigma": 2.0,
        "density": "normal",
    },  # variance 1 for pixels in [0, 1], as pythae has it; ratios refer to it
    "fixed-sigma/2": {"sigma": 1.0, "density": "normal"},  # variance 1 for pixels in [-1, 1], for comparison
}
REFERENCE = "fixed-sigma"
SEEDS = [0, 1, 2]
FEW = 2000  # pieces whose coverage and precision are taken
OURS = [*BASELINES, "vae", "vae+flow", "flow", "gan", "vqvae+transformer"]
PEERS = ["VAE", "RAE", "VQVAE"]
TARGETS = {"vae": 0.05, "vae+flow": 0.08, "flow": 0.22, "gan": 0.28, "vqvae+transformer": 0.40}


def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = mnist(Path(folder))
        split = corpus.tensor("train").x
        np.save(Path(folder) / "train.npy", to_bytes(split))
        jobs = [
            (row, seed)
            for seed in args.seeds
            for row in args.rows
            if row in TARGETS or row == REFERENCE or seed == args.seeds[0]
        ]
        with ThreadPoolExecutor(args.jobs) as pool:
            made = list(pool.map(lambda job: sample_in_child(*job, Path(folder), corpus, args), jobs))
        real = corpus.tensor("validation").x if args.against == "validation" else t10k(Path(folder))
        judged = judge(corpus, [sample for found in made for sample in found], real)
    report(judged, args)


def mnist(folder: Path) -> Corpus:
    return prepare(data("mnist") / "train-images-idx3-ubyte.gz", folder / "mnist", settings={})


def t10k(folder: Path) -> torch.Tensor:
    """MNIST's own test file, whole: (N, 1, 28, 28) in [-1, 1]."""
    corpus = prepare(data("mnist") / "t10k-images-idx3-ubyte.gz", folder / "t10k", settings={})
    return corpus.take(np.arange(len(corpus))).x


def to_bytes(x: torch.Tensor) -> np.ndarray:
    return x.add(1).mul(127.5).round().clamp(0, 255).byte().numpy()


# one row in a process of its own: its CPU time is its own


def sample_in_child(row: str, seed: int, folder: Path, corpus: Corpus, args: argparse.Namespace) -> list[dict]:
    out = folder / f"{row.replace('/', '-')}-{seed}.npz"
    if row.startswith("pythae "):
        words = [folder / "train.npy", row.split()[1], args.seconds, args.samples, seed, out]
        command = [pythae_python(), HERE / "peers" / "pythae_rows.py", *words]
    else:
        command = [sys.executable, __file__, "--child", row, seed, corpus.path, args.seconds, args.samples, out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{row} failed:\n{done.stderr[-3000:]}")
    with np.load(out, allow_pickle=False) as found:
        seconds = float(found["seconds"])
        samples = {key: found[key] for key in found.files if key != "seconds"}
    print(f"{row}, seed {seed}: trained for {seconds:.0f} CPU-seconds", flush=True)
    return [{"row": f"{row} {key}".strip(), "seed": seed, "seconds": seconds, "x": x} for key, x in samples.items()]


def child(row: str, seed: int, path: Path, seconds: float, count: int, out: Path) -> None:
    torch.set_num_threads(1)
    corpus = Corpus.open(path).unconditioned()
    start = time.process_time()
    codec: Codec | None = None
    if row in BASELINES:
        model: Model = fitted("vae", corpus, seed, seconds, BASELINES[row])
    elif "+" in row:
        model, codec = pair(row, corpus, seed, seconds)
    else:
        model = fitted(row, corpus, seed, seconds)
    spent = time.process_time() - start
    x = torch.cat([draw(model, codec, range(k, min(k + 250, count))) for k in range(0, count, 250)])
    write_with(out, lambda p: np.savez(p.open("wb"), x=to_bytes(x), seconds=np.array(spent)))


def draw(model: Model, codec: Codec | None, seeds: range) -> torch.Tensor:
    with torch.no_grad():
        made = model.sample(SampleRequest(tuple(seeds)))
        return codec.decode(made) if codec else made


def pair(row: str, corpus: Corpus, seed: int, seconds: float) -> tuple[Model, Codec]:
    first, second = row.split("+")
    recipe = settle(make_recipe({"model": row, "seed": seed}))
    share = find("models", first).codec_share
    start = time.process_time()
    codec = fitted(first, corpus, seed, seconds * share, recipe.models[first])
    with torch.no_grad():
        codes = torch.cat([codec.encode(b.x) for b in corpus.once("train")])
    left = seconds - (time.process_time() - start)
    return fitted(second, Codes(codes, codec.code_space), seed, left, recipe.models[second]), codec


class Codes:
    """The codes of the train split, held in memory as a corpus is."""

    def __init__(self, x: torch.Tensor, space):
        self.x = x
        self.spec = DataSpec(space, None, "categorical" if space.kind == "tokens" else "gaussian")

    def batches(self, batch_size: int, seed: int, start: int = 0):
        while True:
            yield Batch(
                self.x[torch.from_numpy(np.random.default_rng([seed, start]).integers(0, len(self.x), batch_size))]
            )
            start += 1

    def once(self, split: str, limit: int = 20_000):
        for part in self.x[:limit].split(256):
            yield Batch(part)


def fitted(name: str, corpus: Corpus | Codes, seed: int, seconds: float, settings: dict | None = None) -> Model:
    """Train by our loop and defaults for some CPU seconds; the averaged model, concluded."""
    recipe = settle(make_recipe({"model": name, "seed": seed, "models": {name: settings or {}}}))
    seed_everything(seed, -1, 0)
    model = find("models", name)(corpus.spec, **recipe.models[name])
    plan = make_plan(model, {**recipe.train, "seed": seed, "threads": 1, "device": "cpu"})
    budget = Budget(seconds / 60, clock=time.process_time)
    for now in loop(model, partial(corpus.batches, plan.batch_size, seed), plan):
        budget.freeze(now)
    with torch.no_grad():
        now.averaged.conclude(lambda: corpus.once("train", limit=model.concluded_on))
    return now.averaged


def pythae_python() -> Path:
    """The interpreter of pythae's environment; made when it is not there."""
    folder = HERE.parent / ".venv-pythae"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        constraints = HERE.parent / "constraints.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, "torch", "pythae==0.1.2"], check=True)
    return python


# judging and telling


def judge(corpus: Corpus, samples: list[dict], against: torch.Tensor) -> list[dict]:
    """Frechet distance, coverage and precision of each sample in the features of one classifier."""
    with tempfile.TemporaryDirectory() as folder:
        labelled = Path(folder) / "mnist"
        labelled.mkdir()
        for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
            shutil.copy(data("mnist") / name, labelled)
        encoder = train_judge(prepare(labelled, Path(folder) / "corpus", settings={}), seed=1234)

    spaces = {"judge": encoder, "pixels": Pixels(corpus.spec.space)}

    def embed(x: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {name: torch.cat([space.embed(part) for part in x.split(500)]) for name, space in spaces.items()}

    test = embed(against)
    held = to_bytes(corpus.tensor("test", len(samples[0]["x"])).x)
    real = {"row": "real (held-out split) x", "seed": 0, "seconds": 0.0, "x": held}
    return [
        {**s, "x": None} | figures(embed(torch.from_numpy(s["x"]).float() / 127.5 - 1), test) for s in [real, *samples]
    ]


def figures(made: dict[str, torch.Tensor], test: dict[str, torch.Tensor]) -> dict[str, float]:
    """In the features of the judge; the distance in pixels beside it, for the judge is nearly deaf to noise."""
    x, few, some = (
        made["judge"],
        test["judge"][:FEW],
        made["judge"][:FEW],
    )  # coverage and precision want samples of equal size
    return {
        "fd": frechet_distance(x, test["judge"]),
        "fd_pixels": frechet_distance(made["pixels"], test["pixels"]),
        "coverage": float(covered(some, few).mean()),
        "precision": precision(some, few),
    }


def report(judged: list[dict], args: argparse.Namespace) -> None:
    rows: dict[str, dict] = {}
    for name in dict.fromkeys(j["row"] for j in judged):
        mine = [j for j in judged if j["row"] == name]
        rows[name] = {
            k: round(statistics.mean(j[k] for j in mine), 4)
            for k in ("fd", "fd_pixels", "coverage", "precision", "seconds")
        }
        rows[name]["fd_by_seed"] = [round(j["fd"], 3) for j in mine]
    base = {j["seed"]: j["fd"] for j in judged if j["row"] == f"{REFERENCE} x"}
    ratio = {
        name: round(statistics.mean(j["fd"] / base[j["seed"]] for j in judged if j["row"] == f"{name} x"), 4)
        for name in args.rows
        if name in TARGETS and base
    }
    for name, row in rows.items():
        print(f"{name:28} {row}")
    print({name: (value, "<=", TARGETS[name]) for name, value in ratio.items()})
    if args.against == "t10k" and REFERENCE in args.rows and args.seeds == SEEDS:
        named = {name.removesuffix(" x"): row for name, row in rows.items()}
        update(
            "images",
            {"fd_ratio": ratio, "rows": named, "samples": args.samples, "seconds": args.seconds},
            args.seeds[0],
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, row, seed, path, seconds, count, out = sys.argv
        child(row, int(seed), Path(path), float(seconds), int(count), Path(out))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--rows", nargs="+", default=[*OURS, *(f"pythae {p}" for p in PEERS)])
        parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
        parser.add_argument("--seconds", type=float, default=90.0, help="of CPU time for training")
        parser.add_argument("--samples", type=int, default=10_000)
        parser.add_argument("--against", choices=["t10k", "validation"], default="t10k", help="what judges")
        parser.add_argument("--jobs", type=int, default=2, help="rows trained at once, one thread each")
        main(parser.parse_args())
