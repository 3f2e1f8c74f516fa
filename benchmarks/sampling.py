"""New tokens per second: our sampling beside Hugging Face `generate` with its memory of keys and values, the same weights, drawn, not greedy.

4 layers of 128 features over 65 characters, 256 new tokens after the start; batches of 1 and of 32; medians of five turns that alternate in
one process. On a loaded machine two threads wait for each other and the figures mean nothing.

python benchmarks/sampling.py [threads]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results import update

from maquette.models.transformer import Transformer
from maquette.space import DataSpec, SampleRequest, Space
from maquette.verbs.export import write_huggingface

TOKENS, VOCABULARY, TURNS = 256, 65, 5


def build() -> Transformer:
    torch.manual_seed(0)
    spec = DataSpec(Space("tokens", (TOKENS,), VOCABULARY))
    model = Transformer(spec, width=128, layers=4, head_width=64, absolute=False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval().requires_grad_(False)


def hugging_face(model: Transformer):
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        write_huggingface(model, Path(folder), None, "")
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def ours(model: Transformer, batch: int) -> None:
    made = model.sample(SampleRequest(tuple(range(batch))))
    assert made.shape == (batch, TOKENS)


def theirs(model, batch: int) -> None:
    start = torch.full((batch, 1), VOCABULARY)
    made = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, max_new_tokens=TOKENS, use_cache=True
    )
    assert made.shape == (batch, 1 + TOKENS)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(model: Transformer, other, batch: int) -> dict[str, Any]:
    """Tokens per second of both and how many times faster ours is."""
    turns = [(lambda: ours(model, batch)), (lambda: theirs(other, batch))]
    for turn in turns:
        turn()
    times = [[seconds(turn) for turn in turns] for _ in range(TURNS)]
    mine, other_one = (statistics.median(column) for column in zip(*times, strict=True))
    made = batch * TOKENS
    return {
        "ratio": round(other_one / mine, 2),
        "tokens_per_second": {"maquette": round(made / mine), "transformers": round(made / other_one)},
        "ratio_worst_turn": round(min(b / a for a, b in times), 2),
    }


if __name__ == "__main__":
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    model = build()
    other = hugging_face(model)
    found = {f"batch{batch}": compare(model, other, batch) for batch in (1, 32)}
    kinds = {kind: {batch: row[kind] for batch, row in found.items()} for kind in found["batch1"]}
    update("sampling", kinds if threads == 1 else {f"threads{threads}": kinds}, seed=0)
