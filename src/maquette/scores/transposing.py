"""Music in another key is as likely: tokens moved by semitones, and what is known of them moved along."""

from __future__ import annotations

import torch
from torch import Tensor

from maquette.condition import Condition, Field
from maquette.scores.harmony import TONICS
from maquette.scores.layout import REST


def moved(x: Tensor, shift: Tensor) -> Tensor:
    """Tokens (B, ...) with each row's pitches moved by shift (B,); what is no pitch stays."""
    by = shift.reshape(-1, *[1] * (x.dim() - 1))
    return torch.where((x >= 0) & (x < REST), x + by, x)


def chances(x: Tensor, shifts: range) -> Tensor:
    """(B,) one of `shifts` for each row of tokens (B, n), by torch's chance, so that no pitch leaves 0..127."""
    pitched = (x >= 0) & (x < REST)
    low, high = torch.where(pitched, x, 127).amin(1), torch.where(pitched, x, 0).amax(1)
    least, most = (-low).clamp(min=shifts[0], max=0), (127 - high).clamp(min=0, max=shifts[-1])
    return least + (torch.rand(len(x), device=x.device) * (most - least + 1)).long().minimum(most - least)


def told(rows: Tensor, condition: Condition, shift: Tensor) -> Tensor:
    """Rows of conditions (B, width) with `shift`, `key` and `register` as they are after the move; what is not known stays so."""
    rows = rows.clone()
    for field, where in condition.slices():
        if field.name == "shift" and field.kind == "label":
            rows[:, where] = rows.new_tensor([_index(field, str(s)) for s in shift.tolist()])[:, None]
        elif field.name == "key" and field.kind == "label":
            pairs = zip(rows[:, where][:, 0].tolist(), shift.tolist(), strict=True)
            rows[:, where] = rows.new_tensor([_rotated(field, index, by) for index, by in pairs])[:, None]
        elif field.name == "register" and field.kind == "number":
            rows[:, where] += shift[:, None] / field.std
    return rows


def _index(field: Field, name: str) -> float:
    """NaN for a value that the corpus does not have."""
    return float(field.values.index(name)) if name in field.values else float("nan")


def _rotated(field: Field, index: float, by: int) -> float:
    """The tonic moved; NaN where it was, or would be, none that the corpus has."""
    name = field.values[int(index)] if index == index else ""
    return _index(field, TONICS[(TONICS.index(name) + by) % 12]) if name in TONICS else float("nan")
