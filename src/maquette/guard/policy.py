"""A policy file (TOML): lists of terms, personal data, licences and the gates of an audit; strict, so that a typo is an error.

A rule says where it is looked for (`on`) and what follows (`action`). What is found is always told; only `block` keeps anything back.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from maquette import files, licences
from maquette.errors import SettingError, UnknownName, UsageError
from maquette.finding import Finding
from maquette.guard import personal
from maquette.guard.folding import Folded, fold
from maquette.guard.hits import STAGES, Action, Hit, Stage
from maquette.guard.terms import Terms


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Table):
    on: tuple[Stage, ...] = STAGES
    action: Action = "flag"

    @field_validator("on", mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given


class WordList(Rule):
    """Words and phrases, in the policy or in a file of their own, one a line."""

    name: str
    words: tuple[str, ...] = ()
    file: str | None = None
    allow: tuple[str, ...] = ()

    @cached_property
    def terms(self) -> Terms:
        return Terms(self.name, self.words, self.allow)

    def find(self, folded: Folded) -> list[Hit]:
        return self.terms.find(folded)


class Personal(Rule):
    """Kinds of personal data; of telephone and national numbers all countries that are known, or some."""

    email: bool = False
    iban: bool = False
    card: bool = False
    phone: bool | tuple[str, ...] = False
    national: bool | tuple[str, ...] = False

    @property
    def asks(self) -> tuple[str, ...]:
        """The kinds that are looked for."""
        return tuple(k for k in personal.ALL if getattr(self, k))

    def find(self, folded: Folded) -> list[Hit]:
        some = {k: v for k in ("phone", "national") if isinstance(v := getattr(self, k), tuple)}
        return personal.find(folded.original, self.asks, some)


class Head(Rule):
    """A run that names pieces, learnt from a person's labelled ones: which labels are looked for, and how often it may err."""

    run: str
    labels: tuple[str, ...] = Field(min_length=1)
    misses: float = Field(0.05, gt=0, lt=1)
    alarms: float = Field(0.01, ge=0, lt=1)
    on: tuple[Stage, ...] = ("output",)


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
    head: Head | None = None
    licences: Licences = Licences()
    gates: tuple[Gate, ...] = ()

    def check(self, text: str, on: Stage | None = None) -> list[Hit]:
        """Everything in the text that a rule for this stage names; none: any rule. Nothing is changed."""
        rules = [r for r in self.rules if on is None or on in r.on]
        folded = fold(text)
        return [replace(hit, action=rule.action) for rule in rules for hit in rule.find(folded)]

    @property
    def rules(self) -> tuple[WordList | Personal, ...]:
        return (*self.lists, *([self.personal] if self.personal.asks else []))

    def screens(self, on: Stage, action: Action | None = None) -> bool:
        """Whether a rule (with this action) looks at this stage."""
        return any(on in r.on and action in (None, r.action) for r in self.rules)

    @property
    def fingerprint(self) -> str:
        return files.fingerprint(self.model_dump(mode="json"))


def load(path: Path) -> Policy:
    """Read a policy and the lists it names. Raises UsageError, UnknownName or SettingError."""
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} should be a policy in TOML: {error}") from None
    return make(given, Path(path).parent)


def make(given: dict[str, Any], folder: Path = Path()) -> Policy:
    """A policy from plain data; files of lists are looked for from `folder`."""
    try:
        policy = Policy(**given)
    except ValidationError as error:
        raise _in_words(error) from None
    for gate in policy.gates:
        if gate.at_most is gate.at_least is gate.at_least_of_floor is None:
            raise SettingError(
                f'the gate on "{gate.finding}" has no limit; give at_most, at_least or at_least_of_floor'
            )
    _countries(policy.personal)
    head = policy.head and policy.head.model_copy(update={"run": str(folder / policy.head.run)})
    return policy.model_copy(update={"head": head, "lists": tuple(_whole(one, folder) for one in policy.lists)})


def _whole(one: WordList, folder: Path) -> WordList:
    """A list with the words of its file, ready to be used."""
    words = one.words + (_lines(folder / one.file, one.name) if one.file else ())
    if not words:
        raise SettingError(f'the list "{one.name}" of the policy is empty; give words = [...] or file = "words.txt"')
    found = one.model_copy(update={"words": words})
    _ = found.terms  # a term that cannot be looked for is told now
    return found


def _lines(path: Path, name: str) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'the file of the list "{name}", {path}, cannot be read ({error})') from None
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _countries(asked: Personal) -> None:
    for kind in ("phone", "national"):
        chosen = getattr(asked, kind)
        for country in chosen if isinstance(chosen, tuple) else ():
            if country not in personal.known(kind):
                raise UnknownName(f"country of {kind} numbers", country, personal.known(kind))


def _in_words(error: ValidationError) -> UsageError:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains what is missing
    where, last, came = ".".join(map(str, first["loc"])), str(first["loc"][-1]), first["input"]
    if first["type"] == "extra_forbidden":
        tables = {"lists": WordList, "personal": Personal, "head": Head, "licences": Licences, "gates": Gate}
        kind = tables.get(str(first["loc"][0]), Policy) if len(first["loc"]) > 1 else Policy
        return UnknownName("key of the policy", last, kind.model_fields)
    if first["type"] == "literal_error":
        keys = [part for part in first["loc"] if isinstance(part, str)]
        return UnknownName(f"`{keys[-1]}` of a rule", str(came), STAGES if keys[-1] == "on" else ("flag", "block"))
    if first["type"] == "missing":
        return SettingError(
            f"{where.removesuffix(last)}{last} of the policy is missing; every table of this kind has one"
        )
    if first["type"] == "tuple_type" and where in ("lists", "gates"):
        return SettingError(f"{where} of the policy should be tables, each begun by [[{where}]]; {came!r} came")
    if where.startswith(("personal.phone", "personal.national")):
        key = ".".join(where.split(".")[:2])
        return SettingError(
            f'{key} of the policy should be true, false or countries such as ["us", "de"]; {came!r} came'
        )
    if first["type"].startswith("bool"):
        return SettingError(f"{where} of the policy should be true or false; {came!r} came")
    if first["type"] == "tuple_type":
        example = '["CC0-1.0", "CC-BY-*"]' if first["loc"][0] == "licences" else '["some words", "others"]'
        return SettingError(f"{where} of the policy should be a list of texts such as {example}; {came!r} came")
    return SettingError(f"{where} of the policy: {first['msg']}; {came!r} came")
