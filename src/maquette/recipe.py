"""A Recipe is every choice that decides a run: TOML in, dotted overrides, the dial `size`, and TOML out with all defaults spelled out."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from maquette import catalog
from maquette.errors import SettingError, UnknownName, UsageError

RUNS = ("perceptual",)  # settings of a model that say where another run lies
TABLES = ("prepare", "adapter", "train")  # of a recipe, beside those of its models
Size = Literal["tiny", "small", "medium", "large"]


class Recipe(BaseModel):
    """What a TOML recipe may say; the tables are checked against the constructors they feed (see `settle`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Annotated[str, Field(description="kind of content; auto: seen from the files")] = "auto"
    model: Annotated[
        str, Field(description='a model, or codec+model: "vqvae+transformer"; auto: chosen by the corpus')
    ] = "auto"
    size: Annotated[Size, Field(description="the dial of the networks")] = "small"
    minutes: Annotated[float | None, Field(gt=0, description="of training; none: train.steps decides")] = None
    seed: Annotated[int, Field(ge=0, description="of weights, order and noise")] = 0
    start: Annotated[str | None, Field(description="a run whose weights it begins from")] = None
    prepare: Annotated[dict[str, Any], Field(description="settings of the modality")] = {}
    models: Annotated[dict[str, dict[str, Any]], Field(description="settings of each model by name")] = {}
    adapter: Annotated[
        dict[str, Any], Field(description="method (full, head, lora), its settings, and `prior` (see prior.py)")
    ] = {}
    train: Annotated[dict[str, Any], Field(description="settings of the loop")] = {}

    @property
    def stages(self) -> tuple[str, ...]:
        """("vqvae", "transformer") for "vqvae+transformer"."""
        return tuple(self.model.split("+"))

    def settings_of(self, stage: str) -> dict[str, Any]:
        """The settings of one stage; those of ./my_model.py stand under models.my_model."""
        return self.models.get(Path(stage).stem, {})


def make_recipe(given: Mapping[str, Any]) -> Recipe:
    """A checked Recipe from plain data. Raises UnknownName or SettingError."""
    return Recipe(**catalog.validate(Recipe, given, "the recipe"))


def load(path: Path) -> Recipe:
    """Read a TOML recipe. Raises UsageError naming the file and what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no recipe at {path}; a recipe is a TOML file, `maquette show recipes` lists those at hand")
    try:
        return make_recipe(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def settle(recipe: Recipe) -> Recipe:
    """The recipe with every default spelled out: the dial's settings, then the model's, then the loop's.

    Raises UnknownName or SettingError where a name or value does not fit.
    """
    from maquette.loop import plan

    if len(recipe.stages) > 2:
        raise SettingError(f'model is one name or codec+model; "{recipe.model}" came')
    for name in recipe.models:
        if name not in (stems := [Path(stage).stem for stage in recipe.stages]):
            raise UnknownName("table under [models]", name, stems)
    models = {}
    for place, name in enumerate(recipe.stages):
        kind = catalog.trainable(name)
        usual = kind.sizes.get(recipe.size, {}) | (kind.as_codec if place < len(recipe.stages) - 1 else {})
        models[Path(name).stem] = catalog.check(kind, {**usual, **recipe.settings_of(name)}, Path(name).stem)
    train = catalog.check(plan, {**recipe.train, "seed": recipe.seed}, "train")
    train.pop("seed")
    return recipe.model_copy(update={"models": models, "adapter": settled_adapter(recipe.adapter), "train": train})


def settled_adapter(given: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter's table with every default spelled out; {} stays {}. Raises UnknownName, SettingError."""
    if not given:
        return {}
    own = {k: v for k, v in given.items() if k not in ("method", "prior")}
    method, prior = given.get("method", "full"), given.get("prior", 0.0)
    if not isinstance(prior, int | float) or not 0 <= prior < 1:
        raise SettingError(f"adapter.prior should be a share of each batch in [0, 1); {prior!r} came")
    return {"method": method, "prior": float(prior)} | catalog.check(catalog.find("adapters", method), own, method)


def rebased(recipe: Recipe, old: Path, new: Path) -> Recipe:
    """The recipe with the paths among its models' settings, which were told from folder `old`, told from folder `new`: what is typed is told
    from where one stands, what a run keeps from the run's own folder, so that both may be moved or read from anywhere."""

    def told(name: str, value: Any) -> Any:
        if name not in RUNS or not isinstance(value, str):
            return value
        return Path(os.path.relpath((Path(old) / value).resolve(), Path(new).resolve())).as_posix()

    models = {stage: {k: told(k, v) for k, v in table.items()} for stage, table in recipe.models.items()}
    return recipe.model_copy(update={"models": models})


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Apply `key=value` lines: dotted ("gan.loss=hinge", "train.lr=1e-3", "prepare.size=64") or plain, where a plain key is looked for
    among the recipe's own keys, the settings of its models and those of the loop. Raises UsageError, UnknownName."""
    data = recipe.model_dump()
    for assignment in assignments:
        key, value = parse_assignment(assignment)
        table, name = _home(key, recipe, data)
        table[name] = value
    return make_recipe(data)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`lr=1e-3` -> ("lr", 0.001); what is no TOML value is a string.

    >>> parse_assignment("loss=hinge")
    ('loss', 'hinge')
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise UsageError(f"a setting is given as key=value; {text!r} came")
    try:
        return key.strip(), tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _home(key: str, recipe: Recipe, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The table of `data` that a dotted or plain key belongs to, and its name there."""
    from maquette.loop import plan

    if "." in key:
        head, _, name = key.removeprefix("models.").partition(".")
        if head in TABLES:
            return data[head], name
        if head in (stems := [Path(stage).stem for stage in recipe.stages]):
            return data["models"].setdefault(head, {}), name
        raise UnknownName("table", head, [*TABLES, *stems])
    scalars = [name for name in Recipe.model_fields if name not in (*TABLES, "models")]
    if key in scalars:
        return data, key
    kinds = {Path(name).stem: catalog.trainable(name) for name in recipe.stages if name != "auto"}
    owners = {
        name: data["models"].setdefault(name, {})
        for name, kind in kinds.items()
        if key in catalog.settings(kind).model_fields
    }
    loop_settings = catalog.settings(plan).model_fields
    owners |= {"train": data["train"]} if key in loop_settings else {}
    if len(owners) > 1:
        raise UsageError(
            f"{key} is a setting of {' and of '.join(owners)}; say {' or '.join(f'{name}.{key}' for name in owners)}"
        )
    if owners:
        return next(iter(owners.values())), key
    known = [*scalars, *loop_settings, *(n for kind in kinds.values() for n in catalog.settings(kind).model_fields)]
    raise UnknownName("setting", key, known)


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; settings that are none are written as comments, for TOML has no word for them."""
    data = recipe.model_dump(mode="json")
    tables = {"prepare": data.pop("prepare")}
    tables |= {f"models.{name}": settings for name, settings in data.pop("models").items()}
    tables |= {name: data.pop(name) for name in ("adapter", "train")}
    blocks = [_lines(data), *(f"[{name}]\n{_lines(table)}" for name, table in tables.items() if table)]
    return "\n\n".join(blocks) + "\n"


def _lines(table: Mapping[str, Any]) -> str:
    return "\n".join(f"# {k} is left to its default" if v is None else f"{k} = {_value(v)}" for k, v in table.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_value(k)} = {_value(v)}' for k, v in value.items() if v is not None)}}}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    return repr(value)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """What two settled recipes do not share, as "models.gan.loss: hinge -> relativistic"."""
    a, b = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [f"{k}: {a.get(k)} -> {b.get(k)}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
