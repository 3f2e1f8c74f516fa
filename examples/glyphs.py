"""Draw the letters A-Z of every text font that matplotlib carries: a small free corpus on any machine.

python examples/glyphs.py content/glyphs        # content/glyphs/A/DejaVuSans.png ...
"""

from __future__ import annotations

import string
import sys
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

SIDE = 32  # pixels
STRETCHES = (0.85, 1.0, 1.15)  # each letter is drawn narrow, as designed, and wide
NO_LETTERS = ("LastResort", "NonUni", "Siz", "cmex", "cmsy", "Display")  # symbols, ornaments, doubles


def fonts() -> list[Path]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [p for p in sorted(folder.glob("*.ttf")) if not any(word in p.name for word in NO_LETTERS)]


def glyph(letter: str, font: Path, stretch: float) -> Image.Image:
    """One letter, black on white, centred on the line it stands on."""
    large = SIDE * 4
    pen = ImageFont.truetype(str(font), 26 * 4)
    drawn = Image.new("L", (large, large), 255)
    ImageDraw.Draw(drawn).text((large / 2, large * 0.81), letter, font=pen, fill=0, anchor="ms")
    shift = large / 2 * (1 - 1 / stretch)  # an affine map about the middle column
    drawn = drawn.transform((large, large), Image.Transform.AFFINE, (1 / stretch, 0, shift, 0, 1, 0), fillcolor=255)
    return drawn.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(folder: Path) -> int:
    count = 0
    for letter in string.ascii_uppercase:
        (folder / letter).mkdir(parents=True, exist_ok=True)
        for font in fonts():
            for stretch in STRETCHES:
                glyph(letter, font, stretch).save(folder / letter / f"{font.stem}-{round(stretch * 100)}.png")
                count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "content/glyphs")
    print(f"{main(target)} letters in {target}")
