"""Music as notes on a grid: MIDI, MusicXML, ABC, kern and JSON piano rolls, as tokens of voices or of frames."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import torch
from pydantic import Field
from torch import Tensor

from maquette import files, sheets
from maquette.condition import Condition, fit_condition
from maquette.condition import Field as Column
from maquette.errors import MaquetteError, Unreadable, UsageError
from maquette.finding import Finding
from maquette.piece import Asked, Modality, Piece, Start, Works
from maquette.provenance import visible
from maquette.scores import engrave, guides, harmony, layout, likeness, midi, notation, rolls, synth, transposing, tunes
from maquette.scores.score import Score, polyphony, score, separated, sounding
from maquette.space import Batch, Space

WRITTEN = (".mid", ".midi", ".musicxml", ".wav", ".svg", ".png", ".json")
MOST_CONTEXT = 512  # tokens that a model sees at once, where nothing else is asked
MOST_VOICES = 4  # voices that are chosen by themselves; more become frames
NAMES = ("soprano", "alto", "tenor", "bass")
HEARD = 8.0  # seconds of music in an exhibit
HEARD_RATE = 16_000  # Hz of it
FEWEST_ORDERS = 99  # in which the notes of a canary might stand besides
FEW = 100  # training pieces below which a model mostly repeats what it saw


class Music(Modality):
    """content is a Score: notes on a grid of steps.

    >>> music = Music(grid=1)
    >>> piece = Piece(score([(0, 2, 60, 0), (2, 2, 62, 0)], 1))
    >>> music.restore(music.fit([piece]))
    >>> music.to_tensor(music.clean(piece)).tolist()
    [60, 129, 62, 129]
    """

    telling: ClassVar[tuple[str, ...]] = ("pitch classes", "copied run")
    suffixes: ClassVar[tuple[str, ...]] = (".mid", ".midi", ".musicxml", ".mxl", ".abc", ".krn", ".json")
    likelihood = "categorical"
    formats: ClassVar[tuple[str, ...]] = (".mid", ".musicxml", ".wav")
    ragged: ClassVar[bool] = True
    pretty: ClassVar[str] = "pieces of music"

    def __init__(
        self,
        *,
        voices: Annotated[
            int,
            Field(ge=-1, le=8, description="tokens a step, one a voice; 0: frames of any number of notes; -1 chooses"),
        ] = -1,
        grid: Annotated[
            int, Field(ge=1, le=48, description="steps a beat (a quarter); a frame of a JSON roll is a step")
        ] = 4,
        holds: Annotated[
            bool, Field(description="held notes have a token of their own; else a note is repeated in each step")
        ] = True,
        context: Annotated[int, Field(ge=0, le=1 << 16, description="tokens a model sees at once; 0 chooses")] = 0,
        transpose: Annotated[
            int,
            Field(
                ge=0, le=5, description="semitones up and down by which training varies (5: all twelve keys); 0 is off"
            ),
        ] = 5,
        tempo: Annotated[float, Field(ge=5, le=500, description="beats a minute where a piece says none")] = 90,
        instrument: Annotated[
            Literal["auto", "piano", "organ", "strings", "choir", "guitar"],
            Field(description="what plays; auto: what a piece says, else a piano"),
        ] = "auto",
        longest: Annotated[float, Field(gt=0, le=100_000, description="beats; a longer piece is refused")] = 2000,
        densest: Annotated[int, Field(ge=1, le=128, description="notes at once; a denser piece is refused")] = 32,
    ):
        self.settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.wanted_voices, self.grid, self.holds, self.context = voices, grid, holds, context
        self.shifts = range(-transpose, transpose + 1 + (transpose == 5)) if transpose else range(0, 1)
        self.tempo, self.instrument, self.longest, self.densest = tempo, instrument, longest, densest
        self.fitted: dict[str, Any] = {}

    # ---- in

    def read(self, path: Path) -> Iterator[Piece]:
        """The score of a file; every piece of a JSON roll or an ABC tune book."""
        with _unreadable(path.name):
            for member, heard in self._heard(path):
                facts = {"source": path.name, **heard.facts}
                yield Piece(heard.score, facts if member is None else {**facts, "member": member}, self)

    def _heard(self, path: Path) -> Iterator[tuple[str | None, midi.Heard]]:
        suffix = path.suffix.lower()
        if suffix == ".json":
            return rolls.read(path, self.grid, self.longest)
        if suffix in notation.KINDS:
            return notation.read(path, self.grid, self.longest)
        heard = midi.read(path, self.grid, self.longest)
        return iter([(None, heard._replace(score=_without_silence(heard)))])

    def fit(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """voices, the context, and the means and deviations that moods are counted from."""
        most, long, events, rows = 1, 1, 1, []
        for piece in pieces:
            content = piece.content
            if len(content.notes) and _densest(content) <= self.densest:
                most, long = max(most, polyphony(content)), max(long, content.steps)
                events = max(events, content.steps + (1 + self.holds) * int(content.notes[:, 1].sum()))
                rows.append({**piece.facts, **harmony.measures(content)})
        voices = self.wanted_voices if self.wanted_voices >= 0 else most if most <= MOST_VOICES else 0
        numbers = {n: _spread([r[n] for r in rows if n in r]) for n in ("tempo", "density", "register")}
        for row in rows:
            row["mood"] = harmony.mood_of(row, numbers)
        fields = fit_condition([{k: v for k, v in r.items() if k not in ("source", "member")} for r in rows])
        return {
            "voices": voices,
            "polyphony": most,
            "context": self._window(voices, long * voices if voices else events),
            "numbers": numbers,
            "fields": [f.name for f in fields.fields] if fields else [],
        }

    def _window(self, voices: int, tokens: int) -> int:
        """A multiple of the longest period that holds the longest piece or MOST_CONTEXT tokens."""
        if self.context:
            return self.context
        unit = max(_periods(voices, self.grid), default=64)
        return max(unit, min(ceil(tokens / unit), MOST_CONTEXT // unit) * unit)

    def restore(self, fitted: Mapping[str, Any]) -> None:
        self.fitted = dict(fitted)
        self.voices = fitted["voices"]
        periods = _periods(self.voices, self.grid)
        self._space = Space("tokens", (fitted["context"],), layout.VOCABULARY, (12, 11), layout.END, periods)

    @property
    def space(self) -> Space:
        return self._space

    def fields(self) -> list[Column]:
        """Fields beside those that are fitted: by how much a training piece was moved, which `augment` says, and the tonic, of which so all
        twelve are learnt."""
        if len(self.shifts) < 2:
            return []
        return [
            Column("key", "label", tuple(sorted(harmony.TONICS))),
            Column("shift", "label", tuple(str(s) for s in self.shifts)),
        ]

    def advice(self) -> list[str]:
        found, pieces = [], self.fitted.get("pieces", FEW)
        if pieces < FEW:
            found.append(f"{pieces} pieces to learn from: a model will mostly repeat what it saw; add more if you can")
        most = self.fitted.get("polyphony", 0)
        if self.voices and most > self.voices:
            found.append(f"up to {most} notes sound at once, {self.voices} voices are kept; --set voices=0 keeps all")
        return found

    def clean(self, piece: Piece) -> Piece:
        """Parted into voices or freed of them, measured. Raises Unreadable for what is empty or too dense."""
        content, facts = piece.content, piece.facts
        if not len(content.notes):
            raise Unreadable("it holds no notes (percussion and empty notes are left out)")
        if (most := _densest(content)) > self.densest:
            raise Unreadable(f"{most} notes sound at once; at most {self.densest} do (--set densest=...)")
        laid = self._laid(content, ours=facts.get("voices") == self.voices)
        facts, content = _played(facts, content, laid), laid
        measured = harmony.measures(content)
        mood = harmony.mood_of({**facts, **measured}, self.fitted["numbers"])
        noted = {k: v for k, v in facts.items() if k != "voices"} | measured | {"mood": mood}
        return Piece(content, noted | ({"shift": "0"} if len(self.shifts) > 1 else {}), self)

    def _laid(self, content: Score, ours: bool) -> Score:
        if self.voices == 0:
            notes = content.notes.copy()
            notes[:, 3] = 0
            return score(notes, content.grid, content.steps)
        return content if ours and _is_laid(content, self.voices) else separated(content, self.voices)

    def to_array(self, piece: Piece) -> np.ndarray:
        """(n,) uint8: the tokens themselves."""
        if self.voices:
            return layout.to_voices(piece.content, self.voices, self.holds)
        return layout.to_frames(piece.content, self.holds)

    # ---- what steers

    def augment(self, batch: Batch, condition: Condition | None = None) -> Batch:
        """Each row of tokens moved by as many semitones as chance says, within 0..127; `shift`, `key` and `register` say so."""
        if len(self.shifts) < 2 or not len(batch):
            return batch
        seen = batch.x if batch.before is None else torch.cat([batch.before[:, None], batch.x], 1)
        shift = transposing.chances(seen, self.shifts)
        before = None if batch.before is None else transposing.moved(batch.before, shift)
        rows = batch.condition
        if rows is not None and condition is not None:
            rows = transposing.told(rows, condition, shift)
        return replace(batch, x=transposing.moved(batch.x, shift), before=before, condition=rows)

    def conditions(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """mood as numbers of this corpus, key="G minor" as key and mode, style as label; what is asked outright wins."""
        known, found = set(self.fitted.get("fields", [])), {}
        asked = dict(asked)
        if "style" in asked and "style" not in known:
            asked["label"] = asked.pop("style")
        if "key" in asked:
            tonic, mode = harmony.tonic_named(asked.pop("key"))
            found |= {"key": harmony.TONICS[tonic]} | ({"mode": mode} if mode else {})
        if "mood" in asked:
            implied = harmony.mood_in_numbers(str(asked["mood"]), self.fitted["numbers"])
            found = {k: v for k, v in implied.items() if k in known} | found
            asked = {k: v for k, v in asked.items() if k != "mood" or "mood" in known}
        unmoved = {"shift": "0"} if len(self.shifts) > 1 else {}
        return unmoved | found | asked

    def start(self, asked: Asked) -> Start:
        """prompt: a file to go on from; source and keep: "soprano+bass", "bars=1-2,7-8", joined by ";"; bars or length (beats) of
        what is written; rules: ranges, crossing, parallels, all."""
        if asked.form:
            raise UsageError("form means nothing to music; bars says how long, rules what is to be kept")
        if asked.prompt and asked.source:
            raise UsageError("prompt goes on from a file, source and keep fill in one; ask for one of them")
        rules = self._rules(asked.rules)
        if asked.prompt:
            return self._continued(asked, rules)
        if asked.source:
            return self._filled(asked, rules)
        if asked.keep:
            raise UsageError("keep says what stays of a source; give --source too")
        return self._begun(None, self._steps(asked, (4, 4)), rules)

    def _rules(self, names: Sequence[str]) -> frozenset[str]:
        wanted = {n.strip() for name in names for n in name.split(",") if n.strip()}
        if unknown := wanted - {*harmony.RULES, "all"}:
            raise UsageError(f"rules are {', '.join(harmony.RULES)} or all; {', '.join(sorted(unknown))} came")
        if wanted and self.voices < 2:
            raise UsageError("rules of voice leading need at least two voices; these pieces are frames or single lines")
        if "ranges" in wanted and self.voices != len(NAMES):
            raise UsageError(
                f"ranges are known of soprano, alto, tenor and bass; these pieces have {self.voices} voices"
            )
        every = {r for r in harmony.RULES if r != "ranges" or self.voices == len(NAMES)}
        return frozenset(every if "all" in wanted else wanted)

    def _steps(self, asked: Asked, meter: tuple[int, int]) -> int | None:
        """How many are to be written; None: as many as the model likes."""
        bars = None if asked.bars is None else asked.bars * self._bar(meter)
        steps = bars if bars is not None else None if asked.length is None else asked.length * self.grid
        if steps is not None and not 0 < steps <= self.longest * self.grid:
            raise UsageError(
                f"bars and length (in beats) make music of 1 to {self.longest:,.0f} beats; {steps / self.grid:g} came"
            )
        return steps

    def _bar(self, meter: tuple[int, int]) -> int:
        return engrave.bar_steps(meter, self.grid)

    def _begun(
        self, source: Tensor | None, steps: int | None, rules: frozenset[str], keep: Tensor | None = None
    ) -> Start:
        known = np.full(0, guides.FREE, np.int64)
        if source is not None and keep is not None:
            known = torch.where(keep, source, guides.FREE).numpy()
        if self.voices:
            form = guides.VoicesForm(self.voices, self.holds, steps, rules, known)
            return Start(source, keep, None if steps is None else steps * self.voices, form)
        most = self.fitted["polyphony"]
        length = (
            None if steps is None else max(steps * (1 + (1 + self.holds) * most), 0 if source is None else len(source))
        )
        return Start(source, keep, length, guides.FramesForm(self.holds, steps, most))

    def _continued(self, asked: Asked, rules: frozenset[str]) -> Start:
        piece = self.clean(self.one(asked.prompt))
        source, more = self.to_tensor(piece), self._steps(asked, _meter(piece.facts))
        keep = torch.ones(len(source), dtype=torch.bool)
        return self._begun(source, None if more is None else piece.content.steps + more, rules, keep)

    def _filled(self, asked: Asked, rules: frozenset[str]) -> Start:
        """As long as the source; what begins to be kept in the middle of a note strikes it anew."""
        if asked.bars is not None or asked.length is not None:
            raise UsageError(
                "bars and length go with prompt or alone; with source the new piece is as long as the source"
            )
        piece = self.clean(self.one(asked.source))
        source = self.to_tensor(piece)
        if not asked.keep:
            return self._begun(source, piece.content.steps, rules)
        if not self.voices:
            return self._first_frames(source, piece, asked.keep)
        keep = self._kept(asked.keep, piece)
        return self._begun(_struck(source, keep, self.voices), piece.content.steps, rules, keep)

    def _kept(self, words: str, piece: Piece) -> Tensor:
        """(n,) bool, of a source in voices."""
        keep = torch.zeros(piece.content.steps, self.voices, dtype=torch.bool)
        for part in filter(None, (p.strip() for p in words.split(";"))):
            if part.startswith("bars="):
                for first, last in _bars(part, piece.content.steps, self._bar(_meter(piece.facts))):
                    keep[first:last] = True
            else:
                keep[:, [self._voice(name) for name in part.split("+")]] = True
        return keep.reshape(-1)

    def _voice(self, name: str) -> int:
        names = NAMES if self.voices == len(NAMES) else tuple(f"voice{v + 1}" for v in range(self.voices))
        if name.strip().lower() not in names:
            raise UsageError(
                f'keep takes {", ".join(names)} (joined by +) and bars=1-4, parted by ";"; {name.strip()!r} came'
            )
        return names.index(name.strip().lower())

    def _first_frames(self, source: Tensor, piece: Piece, words: str) -> Start:
        """Of frames only the first bars can be kept, for what is between has no length of its own."""
        spans = _bars(words, piece.content.steps, self._bar(_meter(piece.facts))) if words.startswith("bars=") else []
        if len(spans) != 1 or spans[0][0] != 0:
            raise UsageError(
                f"of pieces in frames the first bars can be kept (bars=1-4); {words!r} came; --set voices=4 gives voices"
            )
        ends = (source == layout.FRAME).nonzero()[:, 0]
        kept = int(ends[spans[0][1] - 1]) + 1
        return self._begun(source[:kept], piece.content.steps, frozenset(), torch.ones(kept, dtype=torch.bool))

    # ---- out

    def to_piece(self, x: Tensor, facts: Mapping[str, Any] | None = None) -> Piece:
        tokens = x.detach().cpu().numpy().reshape(-1)
        ends = np.flatnonzero(tokens == layout.END)
        return Piece(self._score(tokens[: ends[0]] if len(ends) else tokens), dict(facts or {}), self)

    def _score(self, tokens: np.ndarray) -> Score:
        if self.voices:
            return layout.from_voices(tokens, self.voices, self.holds, self.grid)
        return layout.from_frames(tokens, self.holds, self.grid)

    def write(self, piece: Piece, path: Path) -> Path:
        """.mid, .musicxml, .json and .png carry the facts; .wav and .svg have them in a file beside them. A mark that is asked for is seen on
        scores and rolls, is the copyright notice of MIDI, and is heard before sound."""
        path, content, facts = Path(path), piece.content, dict(piece.facts)
        suffix, tempo, meter = path.suffix.lower(), self._tempo(facts), _meter(facts)
        voiced, voices = self._parted(content)
        credit = visible.credit(facts)
        if suffix in (".mid", ".midi"):
            noted = {**facts, "voices": voices}
            return midi.write(voiced, path, noted, tempo, meter, self._timbres(facts, voices), credit)
        if suffix == ".musicxml":
            return files.write_text(path, engrave.musicxml(voiced, facts, tempo, meter, voices, credit))
        if suffix == ".json":
            return rolls.write(voiced, path, {**facts, "voices": voices}, voices)
        if suffix == ".png":
            return _write_picture(_marked(engrave.roll_picture(voiced, self._bar(meter)), facts), path, facts)
        if suffix == ".wav":
            heard = synth.sound(voiced, tempo, self._timbres(facts, voices))
            heard = synth.announced(heard) if credit else heard
            return _beside(files.write_bytes(path, synth.wav(heard)), facts)
        if suffix == ".svg":
            return _beside(
                engrave.write_svg(engrave.musicxml(voiced, facts, tempo, meter, voices, credit), path), facts
            )
        raise UsageError(f"music is written as {' '.join(WRITTEN)}; {path.name} came")

    def _parted(self, content: Score) -> tuple[Score, int]:
        """Frames in as many voices as they need, so that each can be drawn and played."""
        if self.voices:
            return content, self.voices
        voices = max(1, polyphony(content))
        return separated(content, voices), voices

    def _tempo(self, facts: Mapping[str, Any]) -> float:
        """Of the piece, else what was asked of it, else the usual one; in beats a minute."""
        wish = facts.get("wish")
        asked = wish.get("condition") if isinstance(wish, Mapping) else None
        told = facts.get("tempo")
        if told is None and isinstance(asked, Mapping) and ("tempo" in asked or "mood" in asked):
            told = self.conditions(asked).get("tempo")
        try:
            return min(max(float(told), 5.0), 500.0) if told is not None else self.tempo
        except (TypeError, ValueError):
            return self.tempo

    def _timbres(self, facts: Mapping[str, Any], voices: int) -> list[str]:
        if self.instrument != "auto":
            return [self.instrument] * voices
        named = [n for n in str(facts.get("instrument", "")).split("+") if n in synth.TIMBRES]
        return named if len(named) == voices else (named[:1] or ["piano"]) * voices

    @staticmethod
    def read_facts(path: str | Path) -> dict[str, Any]:
        """What `write` noted in a file or beside it; {} where there is nothing of ours. Raises Unreadable."""
        path = Path(path)
        with _unreadable(path.name):
            facts = _noted(path)
        return facts if isinstance(facts, dict) else {}

    def sheet(self, pieces: list[Piece], path: Path, columns: int = 0, captions: list[str] | None = None) -> Path:
        """A .png of piano rolls, a colour a voice, the first 64 beats of each."""
        drawn = engrave.pages([self._parted(p.content)[0] for p in pieces], self._bar((4, 4)))
        drawn = [_marked(roll, p.facts) for roll, p in zip(drawn, pieces, strict=True)]
        return sheets.sheet(drawn, Path(path).with_suffix(".png"), columns or min(2, len(pieces)), captions)

    def exhibit(self, piece: Piece) -> str:
        """A piano roll and a few seconds to hear."""
        voiced, voices = self._parted(piece.content)
        heard = synth.sound(voiced, self._tempo(piece.facts), self._timbres(piece.facts, voices), HEARD_RATE, HEARD)
        data = base64.b64encode(synth.wav(heard.mean(1, keepdims=True), HEARD_RATE, bits=8)).decode()
        roll = engrave.roll_svg(voiced, voices, self._bar(_meter(piece.facts)))
        label = escape(f"the first {HEARD:g} seconds")
        return f'<div>{roll}<audio controls preload="none" aria-label="{label}" src="data:audio/wav;base64,{data}"></audio></div>'

    def measured(self, piece: Piece) -> dict[str, float]:
        """How far each of the 12 pitch classes above the tonic sounds, mode, density, register and length in beats."""
        if not len(piece.content.notes):
            return dict.fromkeys((*(f"degree {k}" for k in range(12)), "minor", "density", "register", "beats"), 0.0)
        told = harmony.measures(piece.content)
        degrees = likeness.pitch_classes(piece.content)
        found = {f"degree {k}": float(x) for k, x in enumerate(degrees / max(1e-9, degrees.sum()))}
        numbers = {"density": told["density"], "register": told["register"], "beats": float(piece.content.beats)}
        return found | {"minor": float(told["mode"] == "minor")} | numbers

    # ---- what is judged

    def units(self, piece: Piece) -> dict[str, int]:
        """frames, notes that begin (without holds: pitches), and steps: what nats are divided by."""
        tokens = self.to_array(piece)
        notes = tokens < layout.REST
        if not self.voices and self.holds:
            notes[1:] &= tokens[:-1] != layout.HOLD
        return {"frame": piece.content.steps, "step": piece.content.steps, "note": int(notes.sum())}

    def findings(self, works: Works) -> list[Finding]:
        def training() -> Iterator[Score]:
            return (self._score(np.asarray(tokens)) for tokens in works.training())

        made, held = ([p.content for p in pieces] for pieces in (works.generated, works.held))
        return likeness.findings(made, held, training, self.voices, self._bar((4, 4)), works.seed)

    def traces(self, piece: Piece) -> dict[str, np.ndarray]:
        """The same in any key: intervals with delays of each voice, one voice after the other; and all voices at once."""
        return {"melody": likeness.lines(piece.content), "chords": likeness.chords(piece.content)}

    def symbols(self, piece: Piece) -> dict[str, np.ndarray]:
        return self.traces(piece)

    def given(self, start: Start) -> Piece | None:
        """The voices and bars that are kept, silence around them."""
        if not self.voices or start.source is None or start.keep is None:
            return super().given(start)
        return self.to_piece(torch.where(start.keep, start.source, layout.REST)) if bool(start.keep.any()) else None

    def canaries(self, path: Path, alternatives: int, seed: int) -> Iterator[list[Piece]]:
        """The tunes of a file; in their place might stand the same notes in another order, each voice by itself."""
        for piece in self.read(Path(path)):
            own = self.clean(piece)
            others = likeness.reordered(own.content, alternatives, np.random.default_rng(seed))
            if len(others) < FEWEST_ORDERS:
                raise UsageError(
                    f"a canary of {path} has notes in only {len(others) + 1} orders; make it of more notes"
                )
            yield [own, *(Piece(other, own.facts, self) for other in others)]

    def sketch(self, piece: Piece) -> np.ndarray | None:
        return tunes.sketch(piece.content)

    def twins(self, sketches: np.ndarray) -> np.ndarray:
        return tunes.twins(sketches)


# ---- reading


@contextmanager
def _unreadable(name: str) -> Iterator[None]:
    """Whatever a parser raises on bytes of unknown origin is one thing to us: this file cannot be read."""
    try:
        yield
    except (MaquetteError, GeneratorExit):
        raise
    except PermissionError:
        raise Unreadable(f"{name}: may not be read (permission denied)") from None
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unreadable(f"{name}: cannot be read ({said})") from None


def _without_silence(heard: midi.Heard) -> Score:
    """Whole bars before the first note are dropped."""
    notes = heard.score.notes.copy()
    if not len(notes):
        return heard.score
    bar = engrave.bar_steps(_meter(heard.facts), heard.score.grid)
    notes[:, 0] -= notes[0, 0] // bar * bar
    return score(notes, heard.score.grid)


def _meter(facts: Mapping[str, Any]) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2})/(1|2|4|8|16|32)", str(facts.get("meter", "")))
    return (int(found[1]), int(found[2])) if found and int(found[1]) else (4, 4)


def _played(facts: Mapping[str, Any], before: Score, after: Score) -> dict[str, Any]:
    """The instruments of parts in the order of the voices that the parts became."""
    named = str(facts.get("instrument", "")).split("+")
    if len(named) < 2 or len(named) != len(np.unique(before.notes[:, 3])):
        return dict(facts)
    part = {tuple(n[:3]): n[3] for n in before.notes.tolist()}
    leaders = [
        next((part.get(tuple(n[:3])) for n in after.notes.tolist() if n[3] == v), None) for v in range(len(named))
    ]
    known = [named[p] for p in leaders if p is not None and p < len(named)]
    return {**facts, "instrument": "+".join(known) if len(known) == len(named) else named[0]}


def _densest(content: Score) -> int:
    """How many pitches sound at once where the most notes do."""
    counts, notes = sounding(content), content.notes
    busiest = int(counts.argmax()) if len(counts) else 0
    return len(np.unique(notes[(notes[:, 0] <= busiest) & (notes[:, 0] + notes[:, 1] > busiest), 2]))


def _is_laid(content: Score, voices: int) -> bool:
    notes = content.notes
    lines = [notes[notes[:, 3] == v] for v in range(voices)]
    whole = sum(len(line) for line in lines) == len(notes)
    return whole and all((line[:-1, 0] + line[:-1, 1] <= line[1:, 0]).all() for line in lines)


def _spread(values: Sequence[float]) -> list[float]:
    return [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)] if values else [0.0, 0.0]


def _periods(voices: int, grid: int) -> tuple[int, ...]:
    return tuple(sorted({voices, voices * grid, voices * grid * 4} - {0, 1}))


# ---- what steers


def _bars(words: str, steps: int, bar: int) -> list[tuple[int, int]]:
    """ "bars=1-2,7-8" -> spans of steps. Raises UsageError."""
    found, count = [], ceil(steps / bar)
    for span in words.removeprefix("bars=").split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", span)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= count:
            raise UsageError(
                f"bars are numbers like bars=1-4 or bars=1-2,7-8 within the {count} bars of the source; {words!r} came"
            )
        found.append(((first - 1) * bar, min(last * bar, steps)))
    return found


def _struck(source: Tensor, keep: Tensor, voices: int) -> Tensor:
    """The source with a pitch in the place of each hold where keeping begins, for nobody knows what will sound before it."""
    table, kept = source.reshape(-1, voices).clone(), keep.reshape(-1, voices)
    sung = torch.full((voices,), layout.REST)
    for step in range(len(table)):
        goes_on = table[step] == layout.HOLD
        if step and bool((begins := goes_on & kept[step] & ~kept[step - 1]).any()):
            table[step] = torch.where(begins, sung, table[step])
        sung = torch.where(goes_on, sung, table[step])
    return table.reshape(-1)


# ---- out


def _marked(pixels: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    return visible.shown(pixels, facts.get("labels", "eu")) if facts.get("visible") else pixels


def _write_picture(pixels: np.ndarray, path: Path, facts: Mapping[str, Any]) -> Path:
    noted = PIL.PngImagePlugin.PngInfo()
    noted.add_itxt("maquette", json.dumps(dict(facts), ensure_ascii=False, default=str))
    return files.write_with(path, lambda p: PIL.Image.fromarray(pixels).save(p, format="PNG", pnginfo=noted))


def _beside(path: Path, facts: Mapping[str, Any]) -> Path:
    if facts:
        plain = json.loads(json.dumps(dict(facts), default=str))
        files.write_json(path.with_name(path.name + ".json"), plain)
    return path


def _noted(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix in (".mid", ".midi"):
        facts = midi.noted_in(path.read_bytes())
        return {k: v for k, v in facts.items() if k != "voices"}
    if suffix == ".json":
        data = files.read_json(path)
        ours = isinstance(data, dict) and data.get("format") == rolls.FORMAT
        return {k: v for k, v in data.get("facts", {}).items() if k != "voices"} if ours else {}
    if suffix == ".png":
        with PIL.Image.open(path, formats=("PNG",)) as image:
            return json.loads(image.info.get("maquette", "{}"))
    if suffix == ".musicxml":
        field = ElementTree.fromstring(path.read_bytes()).find(".//miscellaneous-field[@name='maquette']")
        return {} if field is None else json.loads(field.text or "{}")
    sidecar = path.with_name(path.name + ".json")
    return files.read_json(sidecar) if sidecar.is_file() else {}
