"""Labels, tags, numbers and captions as one vector, and the dropping of conditions that guidance needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maquette.condition import Condition, Field


class ConditionEmbedding(nn.Module):
    """condition (B, width), NaN for what is not known -> (B, features), the sum over the fields; None -> nothing is known.

    A field that is not known contributes a learnt vector of its own, so one network serves with and without.
    """

    def __init__(self, condition: Condition | None, features: int):
        super().__init__()
        self.features = features
        self.width = condition.width if condition else 0
        slices = condition.slices() if condition else []
        self.columns = [columns for _, columns in slices]
        self.fields = nn.ModuleList([_FieldEmbedding(f, features) for f, _ in slices])
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(features, features)) if slices else None

    def forward(self, condition: Tensor | None, batch: int) -> Tensor | float:
        """(B, width) or None -> (B, features); 0.0 where the corpus knows nothing that could steer."""
        if self.mix is None:
            return 0.0
        if condition is None:
            condition = torch.full((batch, self.width), torch.nan, device=self.mix[1].weight.device)
        parts = [embed(condition[:, columns]) for embed, columns in zip(self.fields, self.columns, strict=True)]
        return self.mix(torch.stack(parts).sum(0))


class _FieldEmbedding(nn.Module):
    """columns (B, field.width) -> (B, features)"""

    def __init__(self, field: Field, features: int):
        super().__init__()
        self.kind = field.kind
        self.unknown = nn.Parameter(torch.randn(features) * 0.02)
        if field.kind in ("label", "caption"):
            self.embed = nn.Embedding(len(field.values), features)
        else:
            self.project = nn.Linear(field.width, features)
        if field.kind == "caption":
            self.position = nn.Parameter(torch.randn(field.length, features) * 0.02)
            self.score = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        known = ~torch.isnan(x)
        filled = torch.nan_to_num(x)
        if self.kind == "label":
            found = self.embed(filled[:, 0].long())
        elif self.kind == "caption":
            found = self._caption(filled.long(), known)
        else:
            found = self.project(filled)
        return torch.where(known.any(1, keepdim=True), found, self.unknown)

    def _caption(self, words: Tensor, known: Tensor) -> Tensor:
        """Attention pooling over the words of a caption."""
        h = nn.functional.gelu(self.embed(words) + self.position)
        weights = self.score(h).squeeze(-1).masked_fill(~known, -1e4).softmax(1)
        return torch.einsum("bl,bld->bd", weights, h)


def drop_condition(condition: Tensor | None, rate: float) -> Tensor | None:
    """Forget the whole condition of a share `rate` of the batch (Ho & Salimans 2022, arXiv:2207.12598)."""
    if condition is None or rate == 0:
        return condition
    forget = torch.rand(len(condition), 1, device=condition.device) < rate
    return condition.masked_fill(forget, torch.nan)
