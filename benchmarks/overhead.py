"""What our loop costs beside a bare hand-written PyTorch loop on the same net: CPU time a step, as a ratio.

    python benchmarks/overhead.py

Ours carries batches from a corpus, phases, the averaged weights, the check for non-finite losses, schedules and logs. The bare loop holds the data
in one tensor, steps one optimiser a player at a constant rate and does nothing else. Both train the same net, in turns, in one process.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from results import update

from maquette.catalog import find
from maquette.corpus import Corpus
from maquette.loop import loop, make_plan, seed_everything
from maquette.space import Batch, DataSpec, Model, Space
from maquette.writing import CorpusWriter

TURNS, STEPS, SEED = 15, 20, 0
SPACES = {
    "vae": Space("grid", (1, 28, 28)),
    "gan": Space("grid", (1, 28, 28)),
    "transformer": Space("tokens", (49,), 240),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ratios = {name: measure(name, space, folder / name) for name, space in SPACES.items()}
    update("overhead", {"ratio": {n: round(r["ratio"], 4) for n, r in ratios.items()}, "ms_per_step": ratios}, SEED)


def measure(name: str, space: Space, folder: Path) -> dict[str, float]:
    """Medians over turns of the CPU time of a step: ours, bare, and their ratio."""
    corpus = random_corpus(space, folder)
    seed_everything(SEED, 0, 0)
    ours_model = find("models", name)(DataSpec(space))
    bare_model = copy.deepcopy(ours_model)
    plan = make_plan(ours_model, {"steps": STEPS * (TURNS + 1), "threads": 1})
    ours = loop(ours_model, partial(corpus.batches, plan.batch_size, SEED), plan)
    bare = bare_loop(bare_model, corpus.tensor("train").x, plan.batch_size)
    timed(ours), timed(bare)  # warm up
    pairs = [(timed(ours), timed(bare)) for _ in range(TURNS)]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"ratio": statistics.median(x / y for x, y in pairs), "ours": round(a * 1000, 2), "bare": round(b * 1000, 2)}


def timed(steps: Iterator) -> float:
    start = time.process_time()
    for _ in range(STEPS):
        next(steps)
    return (time.process_time() - start) / STEPS


def bare_loop(model: Model, data: torch.Tensor, batch_size: int) -> Iterator[None]:
    """The loop a person would write for this one net."""
    players = {p.name: [q for n, q in model.named_parameters() if p.moves(n)] for p in model.phases}
    rates = {p.name: p.optimiser for p in model.phases}
    optimisers = {n: bare_optimisers(model, n, players[n], rates[n]) for n in players}
    while True:
        for phase in model.phases:
            for _ in range(phase.repeats):
                x = data[torch.randint(len(data), (batch_size,))]
                total = model.loss(Batch(x), phase.name, 0.0).total
                for p in players[phase.name]:
                    p.grad = None
                total.backward(inputs=players[phase.name])
                if rates[phase.name].clip:
                    torch.nn.utils.clip_grad_norm_(players[phase.name], rates[phase.name].clip)
                for optimiser in optimisers[phase.name]:
                    optimiser.step()
                model.after_step(phase.name)
        yield


def bare_optimisers(model: Model, phase: str, players: list, rate) -> list[torch.optim.Optimizer]:
    """The same rule with the same settings; muon is the house's own on both sides."""
    if rate.name == "muon":
        from maquette.loop import optimisers

        return optimisers(model, next(p for p in model.phases if p.name == phase), make_plan(model, {"threads": 1}))
    kind = torch.optim.Adam if rate.name == "adam" else torch.optim.AdamW
    return [kind(players, lr=rate.lr, betas=rate.betas, weight_decay=rate.weight_decay, fused=True)]


def random_corpus(space: Space, folder: Path, count: int = 4096) -> Corpus:
    chance = np.random.default_rng(SEED)
    folder.mkdir(parents=True)
    dtype = np.uint8 if space.kind == "grid" else np.uint16
    writer = CorpusWriter(folder, space, dtype)
    for row in chance.integers(0, space.vocabulary or 256, (count, *space.shape)).astype(dtype):
        writer.add(row, b"{}\n")
    writer.close()
    splits = {"train": np.arange(count), "validation": np.arange(0), "test": np.arange(0)}
    facts = {
        "name": "noise",
        "fingerprint": "noise",
        "spec": DataSpec(space).to_json(),
        "modality": None,
        "codec": None,
    }
    writer.finish(splits, None, {**facts, "counts": {k: len(v) for k, v in splits.items()}})
    return Corpus.open(folder)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
