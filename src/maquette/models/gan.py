"""GAN (Goodfellow 2014, arXiv:1406.2661): a generator learns to make pieces that a discriminator cannot tell from real ones.

The default is the relativistic pairing of R3GAN (Huang 2024, arXiv:2501.05441) with R1 and R2 at every step; see docs/gan.md for what each
choice is worth. The adversarial losses are free functions of logits at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from maquette.errors import SpaceError
from maquette.loop import world
from maquette.nets import adversary as nets
from maquette.nets.augment import augment, follow
from maquette.nets.condition import ConditionEmbedding, drop_condition
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, Optimiser, Phase, SampleRequest, generator, noise

SETTLED = 2048  # pieces that fit the statistics of BatchNorm


class GAN(GenerativeModel):
    """Two players, two phases: the discriminator moves, then the generator. Pieces come from noise alone: no `source`, no `keep`."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"width": 16, "latent": 32},
        "small": {"width": 32, "latent": 64},
        "medium": {"width": 64, "latent": 128},
        "large": {"width": 128, "latent": 256},
    }
    search: ClassVar[Mapping[str, Any]] = {"gamma": (0.1, 10.0)}
    batch_size = 32
    enters: ClassVar[Mapping[str, str]] = {"discriminator.body": "encoder"}
    heads = ("generator.body.head", "generator.*norm", "generator.embed")
    teachers = ("discriminator",)
    foretells = False
    varies = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Annotated[int, Field(gt=0, description="channels of both players at half resolution")] = 32,
        latent: Annotated[int, Field(gt=0, description="numbers a piece is made from")] = 64,
        body: Annotated[
            Literal["conv", "classic"],
            Field(description="the networks; classic: a linear layer, then two deconvolutions"),
        ] = "conv",
        loss: Annotated[
            Literal["relativistic", "non-saturating", "minimax", "hinge", "wasserstein"],
            Field(description="what the players want; wasserstein brings its own gradient penalty"),
        ] = "relativistic",
        gamma: Annotated[
            float,
            Field(
                ge=0,
                description="weight of R1 and R2 at 32 x 32, falling to a tenth; grows with the resolution squared",
            ),
        ] = 1.0,
        r2: Annotated[bool, Field(description="penalise the slope at made pieces too, not at real ones alone")] = True,
        lazy: Annotated[
            int, Field(gt=0, description="gradient penalties look at one in so many pieces of a batch")
        ] = 4,
        critic: Annotated[
            int | None, Field(gt=0, description="moves of the discriminator a step; none: 5 for wasserstein, else 1")
        ] = None,
        target: Annotated[
            float, Field(ge=0, le=1, description="overfitting at which augmentation sets in; 1: never")
        ] = 0.6,
        lr: Annotated[
            float | None,
            Field(
                gt=0, description="of both players; none: 3e-3 up to 32 x 32 and width 32, less in proportion beyond"
            ),
        ] = None,
        momentum: Annotated[float, Field(ge=0, lt=1, description="first beta of Adam")] = 0.0,
        drop: Annotated[float, Field(ge=0, le=1, description="share of pieces whose condition is forgotten")] = 0.1,
    ) -> None:
        super().__init__(spec)
        spec.space.need("grid", model="gan")
        self.adversary, self.straight = ADVERSARIES[loss], loss == "wasserstein"
        self.latent, self.lazy, self.r2, self.target, self.drop = latent, lazy, r2, target, drop
        self.gamma = gamma * prod(spec.space.axes) / 1024
        optimiser = Optimiser("adam", lr=lr or rate(spec, width), betas=(momentum, 0.99))
        repeats = critic or (5 if self.straight else 1)
        self.phases = (
            Phase("discriminator", ("discriminator",), repeats, optimiser),
            Phase("generator", ("generator",), optimiser=optimiser),
        )
        makes, judges = BODIES[body]
        self.generator = Generator(makes, spec, latent, width)
        self.discriminator = Discriminator(judges, spec, width)
        self.register_buffer("augmentation", torch.zeros(()))  # the probability of each change
        self.register_buffer("overfitting", torch.zeros(()))  # a running mean, see `certainty`
        self.labels = [
            (f, at.start) for f, at in (spec.condition.slices() if spec.condition else []) if f.kind == "label"
        ]
        for i, (field, _) in enumerate(self.labels):
            self.register_buffer(f"frequency{i}", torch.ones(len(field.values)))

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        condition = drop_condition(batch.condition, self.drop)
        z = torch.randn(len(batch), self.latent, device=batch.x.device)
        if phase == "generator":
            return self._generator_loss(batch.x, z, condition)
        with torch.no_grad():
            fake = self.generator(z, condition)
        return self._discriminator_loss(batch.x, fake, condition, progress)

    def _generator_loss(self, real: Tensor, z: Tensor, condition: Tensor | None) -> Losses:
        fake_logits = self._judge(self.generator(z, condition), condition)
        with torch.no_grad():
            real_logits = self._judge(real, condition) if self.adversary.paired else torch.zeros_like(fake_logits)
        return Losses({"adversary": self.adversary.generator(real_logits, fake_logits)})

    def _discriminator_loss(self, real: Tensor, fake: Tensor, condition: Tensor | None, progress: float) -> Losses:
        real_logits, fake_logits = self._judge(torch.cat([real, fake]), _twice(condition)).chunk(2)
        terms = {"adversary": self.adversary.discriminator(real_logits, fake_logits)}
        few = slice(0, -(-len(real) // self.lazy))
        terms |= self._penalties(real[few], fake[few], None if condition is None else condition[few], progress)
        self.overfitting.lerp_(certainty(real_logits.detach(), fake_logits.detach()), 0.02)
        if self.target < 1:
            self.augmentation.copy_(follow(self.augmentation, self.overfitting, len(real), self.target))
        return Losses(terms, {"overfitting": self.overfitting.clone(), "augmentation": self.augmentation.clone()})

    def _penalties(self, real: Tensor, fake: Tensor, condition: Tensor | None, progress: float) -> dict[str, Tensor]:
        """Of a part of the batch: as cheap as a penalty of the whole at every n-th step only, but no step goes without."""
        if self.straight:
            return {"penalty": 10 * straightness(self._slope, real, fake, condition)}
        weight = self.gamma * 0.1**progress / 2
        if weight == 0:
            return {}
        if not self.r2:
            return {"r1": weight * steepness(self._slope, real, condition).mean()}
        r1, r2 = steepness(self._slope, torch.cat([real, fake]), _twice(condition)).chunk(2)
        return {"r1": weight * r1.mean(), "r2": weight * r2.mean()}

    def _judge(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.discriminator(augment(x, self.augmentation) if self.augmentation > 0 else x, condition)

    def _slope(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """The logits again; by `forward`, for a compiled call cannot be differentiated twice."""
        return self.discriminator.forward(x, condition)

    @torch.no_grad()
    def after_step(self, phase: str) -> None:
        """Buffers are the same in every process."""
        if world() > 1:
            for buffer in (b for b in self.buffers() if b.is_floating_point()):
                dist.all_reduce(buffer)
                buffer /= world()

    @torch.no_grad()
    def conclude(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Fit the statistics of BatchNorm to these very weights, for those gathered on the way belong to older ones; count the labels."""
        z = noise(range(SETTLED), (self.latent,), self.device)
        condition = _conditions(batches(), SETTLED, self.device) if self.spec.condition else None
        for i, (field, column) in enumerate(self.labels):
            known = condition[:, column][~condition[:, column].isnan()].long()  # type: ignore[index]
            self.get_buffer(f"frequency{i}").copy_(torch.bincount(known, minlength=len(field.values)))
        parts = [
            (z[i : i + 256], None if condition is None else condition[i : i + 256]) for i in range(0, SETTLED, 256)
        ]
        nets.settle(self.generator, parts)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """A temperature below 1 keeps closer to the typical piece. Raises SpaceError where a source is to be varied."""
        return self.generator(*self._wish(request))

    @torch.no_grad()
    def interpolate(self, request: SampleRequest, positions: Sequence[float]) -> Tensor:
        """Along the great circle between the two latents, and straight between the two conditions."""
        z, condition = self._wish(request.with_(seeds=request.seeds[:2]))
        t = torch.tensor(positions, dtype=z.dtype, device=z.device)[:, None]
        known = self.generator.embed(condition, 2)
        if self.generator.body.features:
            known = torch.lerp(known[:1], known[1:], t)
        return self.generator.body(slerp(z[:1], z[1:], t), known)

    @torch.no_grad()
    def eyes(self, x: Tensor) -> Tensor:
        """(B, *space.shape) -> (B, D): what the discriminator's verdict is made of."""
        return self.discriminator.body(x)

    def _wish(self, request: SampleRequest) -> tuple[Tensor, Tensor | None]:
        """Latents (B, latent) and conditions; a label that is not asked for is drawn as often as the corpus has it."""
        if request.source is not None:
            raise SpaceError(
                "gan makes pieces from noise and cannot start from a source; vae varies one, flow varies or completes one"
            )
        z = request.noise((self.latent,), self.device) * request.temperature
        if self.spec.condition is None:
            return z, None
        condition = request.condition
        if condition is None:
            condition = torch.full((1, self.spec.condition.width), torch.nan)
        condition = condition.to(self.device).expand(len(request), -1).clone()
        for i, (_, column) in enumerate(self.labels):
            frequency = self.get_buffer(f"frequency{i}").cpu()
            for row, seed in enumerate(request.seeds):
                if frequency.sum() > 0 and condition[row, column].isnan():
                    condition[row, column] = float(torch.multinomial(frequency, 1, generator=generator(seed, i + 1)))
        return z, condition


class Generator(nn.Module):
    """latent (B, latent), condition (B, width) or None -> pieces (B, *shape) in [-1, 1]"""

    def __init__(self, body: type[nn.Module], spec: DataSpec, latent: int, width: int):
        super().__init__()
        self.embed = ConditionEmbedding(spec.condition, latent)
        self.body = body(spec.space.shape, latent, width, features=latent if spec.condition else 0)

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        return self.body(z, self.embed(condition, len(z)))


class Discriminator(nn.Module):
    """pieces (B, *shape), condition -> logits (B,): a linear head and the projection of the condition on the same features
    (Miyato & Koyama 2018, arXiv:1802.05637)."""

    def __init__(self, body: type[nn.Module], spec: DataSpec, width: int):
        super().__init__()
        self.body = body(spec.space.shape, width)
        self.embed = ConditionEmbedding(spec.condition, self.body.features)
        self.head = nn.Linear(self.body.features, 1, bias=False)  # most losses see differences of logits alone

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.body(x)
        projection = (h * self.embed(condition, len(h))).sum(1) / self.body.features**0.5
        return (self.head(h).squeeze(1) + projection).float()


def rate(spec: DataSpec, width: int) -> float:
    """The learning rate: what is fastest at 28 pixels lets the discriminator run away at 64."""
    return 3e-3 * min(1.0, 1024 / prod(spec.space.axes)) * min(1.0, 32 / width)


BODIES = {
    "conv": (nets.Generator, nets.Discriminator),
    "classic": (nets.ClassicGenerator, nets.ClassicDiscriminator),
}


def minimax_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), D the sigmoid of the logits (Goodfellow 2014, eq. 1)"""
    return softplus(-real).mean() + softplus(fake).mean()


def minimax_generator(real: Tensor, fake: Tensor) -> Tensor:
    """log(1 - D(G(z))): the same value, which the generator wants small; it fades where the discriminator is sure"""
    return -softplus(fake).mean()


def non_saturating_generator(real: Tensor, fake: Tensor) -> Tensor:
    """-log D(G(z)) (Goodfellow 2014, section 3): strongest where the discriminator is sure"""
    return softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """(Lim & Ye 2017, arXiv:1705.02894)"""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """(Arjovsky 2017, arXiv:1701.07875)"""
    return fake.mean() - real.mean()


def wasserstein_generator(real: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(C(x) - C(G(z))) over pairs (Jolicoeur-Martineau 2018, arXiv:1807.00734)"""
    return softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return softplus(real - fake).mean()


class Adversary(NamedTuple):
    """What each player wants small: functions of the logits of real and of made pieces, both (B,) -> 0-d, a mean over the batch.

    paired  whether the generator needs the logits of real pieces
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    paired: bool = False


ADVERSARIES = {
    "minimax": Adversary(minimax_discriminator, minimax_generator),
    "non-saturating": Adversary(minimax_discriminator, non_saturating_generator),
    "hinge": Adversary(hinge_discriminator, wasserstein_generator),
    "wasserstein": Adversary(wasserstein_discriminator, wasserstein_generator),
    "relativistic": Adversary(relativistic_discriminator, relativistic_generator, paired=True),
}

Judge = Callable[[Tensor, Tensor | None], Tensor]


def steepness(judge: Judge, x: Tensor, condition: Tensor | None) -> Tensor:
    """|grad of the logit at x|^2 of each piece (B,): R1 at real pieces, R2 at made ones (Mescheder 2018, arXiv:1801.04406).

    >>> steepness(lambda x, _: 3 * x.sum((1, 2)), torch.zeros(2, 1, 4), None)
    tensor([36., 36.])
    """
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge(x, condition).sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


def straightness(judge: Judge, real: Tensor, fake: Tensor, condition: Tensor | None) -> Tensor:
    """(|grad| - 1)^2 on the lines between real and made pieces, a mean (Gulrajani 2017, arXiv:1704.00028, eq. 3)"""
    t = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    steep = steepness(judge, torch.lerp(real, fake, t), condition)
    return (steep.add(1e-12).sqrt() - 1).square().mean()


def certainty(real: Tensor, fake: Tensor) -> Tensor:
    """Mean sign of the logits of real pieces, in [-1, 1] (r_t of ADA, eq. 1); measured from the middle between real and made ones,
    for most losses leave the zero of the logits free."""
    return (real - (real.mean() + fake.mean()) / 2).sign().mean()


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1, D), (1, D), (N, 1) in [0, 1] -> (N, D): along the great circle (White 2016, arXiv:1609.04468), so that norms stay typical."""
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b).clamp(-0.9995, 0.9995))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def _conditions(batches: Iterable[Batch], count: int, device: torch.device) -> Tensor:
    """`count` conditions of the corpus, over again where it has fewer."""
    rows: list[Tensor] = []
    for batch in batches:
        rows.append(batch.condition)
        if sum(map(len, rows)) >= count:
            break
    found = torch.cat(rows)
    return found[torch.arange(count) % len(found)].to(device)


def _twice(condition: Tensor | None) -> Tensor | None:
    return None if condition is None else torch.cat([condition, condition])
