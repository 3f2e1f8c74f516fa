"""kill -9 at random moments, resume, compare: are the weights the same to the last bit?

    python benchmarks/resume.py --trials 50

For each family a run that saves after every third step is trained once without interruption and `trials` times with a kill at a random moment
(while computing, saving, drawing a sheet or concluding), then resumed to its end by the same call. A trial counts when every tensor of the
last checkpoint (weights, averaged weights, optimiser) and the last line of the log are identical.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from results import update

from maquette.corpus import Corpus
from maquette.files import checksum
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.verbs import drive
from maquette.verbs.prepare import prepare
from maquette.verbs.train import train

STEPS, SEED = 18, 0
MODELS = {"gan": "gan", "vae": "vae", "flow": "flow", "vqvae": "vqvae", "transformer": "vqvae+transformer"}


def main(trials: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        corpus = prepare(pictures(Path(temporary) / "pictures"), Path(temporary) / "corpus", settings={})
        folders = [Path(temporary) / name for name in MODELS]
        with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
            found = list(pool.map(family, MODELS.values(), [corpus] * len(MODELS), folders, [trials] * len(MODELS)))
    identical, interrupted = (dict(zip(MODELS, column, strict=True)) for column in zip(*found, strict=True))
    update("resume", {"identical": identical, "killed_in_the_middle": interrupted, "of": trials}, SEED)


def family(model: str, corpus: Corpus, folder: Path, trials: int) -> tuple[int, int]:
    start = time.monotonic()
    in_child(model, corpus, folder / "whole").wait()
    whole = state(folder / "whole")
    length = time.monotonic() - start
    chance = random.Random(SEED)
    same = middle = 0
    for trial in range(trials):
        place = folder / f"{trial}"
        child = in_child(model, corpus, place)
        time.sleep(chance.uniform(0.02, length))
        middle += child.kill()
        in_child(model, corpus, place).wait()
        same += state(place) == whole
    print(f"{model}: {same} of {trials} identical, {middle} were killed in the middle", flush=True)
    return same, middle


class Child:
    def __init__(self, pid: int):
        self.pid = pid

    def kill(self) -> bool:
        """True when it was still at work."""
        os.kill(self.pid, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(self.pid, 0)[1])

    def wait(self) -> None:
        status = os.waitpid(self.pid, 0)[1]
        if status:
            raise SystemExit(f"a child ended with status {status}")


def in_child(model: str, corpus: Corpus, place: Path) -> Child:
    """Train in a forked process (torch is loaded once), saving after every third step."""
    pid = os.fork()
    if pid:
        return Child(pid)
    drive.Keeper.due = every_third()  # type: ignore[method-assign]
    data = {"model": model, "size": "tiny", "train": {"steps": STEPS, "batch_size": 8, "threads": 1}}
    try:
        train(corpus, make_recipe(data), place)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def every_third():
    calls = iter(range(10**9))
    return lambda keeper: next(calls) % 3 == 2


def state(place: Path) -> dict[str, str]:
    """Checksums of all that the last checkpoints hold. The log's lines depend on when it was saved; its last line does not."""
    found = {}
    for run in [Run.open(place), *([Run.open(place / "codec")] if (place / "codec").exists() else [])]:
        newest = run.newest(())
        assert newest is not None and newest.facts["step"] == STEPS
        files = sorted(newest.path.glob("*.safetensors"))
        found |= {f"{run.path.relative_to(place)}/{f.name}": checksum(f) for f in files}
        found[f"{run.path.relative_to(place)}/log"] = (run.path / "log.jsonl").read_text().splitlines()[-1]
    return found


def pictures(folder: Path) -> Path:
    """60 noisy discs, enough to learn from and quick to read."""
    import PIL.Image

    folder.mkdir(parents=True)
    y, x = np.mgrid[:16, :16]
    for k in range(60):
        chance = np.random.default_rng(k)
        centre = chance.uniform(4, 12, 2)
        disc = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < chance.uniform(4, 25)) * 200
        PIL.Image.fromarray((disc + chance.integers(0, 40, (16, 16))).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=50)
    torch.set_num_threads(1)
    parser.add_argument("--jobs", type=int, default=2, help="families at once")
    main(**vars(parser.parse_args()))
