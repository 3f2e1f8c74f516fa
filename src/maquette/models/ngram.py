"""An n-gram model with modified Kneser-Ney smoothing (Chen & Goodman 1998): fitted in seconds, exact nats, the floor under every
model of sequences, and their partner (`nets/blend.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maquette.nets.kneser_ney import FEATURES, Tables, Text, best_order, fit, parted
from maquette.nets.sampling import collect, write
from maquette.space import Batch, DataSpec, GenerativeModel, Losses, SampleRequest, Space

MOST = 12  # the largest order that is tried
SAVED = ("keys", "chance", "left", "entropy", "peak")


class NGram(GenerativeModel):
    """Each token from the few before it. No gradients: `conclude` counts the train split. It heeds no conditions.

    The counts stay on the CPU, whatever device the model is sent to, and are no buffers: their sizes are those of the corpus.
    """

    phases = ()
    sizes = {"tiny": {}, "small": {}, "medium": {}, "large": {}}  # the corpus decides
    search = {"order": [0, 3, 4, 5, 6, 8]}
    concluded_on = None
    partner = True  # in a pair it stands beside the model that is named first, on the same tokens
    features = FEATURES  # of `score`

    def __init__(
        self,
        spec: DataSpec,
        *,
        order: Annotated[
            int,
            Field(
                ge=0, le=MOST, description="tokens that are counted together; 0: found on a tenth of the train split"
            ),
        ] = 0,
    ):
        super().__init__(spec)
        spec.space.need("tokens", model="ngram")
        self.order = order
        self.tables = Tables.empty(spec.space.vocabulary)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    # ---- learning

    def loss(self, batch: Batch, phase: str, progress: float) -> Losses:
        counts = self.spec.space.counted(batch.x.cpu().numpy()).sum()
        return Losses({"nats_per_token": self.token_nats(batch).sum() / int(counts)})

    def conclude(self, batches: Any) -> None:
        text = gather(batches(), self.spec.space)
        vocabulary = self.spec.space.vocabulary
        order = self.order or best_order(*parted(text), vocabulary, MOST)
        self.tables = fit(text, vocabulary, order)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name in SAVED:
            destination[prefix + name] = torch.from_numpy(getattr(self.tables, name))
        destination[prefix + "fitted_order"] = torch.tensor(self.tables.order)

    def _load_from_state_dict(
        self, state: Mapping[str, Tensor], prefix: str, _: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        lost = [prefix + name for name in (*SAVED, "fitted_order") if prefix + name not in state]
        missing += lost
        if not lost:
            arrays = {name: state[prefix + name].cpu().numpy().copy() for name in SAVED}
            order = int(state[prefix + "fitted_order"])
            self.tables = Tables(**arrays, order=order, vocabulary=self.spec.space.vocabulary)

    # ---- judging

    def score(self, tokens: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens (B, n) -> log p (B, n) of each given those before it in its row, 0 after the end of a piece; and features (B, n, 4) of
        what was known before it (see `Tables.score`). before (B,): the token before each row, -1 where a piece begins."""
        symbols, opens, asked = rows(Batch(tokens, before=before), self.spec.space)
        log_p, features = self.tables.score(Text(symbols.ravel(), opens.ravel()))
        log_p = log_p.reshape(symbols.shape) * asked
        features = features.reshape(*symbols.shape, FEATURES)
        return torch.from_numpy(log_p[:, 1:]).float(), torch.from_numpy(features[:, 1:])

    def token_nats(self, batch: Batch) -> Tensor:
        """(B, n) nats of each token given those before it in its window, exact; 0 after the end of a piece."""
        return -self.score(batch.x, batch.before)[0]

    def piece_nats(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (n,) of a whole piece -> its nats, with those of its end (n + 1,) where the space is ragged."""
        space = self.spec.space
        whole = np.append(tokens, space.end) if space.ragged else np.asarray(tokens)
        return self.token_nats(Batch(torch.from_numpy(whole[None].astype(np.int64))))[0].numpy()

    def log_likelihood(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, n) -> log p (B,) in nats, exact: the sum over the tokens of a piece."""
        return self.score(x)[0].sum(1)

    def next_log_probs(self, tokens: Tensor, before: Tensor | None = None) -> Tensor:
        """tokens (B, n), n >= 0 -> log p (B, V) of the token that follows."""
        return Reader(self.tables, len(tokens), before)(tokens)

    # ---- writing

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """(B, L) int64, or (B, n) of a ragged space. What `keep` marks of `source` is forced; the rest follows from what stands before."""
        return collect(self.stream(request))

    def stream(self, request: SampleRequest) -> Iterator[Tensor]:
        """The tokens (B,) of `sample`, one place after the other, as they are written."""
        return write(self.reader(request), request, self.spec.space)

    def reader(self, request: SampleRequest) -> Reader:
        return Reader(self.tables, len(request))


class Reader:
    """`reader(tokens (B, n))` reads what follows and gives log p (B, V) of the token after it; `features` (B, 4) of what it knows."""

    def __init__(self, tables: Tables, batch: int, before: Tensor | None = None):
        self.tables = tables
        opening = np.full(batch, tables.vocabulary)
        if before is not None:
            opening = np.where(before.cpu().numpy() < 0, opening, before.cpu().numpy())
        nothing = np.full((batch, max(1, tables.order)), -1)
        nothing[:, 0] = 0
        self.contexts = tables.push(nothing, opening)

    def __call__(self, tokens: Tensor) -> Tensor:
        for column in tokens.cpu().numpy().T:
            self.contexts = self.tables.push(self.contexts, column)
        return torch.from_numpy(np.log(self.tables.dense(self.contexts))).float()

    @property
    def features(self) -> Tensor:
        seen = self.contexts >= 0
        told = seen & (self.tables.left[self.contexts] < 1)
        places = np.arange(self.contexts.shape[1])
        longest, depth = (np.where(where, places, 0).max(1) for where in (seen, told))
        return torch.from_numpy(self.tables.features(self.contexts[np.arange(len(seen)), longest], depth))


def gather(batches: Iterable[Batch], space: Space) -> Text:
    """A pass over a split as one text: windows that follow each other in a piece are joined."""
    symbols, opens, last, number = [], [], -1, -1
    for batch in batches:
        x, first, kept = rows(batch, space)
        index = np.arange(len(x)) if batch.index is None else batch.index.cpu().numpy()
        ends = x[np.arange(len(x)), kept.sum(1) - 1]
        goes_on = (x[:, 0] == np.append(last, ends[:-1])) & (index == np.append(number, index[:-1]))
        kept[:, 0] = ~goes_on
        symbols.append(x[kept])
        opens.append(first[kept])
        last, number = ends[-1], index[-1]
    if not symbols:
        return Text(np.zeros(0, np.int64), np.zeros(0, bool))
    return Text(np.concatenate(symbols), np.concatenate(opens))


def rows(batch: Batch, space: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symbols (B, n + 1) with what stands before each row, which are such openings, and which are no padding."""
    x = batch.x.cpu().numpy()
    opening = np.full((len(x), 1), -1) if batch.before is None else batch.before.cpu().numpy()[:, None]
    symbols = np.concatenate([np.where(opening < 0, space.vocabulary, opening), x], 1)
    opens = np.zeros(symbols.shape, bool)
    opens[:, 0] = True
    return symbols, opens, np.concatenate([opens[:, :1], space.counted(x)], 1)
