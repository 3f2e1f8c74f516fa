"""The figures of the audit beside those of the libraries that others use: torchmetrics, prdc and vendi-score, on the same features."""

from __future__ import annotations

import contextlib
import io
import warnings

import torch
from torch import Tensor, nn

from maquette.metrics import diversity, fidelity, vendi


class _Features(nn.Module):
    """Stands where torchmetrics has a network: what comes in are features already."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def ours(generated: Tensor, real: Tensor, k: int = 5) -> dict[str, float]:
    """(N, D), (N, D) float64 -> figure -> value."""
    return {
        "Frechet distance": fidelity.frechet_distance(generated, real),
        "KID": fidelity.kid(generated, real),
        "precision": fidelity.precision(generated, real, k),
        "density": fidelity.density(generated, real, k),
        "recall": float(diversity.recalled(generated, real, k).mean()),
        "coverage": float(diversity.covered(generated, real, k).mean()),
        "Vendi score": vendi.vendi(generated),
    }


def theirs(generated: Tensor, real: Tensor, k: int = 5) -> dict[str, float]:
    """The same from the libraries; raises ImportError where one of them is not there."""
    from prdc import compute_prdc
    from vendi_score.vendi import score_dual

    with contextlib.redirect_stdout(io.StringIO()):
        balls = compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
    return {
        **_of_torchmetrics(generated, real),
        **{name: float(value) for name, value in balls.items()},
        "Vendi score": float(score_dual(generated.numpy())),
    }


def _of_torchmetrics(generated: Tensor, real: Tensor) -> dict[str, float]:
    """KID in one subset as large as the samples: torchmetrics otherwise averages over subsets that it draws."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = _Features(real.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the memory it takes
        distance = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
        discrepancy = KernelInceptionDistance(feature=network, subsets=1, subset_size=len(real))
    for metric in (distance, discrepancy):
        metric.update(real, real=True)
        metric.update(generated, real=False)
    return {"Frechet distance": float(distance.compute()), "KID": float(discrepancy.compute()[0])}


def differences(generated: Tensor, real: Tensor, k: int = 5) -> dict[str, float]:
    """figure -> |ours - theirs| / |theirs|"""
    own, other = ours(generated, real, k), theirs(generated, real, k)
    return {name: abs(own[name] - value) / max(abs(value), 1e-12) for name, value in other.items()}
