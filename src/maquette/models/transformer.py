"""A transformer over tokens (Vaswani 2017, arXiv:1706.03762) in Qwen3's dress: the prior over codes, and the writer of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from maquette.errors import SettingError
from maquette.nets.attention import Cache
from maquette.nets.condition import ConditionEmbedding, drop_condition
from maquette.nets.decoding import Step
from maquette.nets.sampling import in_parts, write
from maquette.nets.transformer import Decoder, Encoder, Table, usual_dropout
from maquette.nets.unmasking import drawn_keep, unmask
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, Optimiser, Phase, SampleRequest

ROOM = 24 * 2**20  # bytes of a processor's cache that one may hope for
FEWEST = 8  # pieces at once, below which a step is more calls than arithmetic
SMALL = 300_000  # tokens of the train split below which smaller batches, and so more steps, learn more in the same time


class Transformer(GenerativeModel):
    """mode decoder: each token from those before it and the condition; the loss is nats per token, exact.

    encoder-decoder: the same chain with an encoder that reads what is kept of a piece, before and after each place; with nothing
    kept it is a chain like any other. masked: any token from any others (Devlin 2019, arXiv:1810.04805); it writes in any order.
    """

    phases = (
        Phase("model", optimiser=Optimiser("muon", lr=6e-3, muon_lr=2e-2, warmup=0.02, schedule="linear", clip=1.0)),
    )
    sizes = {
        "tiny": {"width": 48, "layers": 2},
        "small": {},
        "medium": {"width": 192, "layers": 6},
        "large": {"width": 512, "layers": 12, "head_width": 64},
    }
    search = {"width": [None, 48, 192], "layers": [None, 2, 6], "head_width": None}
    bf16 = True
    enters = {"encoder": "encoder", "model": "encoder", "lm_head": "exercises.masked.lm_head"}
    heads = ("lm_head", "*norm", "condition", "*.film", "*.start", "*.mask")

    def __init__(
        self,
        spec: DataSpec,
        *,
        mode: Annotated[
            Literal["decoder", "encoder-decoder", "masked"],
            Field(description="decoder: a chain; encoder-decoder: a chain that also looks ahead at what is kept"),
        ] = "decoder",
        width: Annotated[
            int | None,
            Field(
                gt=0, description="features of each position, a multiple of head_width; none: 96, or 128 for sequences"
            ),
        ] = None,
        layers: Annotated[
            int | None, Field(gt=0, description="blocks of attention and SwiGLU; none: 3, or 4 for sequences")
        ] = None,
        head_width: Annotated[
            int | None,
            Field(gt=0, multiple_of=2, description="features of each head; none: 48, or 64 where it divides the width"),
        ] = None,
        dropout: Annotated[
            float | None,
            Field(ge=0, lt=1, description="none: 0.2 below 200,000 tokens of training, 0.1 below a million, else 0"),
        ] = None,
        condition_dropout: Annotated[
            float, Field(ge=0, lt=1, description="share of pieces whose condition is hidden, for guidance")
        ] = 0.1,
        tied: Annotated[bool, Field(description="whether the head is the embedding, transposed")] = False,
        absolute: Annotated[
            bool | None, Field(description="learnt positions beside the rotary ones; none: for grids of codes")
        ] = None,
    ):
        super().__init__(spec)
        space = spec.space
        space.need("tokens", model="transformer")
        width = width or (128 if space.ragged else 96)
        layers = layers or (4 if space.ragged else 3)
        head_width = head_width or (64 if space.ragged and width % 64 == 0 else 48)
        if width % head_width:
            raise SettingError(f"transformer.width should be a multiple of head_width {head_width}; {width} came")
        self.mode, self.condition_dropout = mode, condition_dropout
        self.batch_size = 16 if 0 < spec.tokens < SMALL else 32
        self.length, self.vocabulary = space.shape[0], space.vocabulary
        body = {
            "width": width,
            "layers": layers,
            "heads": width // head_width,
            "dropout": usual_dropout(spec.tokens) if dropout is None else dropout,
            "features": width if spec.condition else 0,
            "absolute": not space.ragged if absolute is None else absolute,
            "digits": space.digits,
            "periods": space.periods,
            "scale": 0.02 if tied else 0.5,
        }
        self.condition = ConditionEmbedding(spec.condition, width)
        self.encoder = Encoder(self.vocabulary, self.length, **body) if mode != "decoder" else None
        self.model = (
            Decoder(self.vocabulary, self.length, **body, crossed=mode == "encoder-decoder")
            if mode != "masked"
            else None
        )
        self.lm_head = None if tied else Table(self.vocabulary, width, space.digits)
        self.heads = (*self.heads, "*.embed_tokens") if tied else self.heads

    @property
    def table(self) -> Table:
        return self.lm_head or (self.model or self.encoder).embed_tokens  # type: ignore[union-attr]

    # ---- learning

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        known = drop_condition(batch.condition, self.condition_dropout)
        batch = Batch(batch.x, known, batch.index, batch.before)
        keep = (
            None
            if self.encoder is None
            else drawn_keep(batch.x, self.spec.space, nothing=self.mode == "encoder-decoder")
        )
        asked = self.spec.space.counted(batch.x)
        if keep is not None:
            asked = asked & ~keep if bool((asked & ~keep).any()) else asked
        place, target = chosen(asked, batch.x)
        logits = self.head(self.hidden(batch, keep).flatten(0, 1)[place])
        return Losses({"nats_per_token": F.cross_entropy(logits.float(), target)})

    def hidden(self, batch: Batch, keep: Tensor | None = None) -> Tensor:
        """(B, n, width): what is known of each token before it is read; keep (B, n) bool: what the encoder may see."""
        context = self._context(batch.condition, len(batch.x))
        other = self._seen(batch.x, keep, context)
        if self.model is None:
            return other  # type: ignore[return-value]
        return self.model(batch.x[:, :-1], context, before=batch.before, other=other)

    def _seen(self, x: Tensor, keep: Tensor | None, context: Tensor | None) -> Tensor | None:
        if self.encoder is None:
            return None
        hidden = torch.ones_like(x, dtype=torch.bool) if keep is None else ~keep
        return self.encoder(x, hidden, context)

    def head(self, h: Tensor) -> Tensor:
        """h (..., width) -> logits (..., V)"""
        return F.linear(h, self.table.rows)

    # ---- judging

    def logits(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n + 1, V) of every token and of the one that follows."""
        padded = F.pad(tokens, (0, 1))
        return self.head(self.hidden(Batch(padded, condition)))

    def token_nats(self, batch: Batch) -> Tensor:
        """(B, n) nats of each token given those before it in its window, exact; 0 after the end of a piece."""
        logits = self.head(self.hidden(batch)).float()
        nats = F.cross_entropy(logits.transpose(1, 2), batch.x, reduction="none")
        return nats * self.spec.space.counted(batch.x)

    def log_likelihood(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, n) -> log p (B,) in nats, exact: the sum over the tokens of a piece."""
        return -self.token_nats(Batch(x, condition)).sum(1)

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """x (B, n) -> (B, width): the mean of what is known at each token of the first window of a piece."""
        x = x[:, : self.length].to(self.device)
        counted = self.spec.space.counted(x) if self.spec.space.ragged else torch.ones_like(x, dtype=torch.bool)
        keep = counted if self.mode == "masked" else None
        h = self.hidden(Batch(x), keep).float() * counted.unsqueeze(2)
        return h.sum(1) / counted.sum(1, keepdim=True)

    def _context(self, condition: Tensor | None, batch: int) -> Tensor | None:
        found = self.condition(condition, batch)
        return found if isinstance(found, Tensor) else None

    # ---- writing

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """(B, L) int64, or (B, n) of a ragged space. What `keep` marks of `source` is forced; a decoder writes the rest from what stands
        before it, the other modes from what stands after it too."""
        if self.model is None:
            return self._unmasked(request)
        return in_parts(self.stream, request, self.spec.space, self._at_once(request))

    def _at_once(self, request: SampleRequest) -> int:
        """Pieces to write at once: all, or on a CPU what its cache holds of keys and values beside the weights, if that is not too few."""
        if self.encoder is not None or self.device.type != "cpu":
            return len(request)
        weights = sum(p.numel() for p in self.parameters())
        piece = 2 * self.length * self.model.width * len(self.model.layers) * (1 + (request.guidance != 1))
        rows = (ROOM // 4 - weights) // piece
        return rows if rows >= FEWEST else len(request)

    def stream(self, request: SampleRequest) -> Iterator[Tensor]:
        """The tokens (B,) of `sample`, one place after the other, as they are written."""
        return write(self.reader(request), request, self.spec.space, self.device)

    def reader(self, request: SampleRequest) -> Reader:
        return Reader(self, request)

    def _unmasked(self, request: SampleRequest) -> Tensor:
        context = self._context(request.condition, len(request))

        def logits(tokens: Tensor, hidden: Tensor) -> Tensor:
            return self.head(self.encoder(tokens, hidden, context)).float()  # type: ignore[misc]

        return unmask(logits, request, self.spec.space, self.device)


class Reader:
    """The model with its memory: `reader(tokens (B, n))` reads what follows and gives logits (B, V) of the token after it.

    With guidance every piece is read twice, with its condition and without (Ho & Salimans 2022, arXiv:2207.12598).
    When the memory is full it goes on from the last half of what it read.
    """

    def __init__(self, transformer: Transformer, request: SampleRequest):
        self.of, self.guidance = transformer, request.guidance
        self.guided = request.guidance != 1 and request.condition is not None
        batch = len(request)
        self.context = transformer._context(request.condition, batch)
        if self.guided:
            self.context = torch.cat([self.context, transformer._context(None, batch)])
        self.decoder: Decoder = transformer.model  # type: ignore[assignment]
        self.caches: list[Cache] = self.decoder.caches(batch * (1 + self.guided))
        self.read: list[Tensor] = []
        self.count, self.start = 0, 0  # tokens that were read, and which of them stands at position 1 of the memory
        self.other = self._ahead(request)

    def _ahead(self, request: SampleRequest) -> Tensor | None:
        """What the encoder sees of the source."""
        if self.of.encoder is None:
            return None
        shape = (len(request), self.of.length)
        tokens = torch.zeros(shape, dtype=torch.long, device=self.of.device)
        keep = torch.zeros(shape, dtype=torch.bool, device=self.of.device)
        if request.source is not None and request.keep is not None:
            n = min(shape[1], request.source.shape[1])
            tokens[:, :n], keep[:, :n] = request.source[:, :n], request.keep[:, :n]
        length = min(shape[1], request.length or shape[1])
        if self.guided:
            tokens, keep = tokens.repeat(2, 1), keep.repeat(2, 1)
        return self.of._seen(tokens[:, :length], keep[:, :length], self.context)

    def __call__(self, tokens: Tensor) -> Tensor:
        if self.guided:
            tokens = tokens.repeat(2, 1)
        logits = self._logits(tokens).float()
        if self.guided:
            asked, free = logits.chunk(2)
            return free + self.guidance * (asked - free)
        return logits

    def _logits(self, tokens: Tensor) -> Tensor:
        begun, place = bool(self.read), self.count - self.start + 1
        self.read.append(tokens)
        self.count += tokens.shape[1]
        if not begun or place + tokens.shape[1] > self.decoder.length:
            h = self._anew()
        elif tokens.shape[1] == 1 and self.foldable:
            return self.step(tokens[:, 0], place)
        else:
            h = self.decoder(tokens, self.context, self.caches, place, other=self.other)
        return self.of.head(h[:, -1])

    def _anew(self) -> Tensor:
        """Read the latest tokens into an empty memory, as many as leave half of it free."""
        read, room = torch.cat(self.read, 1), self.decoder.length
        self.read = [read]
        if self.count < room:
            self.start = 0
            return self.decoder(read, self.context, self.caches, other=self.other)
        align = (self.of.spec.space.periods or (1,))[-1]
        self.start = -(-(self.count - room // 2) // align) * align
        before = read[:, self.start - 1]
        return self.decoder(read[:, self.start :], self.context, self.caches, before=before, other=self.other)

    @property
    def foldable(self) -> bool:
        """Whether `Step` may read: it computes no gradients and knows no encoder, and elsewhere than on a CPU it would not be faster."""
        return (
            torch.is_inference_mode_enabled() and self.of.encoder is None and self.caches[0].keys.device.type == "cpu"
        )

    @cached_property
    def step(self) -> Step:
        return Step(self.decoder, self.of.table.rows, self.caches, self.context)


def chosen(asked: Tensor, x: Tensor, step: int = 256) -> tuple[Tensor, Tensor]:
    """asked, x (B, n) -> flat places (M,) of what is asked and the tokens there, filled up to a multiple of `step` with tokens that count
    nothing (-100): products of ever new sizes are slow to begin and fill the memory.

    >>> chosen(torch.tensor([[True, False, True]]), torch.tensor([[5, 6, 7]]), 4)
    (tensor([0, 2, 0, 0]), tensor([   5,    7, -100, -100]))
    """
    place = asked.flatten().nonzero().squeeze(1)
    more = -len(place) % step
    return F.pad(place, (0, more)), F.pad(x.flatten()[place], (0, more), value=-100)
