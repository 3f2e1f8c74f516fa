"""What a piece shows, in words: a small transformer (Vaswani 2017, arXiv:1706.03762) writes the words of a caption, looking at the places
of the piece (as in Xu 2015, arXiv:1502.03044)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maquette.condition import CJK
from maquette.nets.sampling import collect, write
from maquette.nets.standing import cells
from maquette.nets.transformer import Decoder
from maquette.nets.trunk import GridBody, Size
from maquette.space import Batch, DataSpec, Losses, SampleRequest, Space
from maquette.tasks._head import TaskHead

OTHER = 0  # index of all words that occurred once; it is never written


class Caption(TaskHead):
    """Writes a few words about a piece, from what it learnt of a column of words."""

    needs: ClassVar[tuple[str, ...]] = ("caption",)
    usual = "vqvae"

    def __init__(
        self,
        spec: DataSpec,
        *,
        column: Annotated[str | None, Field(description="of words; none: the first there is")] = None,
        body: Annotated[GridBody | None, Field(description="network of grids without a start; none: vqvae")] = None,
        size: Annotated[Size, Field(description="of that network on the dial")] = "small",
        built: Annotated[
            dict[str, Any], Field(description="how the network of a start is rebuilt; filled in by adapt")
        ] = {},  # noqa: B006
        width: Annotated[int, Field(gt=0, multiple_of=32, description="features of each word")] = 64,
        layers: Annotated[int, Field(gt=0, description="blocks of the writer")] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1, description="of the writer while learning")] = 0.1,
    ):
        super().__init__(spec, column, body, size, built)
        self.words, self.end = self.field.values, len(self.field.values)
        self.answers = Space("tokens", (self.field.length + 1,), self.end + 1, end=self.end)
        x = torch.zeros(1, *spec.space.shape, dtype=torch.long if spec.space.kind == "tokens" else torch.float32)
        with torch.no_grad():
            places, features = cells(self.body, x, spec.space).shape[1:]
        length = max(places, self.answers.shape[0]) + 1
        self.head = nn.ModuleDict(
            {
                "look": nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width)),
                "writer": Decoder(
                    self.end + 1,
                    length,
                    width=width,
                    layers=layers,
                    heads=width // 32,
                    dropout=dropout,
                    absolute=False,
                    crossed=True,
                ),
                "words": nn.Linear(width, self.end + 1),
            }
        )
        self.where = nn.Parameter(0.02 * torch.randn(places, width))
        self.heads = ("head", "where")

    def looked(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> (B, M, width): the places a writer looks at"""
        h = self.head["look"](cells(self.body, x, self.spec.space))
        return h + self.where[: h.shape[1]]

    def logits(self, other: Tensor, tokens: Tensor) -> Tensor:
        """other (B, M, width), tokens (B, n) -> (B, n + 1, V): each word after those before it"""
        return self.head["words"](self.head["writer"](tokens, other=other))

    def targets(self, batch: Batch) -> Tensor:
        """(B, L + 1): the words, then the end; -100 after it, and all over where nothing is known"""
        asked = F.pad(self.asked(batch), (0, 1), value=torch.nan)
        known = ~asked.isnan()
        count = known.sum(1, keepdim=True)
        words = torch.where(known, torch.nan_to_num(asked).long(), -100)
        place = torch.arange(words.shape[1], device=words.device)
        return torch.where((place == count) & (count > 0), self.end, words)

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        nats, count = self.judged(batch)
        return Losses({"nats_per_word": nats.sum() / count.sum().clamp_min(1)})

    def judged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) each: nats of the true words and the end, and how many these are."""
        target = self.targets(batch)
        logits = self.logits(self.looked(batch.x), target[:, :-1].clamp_min(0)).float()
        nats = F.cross_entropy(logits.transpose(1, 2), target, reduction="none", ignore_index=-100)
        return nats.sum(1), (target >= 0).sum(1)

    @torch.no_grad()
    def validation(self, batches: Callable[[], Iterable[Batch]]) -> dict[str, float]:
        nats, count = (torch.cat(part) for part in zip(*map(self.judged, batches()), strict=True))
        return {"nats_per_word": float(nats.sum() / count.sum())} if count.sum() else {}

    @torch.no_grad()
    def written(self, x: Tensor, seeds: tuple[int, ...] | None = None, temperature: float = 0.0) -> list[str]:
        """x (B, *shape) -> a caption each; at temperature 0 the likeliest word every time."""
        other = self.looked(x)
        read: list[Tensor] = []

        def reader(tokens: Tensor) -> Tensor:
            read.append(tokens)
            logits = self.logits(other, torch.cat(read, 1))[:, -1].float()
            logits[:, OTHER] = -torch.inf
            return logits

        request = SampleRequest(seeds or tuple(range(len(x))), temperature=temperature)
        rows = collect(write(reader, request, self.answers, x.device))
        return [self.spoken(row.tolist()) for row in rows]

    def spoken(self, tokens: Iterable[int]) -> str:
        """The words up to the end; those of writing without spaces stand close."""
        found: list[str] = []
        for token in tokens:
            if token == self.end:
                break
            found.append(self.words[token] if token > OTHER else "...")
        return re.sub(rf"(?<=[{CJK}]) (?=[{CJK}])", "", " ".join(found))

    def answer(self, x: Tensor, seed: int = 0, temperature: float = 0.0) -> Mapping[str, Any]:
        """x (1, *shape) -> {column: words}"""
        return {self.field.name: self.written(x, (seed,), temperature)[0]}
