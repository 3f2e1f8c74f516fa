"""The guard: 100,000 terms over 1 MB of text, how many disguises are seen through, how often ordinary text is flagged (see guard.terms).

The disguises are made here, from tables of their own that share nothing with the package's. A text counts as falsely flagged where no term
stands in it as a word and one is found. The words are mild ones, and those that hide in ordinary words: ass in class, hell in he'll.
"""

from __future__ import annotations

import gc
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from results import data

from maquette.guard.policy import make
from maquette.guard.terms import Terms

TERMS, MEGABYTE, TIMES = 100_000, 1_000_000, 11
WORDS = [
    "idiot",
    "moron",
    "loser",
    "bastard",
    "damned",
    "scumbag",
    "wanker",
    "blockhead",
    "halfwit",
    "numskull",
    "zionk",
    "blarg",
]
WORDS += ["go to blazes", "dirty rotten liar", "good-for-nothing"]
HIDING = [
    "ass",
    "hell",
    "sex",
    "anal",
    "cock",
    "tit",
    "cum",
    "rape",
    "rapist",
    "shit",
    "were",
    "shed",
    "ill",
    "pen",
    "arse",
    "hoe",
    "nazi",
]
CHINESE = ["坏蛋", "混账东西", "白痴"]
CARRIERS = ["you are such a {}, really", "{}", "What a {}!", "I said: {}. Then I left", "'{}' they cried"]
CYRILLIC = dict(zip("aceiopsxyjhkmtb", "асеіорѕхујһкмтв", strict=True))
GREEK = dict(zip("aeiknoptuvx", "αεικηορτυνχ", strict=True))
LEET = {"a": "@4", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "l": "1|", "b": "8", "g": "9"}
INNOCENT = """The assassin of Essex passed the class with an assessment. | Scunthorpe has a cocktail bar and a peacock. | The therapist's
analysis was thorough; we'll see if she'll agree. | He'll bring shiitake mushrooms and grapes in a basket. | Titanic cumin, accumulated
documents, circumstances. | Shitake, Matsushita and a shitzu at the Shell station. | A penny for the open pencil; well-known, were we're.
| Classic glass: 1.2.3, 4x4, mp3, h264, 2nd, 3D. | I. A. S. is a list: a, b, c; x - y - z. | Hello shells, hellos and Hellenes, Michelle.
| The hoed field, phoenix and shoes; canal, banal, analyst. | Arsenal's coarse parsed arsenic hearse. | Pass the sextant to Sussex, Middlesex."""


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """The time by the first seed; disguises and false flags, the worst of all seeds and kinds of text."""
    caught = [evasions(random.Random(seed)) for seed in seeds]
    flags = false_flags()
    return {
        **speed(random.Random(seeds[0])),
        "evasions": len(disguised(random.Random(seeds[0]))),
        "evasions_caught": round(min(share for share, _ in caught), 4),
        "evasions_missed": sorted({kind for _, missed in caught for kind in missed}),
        "false_flags": round(max(share for _, share in flags.values()), 4),
        "false_flags_by_text": {name: {"texts": n, "share": round(share, 4)} for name, (n, share) in flags.items()},
    }


# ---- how long


def speed(draw: random.Random) -> dict[str, float]:
    """Seconds by the clock, of this process, and to make the list ready; medians of several times."""
    text = shakespeare()[:MEGABYTE]
    words = [pseudo(draw) if k % 10 else f"{pseudo(draw)} {pseudo(draw)}" for k in range(TERMS)]
    begun = time.perf_counter()
    terms = Terms("many", words)
    ready = time.perf_counter() - begun
    terms.find(text)
    gc.collect()
    found = [timed(lambda: terms.find(text)) for _ in range(TIMES)]
    clock, own = zip(*found, strict=True)
    return {
        "guard_seconds": round(median(clock), 4),
        "guard_cpu_seconds": round(median(own), 4),
        "guard_ready_seconds": round(ready, 2),
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    begun, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - own


def pseudo(draw: random.Random) -> str:
    return "".join(draw.choice("bcdfghklmnprstvwz") + draw.choice("aeiou") for _ in range(draw.randint(2, 5)))


def shakespeare() -> str:
    return data("tinyshakespeare", "input.txt").read_text(encoding="utf-8")


# ---- what is caught


def evasions(draw: random.Random) -> tuple[float, list[str]]:
    """The share of disguises that are found, and the kinds of which one was missed."""
    terms = make({"lists": [{"name": "mild", "words": WORDS}]})
    rows = disguised(draw)
    missed = [kind for kind, text in rows if not terms.check(text)]
    return 1 - len(missed) / len(rows), missed


def disguised(draw: random.Random) -> list[tuple[str, str]]:
    """Each word in each kind of disguise that changes it, within a sentence."""
    rows = []
    for word in WORDS:
        for kind, change in DISGUISES.items():
            other = change(word, draw)
            if other != word:
                rows.append((kind, draw.choice(CARRIERS).format(other)))
    return rows


def swapped(table: dict[str, str], share: float) -> Callable[[str, random.Random], str]:
    def change(word: str, draw: random.Random) -> str:
        places = [k for k, c in enumerate(word) if c in table]
        chosen = draw.sample(places, max(1, round(share * len(places)))) if places else []
        return "".join(draw.choice(table[c]) if k in chosen else c for k, c in enumerate(word))

    return change


def between(*signs: str) -> Callable[[str, random.Random], str]:
    return lambda word, draw: draw.choice(signs).join(word.replace(" ", "").replace("-", ""))


def shifted(capital: int, small: int) -> Callable[[str, random.Random], str]:
    table = {chr(65 + k): chr(capital + k) for k in range(26)} | {chr(97 + k): chr(small + k) for k in range(26)}
    return lambda word, draw: "".join(table.get(c, c) for c in word)


def sprinkled(*signs: str) -> Callable[[str, random.Random], str]:
    return lambda word, draw: "".join(c + draw.choice(signs) for c in word[:-1]) + word[-1]


def stretched(word: str, draw: random.Random) -> str:
    k = draw.choice([k for k, c in enumerate(word) if c.isalpha()])
    return word[:k] + word[k] * draw.randint(3, 9) + word[k + 1 :]


def broken(word: str, draw: random.Random) -> str:
    k = draw.randint(1, len(word) - 1)
    return word[:k] + draw.choice("-._*") + word[k:] if " " not in word else word


def capital_i(word: str, draw: random.Random) -> str:
    return word[0] + word[1:].replace("l", "I")


def both(*changes: Callable[[str, random.Random], str]) -> Callable[[str, random.Random], str]:
    def change(word: str, draw: random.Random) -> str:
        for one in changes:
            word = one(word, draw)
        return word

    return change


DISGUISES: dict[str, Callable[[str, random.Random], str]] = {
    "capitals": lambda word, draw: "".join(draw.choice((c.upper(), c)) for c in word),
    "one Cyrillic letter": swapped(CYRILLIC, 0.01),
    "Cyrillic letters": swapped(CYRILLIC, 1),
    "Greek letters": swapped(GREEK, 1),
    "full width": shifted(0xFF21, 0xFF41),
    "bold": shifted(0x1D400, 0x1D41A),
    "fraktur": shifted(0x1D56C, 0x1D586),
    "monospace": shifted(0x1D670, 0x1D68A),
    "circled": shifted(0x24B6, 0x24D0),
    "squared": shifted(0x1F130, 0x1F130),
    "zero width": sprinkled("\u200b", "\u200c", "\u200d", "\ufeff", "\u2060", ""),
    "soft hyphens": sprinkled("\u00ad", ""),
    "marks": sprinkled("\u0301", "\u0308", "\u0336", "\u0338", ""),
    "accents": swapped({"a": "àäå", "e": "éëê", "i": "íïì", "o": "öôø", "u": "üùû", "n": "ñ", "l": "ł"}, 1),
    "points": between(".", "·", "•"),
    "hyphens": between("-", "_", "*", "~"),
    "spaces": between(" ", "  ", "\u00a0", "\u2003"),
    "spaces and points": between(". ", " - ", ", "),
    "lines": between("\n"),
    "broken": broken,
    "light leet": swapped(LEET, 0.3),
    "heavy leet": swapped(LEET, 1),
    "stretched": stretched,
    "doubled": lambda word, draw: "".join(c * 2 if c.isalpha() else c for c in word),
    "capital I for l": capital_i,
    "leet and stretched": both(swapped(LEET, 0.4), stretched),
    "leet apart": both(swapped(LEET, 0.4), between(" ", ".", "-")),
    "Cyrillic and zero width": both(swapped(CYRILLIC, 0.5), sprinkled("\u200b", "")),
    "full width, broken": both(broken, shifted(0xFF21, 0xFF41)),
}


# ---- what is flagged that should not be


def false_flags() -> dict[str, tuple[int, float]]:
    """Of ordinary texts in which no term stands as a word: how many, and the share that is flagged."""
    found = {}
    for name, texts in ordinary().items():
        words = CHINESE if name == "poems" else WORDS + HIDING
        terms = make({"lists": [{"name": "all", "words": words}]})
        plainly = re.compile(
            "|".join(words) if name == "poems" else rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.I
        )
        kept = [t for t in texts if not plainly.search(t)]
        found[name] = len(kept), sum(bool(terms.check(t)) for t in kept) / max(1, len(kept))
    return found


def ordinary() -> dict[str, list[str]]:
    top = Path(__file__).resolve().parents[2]
    pages = [p.read_text(encoding="utf-8") for p in [*sorted(top.glob("docs/*.md")), top / "README.md"]]
    code = [p.read_text(encoding="utf-8") for p in sorted(top.glob("src/**/*.py"))]
    return {
        "look-alikes": [" ".join(t.split()) for t in INNOCENT.split("|")],
        "documentation": list(paragraphs(pages)),
        "code": list(paragraphs(code)),
        "plays": list(paragraphs([shakespeare()])),
        "poems": [
            "\n".join(one["paragraphs"])
            for one in json.loads(data("tang_poems", "唐诗三百首.json").read_text(encoding="utf-8"))
        ],
    }


def paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from (p for p in text.split("\n\n") if p.strip())
