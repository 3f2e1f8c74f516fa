"""Where the tests and benchmarks find real data: $MAQUETTE_DATA, else ../shared/data beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data(*parts: str) -> Path:
    """A file or folder of the real data, as data("mnist"); where it is absent the test is skipped and says so."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("MAQUETTE_DATA", beside)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no data at {path}; set MAQUETTE_DATA to the folder of the real data")
    return path
