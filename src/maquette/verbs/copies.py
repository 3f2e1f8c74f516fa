"""copies: which pieces on grids are copies of training pieces, altered or not; what an audit says and shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from maquette.aligned import Aligned, Candidates, Parts, rescored
from maquette.copying import FEWEST, LEVEL, Verdict, exact_interval, judged
from maquette.corpus import Corpus
from maquette.errors import CorpusError
from maquette.features import BATCH, Known, Lent
from maquette.finding import Finding
from maquette.neighbours import Several
from maquette.page import Exhibit, Section, figures
from maquette.piece import Modality
from maquette.verbs.onepass import View, go_by

MOST = 2_000  # held-out pieces that calibrate
NEIGHBOURS = (
    20  # training pieces of each piece that are compared at full size; the last one says how near is usual there
)
NEAREST = 3  # shown
ROWS = 12  # pieces told of where fewer are copies
TWINS = 0.25  # of the usual distance of held-out pieces; one that lies nearer is itself a variant of a training piece


@dataclass(frozen=True)
class Near:
    """The nearest training pieces, in each space: distance and index (N, NEIGHBOURS), the nearest first."""

    distance: Mapping[str, Tensor]
    index: Mapping[str, Tensor]

    def rows(self, rows: slice | Tensor) -> Near:
        return Near({s: d[rows] for s, d in self.distance.items()}, {s: i[rows] for s, i in self.index.items()})

    def arrays(self) -> dict[str, Any]:
        return {s: d.numpy() for s, d in self.distance.items()}


@dataclass(frozen=True)
class Calibration:
    """Held-out pieces beside which others are judged. words: which they are."""

    near: Near
    words: str


class Search:
    """Of batches (B, *space.shape) the nearest training pieces by eye in any pose, in parts, and by the judge.

    The train split goes by `views`; then `near` holds what was found.
    """

    @torch.inference_mode()
    def __init__(self, batches: Iterable[Tensor], corpus: Corpus, judge: Known | Lent):
        k = min(NEIGHBOURS, corpus.size("train"))
        self.corpus, self.kinds = corpus, (Aligned(corpus.spec.space), Parts(corpus.spec.space))
        rows = [(self.kinds[0].plain(x), judge.judge.embed(x)) for x in batches]
        self.plain = torch.cat([p for p, _ in rows])
        self.found = [Candidates(torch.cat([kind.asked(p) for p, _ in rows]), k, kind.kinds) for kind in self.kinds]
        self.judged = Several(torch.cat([f for _, f in rows]), k)
        self.views = (View("plain", self.kinds[0].plain, self), View("judge", judge.judge.embed, self.judged))

    def see(self, plain: Tensor, numbers: Tensor) -> None:
        for kind, candidates in zip(self.kinds, self.found, strict=True):
            candidates.see(kind.known(plain), numbers)

    @torch.inference_mode()
    def near(self) -> Near:
        asked = zip(self.kinds, self.found, strict=True)
        found = {kind.name: rescored(kind, self.plain, near, self._take) for kind, near in asked}
        found["judge"] = self.judged.distance, self.judged.index
        return Near({s: distance for s, (distance, _) in found.items()}, {s: index for s, (_, index) in found.items()})

    def _take(self, numbers: Tensor) -> Tensor:
        return self.kinds[0].plain(self.corpus.take(numbers.numpy()).x)


def near(batches: Iterable[Tensor], corpus: Corpus, judge: Known | Lent, others: Sequence[View] = ()) -> Near:
    """What a `Search` finds. others: who looks at the training pieces too while they go by."""
    search = Search(batches, corpus, judge)
    go_by(corpus, [*search.views, *others])
    return search.near()


def held(corpus: Corpus, limit: int = MOST) -> tuple[Iterator[Tensor], str]:
    """The pieces that calibrate, in batches, and their split: validation; where that is too small, test."""
    split = "validation" if corpus.size("validation") >= FEWEST else "test"
    return (batch.x for batch in corpus.once(split, BATCH, limit)), split


def calibration(found: Near, split: str) -> Calibration:
    """found: of `held`. Pieces that are variants of a training piece by themselves show nothing about new ones."""
    usual = found.distance["aligned"][:, 0]
    kept = usual >= TWINS * usual.median()
    words = f"{int(kept.sum()):,} pieces of the {split} split"
    if split == "test":
        words += f", since the validation split holds fewer than {FEWEST}"
    if not kept.all():
        words += (
            f"; {int((~kept).sum())} more are variants of training pieces themselves and say nothing about new ones"
        )
    return Calibration(found.rows(kept), words)


def calibrate(corpus: Corpus, judge: Known | Lent, limit: int = MOST) -> Calibration:
    """For pieces that come one by one. Raises CorpusError where too few are held out."""
    batches, split = held(corpus, limit)
    if (few := corpus.size(split)) < FEWEST:
        raise CorpusError(f"at least {FEWEST} held-out pieces are needed to tell copies; {few} of {corpus.path} are")
    return calibration(near(batches, corpus, judge), split)


def verdicts(found: Near, beside: Calibration) -> list[Verdict]:
    return judged(found.arrays(), beside.near.arrays())


def copies(generated: Tensor, corpus: Corpus, judge: Known | Lent, others: Sequence[View] = ()) -> dict[str, Any]:
    """As it stands in audit.json: the verdict on every copy, and on others up to `ROWS`, each with its three nearest training pieces;
    how many of all are copies, with the exact interval; or why there is no verdict. others: see `near`."""
    batches, split = held(corpus)
    both = near(chain(generated.split(BATCH), batches), corpus, judge, others)
    mine = both.rows(slice(0, len(generated)))
    try:
        beside = calibration(both.rows(slice(len(generated), None)), split)
        told = verdicts(mine, beside)
    except CorpusError as e:
        return {"copies": [], "copies_untold": str(e)}
    count = {word: sum(v.verdict == word for v in told) for word in ("new", "close", "copy")}
    low, high = exact_interval(count["copy"], len(told))
    order = sorted(range(len(told)), key=lambda i: (told[i].verdict != "copy", told[i].p, _beside(mine, told[i], i)))
    rows = [
        {"made": i, **asdict(told[i]), "nearest": nearest(mine, told[i].space, i, corpus)}
        for i in order[: max(ROWS, count["copy"])]
    ]
    looked = Aligned(corpus.spec.space).words
    return {
        "copies": rows,
        "copied": {**count, "n": len(told), "low": low, "high": high},
        "copies_by": {"spaces": list(mine.distance), "calibrated": beside.words, "looked_for": looked},
    }


def finding(found: Mapping[str, Any], noun: str) -> list[Finding]:
    """The share of copies; [] where no verdict was given."""
    if "copied" not in found:
        return []
    count = found["copied"]
    sentence = f"{count['copy']} of {count['n']:,} {noun} are copies of a training one, altered or not; {count['close']} more are close to one."
    value = count["copy"] / count["n"]
    return [
        Finding("copies", "any pose", value, count["low"], count["high"], LEVEL, count["n"], "lower", sentence, "share")
    ]


def added(found: Mapping[str, Any]) -> str:
    """To the sentence on how new pieces are; nothing where no verdict was given."""
    if "copied" not in found:
        return ""
    count = found["copied"]["copy"]
    return f" {count or 'None'} of them {'is a copy' if count == 1 else 'are copies'} of a training one, as it is or altered."


def _beside(found: Near, told: Verdict, i: int) -> float:
    return float(found.distance[told.space][i, 0])


def nearest(found: Near, space: str, i: int, corpus: Corpus) -> list[dict[str, Any]]:
    """The three nearest training pieces of piece i: distance, and of source, licence and owner what the corpus knows."""
    pairs = zip(found.index[space][i, :NEAREST].tolist(), found.distance[space][i, :NEAREST].tolist(), strict=True)
    return [{"train": t, "space": space, "distance": round(d, 6), **papers_of(corpus, t)} for t, d in pairs if t >= 0]


def papers_of(corpus: Corpus, number: int) -> dict[str, Any]:
    """Source, licence and owner of a piece, as far as they are known."""
    facts = corpus.facts_of(number)
    known = {
        "source": facts.get("source"),
        "licence": facts.get("licence", facts.get("license")),
        "owner": facts.get("owner"),
    }
    return {k: v for k, v in known.items() if v}


# ---- on the page


def told(found: Mapping[str, Any]) -> str:
    """The verdicts in sentences."""
    if "copied" not in found:
        return f"No verdict on copies: {found['copies_untold']}."
    count, by = found["copied"], found["copies_by"]
    words = f"{count['copy']} of {count['n']:,} are copies ({count['low']:.1%} to {count['high']:.1%}), {count['close']} are close"
    return (
        f"{words} (about {count['n'] / 100:.0f} would be by chance). Looked for in whole pieces: {by['looked_for']}; in parts of half a "
        f"side; and by the judge. Calibrated on {by['calibrated']}."
    )


def section(
    found: Mapping[str, Any],
    generated: Tensor,
    corpus: Corpus,
    modality: Modality,
    first_seed: int,
    png: Callable[[list[Tensor], Modality, int], bytes],
) -> Section:
    """Each of the most suspicious pieces beside its three nearest training pieces."""
    exhibits = []
    for row in found["copies"][:ROWS]:
        numbers = torch.tensor([n["train"] for n in row["nearest"]])
        tensors = [generated[row["made"]], *corpus.take(numbers.numpy()).x]
        exhibits.append(Exhibit(png(tensors, modality, len(tensors)), _caption(row, first_seed)))
    lead = f"Left: generated. Beside it the three training pieces nearest to it, most suspicious first. {told(found)}"
    return Section("Nearest training pieces", lead, figures(exhibits, "two"))


def _caption(row: Mapping[str, Any], first_seed: int) -> str:
    pieces = "; ".join(f"training {_words(n)}" for n in row["nearest"])
    return f"seed {first_seed + row['made']}: {row['verdict']} (p {row['p']:.2g}, {row['space']}) | {pieces}"


def _words(piece: Mapping[str, Any]) -> str:
    known = ", ".join(str(piece[k]) for k in ("source", "licence", "owner") if piece.get(k))
    return f"{piece['train']} ({known})" if known else str(piece["train"])
