"""pythae's VAE, RAE and VQVAE on the same pictures for the same CPU time; runs in an environment of its own (see benchmarks/images.py).

    .venv-pythae/bin/python benchmarks/peers/pythae_rows.py train.npy VAE 90 2000 0 out.npz

Settings are those of pythae's README (learning rate 1e-3, batches of 64), its default networks, and two samplers: its default (NormalSampler) and
its GaussianMixtureSampler. out.npz holds a uint8 array (n, 1, 28, 28) a sampler and the CPU seconds of training.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
import torch
from pythae import models, samplers
from pythae.data.datasets import BaseDataset
from pythae.trainers import BaseTrainer, BaseTrainerConfig

LATENT = 16
KINDS = {"VAE": "VAE", "RAE": "RAE_L2", "VQVAE": "VQVAE"}
SAMPLERS = {
    "default": (samplers.NormalSampler, None),
    "mixture": (samplers.GaussianMixtureSampler, samplers.GaussianMixtureSamplerConfig(n_components=10)),
}


def build(kind: str) -> torch.nn.Module:
    name = KINDS[kind]
    config = getattr(models, f"{name}_Config" if name == "RAE_L2" else f"{name}Config")
    return getattr(models, name)(config(input_dim=(1, 28, 28), latent_dim=LATENT))


def fit(model: torch.nn.Module, data: torch.Tensor, epochs: int, seed: int) -> float:
    """CPU seconds of `epochs` epochs."""
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            learning_rate=1e-3,
            per_device_train_batch_size=64,
            num_epochs=epochs,
            seed=seed,
            no_cuda=True,
        )
        trainer = BaseTrainer(model, BaseDataset(data, torch.ones(len(data))), training_config=config)
        start = time.process_time()
        trainer.train()
        return time.process_time() - start


def main(path: str, kind: str, seconds: float, count: int, seed: int, out: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = torch.from_numpy(np.load(path, allow_pickle=False)).float() / 255
    epoch = fit(build(kind), data, 1, seed)
    model = build(kind)
    spent = fit(model, data, max(1, round(seconds / epoch)), seed)
    made = {"seconds": np.array(spent)}
    for name, (sampler, config) in SAMPLERS.items():
        drawn = sampler(model, config) if config else sampler(model)
        if config:
            drawn.fit(data[:20_000])
        try:
            x = drawn.sample(num_samples=count, batch_size=500, return_gen=True)
        except RuntimeError as error:  # a sampler that its model cannot serve is a result too
            print(f"pythae {kind}, sampler {name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        made[name] = (x.clamp(0, 1) * 255).round().byte().cpu().numpy()
    np.savez(out, **made)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
