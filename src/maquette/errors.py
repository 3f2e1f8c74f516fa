"""Every error a user can meet; each says what was expected, what came, and what to do.

MaquetteError
├── UsageError          what was asked for cannot be: an option, a value
│   ├── UnknownName     no such model, modality, recipe, setting; the nearest valid name is offered
│   ├── SettingError    a setting of the wrong type or out of range
│   └── MissingExtra    needs a library that is not installed; names its install command
├── ContentError        the person's content: a folder without pictures, metadata that fits no file
│   └── Unreadable      one piece cannot be read; `prepare` puts it into quarantine and goes on
├── SpaceError          this model cannot serve this space
├── CorpusError         a corpus folder that is damaged, unfinished or of another version
├── RunError            a run folder that is locked, damaged or of another version
├── TrainingError       training cannot go on: a non-finite loss, named by phase and step
└── StorageError        the disk is full or refuses to be written; the last good state stays
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MaquetteError(Exception):
    """Something a person can mend; shown as one sentence, never as a traceback."""


class UsageError(MaquetteError):
    pass


class UnknownName(UsageError):
    """`UnknownName("model", "gam", ["gan", "vae"])` reads: there is no model "gam"; did you mean gan? (gan, vae)"""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ";"
        super().__init__(f'there is no {kind} "{name}"{hint} known: {", ".join(known) or "none"}')


class SettingError(UsageError):
    pass


class MissingExtra(UsageError):
    """`MissingExtra("denoising", "denoise")` names the command that installs the extra."""

    def __init__(self, purpose: str, extra: str):
        super().__init__(f"{purpose} needs an extra that is not installed: pip install 'maquette[{extra}]'")


class ContentError(MaquetteError):
    pass


class Unreadable(ContentError):
    pass


class SpaceError(MaquetteError):
    pass


class CorpusError(MaquetteError):
    pass


class RunError(MaquetteError):
    pass


class TrainingError(MaquetteError):
    pass


class StorageError(MaquetteError):
    pass
