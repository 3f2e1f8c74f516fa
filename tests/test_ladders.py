"""The rule by which a figure of the audit counts as monotone on a ladder of harm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from auditing.ladders import DOWN, MUST, UP, fault


def resampled(measured: torch.Tensor, chance: float) -> torch.Tensor:
    """(100, rungs): each resample off by its own chance on every rung."""
    return measured + chance * torch.randn(100, len(measured), generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize(
    "values, chance, way, words",
    [
        ((0, 1, 2, 3), 0.1, UP, ""),
        ((3, 2, 1, 0), 0.1, DOWN, ""),
        ((0, -0.05, 2, 3), 0.1, UP, ""),  # a step back within chance is forgiven
        ((0, -1, 2, 3), 0.1, UP, "step 1 goes the wrong way"),
        ((3, 2, 2.8, 0), 0.1, DOWN, "step 2 goes the wrong way"),
        ((0, 0.1, 0.1, 0.2), 1.0, UP, "the whole way is no more than chance"),
    ],
)
def test_a_ladder_forgives_chance_and_nothing_else(values: tuple, chance: float, way: int, words: str) -> None:
    measured = torch.tensor(values).double()
    assert fault(measured, resampled(measured, chance), way) == words


def test_the_bias_of_redrawing_is_no_step() -> None:
    measured = torch.tensor([0.0, 1.0]).double()
    assert fault(measured, resampled(measured, 0.1) - torch.tensor([0.0, 5.0]).double(), UP) == ""


def test_precision_is_not_asked_to_fall_where_theory_lets_it_rise() -> None:
    assert "precision" not in MUST["blur"] and "precision" not in MUST["dropped"] and "Vendi" not in MUST["noise"]
