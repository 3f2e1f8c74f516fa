"""Series for an audit: the first pieces that were judged anyway, variations of each, and whether a judge finds the one in the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maquette.features import BATCH, Untrained
from maquette.finding import Finding, Material
from maquette.loop import pick_device
from maquette.metrics import identity
from maquette.page import Exhibit, Section, figures
from maquette.piece import Modality
from maquette.run import Run
from maquette.space import SampleRequest
from maquette.verbs.series import USUAL, varies

if TYPE_CHECKING:
    from maquette.verbs.audit import Evidence

FIRSTS = 40  # pieces of which variations are made
MEMBERS = 3  # variations of each
SHOWN = 6  # series on the page


def examined(evidence: Evidence, run: Run, generated: Tensor, modality: Modality, seed: int, device: str) -> Evidence:
    """With whether identity is kept in series, where the run can make series; generated (n, *shape) are the pieces of seeds `seed` on."""
    if len(generated) < identity.FEWEST or not evidence.findings:
        return evidence
    made = made_of(run, min(FIRSTS, len(generated)), modality, seed, device)
    if made is None:
        return evidence
    first, noun = generated[: len(made)], modality.pretty or "pieces"
    spaces = {"judge": evidence.judge.judge, "pixels": Untrained(modality.space)}
    found = [f for name, embedder in spaces.items() for f in told(name, embedder, first, made, noun, seed)]
    series = torch.cat([first[:, None], made], 1)
    return replace(evidence, findings=(*evidence.findings, *found), series=series)


@torch.inference_mode()
def made_of(run: Run, k: int, modality: Modality, seed: int, device: str, vary: float = USUAL) -> Tensor | None:
    """(k, MEMBERS, *shape): of the pieces of seeds `seed` on; None of a run that makes no series."""
    from maquette.verbs.audit import CHUNK, as_written

    sampler = run.sampler(pick_device(device))
    if not varies(sampler):
        return None
    seeds = tuple(s for s in range(seed, seed + k) for _ in range(MEMBERS))
    members = tuple(range(1, MEMBERS + 1)) * k
    request = SampleRequest(seeds, run.usual_condition(seeds), vary=vary, members=members)
    parts = [sampler.sample(request.rows(i, i + CHUNK)) for i in range(0, len(request), CHUNK)]
    return as_written(torch.cat(parts), modality).unflatten(0, (k, MEMBERS))


@torch.inference_mode()
def told(
    space: str, embedder: Any, first: Tensor, made: Tensor, noun: str, seed: int, vary: float = USUAL
) -> list[Finding]:
    """The findings in one space of features."""
    rows = torch.cat([embedder.embed(x) for x in torch.cat([first, made.flatten(0, 1)]).split(BATCH)])
    one, several = rows.split([len(first), len(rows) - len(first)])
    empty = rows.new_zeros(0)
    series = several.unflatten(0, made.shape[:2])
    return identity.measure(
        Material(space, noun, one, rows[:0], rows[:0], empty, empty, seed, series=series, vary=vary)
    )


def section(
    series: Tensor | None, modality: Modality, png: Callable[[list[Tensor], Modality, int], bytes]
) -> Sequence[Section]:
    """A few series as rows: a piece, then its variations."""
    if series is None:
        return []
    rows = series[:SHOWN].flatten(0, 1)
    lead = f"Each row: a piece and {MEMBERS} variations of it, {USUAL:.0%} of each new. Not chosen."
    sheet = Exhibit(png(list(rows), modality, 1 + MEMBERS), f"the first {min(SHOWN, len(series))} series")
    return [Section("Series", lead, figures([sheet], "two"))]
