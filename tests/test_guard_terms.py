"""Forbidden terms: the fast way finds what a plain way finds, on any text; disguises are seen through, look-alikes are left alone."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maquette.errors import SettingError
from maquette.guard.disguise import STANDS_FOR, alike, lettered, reads
from maquette.guard.folding import BLANK, HANGUL, MARK, SYMBOL, TIGHT, UNSPACED, WORD, fold
from maquette.guard.terms import Terms, _folded, _parts

LISTED = [
    "blarg",
    "ass",
    "as",
    "gill",
    "zonk the blarg",
    "as a gill",
    "can't",
    "b-ass",
    "坏词",
    "词坏词",
    "gil a坏",
    "시발",
]


def plain_way(listed, text):
    """(term, start, end) in the folded text by trying every term at every place in every reading of the whole text."""
    folded = fold(text)
    found = set()
    plain, signed = ([m.span() for m in re.finditer("x+", marks(folded, k))] for k in (WORD, WORD | SYMBOL))
    uncalled = [(a, max(a + 1, a + len(folded.text[a:b].rstrip("!")))) for a, b in signed]
    for words in (plain, signed, uncalled):
        for links in ways(folded, words):
            found |= in_words(listed, folded, joined(words, links))
    return {(t, *folded.span(a, b)) for t, a, b in found | in_unspaced(listed, folded)}


def marks(folded, bits):
    return "".join("x" if k & bits else " " for k in folded.kinds.tolist())


def ways(folded, words):
    gaps = [(a[1], b[0]) for a, b in pairwise(words)]
    ones = [b - a == 1 for a, b in words]
    near = [ones[i] and ones[i + 1] and b - a <= 3 for i, (a, b) in enumerate(gaps)]
    spelt = [near[i] and ((i > 0 and near[i - 1]) or near[i + 1 : i + 2] == [True]) for i in range(len(gaps))]
    least = []
    for i, (a, b) in enumerate(gaps):
        row = [i]
        while row[0] > 0 and spelt[row[0] - 1]:
            row.insert(0, row[0] - 1)
        while row[-1] + 1 < len(gaps) and spelt[row[-1] + 1]:
            row.append(row[-1] + 1)
        least.append(spelt[i] and b - a == min(gaps[j][1] - gaps[j][0] for j in row))
    tight = [b - a == 1 and bool(folded.kinds[a] & TIGHT) for a, b in gaps]
    unpointed = [t and folded.text[a] not in "./" for t, (a, _) in zip(tight, gaps, strict=True)]
    yield [False] * len(gaps)
    yield spelt
    yield least
    if any(tight):
        yield [s or t for s, t in zip(spelt, tight, strict=True)]
        yield [s or t for s, t in zip(spelt, unpointed, strict=True)]


def joined(words, links):
    """Each word as the places of its characters, and of how many it was put together."""
    rows = []
    for i, (a, b) in enumerate(words):
        if i and links[i - 1]:
            rows[-1] = (rows[-1][0] + list(range(a, b)), rows[-1][1] + 1)
        else:
            rows.append((list(range(a, b)), 1))
    return rows


def in_words(listed, folded, rows):
    found = set()
    said = ["".join(folded.text[p] for p in places) for places, _ in rows]
    for term in _folded(listed):
        parts, anywhere = _parts(term)
        if anywhere:
            continue
        whole, m = "".join(parts), len(parts)
        for i, (places, count) in enumerate(rows):
            if (m == 1 or count > 1) and reads(said[i], whole):
                found.add((term, places[0], places[-1] + 1))
            if count > 1 and count == len(places) and len(whole) >= 4:
                found |= within(term, whole, said[i], places)
            fits = i + m <= len(rows) and all(alike(said[i + j], parts[j]) for j in range(m))
            if m > 1 and fits and (any(map(lettered, said[i : i + m])) or said[i : i + m] == list(parts)):
                found.add((term, places[0], rows[i + m - 1][0][-1] + 1))
    return found


def within(term, whole, said, places):
    n = len(whole)
    starts = [k for k in range(len(said) - n + 1) if reads(said[k : k + n], whole)]
    return {(term, places[k], places[k + n - 1] + 1) for k in starts}


def in_unspaced(listed, folded):
    found, every = set(), list(range(len(folded.text)))
    kinds = folded.kinds.tolist()
    closed = [p for p in every if not between(kinds, p)]
    single = [p for k, p in enumerate(closed) if not repeats(folded, kinds, closed, k)]
    for term in _folded(listed):
        parts, anywhere = _parts(term)
        wanted, n = "".join(parts), len(parts)
        for at in (every, closed, single) if anywhere else ():
            said = "".join(folded.text[p] for p in at)
            for k in range(len(at) - n + 1):
                if said[k : k + n] == wanted and whole(said, [kinds[p] for p in at], k, k + n):
                    found.add((wanted, at[k], at[k + n - 1] + 1))
    return found


def between(kinds, p):
    a = b = p
    gap = BLANK | TIGHT
    while a >= 0 and kinds[a] & gap:
        a -= 1
    while b < len(kinds) and kinds[b] & gap:
        b += 1
    return a < p < b <= a + 4 and a >= 0 and b < len(kinds) and bool(kinds[a] & kinds[b] & UNSPACED)


def repeats(folded, kinds, at, k):
    same = [bool(kinds[p] & UNSPACED) and folded.text[p] == folded.text[at[k]] for p in at]
    a = b = k
    while a > 0 and same[a - 1]:
        a -= 1
    while b + 1 < len(at) and same[b + 1]:
        b += 1
    return same[k] and k > a and b - a >= 2


def whole(said, kinds, start, end):
    if end < len(said) and (kinds[end] & MARK or (kinds[end] & WORD and kinds[end - 1] & WORD)):
        return False
    if start and HANGUL[0] <= ord(said[start]) <= HANGUL[1] and HANGUL[0] <= ord(said[start - 1]) <= HANGUL[1]:
        return False
    return not (start and kinds[start] & WORD and kinds[start - 1] & WORD)


PIECES = [
    *"blargsgilzonkthe1@!$0I. -_*'\n,|;aABS",
    "\u200b",
    "а",
    "é",
    "ß",
    "ﬁ",
    "坏",
    "词",
    "坏词",
    "시",
    "발",
    "  ",
    "   ",
]
PIECES += [
    "blarg",
    "ass",
    "as",
    "a",
    "gill",
    "zonk",
    "the",
    "can't",
    "g1ll",
    "\u0301",
    "рот",
    "ж",
    " x ",
    " b l a r g ",
]
GAPS = ["", "", "", "", " ", "-", ".", "_", "  ", "\u200b", ", "]


@st.composite
def disguised(draw):
    """A term with letters that stand for others, repeated, and apart."""
    gap, letters = draw(st.sampled_from(GAPS)), []
    for c in draw(st.sampled_from(LISTED)):
        swapped = draw(st.sampled_from([c, c, c, c, c.upper(), *STANDS_FOR.get(c, "")]))
        letters.append(swapped * draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3])))
    return gap.join(letters)


TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), disguised(), st.just(" ")), max_size=16).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sets(st.sampled_from(LISTED), min_size=1))
@example("a 坏. 词 as--a g1ll", set(LISTED))
@example("z o n k the b.larg, a s a gill", set(LISTED))
@example("z o n k   t h e   b l a r g b-l.a", set(LISTED))
def test_the_fast_way_finds_what_the_plain_way_finds(text, listed):
    terms = Terms("x", sorted(listed))
    folded = fold(text)
    fast = {(t, *folded.span(a, b)) for t, a, b in terms.listed.find(folded)}
    assert fast == plain_way(sorted(listed), text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_and_every_hit_lies_within_it(text):
    folded = fold(text)
    assert np.all(np.diff(folded.at) >= 0) and len(folded.text) == len(folded.at) == len(folded.kinds)
    assert all(0 <= h.span[0] < h.span[1] <= len(text) for h in Terms("x", LISTED).find(text))


MILD = Terms(
    "mild",
    [
        "blarg",
        "zonk",
        "ass",
        "hell",
        "can't",
        "mother-in-law",
        "zonk the blarg",
        "坏词",
        "ข้าวผัด",
        "시발",
        "🍆",
        "gill",
        "pot",
        "сука",
    ],
    allow=["pot plant", "坏词典"],
)


DISGUISES = """asss / aassss / a$$ / cаn't / can’t / Mother–in–law / z o n k the b1arg / z o n k  t h e  b l a r g / my_blarg /
I b l a r g you / bIarg / (b)(l)(a)(r)(g) / B L\nA\nR G / ʙʟᴀʀɢ / 🅱🅻🅰🆁🅶 / ⓑⓛⓐⓡⓖ / 8larg / bl-arg.Then / gi11 / b|arg / bbllaarrgg /
b͓̽l͓̽a͓̽r͓̽g͓̽ / 坏.词 / 坏坏坏词 / 这是zonk吗 / กินข้าวผัดนะ / 시발이 / x🍆y / this is рot / сyкa / bl@rg! / GiII / b,l,4,r,g"""
ALIKE = """as / class / assess / gil / girl / he'll / shell / bl arg / bail / какой рот / 출시발표 / 坏的词 / 他很坏，词 / the pen-is /
1.2.3 / 455 / zonks the blargs / g.i.l / blargh / a, s, b / | 1 | | / !!!! / Iii"""


@pytest.mark.parametrize("text", DISGUISES.split(" / "))
def test_a_disguise_is_seen_through(text):
    assert MILD.find(text), text


@pytest.mark.parametrize("text", ALIKE.split(" / "))
def test_what_only_looks_alike_is_left_alone(text):
    assert MILD.find(text) == []


def test_nothing_counts_within_what_is_allowed():
    assert MILD.find("a pot plant and 坏词典") == []
    assert [h.span for h in MILD.find("a pot, a pot plant and p0t plant")] == [(2, 5), (23, 26)]


def test_a_term_that_would_be_found_everywhere_is_refused():
    with pytest.raises(SettingError, match="fewer than two letters"):
        Terms("x", ["c++"])


def test_hits_name_the_term_the_list_and_where():
    hit = MILD.find("so B.L.A.R.G!")[0]
    assert (hit.rule, hit.reason, hit.span) == ("mild", '"blarg" is on the list mild', (3, 12))
