"""The part of any model that a task head stands on, cut out of it by name: what remains sees pieces and decides nothing.

network, part = foundation(model, "vae")    the network, and its name within the model, so that weights are found again
cells(network, x, space)                    (B, M, D), what it holds at its coarsest
vector(network, x, space)                   (B, D), with gradients
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.errors import SpaceError
from maquette.nets.adversary import Discriminator
from maquette.nets.cells import ToCells
from maquette.nets.conv import CONV, Encoder, Unpatch, norm, same
from maquette.nets.dense import ToVector
from maquette.nets.transformer import Decoder as TokenDecoder
from maquette.nets.transformer import Encoder as TokenEncoder
from maquette.nets.trunk import layers, pooled
from maquette.nets.unet import UNet
from maquette.space import Space

PLACES = ("body", "encoder.0", "encoder", "discriminator.body", "model")  # where models keep a network that sees pieces
HIDDEN = 0.1  # share of tokens that are not shown while a head learns, so that none is relied on


def foundation(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The network of a model that sees pieces, and its name there. Raises SpaceError where it has none that is known."""
    modules = dict(model.named_modules())
    for part in PLACES:
        if type(modules.get(part)) in KINDS:
            return modules[part], part
    raise SpaceError(
        f"{name} has no network that a task head can stand on; vae, vqvae, gan, flow, transformer and pretext tasks have"
    )


def headless(network: nn.Module) -> nn.Module:
    """The same without what only its own model needs: every number that is left is used."""
    if isinstance(network, ToCells):
        network.head = nn.Identity()
    if isinstance(network, ToVector):
        network.head[-1] = nn.Identity()
    if isinstance(network, Encoder):
        network.head[-1] = nn.Identity()
    if isinstance(network, UNet):
        network.up, network.after = nn.ModuleList(), nn.ModuleList()
        network.norm, network.head = nn.Identity(), nn.Identity()
    return network


def seen(network: nn.Module, x: Tensor) -> list[Tensor]:
    """x (B, C, *axes) -> what the network holds of it, each (B, C', *axes') or (B, D), from fine to coarse."""
    return KINDS[type(network)](network, x)


def _of(body: str) -> Callable[[Any, Tensor], list[Tensor]]:
    return lambda network, x: layers(body, network, x)


def _convolved(network: Encoder, x: Tensor) -> list[Tensor]:
    """A VAE's of large pieces; its room for the condition stays empty."""
    found = [network.down[0](x)]
    for layer in network.down[1:]:
        found.append(layer(F.gelu(found[-1])))
    h = found[-1]
    for block in network.blocks:
        room = block.film.project.in_features if block.film is not None else 0
        h = block(h, h.new_zeros(len(h), room) if room else None)
    return [*found, network.head(h)]


def _nothing(network: nn.Module, x: Tensor) -> list[Tensor]:
    raise NotImplementedError("tokens are read, not seen")


KINDS = {
    ToCells: _of("vqvae"),
    ToVector: _of("vae"),
    Discriminator: _of("gan"),
    UNet: _of("flow"),
    Encoder: _convolved,
    TokenEncoder: _nothing,
    TokenDecoder: _nothing,
}


# ---- features


def cells(network: nn.Module, x: Tensor, space: Space) -> Tensor:
    """x (B, *shape) -> (B, M, D): the places of the coarsest grid, or each token of the first window with what the network makes of it."""
    if space.kind == "tokens":
        return _tokens(network, x[:, : _span(network)])
    h = seen(network, x)[-1]
    return h.unsqueeze(1) if h.ndim == 2 else rearrange(h, "b c ... -> b (...) c")


def vector(network: nn.Module, x: Tensor, space: Space) -> Tensor:
    """x (B, *shape), of a ragged space (B, n) of any n -> (B, D): averages over cells; over all tokens with the end, window after window."""
    if space.kind == "grid":
        return pooled(seen(network, x)[-1])
    counted = space.counted(x) if space.ragged else torch.ones_like(x, dtype=torch.bool)
    total: Tensor | float = 0.0
    for part, mine in zip(x.split(_span(network), 1), counted.split(_span(network), 1), strict=True):
        if bool(mine.any()):
            total = total + (_tokens(network, part) * mine.unsqueeze(2)).sum(1)
    return total / counted.sum(1, keepdim=True)


def _tokens(network: nn.Module, x: Tensor) -> Tensor:
    """tokens (B, n) -> (B, n, width); of a chain each after it was read."""
    room = _room(network)
    context = None if room is None else x.new_zeros(len(x), room, dtype=torch.float32)
    if isinstance(network, TokenDecoder):
        return network(x, context)[:, 1:]
    hidden = torch.rand(x.shape, device=x.device) < (HIDDEN if network.training else 0.0)
    return network(x, hidden, context)


def _span(network: Any) -> int:
    """Tokens that a network reads at once; a chain has its start before them."""
    return network.length - isinstance(network, TokenDecoder)


def _room(network: Any) -> int | None:
    """The width of the condition that a network of tokens was told, which a head does not know."""
    film = network.layers[0].film
    return None if film is None else film.in_features


# ---- back to a whole piece


class Ladder(nn.Module):
    """What a network holds, from fine to coarse -> a piece (B, C, *axes): up again over the same grids, each beside what was held there
    (as in a U-Net, Ronneberger 2015, arXiv:1505.04597). Starts at zero. shapes: of what is held of one piece."""

    def __init__(self, shapes: Sequence[Sequence[int]], channels: int, axes: Sequence[int], width: int):
        super().__init__()
        one = CONV[len(axes) - 1]
        grids = [tuple(s[1:]) for s in shapes if len(s) > 1]
        self.grids, self.flat = grids, [len(s) == 1 for s in shapes]
        wide = [n for s in shapes if len(s) == 1 for n in s]
        self.sums = nn.ModuleList([nn.Linear(n, width) for n in wide])
        self.sides = nn.ModuleList([one(s[0], width, 1) for s in shapes if len(s) > 1])
        self.mix = nn.ModuleList([nn.Sequential(norm(width, g), nn.GELU(), same(g, width, width)) for g in grids])
        patch = max(1, *(-(-n // m) for n, m in zip(axes, grids[0], strict=True)))
        self.head = Unpatch(axes, width, channels, patch)
        nn.init.zeros_(self.head.conv.weight)
        nn.init.zeros_(self.head.conv.bias)

    def forward(self, held: Sequence[Tensor]) -> Tensor:
        whole = [h for h, flat in zip(held, self.flat, strict=True) if flat]
        spread = [h for h, flat in zip(held, self.flat, strict=True) if not flat]
        h: Tensor | None = None
        for side, mix, here, grid in reversed(list(zip(self.sides, self.mix, spread, self.grids, strict=True))):
            beside = side(here)
            if h is None:
                for add, v in zip(self.sums, whole, strict=True):
                    beside = beside + add(v).view(len(v), -1, *(1,) * len(grid))
            else:
                beside = beside + F.interpolate(h, size=grid)
            h = beside + mix(beside)
        return self.head(h)
