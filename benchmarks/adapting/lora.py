"""LoRA against a full fine-tune: Shakespeare's small transformer, adapted to 20 kB of Python's reference manual, for the same time.

Both arms begin from the same base and are judged by the nats a byte of other chapters that were held out; a gain is what is below the base's.
The full fine-tune has the best of the paces in PACES on the first seed's validation split, LoRA its defaults. Optimiser memory is the bytes of
the moments in the last checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from adapting.starts import nats, texts
from results import spread

from maquette.adapting import merged
from maquette.corpus import Corpus
from maquette.recipe import make_recipe
from maquette.run import Run
from maquette.space import Batch
from maquette.verbs.adapt import adapt
from maquette.verbs.fitting import fitted_to
from maquette.verbs.train import train

BASE_MINUTES, MINUTES = 2.0, 1.0
PACES = (1.0, 0.3)
LORA = {}  # its defaults


def measure(seeds: list[int], base_minutes: float = BASE_MINUTES, minutes: float = MINUTES) -> dict:
    """lora_gain_share and its like are means over seeds; `lora` holds intervals and rows."""
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target, before = texts(folder)
        for seed in seeds:
            chosen = {"model": "transformer", "minutes": base_minutes, "seed": seed, "train": {"threads": 1}}
            base = train(before, make_recipe(chosen), folder / f"base-{seed}")
            rows.append(row(base, target, folder / f"arms-{seed}", minutes))
            print("lora", seed, {k: round(v, 4) for k, v in rows[-1].items()}, flush=True)
    found = {k: spread([r[k] for r in rows]) for k in rows[0]}
    named = ("lora_gain_share", "lora_memory_share", "lora_parameter_share", "adapter_size_share")
    figures = {k: found[k]["mean"] for k in named}
    return {**figures, "merge_difference": max(r["merge_difference"] for r in rows), "lora": found}


def row(base: Run, target: Corpus, out: Path, minutes: float) -> dict[str, float]:
    at = nats(base, target)
    whole = min(
        (adapt(base, target, out / f"full-{p}", minutes=minutes, given={"pace": p}) for p in PACES), key=foretold
    )
    thin = adapt(base, target, out / "lora", method="lora", minutes=minutes, given=LORA)
    full, lora = nats(whole, target), nats(thin, target)
    return {
        "base_nats": at,
        "full_nats": full,
        "lora_nats": lora,
        "lora_gain_share": (at - lora) / (at - full),
        "lora_memory_share": moments(thin) / moments(whole),
        "lora_parameter_share": moving(thin),
        "adapter_size_share": size(thin.path / "adapter") / size(base.newest(()).path, "averaged.safetensors"),
        "merge_difference": difference(thin, target),
    }


def foretold(run: Run) -> float:
    """The least loss on the validation split that was seen on the way."""
    return run.best().facts["best"][1]


def moments(run: Run) -> int:
    """Bytes of the optimiser's state."""
    return sum(t.numel() * t.element_size() for t in run.newest(("optimiser",)).tensors["optimiser"].values())


def moving(run: Run) -> float:
    """Numbers that move over the numbers of the base."""
    model = run.build()
    moves = sum(p.numel() for n, p in model.named_parameters() if any(phase.moves(n) for phase in model.phases))
    return moves / sum(p.numel() for p in run.plain().parameters())


def size(folder: Path, pattern: str = "*") -> int:
    return sum(p.stat().st_size for p in folder.glob(pattern))


@torch.no_grad()
def difference(run: Run, target: Corpus) -> float:
    """The largest difference of a log probability between thin matrices beside the weights and folded in."""
    model = run.trained().eval()
    batch: Batch = next(iter(fitted_to(run, target).once("test")))
    apart, folded = (m.logits(batch.x[:, :-1]).log_softmax(-1) for m in (model, merged(model)))
    return float((apart - folded).abs().max())
