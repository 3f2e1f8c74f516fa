"""rate: a run in, likes and dislikes of its pieces out (runs/mine/ratings.jsonl), asked in the terminal or on one HTML sheet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from maquette import files
from maquette.errors import ContentError, RunError, SettingError
from maquette.page import STYLE
from maquette.piece import Piece
from maquette.ratings import FILE, Rating, append, merge, read, settled
from maquette.run import Run, identity
from maquette.verbs.generate import Wish, generating, save
from maquette.verbs.taste import wish_facts

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
SINGLE = {"y": True, "n": False}
PAIR = {"a": True, "b": False}
WIDE = 48  # columns of a picture in a terminal

Ask = Callable[[Sequence[Piece], int, int], str]  # (one piece or two, number, of) -> y n (a b), s: skip, q: quit


def shown(
    run: Run, n: int, wish: Wish | None = None, pairs: bool = False, device: str = "auto"
) -> Iterator[tuple[Piece, ...]]:
    """n pieces, or n pairs, that were not rated yet: their seeds go on from the last one that was. Raises SettingError."""
    if n < 1:
        raise SettingError(f"the number of pieces to rate should be >= 1; {n} came")
    wish = wish or Wish()
    wish = replace(wish, seed=max(wish.seed, next_seed(run)))
    made = generating(run, 2 * n if pairs else n, wish, device)
    return zip(made, made, strict=True) if pairs else ((piece,) for piece in made)


def next_seed(run: Run) -> int:
    """The first seed beyond all that were rated of these very weights."""
    file, mark = run.path / FILE, identity(run)
    rated = [r for r in read(file) if r.run == mark] if file.is_file() else []
    seeds = [int(w["seed"]) for r in rated for w in (r.wish, r.worse) if w]
    return max(seeds, default=-1) + 1


def rate(
    run: Run,
    ask: Ask,
    n: int = 20,
    *,
    wish: Wish | None = None,
    pairs: bool = False,
    rater: str = "",
    device: str = "auto",
) -> int:
    """Ask of each piece (or pair) and write each answer down at once; how many there were. Stops at the answer q."""
    count = 0
    answers = PAIR if pairs else SINGLE
    for number, pieces in enumerate(shown(run, n, wish, pairs, device), start=1):
        answer = ask(pieces, number, n)
        if answer == "q":
            break
        if answer in answers:
            count += append(run.path / FILE, [rating(run, pieces, answers[answer], rater)])
    return count


def rating(run: Run, pieces: Sequence[Piece], first: bool, rater: str = "") -> Rating:
    """What is said of one piece (liked or not), or of two (whether the first is better)."""
    wishes = [wish_of(piece) for piece in pieces]
    if len(wishes) == 1:
        return Rating(identity(run), wishes[0], first, None, rater)
    better, worse = wishes if first else wishes[::-1]
    return Rating(identity(run), better, None, worse, rater)


def wish_of(piece: Piece) -> dict[str, Any]:
    """What a rating notes of a piece: its wish, without what is as usual."""
    wish = Wish(**piece.facts["wish"])
    return wish_facts(wish, wish.seed)


def take(run: Run, file: Path) -> int:
    """Add the ratings of a downloaded file to the run's own; how many were new. Raises ContentError, RunError for those of other weights,
    and where they contradict what was said before; then nothing is added."""
    new = read(file)
    foreign = [r for r in new if r.run != identity(run)]
    if foreign:
        raise RunError(
            f"{len(foreign)} of the {len(new)} ratings of {file} are of other weights than those of {run.path} now; import them into "
            "the run they were made for"
        )
    if not new:
        raise ContentError(f"{file} holds no ratings; the sheet's button writes them once something is rated")
    old = read(run.path / FILE) if (run.path / FILE).is_file() else []
    settled([*old, *(replace(r, line=len(old) + i) for i, r in enumerate(new, start=1))], identity(run), str(run.path))
    return merge(run.path / FILE, file)


# ---- in a terminal


def pictured(piece: Piece) -> str:
    """What a terminal can show of a piece: a text itself, a picture in half blocks; else nothing."""
    if isinstance(piece.content, str):
        return piece.content
    if isinstance(piece.content, np.ndarray) and piece.content.ndim == 3:
        return half_blocks(piece.content)
    return ""


def half_blocks(picture: np.ndarray) -> str:
    """picture (H, W, C) uint8 -> lines of coloured half blocks, two pixels a character, at most WIDE columns."""
    step = -(-picture.shape[1] // WIDE)
    small = picture[::step, ::step]
    rgb = np.repeat(small[..., :1], 3, 2) if small.shape[2] < 3 else small[..., :3]
    if len(rgb) % 2:
        rgb = np.concatenate([rgb, rgb[-1:]])
    lines = []
    for upper, lower in zip(rgb[::2], rgb[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]}m\x1b[48;2;{b[0]};{b[1]};{b[2]}m\u2580"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def asker(read_line: Callable[[str], str], tell: Callable[[str], None], folder: Path, colours: bool = True) -> Ask:
    """A question a piece: texts are printed, all else is written under `folder`, its path told; pictures are shown small."""

    def ask(pieces: Sequence[Piece], number: int, of: int) -> str:
        answers = PAIR if len(pieces) == 2 else SINGLE
        tell(f"\n{number} of {of}")
        for name, piece in zip("ab", pieces, strict=False):
            head = f"({name}) " if len(pieces) == 2 else ""
            if isinstance(piece.content, str):
                tell(f"{head}\n{piece.content}" if head else piece.content)
                continue
            written = save([piece], folder)
            tell(f"{head}{written[0]}")
            if colours and (small := pictured(piece)):
                tell(small)
        words = "which is better, a or b" if len(pieces) == 2 else "do you like it, y or n"
        while True:
            said = read_line(f"{words} (s skips, q ends): ").strip().lower()[:1]
            if said in (*answers, "s", "q"):
                return said
            tell(f"{', '.join(answers)}, s or q; {said!r} came")

    return ask


# ---- as a sheet


def sheet(
    run: Run,
    file: Path,
    n: int = 20,
    *,
    wish: Wish | None = None,
    pairs: bool = False,
    rater: str = "",
    device: str = "auto",
) -> Path:
    """One HTML file with n pieces (or pairs) to judge and a button that gives ratings.jsonl; it asks nothing of any server."""
    items = list(shown(run, n, wish, pairs, device))
    assert items[0][0].modality is not None
    modality = items[0][0].modality
    data = {
        "run": identity(run),
        "rater": rater,
        "items": [[wish_of(piece) for piece in item] for item in items],
    }
    cards = "".join(_card(i, item, modality) for i, item in enumerate(items))
    title = f"Which of these {modality.pretty or 'pieces'} do you like?"
    keys = "keys: a, b, s skips, arrows move" if pairs else "keys: y likes, n dislikes, s skips, arrows move"
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(run.path.name)}; {keys}. Then: maquette rate {escape(run.path.name)} --import ratings.jsonl</p>'
        f'<main class="cards">{cards}</main><footer><span id="count" role="status">0 of {len(items)} rated</span>'
        f'<button id="save" disabled>download ratings.jsonl</button></footer>'
        f'<script type="application/json" id="data">{_safe(data)}</script><script>{SCRIPT}</script></body></html>\n'
    )
    return files.write_text(Path(file), body)


def _safe(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _card(i: int, pieces: Sequence[Piece], modality: Any) -> str:
    labels = ("a is better", "b is better") if len(pieces) == 2 else ("like", "dislike")
    exhibits = "".join(f"<div>{modality.exhibit(piece)}</div>" for piece in pieces)
    first, second = (
        f'<button data-item="{i}" data-answer="{a}" aria-pressed="false">{label}</button>'
        for a, label in zip((1, 0), labels, strict=True)
    )
    return f'<article tabindex="0" id="item{i}"><div class="pieces">{exhibits}</div><div class="answers">{first}{second}</div></article>'


OWN_STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1rem; padding-bottom: 5rem; }
article { border: 2px solid var(--line); border-radius: 8px; padding: .75rem; min-width: 0; display: flex; flex-direction: column;
  justify-content: space-between; }
article:focus { outline: 3px solid var(--real); } article.done { border-color: var(--made); }
.pieces { display: flex; flex-wrap: wrap; gap: .75rem; } .pieces > div { flex: 1 1 8rem; min-width: 0; overflow-wrap: anywhere; }
.pieces img { width: 100%; } .pieces audio { width: 100%; }
.answers { display: flex; gap: .5rem; margin-top: .75rem; }
button { flex: 1; min-height: 44px; font: inherit; color: var(--ink); background: var(--paper); border: 1px solid var(--soft); border-radius: 6px; }
button[aria-pressed=true] { background: var(--made); color: #fff; border-color: var(--made); } button:disabled { opacity: .5; }
footer { position: fixed; left: 0; right: 0; bottom: 0; display: flex; gap: 1rem; align-items: center; padding: .6rem 1rem;
  background: var(--paper); border-top: 1px solid var(--line); }
footer button { flex: 0 1 auto; padding: 0 1rem; }
"""
SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent), said = new Map();
const cards = [...document.querySelectorAll("article")], save = document.getElementById("save");
let here = 0;
function go(i) { here = Math.max(0, Math.min(cards.length - 1, i)); cards[here].focus(); cards[here].scrollIntoView({block: "nearest"}); }
function tell(i, answer) {
  if (said.get(i) && said.get(i).answer === answer) said.delete(i); else said.set(i, {answer, time: new Date().toISOString()});
  for (const b of cards[i].querySelectorAll("button"))
    b.setAttribute("aria-pressed", said.has(i) && said.get(i).answer === Number(b.dataset.answer));
  cards[i].classList.toggle("done", said.has(i));
  document.getElementById("count").textContent = said.size + " of " + cards.length + " rated";
  save.disabled = !said.size;
}
function line([i, {answer, time}]) {
  const item = data.items[i], rest = {rater: data.rater, time};
  if (item.length === 1) return JSON.stringify({run: data.run, wish: item[0], liked: answer === 1, ...rest});
  return JSON.stringify({run: data.run, better: item[1 - answer], worse: item[answer], ...rest});
}
document.addEventListener("click", e => {
  if (e.target.dataset.item) { here = Number(e.target.dataset.item); tell(here, Number(e.target.dataset.answer)); }
});
document.addEventListener("focusin", e => { const c = e.target.closest("article"); if (c) here = cards.indexOf(c); });
document.addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const answer = {y: 1, a: 1, n: 0, b: 0}[e.key.toLowerCase()];
  if (answer !== undefined) { tell(here, answer); if (said.has(here)) go(here + 1); e.preventDefault(); }
  else if (e.key === "s" || e.key === "ArrowRight" || e.key === "ArrowDown") { go(here + 1); e.preventDefault(); }
  else if (e.key === "ArrowLeft" || e.key === "ArrowUp") { go(here - 1); e.preventDefault(); }
});
save.addEventListener("click", () => {
  const text = [...said].sort((x, y) => x[0] - y[0]).map(line).join("\\n") + "\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
  link.download = "ratings.jsonl"; document.body.append(link); link.click(); link.remove(); URL.revokeObjectURL(link.href);
});
go(0);
"""


def summary(ratings: Iterable[Rating]) -> str:
    """How many of each there are, in words."""
    found = list(ratings)
    likes = sum(r.liked is True for r in found)
    dislikes = sum(r.liked is False for r in found)
    return f"{likes} liked, {dislikes} disliked, {len(found) - likes - dislikes} pairs"
