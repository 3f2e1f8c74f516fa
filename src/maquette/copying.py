"""Is a piece a copy of a training one? Distances to training pieces beside those of held-out pieces: a p-value over several spaces
(conformal, Vovk et al. 2005), a verdict, the exact interval of a count (Clopper and Pearson 1934) and C_T without cells (Meehan et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np

from maquette.errors import CorpusError, SettingError
from maquette.finding import at_most

LEVEL = 0.01  # of the p-value from which a piece is close
FEWEST = 99  # held-out pieces with fewer of which no p-value can be that small
FEWEST_RANKED = 10  # of either kind, for C_T
ROUNDING = 0.01  # of the usual distance: nearer than that is the same piece but for rounding
ROWS = 256  # pieces that are held against all held-out ones at once


@dataclass(frozen=True)
class Verdict:
    """p: of the minimum over spaces; space: where the piece is most suspicious."""

    verdict: Literal["new", "close", "copy"]
    p: float
    space: str


def judged(made: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray]) -> list[Verdict]:
    """made, held: space -> distances (n, k), (m, k) to the k nearest training pieces, ascending; (n,) is k = 1. Raises CorpusError.

    close: p <= 1 %. copy: close, and the nearest is nearer beside the k-th than for 99 % of held-out pieces, or all but identical.
    With k = 1 only the all but identical are called copies. Held-out pieces that calibrate are not to be counted as false alarms.
    """
    rows, real = _table(made), _table(held)
    _check(rows, real)
    near, usual = (np.stack([t[s][:, 0] for s in rows]) for t in (rows, real))
    each = np.stack([1 + np.searchsorted(np.sort(u), x, side="right") for x, u in zip(near, usual, strict=True)])
    blocks = [slice(k, k + ROWS) for k in range(0, near.shape[1], ROWS)]
    p = np.concatenate([_p(near[:, b], each[:, b], usual) for b in blocks])
    rare = each / (1 + usual.shape[1]) <= LEVEL
    alone = np.stack([_alone(rows[s], real[s]) for s in rows])
    where = np.lexsort((near / _middle(usual)[:, None], each), axis=0)[0]
    words = np.where(p > LEVEL, "new", np.where((alone & rare).any(0), "copy", "close"))
    return [Verdict(str(w), float(q), list(rows)[k]) for w, q, k in zip(words, p, where, strict=True)]


def _table(distances: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {s: np.asarray(d, float).reshape(len(d), -1) for s, d in distances.items()}


def _check(rows: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray]) -> None:
    if not rows or rows.keys() != real.keys():
        raise SettingError(f"distances in the same spaces are compared; {sorted(rows)} and {sorted(real)} came")
    for space, d in real.items():
        if len(d) < FEWEST:
            raise CorpusError(
                f"at least {FEWEST} held-out pieces are needed to tell copies at {LEVEL:.0%}; {len(d)} came"
            )
        if not (np.isfinite(d).all() and np.isfinite(rows[space]).all()):
            raise CorpusError(f"distances in {space} are not all finite numbers; no copy can be told by them")
        if not d[:, 0].any():
            raise CorpusError(f"every held-out piece is identical to a training one in {space}; prepare without twins")


def _p(made: np.ndarray, rank: np.ndarray, held: np.ndarray) -> np.ndarray:
    """made, rank (S, n), held (S, m) -> (n,): the share of a piece and all held-out ones that are as suspicious as it is, where each of
    these m + 1 is ranked among all of them. So chance alone gives at most p a p of p, however many spaces there are and whatever they
    have in common (a full conformal p-value, Vovk et al. 2005).

    The most suspicious has the least rank in any space; of equal ones that which is nearer, beside what is usual in its space.
    """
    behind = np.stack([np.searchsorted(np.sort(h), h, side="right") for h in held])
    ranks = (behind[:, None] + (made[:, :, None] <= held[:, None])).min(0)
    middle = _middle(held, made)
    ratios = (held[:, None] / middle[:, :, None]).min(0)
    least, ratio = rank.min(0)[:, None], (made / middle).min(0)[:, None]
    return (1 + ((ranks < least) | ((ranks == least) & (ratios <= ratio))).sum(1)) / (1 + held.shape[1])


def _middle(held: np.ndarray, made: np.ndarray | None = None) -> np.ndarray:
    """(S,): the median in each space; or (S, n): that of the held-out pieces and one other. Above 0."""
    ordered, k = np.sort(held, axis=1), (held.shape[1] + 1) // 2
    found = ordered[:, k] if made is None else np.clip(made, ordered[:, [k - 1]], ordered[:, [k]])
    return np.maximum(found, 1e-12)


def _alone(made: np.ndarray, held: np.ndarray) -> np.ndarray:
    same = made[:, 0] <= ROUNDING * np.median(held[:, 0])
    if made.shape[1] < 2:
        return same
    return same | (_ratio(made) < np.quantile(_ratio(held), LEVEL))


def _ratio(d: np.ndarray) -> np.ndarray:
    return d[:, 0] / np.maximum(d[:, -1], 1e-12)


def exact_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson for k of n."""
    if not 0 <= k <= n or n < 1:
        raise SettingError(f"k of n with 0 <= k <= n and n >= 1 is needed; {k} of {n} came")
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else _root(lambda p: at_most(k - 1, n, p) > 1 - tail)
    return low, 1.0 if k == n else _root(lambda p: at_most(k, n, p) > tail)


def _root(below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def c_t(made: np.ndarray, held: np.ndarray) -> float:
    """Mann-Whitney z of distances to train: below -2, generated pieces lie nearer than held-out ones do. Ties count half."""
    n, m, order = len(made), len(held), np.sort(held)
    if min(n, m) < FEWEST_RANKED:
        raise CorpusError(f"C_T needs at least {FEWEST_RANKED} generated and held-out pieces; {n} and {m} came")
    u = (np.searchsorted(order, made) + np.searchsorted(order, made, side="right")).sum() / 2
    return float((u - n * m / 2) / sqrt(n * m * (n + m + 1) / 12))
