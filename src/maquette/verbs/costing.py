"""What a run costs: seconds a piece, room on disk, processor time of its training, and what energy that was, by an assumption in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maquette.run import Run

WATTS = 15.0  # of one busy core with its share of the machine; laptops draw less, old servers more
ASSUMPTION = f"{WATTS:g} watts while a processor core is busy, accelerators not counted"


@dataclass(frozen=True)
class Cost:
    """What was spent.

    seconds_a_piece   while the audit's pieces were made
    bytes_on_disk     of the run's folder without its audits
    cpu_seconds       of training, all stages; None where the run does not tell
    watt_hours        of training, see `assumption`; None likewise
    """

    seconds_a_piece: float | None
    bytes_on_disk: int
    cpu_seconds: float | None
    watt_hours: float | None
    assumption: str = ASSUMPTION

    @property
    def words(self) -> str:
        piece = "" if self.seconds_a_piece is None else f"{self.seconds_a_piece:.3g} seconds a piece; "
        learnt = "the run does not tell how long it trained"
        if self.cpu_seconds is not None:
            learnt = f"{self.cpu_seconds:,.3g} seconds of processor time to train, about {self.watt_hours:.2g} watt-hours ({self.assumption})"
        return f"Cost: {piece}{self.bytes_on_disk / 1e6:,.3g} MB on disk; {learnt}."


def cost_of(run: Run, seconds: float | None = None, pieces: int = 0) -> dict[str, Any]:
    """The cost of a run of which `pieces` were made in `seconds`, with its sentence under "words"."""
    spent = cpu_seconds(run)
    hours = None if spent is None else round(spent * WATTS / 3600, 4)
    each = None if seconds is None or not pieces else round(seconds / pieces, 6)
    cost = Cost(each, bytes_on_disk(run.path), spent, hours)
    return {**asdict(cost), "words": cost.words}


def cpu_seconds(run: Run) -> float | None:
    """Of all stages. A run that began from another does not count what that one cost."""
    stages = [run, *([run.codec] if run.codec else []), *([run.partner] if run.partner else [])]
    known = [s.facts["cpu_seconds"] for s in stages if "cpu_seconds" in s.facts]
    return round(sum(known), 2) if len(known) == len(stages) else None


def bytes_on_disk(folder: Path) -> int:
    files = (p for p in Path(folder).rglob("*") if p.is_file() and not p.is_symlink())
    return sum(
        p.stat().st_size for p in files if not p.relative_to(folder).parts[0].startswith(("audit", "comparison"))
    )


def told(about: dict[str, Any]) -> str:
    """What a report says of its run, in one line."""
    plain = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in about.items() if k != "cost")
    return f"{about['cost']['words']} {plain}" if "cost" in about else plain
