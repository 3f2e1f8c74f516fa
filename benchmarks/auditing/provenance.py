"""Papers: one flipped bit in every format written, untouched files, the time of a signature; and the watermark on emoji (see watermark.py).

Of every format PIECES files are written, each of another content (.svg and .wav, which are slow to make: DISTINCT contents), labelled, signed
and entered in the ledger by themselves. Each is verified as it is, and again after one bit of it was flipped: a bit drawn from *all* bytes of the
file, the manifest in it included. `verify` runs in this process (`inspect`), not in the child that `maquette verify` starts, for speed.
`flips_found_by_signature` counts, of the flips outside the manifest itself, those that C2PA alone finds; `flips_found_by_ledger` those that the
ledger alone finds, of all. The 10,000 clean pictures are emoji on backgrounds of random colours with a little noise, in several versions
each: composed, not 10,000 photographs.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import PIL.Image
from results import data

from maquette.errors import Unreadable
from maquette.modalities.image import Image
from maquette.modalities.music import Music
from maquette.modalities.text import Text
from maquette.piece import Piece
from maquette.provenance import credentials, watermark
from maquette.provenance.finishing import Marks
from maquette.provenance.inspecting import inspect
from maquette.scores.score import score
from maquette.verbs.verify import FOUND

PIECES, DISTINCT, CLEAN, MARKED = (
    int(os.environ.get(k, v)) for k, v in (("PIECES", 1000), ("DISTINCT", 10), ("CLEAN", 10_000), ("MARKED", 2_000))
)
MEMORY = "/dev/shm"  # a disk in memory, where there is one: 13,000 files are flushed thrice each
SLOW = (".svg", ".wav")  # to engrave and to play
FACTS = {"generator": "maquette", "run": "r", "run_fingerprint": "f", "wish": {"seed": 0}}


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed: what is promised, and under "provenance" all of it."""
    chance = np.random.default_rng(seeds[0])
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as place:
        os.environ["MAQUETTE_KEYS"] = f"{place}/keys"
        seen = {suffix: flips(Path(place) / suffix[1:], suffix, chance) for suffix in FORMATS}
        figures = told(seen) | signing(Path(place), chance)
    return {key: figures[key] for key in ("flips_found", "untouched_valid", "signing_ms")} | {"provenance": figures}


def picture(chance: np.random.Generator, side: int = 48) -> Piece:
    return Piece(chance.integers(0, 255, (side, side, 3), dtype=np.uint8), FACTS, Image())


def tune(chance: np.random.Generator) -> Piece:
    notes = [(k, 1, int(pitch), 0) for k, pitch in enumerate(chance.integers(55, 80, 4))]
    music = Music()
    music.restore({"voices": 1, "context": 64})
    return Piece(score(notes, 4), FACTS | {"tempo": 240}, music)


def verse(chance: np.random.Generator) -> Piece:
    words = "".join(chance.choice(list("abcdefgh  \n"), 200))
    return Piece(words, FACTS, Text())


FORMATS = (
    dict.fromkeys((".png", ".jpg", ".webp", ".gif", ".tiff", ".bmp"), picture)
    | dict.fromkeys((".mid", ".wav", ".musicxml"), tune)
    | ({".svg": tune} if find_spec("verovio") else {})
    | dict.fromkeys((".txt", ".md", ".json"), verse)
)


@dataclass(frozen=True)
class Seen:
    """Of each file of one format: untouched before; untouched after a flip; whether either mechanism still vouched; outside the manifest."""

    before: list[bool]
    found: list[bool]
    by_signature: list[bool]
    by_ledger: list[bool]
    payload: list[bool]


def flips(place: Path, suffix: str, chance: np.random.Generator) -> Seen:
    seen = Seen([], [], [], [], [])
    for path in files_of(place, suffix, chance):
        seen.before.append(inspect(path).untouched)
        byte, bit = int(chance.integers(path.stat().st_size)), int(chance.integers(8))
        seen.payload.append(not any(a <= byte < b for a, b in manifest_within(path)))
        after = flipped(path, byte, bit)
        seen.found.append(after is None or not after.untouched)
        seen.by_signature.append(after is None or after.signature not in ("trusted", "unknown"))
        seen.by_ledger.append(after is None or after.ledger not in ("untouched", "unlisted"))
    return seen


def files_of(place: Path, suffix: str, chance: np.random.Generator) -> list[Path]:
    """As the command line writes them, except that what was written is written again where contents are few."""
    marks, kind, paths = Marks(labels="both"), FORMATS[suffix], []
    for k in range(PIECES):
        path = place / f"{k}{suffix}"
        if suffix not in SLOW or k < DISTINCT:
            kind(chance).save(path)
        else:
            path.write_bytes((place / f"{k % DISTINCT}.bare").read_bytes())
        if suffix in SLOW and k < DISTINCT:
            (place / f"{k}.bare").write_bytes(path.read_bytes())
        paths += marks.finish([path], {**FACTS, "wish": {"seed": k}})
    return paths


def manifest_within(path: Path) -> list[tuple[int, int]]:
    """Where in a file its signature lies, by the signature's own word; nowhere where it lies beside."""
    import c2pa

    if not credentials.carries(path):
        return []
    with c2pa.Reader(credentials.CARRIERS[path.suffix], io.BytesIO(path.read_bytes())) as reader:
        (manifest,) = json.loads(reader.detailed_json())["manifests"].values()
    gaps = manifest["assertion_store"]["c2pa.hash.data"]["exclusions"]
    return [(gap["start"], gap["start"] + gap["length"]) for gap in gaps]


def flipped(path: Path, byte: int, bit: int) -> Any:
    """What is told of a file with one bit turned; None where it is refused in words."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[byte] ^= 1 << bit
    path.write_bytes(changed)
    try:
        return inspect(path)
    except Unreadable:
        return None
    finally:
        path.write_bytes(whole)


def told(seen: Mapping[str, Seen]) -> dict[str, Any]:
    """The worst over formats, and each."""
    found = {suffix: float(np.mean(s.found)) for suffix, s in seen.items()}
    before = {suffix: float(np.mean(s.before)) for suffix, s in seen.items()}
    signed = {suffix: _of_payload(s) for suffix, s in seen.items()}
    return {
        "flips_found": min(found.values()),
        "untouched_valid": min(before.values()),
        "flips_found_by_ledger": min(float(np.mean(s.by_ledger)) for s in seen.values()),
        "flips_found_by_signature": signed,
        "flips_in_payload": {suffix: int(sum(s.payload)) for suffix, s in seen.items()},
        "flips": PIECES,
    }


def _of_payload(seen: Seen) -> float:
    return float(np.mean([found for found, out in zip(seen.by_signature, seen.payload, strict=True) if out]))


def signing(place: Path, chance: np.random.Generator) -> dict[str, Any]:
    """Milliseconds that a signature adds to one small file, read back, without the flush to the disk and the chain that is made once: the
    median of 100, on the clock and of the processor."""
    signer, clock, processor = credentials.Signing(), {}, {}
    for suffix, kind in FORMATS.items():
        bare = kind(chance).save(place / f"s{suffix}").read_bytes()
        times = np.median([_timed(signer, place / f"s{k}{suffix}", bare) for k in range(100)], axis=0)
        clock[suffix], processor[suffix] = (round(1000 * float(t), 2) for t in times)
    worst = {"signing_ms": max(clock.values()), "signing_cpu_ms": max(processor.values())}
    return worst | {"signing_ms_by_format": clock}


def _timed(signer: credentials.Signing, path: Path, bare: bytes) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    begun, spent = time.perf_counter(), time.process_time()
    content, manifest = signer.signed(bare, path, FACTS)
    path.write_bytes(content)
    credentials.beside(path).write_bytes(manifest)
    assert credentials.read(path)[0] == "trusted"
    return time.perf_counter() - begun, time.process_time() - spent


def emoji() -> list[PIL.Image.Image]:
    found = []
    with tarfile.open(data("noto_emoji", "noto_emoji_png128_base.tar.gz")) as archive:
        for member in archive:
            if member.name.endswith(".png"):
                picture = PIL.Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGBA")
                found.append(picture.resize((128, 128)))
    return found


def clean(chance: np.random.Generator, n: int) -> Iterator[np.ndarray]:
    pictures = emoji()
    for k in range(n):
        rough = PIL.Image.fromarray(chance.integers(20, 236, (3, 3, 3), dtype=np.uint8)).resize((128, 128))
        noisy = np.clip(np.asarray(rough) + chance.normal(0, 3, (128, 128, 3)), 0, 255).astype(np.uint8)
        ground = PIL.Image.fromarray(noisy)
        ground.paste(pictures[k % len(pictures)], (0, 0), pictures[k % len(pictures)])
        yield np.asarray(ground)


def marks(chance: np.random.Generator) -> dict[str, Any]:
    key = chance.bytes(32)
    alarms, plain = 0, []
    for k, picture in enumerate(clean(chance, CLEAN)):
        alarms += watermark.p_value(picture, key) < FOUND
        if k < MARKED:
            plain.append(picture)
    found: dict[str, list[bool]] = {}
    noise = []
    for picture in plain:
        marked = watermark.embed(picture, key)
        noise.append(10 * np.log10(255**2 / ((marked.astype(float) - picture) ** 2).mean()))
        for name, changed in _changed(marked).items():
            found.setdefault(name, []).append(watermark.p_value(changed, key) < FOUND)
    rates = {name: float(np.mean(values)) for name, values in found.items()}
    sizes = {side: _rate(plain[:200], side, key) for side in (64, 80, 96)}
    return {
        "watermark_tpr": min(rates.values()),
        "watermark_tpr_by_change": rates,
        "watermark_tpr_by_size_jpeg": sizes,
        "watermark_fpr": alarms / CLEAN,
        "watermark_psnr": round(float(min(noise)), 2),
    }


def _changed(marked: np.ndarray) -> dict[str, np.ndarray]:
    image = PIL.Image.fromarray(marked)
    half = image.resize((64, 64), PIL.Image.Resampling.BICUBIC)
    back = half.resize((128, 128), PIL.Image.Resampling.BICUBIC)
    pictures = {"none": image, "jpeg75": _jpeg(image), "half": half, "half_and_back": back, "both": _jpeg(half)}
    return {name: np.asarray(picture) for name, picture in pictures.items()}


def _jpeg(image: PIL.Image.Image) -> PIL.Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return PIL.Image.open(stream).convert("RGB")


def _rate(plain: Sequence[np.ndarray], side: int, key: bytes) -> float:
    small = [np.asarray(PIL.Image.fromarray(p).resize((side, side))) for p in plain]
    changed = [np.asarray(_jpeg(PIL.Image.fromarray(watermark.embed(p, key)))) for p in small]
    return float(np.mean([watermark.p_value(c, key) < FOUND for c in changed]))
