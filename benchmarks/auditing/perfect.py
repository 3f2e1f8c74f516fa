"""A perfect generator: held-out MNIST pictures passed off as generated. C_T should lie within 2 in 95 of 100 draws, and no gate should fail.

Both what is passed off and what is held out are drawn anew for each draw, from pictures that neither the judge nor another draw saw.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from auditing.measures import HELD, TRAIN, corpus_of, mnist, tensor

from maquette.copying import c_t
from maquette.features import BATCH, Untrained, judge_of
from maquette.finding import Material
from maquette.guard.policy import Gate
from maquette.neighbours import Several, distinct
from maquette.verbs.audit import embed
from maquette.verbs.audit import measure as findings_of
from maquette.verbs.onepass import View, go_by

DRAWS, SHOWN = 100, 200  # draws, pictures of either kind in each
AUDITS, JUDGED = 10, 1_000  # whole audits, pictures of either kind in each
LIMIT = 2  # of |C_T|
SHARE = 0.9  # of its floor, that a figure of the gates has to reach
GATES = tuple(
    gate
    for space in ("judge", "pixels")
    for gate in (
        *(
            Gate(finding=f, space=space, at_least_of_floor=SHARE)
            for f in ("precision", "density", "recall", "coverage", "Vendi score")
        ),
        Gate(finding="near copies", space=space, at_most=0.03),
        Gate(finding="lost kinds", space=space, at_most=0),
    )
)


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """By the first seed."""
    with tempfile.TemporaryDirectory() as place:
        pictures, _ = mnist(seeds[0])
        corpus = corpus_of(Path(place) / "mnist", pictures[: TRAIN + HELD])
        pool = tensor(pictures[TRAIN + HELD : TRAIN + HELD + 2 * DRAWS * SHOWN])
        spaces = {"judge": judge_of(corpus).judge, "pixels": Untrained(corpus.spec.space)}
        features = embed(spaces, pool.split(BATCH))
        nearest = {s: Several(features[s]) for s in spaces}
        go_by(corpus, [View(s, spaces[s].embed, nearest[s]) for s in spaces])
        distances = {s: n.distance[:, 0] for s, n in nearest.items()}
        return within(distances) | gates(features, distances, embed(spaces, [corpus.tensor("train", JUDGED).x]))


def within(distances: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Of `DRAWS` how many keep |C_T| below `LIMIT`, in the space where fewest do."""
    found = {}
    for space, d in distances.items():
        pairs = [part.numpy().reshape(2, SHOWN) for part in d.split(2 * SHOWN)]
        found[space] = sum(abs(c_t(made, held)) < LIMIT for made, held in pairs)
    return {"perfect_within": min(found.values()), "perfect_draws": DRAWS, "perfect_within_by_space": found}


def gates(
    features: dict[str, torch.Tensor], distances: dict[str, torch.Tensor], train: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """How many of the gates fail in `AUDITS` whole audits, by name."""
    failed = []
    for k in range(AUDITS):
        found = []
        for space in features:
            made, test = (features[space][(2 * k + i) * JUDGED :][:JUDGED] for i in (0, 1))
            near = [distances[space][(2 * k + i) * JUDGED :][:JUDGED] for i in (0, 1)]
            found += findings_of(Material(space, "pictures", made, test[distinct(test)], train[space], *near, k))
        told = [gate.judge(found) for gate in GATES]
        failed += [f"audit {k}: {g['finding']} in {g['space']} is {g['value']:.3g}" for g in told if not g["passed"]]
    return {
        "perfect_gates_failed": len(failed),
        "perfect_gates": AUDITS * len(GATES),
        "perfect_gates_failed_by_name": failed,
    }
