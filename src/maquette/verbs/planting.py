"""planting: canaries that `prepare` adds to the train split alone, each a piece of its own (Carlini et al. 2019, The Secret Sharer,
arXiv:1802.08232), and keeps beside the corpus, so that its audits can rank them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maquette import files
from maquette.corpus import Corpus
from maquette.errors import UsageError
from maquette.likelihood import is_chain
from maquette.piece import Modality, Piece
from maquette.run import Run
from maquette.verbs import extraction
from maquette.verbs.extraction import ALTERNATIVES


def pieces(modality: Modality, path: Path) -> list[Piece]:
    """The canaries of a file as they are planted. Raises UsageError for what could not be ranked later."""
    return [among[0] for among in modality.canaries(path, ALTERNATIVES, 0)]


def content(path: Path) -> bytes:
    """Of a file of canaries. Raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the canaries {path} cannot be read ({error})") from None


def keep(path: Path, folder: Path, count: int) -> dict[str, Any]:
    """A copy of the file in the corpus's folder, and what corpus.json says of it: how many there are, never what they say."""
    place = files.write_bytes(folder / f"canaries{path.suffix.lower()}", content(path))
    return {"file": place.name, "planted": count}


def fair(modality: Modality, path: Path) -> None:
    """Raise UsageError where the vocabulary, which is learnt without the canaries, does not cover them and their alternatives."""
    for number, among in enumerate(modality.canaries(path, ALTERNATIVES, 0), 1):
        extraction.fair(modality, among, number)


def fit(sizes: list[int], space: int) -> None:
    """sizes: tokens of each canary with its end. Raises UsageError."""
    if max(sizes) > space:
        raise UsageError(
            f"a canary has at most {space - 1} tokens, which a model of this corpus sees at once; {max(sizes) - 1} came: shorten it, or "
            "--set context"
        )


def planted(run: Run, corpus: Corpus, model: Any) -> Path | None:
    """The file of the canaries of the corpus that a run learnt from, where it has any and the model says how likely they are."""
    known = corpus.facts.get("canaries")
    if not known or corpus.fingerprint != run.facts["corpus"]["fingerprint"] or not is_chain(model):
        return None
    return corpus.path / known["file"]
