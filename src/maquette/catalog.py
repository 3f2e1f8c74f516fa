"""A name is a file: `gan` is models/gan.py. A constructor's keyword-only signature is its settings. No registry, no list."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from maquette.errors import SettingError, UnknownName


def names(wing: str) -> list[str]:
    """The names in a wing ("models", "modalities", ...): its files, without importing one of them."""
    folder = Path(__file__).parent / wing
    return sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_"))


def find(wing: str, name: str) -> type:
    """The class of a file in a wing, or of a file outside the package given by path (`./my_model.py`).

    Raises UnknownName with the nearest valid name.
    """
    if name.endswith(".py"):
        return _only_class(_module_at(Path(name)), name)
    if name not in names(wing):
        raise UnknownName(wing.removesuffix("s").replace("modalitie", "modality"), name, names(wing))
    return _only_class(importlib.import_module(f"maquette.{wing}.{name}"), name)


TRAINABLE = ("models", "pretext", "tasks")  # the wings whose classes the loop can train


def trainable(name: str) -> type:
    """The class of a model, pretext task or task head, whichever wing it stands in. Raises UnknownName."""
    wing = next((w for w in TRAINABLE if name in names(w)), None)
    if wing is None and not name.endswith(".py"):
        raise UnknownName("model", name, [n for w in TRAINABLE for n in names(w)])
    return find(wing or "models", name)


def _only_class(module: Any, name: str) -> type:
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    marked = [c for c in own if c.__name__.lower() == Path(name).stem.replace("_", "")]
    if len(marked) != 1:
        raise SettingError(
            f"{name} should define one class named like its file ({Path(name).stem}); it defines {[c.__name__ for c in own]}"
        )
    return marked[0]


@cache
def _module_at(path: Path) -> Any:
    if not path.is_file():
        raise SettingError(f"no file {path}; a model outside the package is given by the path of its .py file")
    spec = importlib.util.spec_from_file_location(f"maquette_outside_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def settings(kind: Callable[..., Any]) -> type[BaseModel]:
    """A strict pydantic model of the keyword-only parameters of a constructor or function.

    >>> def f(*, width: int = 3): ...
    >>> settings(f)().width
    3
    """
    target = kind.__init__ if inspect.isclass(kind) else kind
    hints = typing.get_type_hints(target, include_extras=True)
    fields = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in inspect.signature(target).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    title = getattr(kind, "__name__", str(kind))
    return create_model(title, __config__=ConfigDict(extra="forbid", strict=False, frozen=True), **fields)  # type: ignore[call-overload]


def check(kind: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given` with all defaults spelled out. Raises UnknownName or SettingError that name the setting and what came."""
    return validate(settings(kind), given, where)


def validate(schema: type[BaseModel], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name in given:
        if name not in schema.model_fields:
            raise UnknownName(f"setting of {where}", name, schema.model_fields)
    try:
        return schema(**given).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        what = first["msg"].removeprefix("Input should be ")
        raise SettingError(f"{where}.{name} should be {what}; {first['input']!r} came") from None


def table(kind: Callable[..., Any]) -> list[dict[str, str]]:
    """The settings as rows for `maquette show` and the docs: name, type, default, description."""
    schema = settings(kind).model_json_schema().get("properties", {})
    return [
        {
            "name": name,
            "type": _type_in_words(entry),
            "default": str(entry.get("default", "required")),
            "description": entry.get("description", ""),
        }
        for name, entry in schema.items()
    ]


def _type_in_words(entry: Mapping[str, Any]) -> str:
    if "enum" in entry:
        return " | ".join(map(str, entry["enum"]))
    if "const" in entry:
        return str(entry["const"])
    if "anyOf" in entry:
        return " | ".join(_type_in_words(e) for e in entry["anyOf"])
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {entry[key]}" for key, sign in bounds.items() if key in entry]
    kind = {"null": "none", "array": "list"}.get(entry.get("type", "any"), entry.get("type", "any"))
    return f"{kind} {', '.join(limits)}".strip()


def modality(facts: Mapping[str, Any]) -> Any:
    """The modality of a corpus or a run, as it was when it was fitted; facts: {"name", "settings", "fitted"}."""
    found = find("modalities", facts["name"])(**facts["settings"])
    found.restore(facts["fitted"])
    return found
