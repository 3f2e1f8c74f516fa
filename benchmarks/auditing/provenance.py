"""Papers: flips of one bit in every format written, the watermark on emoji of 128 pixels, the time of a signature.

Verified in-process (`inspect`), not in the child that `maquette verify` starts, for speed. The 10,000 clean pictures are the emoji of the
data on backgrounds of random colours, smooth and with a little noise, in several versions each: composed, not 10,000 photographs.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import PIL.Image
from results import data

from maquette import files
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

FLIPS, CLEAN, MARKED = (int(os.environ.get(k, v)) for k, v in (("FLIPS", 1000), ("CLEAN", 10_000), ("MARKED", 2_000)))
FACTS = {"generator": "maquette", "run": "r", "wish": {"seed": 0}}


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    chance = np.random.default_rng(seeds[0])
    with tempfile.TemporaryDirectory() as place:
        os.environ["MAQUETTE_KEYS"] = f"{place}/keys"
        return flips(Path(place), chance) | signing(Path(place), chance)


def pieces(chance: np.random.Generator) -> dict[str, Piece]:
    """By suffix, one of each modality's formats."""
    picture = Piece(chance.integers(0, 255, (48, 48, 3), dtype=np.uint8), FACTS, Image())
    tune = Piece(score([(k, 1, 60 + k, 0) for k in range(8)], 4), FACTS, Music())
    text = Piece("A line of verse\nand one more\n" * 4, FACTS, Text())
    found = dict.fromkeys((".png", ".jpg", ".webp", ".gif", ".tiff", ".bmp"), picture)
    return found | dict.fromkeys((".txt", ".md", ".json"), text) | dict.fromkeys((".mid", ".wav", ".musicxml"), tune)


def flips(place: Path, chance: np.random.Generator) -> dict[str, Any]:
    found, untouched, signed = {}, {}, {}
    for suffix, piece in pieces(chance).items():
        first = piece.save(place / suffix[1:] / f"0{suffix}")
        paths = [first] + [files.write_bytes(first.with_name(f"{k}{suffix}"), first.read_bytes()) for k in range(1, 20)]
        Marks(labels="both").finish(paths, FACTS)
        untouched[suffix] = sum(inspect(paths[k % 20]).untouched for k in range(FLIPS)) / FLIPS
        seen = [_flipped(first, int(bit)) for bit in chance.integers(0, 8 * first.stat().st_size, FLIPS)]
        found[suffix] = sum(s is None or not s.untouched for s in seen) / FLIPS
        if credentials.carries(first):
            signed[suffix] = sum(s is None or s.signature not in ("trusted", "unknown") for s in seen) / FLIPS
    worst = {"flips_found": min(found.values()), "untouched_valid": min(untouched.values())}
    return worst | {"flips_found_by_signature_alone": signed, "formats": sorted(found), "flips": FLIPS}


def _flipped(path: Path, bit: int) -> Any:
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        return inspect(path)
    except Unreadable:  # refused in words, which is found too
        return None
    finally:
        path.write_bytes(whole)


def signing(place: Path, chance: np.random.Generator) -> dict[str, Any]:
    """Milliseconds of one signature, without the chain that is made once: the median and the worst of ten, of 100 pictures of 128 pixels."""
    signer, times = credentials.Signing(), []
    for k in range(100):
        path = Image().write(Piece(chance.integers(0, 255, (128, 128, 3), dtype=np.uint8)), place / f"s{k}.png")
        begun = time.perf_counter()
        signer.sign(path, FACTS)
        times.append(1000 * (time.perf_counter() - begun))
    return {
        "signing_ms": round(float(np.median(times)), 2),
        "signing_ms_worst_of_ten": round(float(np.quantile(times, 0.9)), 2),
    }


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
