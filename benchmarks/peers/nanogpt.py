"""nanoGPT's CPU configuration on one page (Karpathy 2022, github.com/karpathy/nanoGPT, README "i only have a macbook"): a GPT-2 of 4 layers,
128 wide, on windows of 64 characters; and the original itself where a checkout is at hand.

    python benchmarks/peers/nanogpt.py input.txt [--steps 2000] [--seconds S] [--checkout path/to/nanoGPT]
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT, BATCH, LAYERS, WIDTH, HEADS = 64, 12, 4, 128, 4
PEAK, FLOOR, WARMUP, DECAY, CLIP = 1e-3, 1e-4, 100, 0.1, 1.0
VOCABULARY = 65  # characters of tinyshakespeare
TRAIN = 0.9  # the first share of the text; the rest is validation


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.first(x)).chunk(3, 2))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.second(x))))


class GPT(nn.Module):
    """ids (B, n), n <= 64 -> logits (B, n, V) of the token after each"""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.last = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                into_residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if into_residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        return F.linear(self.last(self.blocks(h)), self.tokens.weight)


def rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return PEAK * (step + 1) / (WARMUP + 1)
    share = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
    return FLOOR + 0.5 * (1 + math.cos(math.pi * share)) * (PEAK - FLOOR)


def train(
    ids: np.ndarray, seconds: float | None = None, steps: int = 2000, seed: int = 1337, vocabulary: int = VOCABULARY
) -> tuple[GPT, float]:
    """ids (T,) of the training text -> the model, and the process seconds it took; ends early after `seconds` of them."""
    torch.manual_seed(seed)
    data, model = torch.from_numpy(np.asarray(ids, np.int64)), GPT(vocabulary)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) == wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    descent = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99))
    began = time.process_time()
    for step in range(steps):
        if seconds is not None and time.process_time() - began > seconds:
            break
        for group in descent.param_groups:
            group["lr"] = rate(step, steps)
        starts = torch.randint(len(data) - CONTEXT, (BATCH, 1))
        window = data[starts + torch.arange(CONTEXT + 1)]
        loss = F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        descent.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        descent.step()
    return model.eval(), time.process_time() - began


@torch.no_grad()
def nats(model: GPT, ids: np.ndarray, batch: int = 256) -> np.ndarray:
    """ids (T,) -> nats (T - 1,) of each but the first, once, by windows that move half a context: with at least half a context before it
    where there is so much."""
    return -np.concatenate([picked(logits, x) for logits, x in windows(model, ids, batch)])


def picked(logits: Tensor, x: Tensor) -> np.ndarray:
    return logits.float().log_softmax(-1).gather(-1, x[:, None])[:, 0].numpy()


@torch.no_grad()
def windows(model: GPT, ids: np.ndarray, batch: int = 256):
    """logits (n, V) and the ids (n,) that came, for ids[1:] in their order."""
    data, half = torch.from_numpy(np.asarray(ids, np.int64)), CONTEXT // 2
    yield model(data[None, :CONTEXT][:, : len(data) - 1])[0], data[1 : CONTEXT + 1]
    starts = torch.arange(half, max(half, len(data) - CONTEXT), half)
    for some in starts.split(batch):
        x = data[some[:, None] + torch.arange(CONTEXT + 1)]
        yield model(x[:, :-1])[:, half:].flatten(0, 1), x[:, half + 1 :].flatten()
    done = (int(starts[-1]) if len(starts) else 0) + CONTEXT + 1
    if done < len(data):
        x = data[len(data) - CONTEXT - 1 :]
        rest = len(data) - done
        yield model(x[None, :-1])[0, -rest:], x[-rest:]


@torch.no_grad()
def estimated(model: GPT, ids: np.ndarray, batches: int = 20, seed: int = 0) -> float:
    """Validation loss as nanoGPT reports it: random windows, every place of each."""
    data, chance = torch.from_numpy(np.asarray(ids, np.int64)), torch.Generator().manual_seed(seed)
    starts = torch.randint(len(data) - CONTEXT, (batches * BATCH, 1), generator=chance)
    window = data[starts + torch.arange(CONTEXT + 1)]
    return float(F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten()))


def original(checkout: Path, text: Path, steps: int = 2000) -> tuple[float, float]:
    """The original in a copy of `checkout`, with the command of its README -> its last validation loss and the process seconds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(checkout, Path(folder) / "nanoGPT", ignore=shutil.ignore_patterns(".git", "out*"))
        data = copy / "data" / "shakespeare_char"
        shutil.copy(text, data / "input.txt")
        subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        options = {
            "device": "cpu", "compile": False, "eval_iters": 20, "log_interval": 100, "block_size": CONTEXT, "batch_size": BATCH,
            "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "max_iters": steps, "lr_decay_iters": steps, "dropout": 0.0,
        }  # fmt: skip
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
        command += [f"--{name}={value}" for name, value in options.items()]
        said = subprocess.run(command, cwd=copy, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    losses = re.findall(r"val loss ([0-9.]+)", said)
    return float(losses[-1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def characters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The ids of nanoGPT's train and validation characters."""
    text = path.read_text(encoding="utf-8")
    number = {c: i for i, c in enumerate(sorted(set(text)))}
    ids = np.array([number[c] for c in text])
    cut = int(TRAIN * len(ids))
    return ids[:cut], ids[cut:]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("text", type=Path)
    asked.add_argument("--steps", type=int, default=2000)
    asked.add_argument("--seconds", type=float)
    asked.add_argument("--checkout", type=Path)
    given = asked.parse_args()
    torch.set_num_threads(1)
    learn, held = characters(given.text)
    model, spent = train(learn, given.seconds, given.steps)
    print(f"re-implementation: {nats(model, held).mean():.4f} nats a character in {spent:.0f} process seconds")
    print(f"  as nanoGPT estimates it (random windows): {estimated(model, held):.4f}")
    if given.checkout:
        loss, spent = original(given.checkout, given.text, given.steps)
        print(f"original: {loss:.4f} (its own estimate) in {spent:.0f} process seconds, evaluations included")


if __name__ == "__main__":
    main()
