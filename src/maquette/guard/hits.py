"""What a rule of a policy says of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["flag", "block"]
Stage = Literal["prompt", "training", "output"]
STAGES: tuple[Stage, ...] = ("prompt", "training", "output")


@dataclass(frozen=True)
class Hit:
    """A rule that was met, why, where in the original text, and what the policy asks for then."""

    rule: str
    reason: str
    span: tuple[int, int]
    action: Action = "flag"
