"""A policy file (TOML): lists of terms, personal data, licences and the gates of an audit; strict, so that a typo is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from maquette import licences
from maquette.errors import SettingError, UnknownName, UsageError
from maquette.finding import Finding
from maquette.guard import personal
from maquette.guard.terms import Hit, Terms


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WordList(Table):
    name: str
    words: tuple[str, ...]
    allow: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> Terms:
        return Terms(self.name, self.words, self.allow)


class Personal(Table):
    email: bool = False
    iban: bool = False
    card: bool = False


class Licences(Table):
    """Patterns of licence names, for `prepare`."""

    allow: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    set_apart: tuple[str, ...] = ()

    @property
    def terms(self) -> licences.Terms:
        return licences.Terms(**self.model_dump())


class Gate(Table):
    """A limit on a finding of the audit; `at_least_of_floor` is a share of what real pieces score."""

    finding: str
    space: str = "judge"
    at_most: float | None = None
    at_least: float | None = None
    at_least_of_floor: float | None = None

    def judge(self, findings: Iterable[Finding]) -> dict[str, Any]:
        findings = list(findings)
        found = [f for f in findings if (f.name, f.space) == (self.finding, self.space)]
        if not found:
            raise UnknownName(
                "finding and space", f"{self.finding} / {self.space}", [f"{f.name} / {f.space}" for f in findings]
            )
        return self.model_dump(exclude_none=True) | {"value": found[0].value, "passed": self._holds(found[0])}

    def _holds(self, f: Finding) -> bool:
        floor = float("nan") if f.reference is None else f.reference
        return (
            (self.at_most is None or f.value <= self.at_most)
            and (self.at_least is None or f.value >= self.at_least)
            and (self.at_least_of_floor is None or f.value >= self.at_least_of_floor * floor)
        )


class Policy(Table):
    lists: tuple[WordList, ...] = ()
    personal: Personal = Personal()
    licences: Licences = Licences()
    gates: tuple[Gate, ...] = ()

    def check(self, text: str) -> list[Hit]:
        """Everything in the text that a rule names; nothing is changed."""
        kinds = tuple(k for k, on in self.personal.model_dump().items() if on)
        listed = [h for one in self.lists for h in one.terms.find(text)]
        return listed + personal.find(text, kinds)


def load(path: Path) -> Policy:
    """Read a policy. Raises UsageError, UnknownName or SettingError."""
    try:
        return make(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} should be a policy in TOML: {error}") from None


def make(given: dict[str, Any]) -> Policy:
    try:
        policy = Policy(**given)
    except ValidationError as error:
        raise _in_words(error) from None
    for gate in policy.gates:
        if gate.at_most is gate.at_least is gate.at_least_of_floor is None:
            raise SettingError(
                f'the gate on "{gate.finding}" has no limit; give at_most, at_least or at_least_of_floor'
            )
    return policy


def _in_words(error: ValidationError) -> UsageError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        tables = {"lists": WordList, "personal": Personal, "licences": Licences, "gates": Gate}
        kind = tables.get(str(first["loc"][0]), Policy) if len(first["loc"]) > 1 else Policy
        return UnknownName("key of the policy", str(first["loc"][-1]), kind.model_fields)
    if first["type"] == "tuple_type":
        return SettingError(
            f'{where} of the policy should be a list of texts such as ["CC0-1.0", "CC-BY-*"]; {first["input"]!r} came'
        )
    return SettingError(f"{where} of the policy: {first['msg']}; {first['input']!r} came")
