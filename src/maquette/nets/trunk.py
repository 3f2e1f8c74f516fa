"""The networks that pretext tasks train and other runs start from: each the very class, width and names its model has, so that weights match.

encoder = trunk(spec, "vqvae", "small")     what VQVAE's encoder.0 is, less the head that is the model's own affair
layers("vqvae", encoder, x)                 what it holds of x, from fine to coarse
pooled(layers(...)[-1])                     (B, D), the features of a piece
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.errors import SpaceError
from maquette.nets.adversary import Discriminator
from maquette.nets.cells import ToCells
from maquette.nets.conv import depth, pyramid
from maquette.nets.dense import ToVector
from maquette.nets.transformer import Encoder, usual_dropout
from maquette.nets.unet import UNet
from maquette.space import DataSpec, Space

GridBody = Literal["vqvae", "vae", "gan", "flow"]
Size = Literal["tiny", "small", "medium", "large"]
CONTEXT = 64  # of the condition of a VAE, which is not looked at here
CELLS = 2  # along each axis, that the features of a convolutional body are averaged over
MOST = 1024  # features of a piece; beyond, they are averaged over the whole grid
SIZES: Mapping[str, Mapping[Size, dict[str, int]]] = {  # tests compare these with the models' own
    "vqvae": {
        "tiny": {"width": 16, "blocks": 0},
        "small": {"width": 64, "blocks": 0},
        "medium": {"width": 96, "blocks": 1},
        "large": {"width": 128, "blocks": 2},
    },
    "vae": {
        "tiny": {"width": 16, "dense": 128, "blocks": 1},
        "small": {"width": 32, "dense": 512, "blocks": 1},
        "medium": {"width": 64, "dense": 1024, "blocks": 2},
        "large": {"width": 128, "dense": 2048, "blocks": 3},
    },
    "gan": {"tiny": {"width": 16}, "small": {"width": 32}, "medium": {"width": 64}, "large": {"width": 128}},
    "flow": {
        "tiny": {"width": 16, "blocks": 1, "dense": 128},
        "small": {"width": 64, "blocks": 1, "dense": 512},
        "medium": {"width": 64, "blocks": 3, "dense": 1024},
        "large": {"width": 128, "blocks": 4, "dense": 2048},
    },
    "transformer": {
        "tiny": {"width": 48, "layers": 2},
        "small": {},
        "medium": {"width": 192, "layers": 6},
        "large": {"width": 512, "layers": 12, "head_width": 64},
    },
}


def trunk(spec: DataSpec, body: str, size: Size) -> nn.Module:
    """The network of a body at a size of the dial. Raises SpaceError where a piece is one place or no grid and no tokens."""
    return BODIES[body].build(spec, **SIZES[body][size])


def layers(body: str, encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """x (B, C, *axes) -> what the network holds of it, each (B, C', *axes') or (B, D), from fine to coarse."""
    return BODIES[body].layers(encoder, x)


def pooled(h: Tensor) -> Tensor:
    """(B, C, *axes) -> (B, D), averaged over two parts of each axis, or over all where that would be more than 1,024 numbers."""
    if h.ndim == 2:
        return h
    cells = [min(n, CELLS) for n in h.shape[2:]]
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[len(cells) - 1]
    return (pool(h, cells) if h.shape[1] * prod(cells) <= MOST else h.flatten(2).mean(2)).flatten(1)


def coarseness(space: Space, most_codes: int = 256, most_values: int = 64) -> int:
    """How often to halve: until a piece has at most 256 codes, and further while a code stands for at most 64 values.

    >>> [coarseness(Space("grid", s)) for s in ((1, 28, 28), (4, 32, 32), (3, 64, 64), (3, 128, 128), (1, 8, 8))]
    [3, 2, 2, 3, 1]
    """
    for halvings in range(20):
        here, next_ = (prod(pyramid(space.axes, n)[-1]) for n in (halvings, halvings + 1))
        small = here <= most_codes and (space.elements > most_values * next_ or halvings >= depth(space.axes, 4))
        if small:
            return halvings
    return halvings


class Body(NamedTuple):
    build: Callable[..., nn.Module]
    layers: Callable[[Any, Tensor], list[Tensor]]


# ---- each body


def _cells(spec: DataSpec, width: int, blocks: int) -> nn.Module:
    channels, *axes = spec.space.shape
    made = ToCells(channels, axes, 1, width=width, halvings=coarseness(spec.space), blocks=blocks)
    made.head = nn.Identity()
    return made


def _cells_layers(encoder: ToCells, x: Tensor) -> list[Tensor]:
    found = [encoder.stem(x)]
    for fall in encoder.falls:
        found.append(fall(F.gelu(found[-1])))
    return [*found, F.gelu(encoder.norm(encoder.blocks(found[-1])))]


def _vector(spec: DataSpec, width: int, blocks: int, dense: int) -> nn.Module:
    channels, *axes = spec.space.shape
    context = CONTEXT if spec.condition else 0
    made = ToVector(channels, axes, 1, width=width, blocks=blocks, dense=dense, context=context)
    made.head[-1] = nn.Identity()
    return made


def _vector_layers(encoder: ToVector, x: Tensor) -> list[Tensor]:
    """A VAE's room for the condition stays empty."""
    stem = encoder.stem(x)
    h = encoder.blocks(stem)
    flat = h.flatten(1)
    mixed = encoder.mix(F.pad(flat, (0, encoder.mix.in_features - flat.shape[1])))
    return [stem, h, encoder.head(mixed)]


def _judge(spec: DataSpec, width: int) -> nn.Module:
    return Discriminator(spec.space.shape, width)


def _judge_layers(encoder: Discriminator, x: Tensor) -> list[Tensor]:
    found = [encoder.stem(x)]
    for fall in encoder.falls:
        found.append(fall(found[-1]))
    return [*found, F.leaky_relu(encoder.whole(found[-1].flatten(1)), 0.2)]


def _unet(spec: DataSpec, width: int, blocks: int, dense: int) -> nn.Module:
    channels, *axes = spec.space.shape
    return UNet(channels, axes, width=width, blocks=blocks, dense=dense, features=128, patch=4)


def _unet_layers(encoder: UNet, x: Tensor) -> list[Tensor]:
    """Down to the coarsest grid, at time 1, where a piece is whole."""
    context = F.gelu(encoder.time(torch.ones(len(x), device=x.device)))
    found = [encoder.stem(x)]
    h = found[0]
    for layer, down in zip(encoder.before, encoder.down, strict=True):
        h = down(layer(h, context))
        found.append(h)
    h = encoder.whole(h, context)
    for block in encoder.blocks:
        h = block(h, context)
    return [*found, h]


def _tokens(
    spec: DataSpec, width: int | None = None, layers: int | None = None, head_width: int | None = None
) -> nn.Module:
    space = spec.space
    width = width or (128 if space.ragged else 96)
    head_width = head_width or (64 if space.ragged and width % 64 == 0 else 48)
    return Encoder(
        space.vocabulary,
        space.shape[0],
        width=width,
        layers=layers or (4 if space.ragged else 3),
        heads=width // head_width,
        dropout=usual_dropout(spec.tokens),
        absolute=not space.ragged,
        digits=space.digits,
        periods=space.periods,
    )


def _tokens_layers(encoder: Encoder, x: Tensor) -> list[Tensor]:
    return [encoder(x, torch.zeros_like(x, dtype=torch.bool)).transpose(1, 2)]


BODIES = {
    "vqvae": Body(_cells, _cells_layers),
    "vae": Body(_vector, _vector_layers),
    "gan": Body(_judge, _judge_layers),
    "flow": Body(_unet, _unet_layers),
    "transformer": Body(_tokens, _tokens_layers),
}


def fitting(space: Space, body: str | None, usual: str, task: str) -> str:
    """The body a task works on: tokens have one; of a grid the one asked for, else the usual. Raises SpaceError in words."""
    space.need("grid", "tokens", model=task)
    if space.kind == "tokens":
        if body:
            raise SpaceError(f"{task}.body chooses among bodies of grids; these pieces are tokens, drop it")
        return "transformer"
    if max(space.axes) == 1:
        raise SpaceError(f"{task} needs places beside each other; these pieces are grids of shape {space.shape}")
    return body or usual
