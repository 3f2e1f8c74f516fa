"""A Gaussian mixture fitted to latents by expectation and maximisation (Dempster 1977): what a VAE is sampled from."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gaussians(NamedTuple):
    """weights (G, K) of each group, rows sum to 1; means (K, D); factors (K, D, D) lower Cholesky of the covariances."""

    weights: Tensor
    means: Tensor
    factors: Tensor


def log_density(g: Gaussians, z: Tensor) -> Tensor:
    """z (N, D) -> log N(z; mean_k, cov_k) in nats, (N, K)"""
    count, features = g.means.shape
    eye = torch.eye(features, dtype=z.dtype, device=z.device)
    whiten = torch.linalg.solve_triangular(g.factors, eye.expand(count, -1, -1), upper=False)
    centre = torch.einsum("kd,ked->ke", g.means, whiten).flatten()
    scaled = torch.addmm(-centre, z, whiten.flatten(0, 1).T).unflatten(1, (count, features))
    volume = g.factors.diagonal(dim1=1, dim2=2).log().sum(1)
    distance = torch.linalg.vector_norm(scaled, dim=2).square()
    return -0.5 * (distance + features * math.log(2 * math.pi)) - volume


def posterior(g: Gaussians, z: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """z (N, D), group (N,) -> responsibilities (N, K) and log p(z | group) in nats (N,)"""
    joint = log_density(g, z) + g.weights.clamp_min(1e-30).log()[group]
    total = joint.logsumexp(1)
    return (joint - total[:, None]).exp(), total


def maximise(z: Tensor, share: Tensor, group: Tensor, groups: int) -> Gaussians:
    """The Gaussians that fit z (N, D) best when row n belongs to component k by share (N, K).

    The covariances have the prior of Fraley & Raftery 2007 (eq. 5): D + 2 pieces spread like all the data, divided
    evenly, so few pieces give smooth components instead of collapsed ones. Groups lean on the weights of all.
    """
    features, count = z.shape[1], share.shape[1]
    mass = share.sum(0)
    means = share.T @ z / mass.clamp_min(1e-6)[:, None]
    second = torch.stack([(z * w[:, None]).T @ z for w in share.T])
    scatter = second - torch.einsum("k,kd,ke->kde", mass, means, means)
    pseudo = features + 2
    prior = torch.cov(z.T, correction=0).reshape(features, features) / count ** (2 / features)
    floor = 1e-6 * torch.eye(features, dtype=z.dtype)
    covariance = (scatter + pseudo * prior) / (mass + pseudo)[:, None, None] + floor
    overall = mass / len(z)
    per_group = torch.zeros(groups, count, dtype=z.dtype).index_add_(0, group, share) + count * overall
    return Gaussians(per_group / per_group.sum(1, keepdim=True), means, torch.linalg.cholesky(covariance))


def kmeans(z: Tensor, count: int, chance: torch.Generator, rounds: int = 8) -> Tensor:
    """z (N, D) -> one-hot shares (N, count) of Lloyd's algorithm, a start for `em`."""
    return lloyd(z, z[torch.randperm(len(z), generator=chance)[:count]], rounds)[1]


def lloyd(z: Tensor, centres: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """z (N, D), centres (K, D) to begin with -> centres (K, D) after k-means (Lloyd 1957), one-hot shares (N, K) of the last round."""
    for _ in range(rounds):
        nearest = torch.cdist(z, centres).argmin(1)
        share = nn.functional.one_hot(nearest, len(centres)).to(z.dtype)
        mass = share.sum(0)[:, None]
        centres = torch.where(mass > 0, share.T @ z / mass.clamp_min(1), centres)
    return centres, share


def em(z: Tensor, group: Tensor, groups: int, count: int, rounds: int = 10) -> Gaussians:
    """Fit `count` Gaussians to z (N, D); the same numbers for the same z."""
    chance = torch.Generator().manual_seed(0)
    g = maximise(z, kmeans(z, count, chance), group, groups)
    for _ in range(rounds):
        share = torch.cat([posterior(g, *part)[0] for part in zip(z.split(4096), group.split(4096), strict=True)])
        g = maximise(z, share, group, groups)
    return g


class Mixture(nn.Module):
    """p(z | group) for latents z (B, D): components shared by all groups (labels), weights of each group its own.

    It stands in whitened principal coordinates; beyond the first 64 the coordinates are independent normals. Before
    `fit` it is N(0, I). All numbers are buffers: `fit` sets them, no gradient does.
    """

    def __init__(self, features: int, groups: int = 1, components: int = 20, principal: int = 64):
        super().__init__()
        kept = min(features, principal)
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("axes", torch.eye(features))  # whitened principal coordinates -> latents
        self.register_buffer("weights", torch.eye(1, components).repeat(groups, 1))
        self.register_buffer("means", torch.zeros(components, kept))
        self.register_buffer("factors", torch.eye(kept).repeat(components, 1, 1))

    @property
    def gaussians(self) -> Gaussians:
        return Gaussians(self.weights, self.means, self.factors)

    @torch.no_grad()
    def fit(self, z: Tensor, group: Tensor) -> None:
        """z (N, D), group (N,) int64; fewer components where there are fewer than 2 D pieces for each."""
        z, group = z.double().cpu(), group.cpu()
        values, vectors = torch.linalg.eigh(torch.cov(z.T, correction=0).reshape(z.shape[1], -1))
        axes = (vectors * values.clamp_min(1e-8).sqrt()).flip(1)
        self.centre.copy_(z.mean(0))
        self.axes.copy_(axes)
        kept = torch.linalg.solve(axes, (z - z.mean(0)).T).T[:, : self.means.shape[1]].float()
        count = max(1, min(len(self.means), len(z) // (2 * kept.shape[1])))
        found = em(kept.contiguous(), group, len(self.weights), count)
        self.weights.zero_()
        for mine, new in zip(self.gaussians, found, strict=True):
            where = (slice(None), slice(0, count)) if mine is self.weights else slice(0, count)
            mine[where] = new.to(mine)

    def log_prob(self, z: Tensor, group: Tensor) -> Tensor:
        """(B, D), (B,) -> nats (B,)"""
        y = self._inwards(z)
        kept, rest = y.split([self.means.shape[1], y.shape[1] - self.means.shape[1]], 1)
        _, inner = posterior(self.gaussians, kept, group)
        outer = -0.5 * (rest.square() + math.log(2 * math.pi)).sum(1)
        return inner + outer - torch.linalg.slogdet(self.axes)[1]

    def draw(self, chance: Tensor, noise: Tensor, group: Tensor) -> Tensor:
        """chance (B,) uniform in [0, 1), noise (B, D) standard normal, group (B,) -> z (B, D)"""
        steps = self.weights[group].cumsum(1)
        which = (chance[:, None] >= steps / steps[:, -1:]).sum(1).clamp_max(steps.shape[1] - 1)
        return self._outwards(which, noise)

    def vary(self, z: Tensor, noise: Tensor, group: Tensor, strength: float) -> Tensor:
        """z (B, D) -> its neighbours: within the component it most belongs to, a share `strength` in [0, 1] of it is new."""
        y, kept = self._inwards(z), self.means.shape[1]
        which = posterior(self.gaussians, y[:, :kept], group)[0].argmax(1)
        inner = torch.linalg.solve_triangular(
            self.factors[which], (y[:, :kept] - self.means[which])[:, :, None], upper=False
        )
        old = torch.cat([inner.squeeze(2), y[:, kept:]], 1)
        return self._outwards(which, math.sqrt(1 - strength**2) * old + strength * noise)

    def _inwards(self, z: Tensor) -> Tensor:
        return torch.linalg.solve(self.axes, (z - self.centre).T).T

    def _outwards(self, which: Tensor, noise: Tensor) -> Tensor:
        kept = self.means.shape[1]
        inner = self.means[which] + torch.einsum("bde,be->bd", self.factors[which], noise[:, :kept])
        return self.centre + torch.cat([inner, noise[:, kept:]], 1) @ self.axes.T
