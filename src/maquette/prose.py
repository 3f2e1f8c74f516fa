"""Figures of generated texts, each beside the same figure of held-out ones: variety, sameness, repetition, what was copied, what form holds.

Distinct-n (Li 2016, arXiv:1510.03055), self-BLEU (Zhu 2018, arXiv:1802.01886), the longest span copied by a suffix array (Manber and Myers 1990).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import exp, log

import numpy as np
import torch

from maquette import verse
from maquette.errors import MissingExtra
from maquette.finding import Finding, mean_interval, share_interval
from maquette.rhyme import HAN

SPACE = "text"
BLOCKS = 20  # parts of the jackknife
FEW = 100  # pieces that self-BLEU compares with each other
CHUNK = 1 << 20  # characters of the train split that are compared at once
SURELY = 0.2  # share of held-out pieces that keep a form, from which it is asked of new ones
_HAN = "".join(f"{chr(a)}-{chr(b)}" for a, b in HAN)
_WORD = re.compile(rf"[{_HAN}]|[^\W\d_{_HAN}]+(?:['’][^\W\d_{_HAN}]+)*|\d+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words in lower case, numbers, marks, and single Chinese characters.

    >>> words("Don't go, 李白!")
    ["don't", 'go', ',', '李', '白', '!']
    """
    return _WORD.findall(text.lower())


def grams(parts: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(parts[k:] for k in range(n)), strict=False))


def findings(
    generated: Sequence[str],
    held: Sequence[str],
    training: Callable[[], Iterable[str]],
    *,
    form: str | None = None,
    rules: Sequence[str] = (),
    seed: int = 0,
) -> list[Finding]:
    """All figures of this file; training() passes over the texts of the train split."""
    if not generated:
        return []
    ours, theirs = [words(t) for t in generated], [words(t) for t in held]
    return [
        *(_distinct(ours, theirs, n) for n in (1, 2, 3)),
        *_self_bleu(ours, theirs, seed),
        _repetition(ours, theirs, seed),
        _copied(generated, held, training, seed),
        *_forms(generated, held, form, rules, seed),
    ]


# ---- variety


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different runs of n words, as a share of all runs of n words.

    >>> distinct([["a", "b", "a", "b"]], 2)
    0.6666666666666666
    """
    counts = Counter(g for parts in texts for g in grams(parts, n))
    return len(counts) / max(1, counts.total())


def _distinct(ours: list[list[str]], theirs: list[list[str]], n: int) -> Finding:
    """The figure falls with the amount of text, so both sides give equally many words."""
    size = min(sum(map(len, ours)), sum(map(len, theirs)) or 1 << 62)
    mine = _first(ours, size)
    value = distinct(mine, n)
    spread = 1.96 * _jackknife(mine, n)
    reference = distinct(_first(theirs, size), n) if theirs else None
    what = "words" if n == 1 else f"runs of {n} words"
    said = f"{value:.0%} of {what} are different ones" + (f" ({reference:.0%} in held-out texts)" if theirs else "")
    return Finding(
        f"distinct {n}",
        SPACE,
        value,
        max(0.0, value - spread),
        min(1.0, value + spread),
        reference,
        len(ours),
        "near",
        said,
        "share",
    )


def _first(texts: list[list[str]], size: int) -> list[list[str]]:
    """Texts up to so many words together."""
    found: list[list[str]] = []
    for parts in texts:
        if size <= 0:
            break
        found.append(parts[:size])
        size -= len(parts)
    return found


def _jackknife(texts: list[list[str]], n: int) -> float:
    """The standard error of `distinct` when each block of texts is left out in turn (drawing with replacement would count repeats)."""
    blocks = min(BLOCKS, len(texts))
    if blocks < 2:
        return 0.0
    counts = [Counter(g for parts in texts[b::blocks] for g in grams(parts, n)) for b in range(blocks)]
    owners: dict[tuple[str, ...], int] = {}
    for b, block in enumerate(counts):
        for gram in block:
            owners[gram] = b if gram not in owners else -1
    alone = Counter(owners.values())
    total = sum(c.total() for c in counts)
    values = [(len(owners) - alone[b]) / max(1, total - counts[b].total()) for b in range(blocks)]
    return float(np.sqrt((blocks - 1) * np.var(values)))


def self_bleu(texts: Sequence[Sequence[str]], most: int = 4) -> list[float]:
    """For each text how much of it (runs of 1 to 4 words, clipped) stands in some other: 0 nothing, 1 all.

    >>> self_bleu([["a", "b", "c", "d"], ["a", "b", "c", "d"]])
    [1.0, 1.0]
    """
    logs = np.zeros(len(texts))
    for n in range(1, most + 1):
        counts = [Counter(grams(parts, n)) for parts in texts]
        best: dict[
            tuple[str, ...], tuple[int, int, int]
        ] = {}  # gram -> greatest count, whose it is, the greatest of the others
        for i, own in enumerate(counts):
            for gram, count in own.items():
                top, owner, second = best.get(gram, (0, -1, 0))
                best[gram] = (count, i, top) if count > top else (top, owner, max(second, count))
        for i, own in enumerate(counts):
            shared = sum(min(c, best[g][2] if best[g][1] == i else best[g][0]) for g, c in own.items())
            logs[i] += log(max(shared, 0.1) / max(1, own.total())) / most
    sizes = np.array([len(parts) for parts in texts])
    return [min(1.0, exp(x) * _brevity(sizes, i)) for i, x in enumerate(logs)]


def _brevity(sizes: np.ndarray, i: int) -> float:
    others = np.delete(sizes, i)
    if not len(others) or not sizes[i]:
        return 1.0
    nearest = others[np.abs(others - sizes[i]).argmin()]
    return min(1.0, exp(1 - nearest / sizes[i]))


def _self_bleu(ours: list[list[str]], theirs: list[list[str]], seed: int) -> Iterator[Finding]:
    count = min(FEW, len(ours), len(theirs) or FEW)
    if count < 2:
        return
    scores = self_bleu(ours[:count])
    reference = float(np.mean(self_bleu(theirs[:count]))) if len(theirs) > 1 else None
    yield _mean(
        "self-BLEU",
        scores,
        reference,
        "near",
        seed,
        "texts resemble each other by {value:.2f} (self-BLEU{there})",
        ".2f",
        "",
    )


# ---- repetition


def repetition(parts: Sequence[str], n: int = 4) -> float:
    """The share of runs of n words that a text has written before.

    >>> repetition("a b c d a b c d".split())
    0.2
    """
    found = grams(parts, n)
    return (len(found) - len(set(found))) / len(found) if found else 0.0


def _repetition(ours: list[list[str]], theirs: list[list[str]], seed: int) -> Finding:
    reference = float(np.mean([repetition(p) for p in theirs])) if theirs else None
    scores = [repetition(p) for p in ours]
    return _mean(
        "repetition",
        scores,
        reference,
        "near",
        seed,
        "{value:.1%} of a text's runs of 4 words repeat{there}",
        ".1%",
        "share",
    )


def _mean(
    name: str, scores: list[float], reference: float | None, direction: str, seed: int, said: str, shown: str, unit: str
) -> Finding:
    value = float(np.mean(scores))
    low, high = mean_interval(torch.tensor(scores), seed)
    there = "" if reference is None else f"; {reference:{shown}} in held-out texts"
    said = said.format(value=value, there=there)
    return Finding(name, SPACE, value, low, high, reference, len(scores), direction, said, unit)  # type: ignore[arg-type]


# ---- copying


def longest_copied(texts: Sequence[str], training: Iterable[str]) -> list[int]:
    """For each text the characters of its longest span that stands in some training text.

    >>> longest_copied(["xabcx", "zz"], ["..abc", "cx"])
    [3, 0]
    """
    found = np.zeros(len(texts), np.int64)
    for chunk in _chunks(training):
        np.maximum(found, _longest_in(texts, chunk), out=found)
    return found.tolist()


def _chunks(training: Iterable[str]) -> Iterator[list[str]]:
    held, size = [], 0
    for text in training:
        held.append(text)
        size += len(text)
        if size >= CHUNK:
            yield held
            held, size = [], 0
    if held:
        yield held


def _longest_in(texts: Sequence[str], chunk: list[str]) -> np.ndarray:
    codes, owner = _laid_out(texts, chunk)
    ranks = _ranks(codes)
    order = np.argsort(ranks[-1], kind="stable")
    found = np.zeros(len(texts), np.int64)
    trained = owner[order] < 0
    for line, known in (
        (order, trained),
        (order[::-1], trained[::-1]),
    ):  # the nearest training suffix before, then behind
        place = np.maximum.accumulate(np.where(known, np.arange(len(line)), -1))
        mine = np.flatnonzero(~known & (place >= 0))
        here, there = line[mine], line[place[mine]]
        np.maximum.at(found, owner[here], _shared(ranks, here, there))
    return found


def _laid_out(texts: Sequence[str], chunk: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All code points in a row, and whose each is (-1: training). Marks between texts differ, so that nothing runs across them; a text has
    another mark than training, and so its spans end where it does."""
    mark, other = 0x110000, 0x110001
    codes, owners = [], []
    for part in chunk:
        codes += [_codes(part), [mark]]
        owners.append(np.full(len(part) + 1, -1))
    for number, part in enumerate(texts):
        codes += [_codes(part), [other]]
        owners.append(np.full(len(part) + 1, number))
    return np.concatenate(codes).astype(np.int64), np.concatenate(owners)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _ranks(codes: np.ndarray) -> list[np.ndarray]:
    """ranks[k][i]: the place in order of the 2^k characters from i on, the same for equal ones; until all differ."""
    ranks = [np.unique(codes, return_inverse=True)[1].astype(np.int64)]
    step = 1
    while ranks[-1].max() < len(codes) - 1 and step < len(codes):
        later = np.zeros(len(codes), np.int64)
        later[: len(codes) - step] = ranks[-1][step:] + 1
        ranks.append(_dense(ranks[-1] * (len(codes) + 1) + later))
        step *= 2
    return [r.astype(np.int32) for r in ranks]


def _dense(keys: np.ndarray) -> np.ndarray:
    """Numbers without gaps in the same order."""
    order = np.argsort(keys)
    sorted_ = keys[order]
    found = np.empty(len(keys), np.int64)
    found[order] = np.concatenate([[0], np.cumsum(sorted_[1:] != sorted_[:-1])])
    return found


def _shared(ranks: list[np.ndarray], here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """How many characters from `here` on and from `there` on are the same, by halving steps."""
    here, there, length = here.copy(), there.copy(), np.zeros(len(here), np.int64)
    last = len(ranks[0]) - 1
    for k in range(len(ranks) - 1, -1, -1):
        inside = (here <= last) & (there <= last)
        same = inside & (ranks[k][np.minimum(here, last)] == ranks[k][np.minimum(there, last)])
        here[same] += 1 << k
        there[same] += 1 << k
        length[same] += 1 << k
    return length


def _copied(generated: Sequence[str], held: Sequence[str], training: Callable[[], Iterable[str]], seed: int) -> Finding:
    both = longest_copied([*generated, *held], training())
    ours, theirs = both[: len(generated)], both[len(generated) :]
    value, reference = float(np.mean(ours)), float(np.mean(theirs)) if theirs else None
    low, high = mean_interval(torch.tensor(ours), seed)
    there = f" ({reference:.0f} for held-out texts)" if theirs else ""
    said = f"the longest span copied from the training texts is {value:.0f} characters on average{there}, {max(ours)} at most"
    return Finding("longest copied span", SPACE, value, low, high, reference, len(ours), "lower", said, "characters")


# ---- forms


def _forms(
    generated: Sequence[str], held: Sequence[str], form: str | None, rules: Sequence[str], seed: int
) -> Iterator[Finding]:
    """What was asked for; else what held-out texts have."""

    def keeps(text: str) -> bool:
        return verse.form_kept(text.strip(), form) if form else bool(verse.forms_of(text.strip()))

    usual = [keeps(t) for t in held]
    if form or (usual and np.mean(usual) >= SURELY):
        what = form or "a form of verse"
        yield _share("form kept", [keeps(t) for t in generated], usual, what, seed)
    with suppress(MissingExtra):
        rhymes = [k for t in held if (k := verse.rhyme_kept(t.strip())) is not None]
        ours = [k for t in generated if (k := verse.rhyme_kept(t.strip())) is not None]
        if ours and ("rhyme" in rules or (len(rhymes) > len(held) / 2 and np.mean(rhymes) >= SURELY)):
            yield _share("rhyme kept", ours, rhymes, "rhyme", seed)


def _share(name: str, claims: list[bool], usual: list[bool], what: str, seed: int) -> Finding:
    value, reference = float(np.mean(claims)), float(np.mean(usual)) if usual else None
    low, high = share_interval(torch.tensor(claims).double(), seed)
    there = f" ({reference:.0%} of held-out ones)" if usual else ""
    return Finding(
        name,
        SPACE,
        value,
        low,
        high,
        reference,
        len(claims),
        "higher",
        f"{value:.0%} of texts keep {what}{there}",
        "share",
    )
