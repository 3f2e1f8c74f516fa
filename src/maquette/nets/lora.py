"""LoRA (Hu 2021, arXiv:2106.09685): a frozen weight plus the product of two thin matrices, which alone move.

A layer stays the layer it is: `weight` keeps its name in every checkpoint, and whoever reads `layer.weight` (a decoding step, a
head) reads the sum. Beside it stand `lora_A` (r, *weight.shape[1:]) and `lora_B` (weight.shape[0], r), kernels of convolutions flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maquette.nets.transformer import Table


class Thin:
    """Mixed into a layer: its weight is W + scale * B A.

    The sum is computed anew at each call. On a CPU that is faster than to send what comes in through the thin matrices too:
    products with few columns wait for memory, and an optimiser of few numbers saves more than the whole gradient costs.
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    lora_scale: float

    @property
    def weight(self) -> Tensor:
        whole = self._parameters["weight"]  # type: ignore[attr-defined]
        return whole + self.lora_scale * (self.lora_B @ self.lora_A.flatten(1)).view_as(whole)


CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TABLES = (Table, nn.Embedding)
KINDS: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Thin{kind.__name__}", (Thin, kind), {}) for kind in (nn.Linear, *CONVS, *TABLES)
}


def most(layer: nn.Module) -> int:
    """The rank of a layer's weight: beyond it thin matrices are not thin."""
    return min(layer.weight.shape[0], layer.weight[0].numel())  # type: ignore[union-attr,index]


def thin(layer: nn.Module, rank: int, scale: float) -> None:
    """Give a layer its two matrices, in place; A by chance, B zero: what it computes does not change."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    a = weight.new_empty(rank, *weight.shape[1:])
    nn.init.kaiming_uniform_(a.view(rank, -1), math.sqrt(5))
    layer.__class__ = KINDS[type(layer)]
    layer.lora_A = nn.Parameter(a)
    layer.lora_B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
    layer.lora_scale = scale  # type: ignore[assignment]


@torch.no_grad()
def fold(layer: nn.Module) -> None:
    """The layer it was, in place, with the sum as its weight."""
    layer._parameters["weight"].copy_(layer.weight)  # type: ignore[union-attr,arg-type]
    del layer.lora_A, layer.lora_B, layer.lora_scale
    layer.__class__ = next(plain for plain, kind in KINDS.items() if kind is type(layer))


def thinned(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that have thin matrices, by name."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, Thin))
