"""The figures of the audit are those of torchmetrics, prdc and vendi-score on the same features; where the libraries are not there, the
formulas of the papers, written plainly, stand in for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references import differences, ours

from maquette.metrics.vendi import vendi

CLOSE = 1e-4  # relative


def sample(n: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    """Correlated, skewed features, as those of networks are."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    rows = torch.randn(n, width, generator=chance, dtype=torch.float64) @ mixing / width**0.5
    return torch.relu(rows * scale + shift) + 0.1 * rows


PAIRS = {
    "equals": (sample(300, 8, 0), sample(300, 8, 1)),
    "moved": (sample(300, 16, 0, shift=0.5), sample(300, 16, 1)),
    "narrow": (sample(250, 32, 0, scale=0.4), sample(250, 32, 1)),
    "fewer pieces than features": (sample(60, 96, 0, scale=0.8), sample(60, 96, 1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_figure_agrees_with_the_library_that_others_use(name: str) -> None:
    for library in ("torchmetrics", "prdc", "vendi_score"):
        pytest.importorskip(library, reason=f"{library} is not installed; it is part of the extra test")
    found = differences(*PAIRS[name])
    assert len(found) == 7
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize("name", PAIRS)
def test_every_figure_agrees_with_the_formula_of_its_paper(name: str) -> None:
    made, real = PAIRS[name]
    plain = by_the_papers(made.numpy(), real.numpy(), k=5)
    found = ours(made, real, k=5)
    assert found.keys() == plain.keys()
    assert all(found[figure] == pytest.approx(plain[figure], rel=CLOSE) for figure in plain)


def by_the_papers(made: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    """Heusel 2017, Binkowski 2018, Kynkaanniemi 2019, Naeem 2020, Friedman & Dieng 2023, a line each."""
    s_made, s_real = (np.cov(x, rowvar=False) for x in (made, real))
    crossed = np.sqrt(np.linalg.eigvals(s_made @ s_real).astype(complex)).real.sum()
    frechet = np.square(made.mean(0) - real.mean(0)).sum() + np.trace(s_made) + np.trace(s_real) - 2 * crossed
    n, m = len(made), len(real)
    xx, yy, xy = ((a @ b.T / made.shape[1] + 1) ** 3 for a, b in ((made, made), (real, real), (made, real)))
    kid = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()
    apart, reach = lengths(made, real), [np.sort(lengths(x, x), 1)[:, k] for x in (made, real)]  # 0 is the piece itself
    inside = apart < reach[1]
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / n)
    shares = shares[shares > 1e-15]
    return {
        "Frechet distance": frechet,
        "KID": kid,
        "precision": inside.any(1).mean(),
        "density": inside.sum() / (k * n),
        "recall": (apart < reach[0][:, None]).any(0).mean(),
        "coverage": (apart.min(0) < reach[1]).mean(),
        "Vendi score": np.exp(-(shares * np.log(shares)).sum()),
    }


def lengths(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def test_where_a_row_has_no_direction_we_differ_from_vendi_score_on_purpose() -> None:
    """There such a row takes its share of the spectrum with it, and the score of ten zeros is that of nothing; here it is one kind."""
    reference = pytest.importorskip("vendi_score.vendi", reason="vendi-score is not installed")
    half = torch.cat([torch.zeros(10, 3), torch.eye(3)[:1].repeat(10, 1)]).double()
    assert vendi(half) == pytest.approx(2)
    assert reference.score_dual(half.numpy()) < 1.5
