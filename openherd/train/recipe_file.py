"""Recipes as TOML: read strictly, written whole, and compared.

A table of the file is a section of the recipe, a key one of its fields; `objective` stands above all tables. Nothing
in a file is ignored: an unknown key, a wrong type, a value out of range is an error that names file and key and says
what is expected. Relative paths are looked for beside the file.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from openherd.errors import InputError, OptionError
from openherd.store.catalogue import CATALOGUE
from openherd.tokenizers.named_templates import NAMED_TEMPLATES
from openherd.toml_file import parse_toml, read_text
from openherd.train.recipe import SECTIONS, Recipe

RECIPE_FILE = "recipe.toml"
"""In a run's folder: its recipe, everything filled in."""
MAX_FILE_BYTES = 1 << 16
Overrides = Mapping[str, Mapping[str, Any]]
"""Values that win over a file's, by section and name; those of section "" stand above all tables."""


def load_recipe(path: Path | None, overrides: Overrides | None = None) -> Recipe:
    """The recipe of a file (None: the defaults) with `overrides` over it, not resolved yet; its paths are absolute.

    Raises InputError that names the file, the key, and what is expected.
    """
    recipe = Recipe() if path is None else parse_recipe(read_text(path, "the recipe", MAX_FILE_BYTES), path)
    for section, values in (overrides or {}).items():
        recipe = _with(recipe, section, values)
    return _anchored(recipe, Path.cwd())


def parse_recipe(text: str, path: Path) -> Recipe:
    """The recipe that `text` says, with its relative paths made absolute beside `path`. Raises InputError."""
    recipe = Recipe()
    try:
        for key, value in parse_toml(text, path).items():
            if key == "objective":
                recipe = _with(recipe, "", {key: value})
            elif key not in SECTIONS:
                raise OptionError(f"{key} {_unknown(key, ['objective', *SECTIONS])}", hint=_table_of(key))
            elif not isinstance(value, dict):
                raise OptionError(f"{key} must be a table: its keys stand under [{key}]")
            else:
                recipe = _with(recipe, key, _read_table(key, value))
    except OptionError as error:
        raise InputError(f"{path}: {error.args[0]}", hint=error.hint) from None
    return _anchored(recipe, Path(os.path.abspath(path)).parent)


def as_toml(recipe: Recipe) -> str:
    """Every key, also those that have their default: `parse_recipe` makes the same recipe of it."""
    lines = [f"objective = {toml_value(recipe.objective)}"]
    for section in SECTIONS:
        values = getattr(recipe, section)
        lines += ["", f"[{section}]"]
        lines += [f"{entry.name} = {toml_value(getattr(values, entry.name))}" for entry in fields(values)]
    return "\n".join(lines) + "\n"


def differences(before: Recipe, after: Recipe, *, free: Collection[str] = ()) -> list[str]:
    """A line for each key that differs, but for those that are `free` to: `run.steps: 100 before, 200 now`."""
    old, new = dict(flat(before)), dict(flat(after))
    changed = (key for key in old if old[key] != new[key] and key not in free)
    return [f"{key}: {toml_value(old[key])} before, {toml_value(new[key])} now" for key in changed]


def flat(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Every value of a recipe by its full key, such as `optimizer.learning_rate`."""
    yield "objective", recipe.objective
    for section in SECTIONS:
        values = getattr(recipe, section)
        yield from ((f"{section}.{entry.name}", getattr(values, entry.name)) for entry in fields(values))


def _with(recipe: Recipe, section: str, values: Mapping[str, Any]) -> Recipe:
    if not section:
        return replace(recipe, **values)
    return replace(recipe, **{section: replace(getattr(recipe, section), **values)})


def _read_table(section: str, table: Mapping[str, Any]) -> dict[str, Any]:
    types = _types(section)
    values = {}
    for name, value in table.items():
        if name not in types:
            raise OptionError(f"{section}.{name} {_unknown(name, types)}", hint=_table_of(name))
        values[name] = _value(f"{section}.{name}", value, types[name])
    return values


def _value(key: str, value: Any, type_: Any) -> Any:
    """The TOML value as the field has it; raises OptionError. Ranges and choices are checked by the dataclass."""
    if get_origin(type_) is tuple:
        if not isinstance(value, list):
            raise OptionError(f"{key} must be a list, such as {_example(type_)}, not {_shown(value)}")
        return tuple(_value(key, item, get_args(type_)[0]) for item in value)
    if type_ is Path or type_ is str or get_origin(type_) is Literal:
        if not isinstance(value, str) or "\0" in value:
            raise OptionError(f"{key} must be text in quotes, not {_shown(value)}")
        return Path(value) if type_ is Path else value
    if type_ is bool and not isinstance(value, bool):
        raise OptionError(f"{key} must be true or false, not {_shown(value)}")
    if type_ is int and type(value) is not int:
        raise OptionError(f"{key} must be a whole number, not {_shown(value)}")
    if type_ is float:
        if type(value) not in (int, float):
            raise OptionError(f"{key} must be a number, not {_shown(value)}")
        return float(value) if abs(value) < 1e300 else value
    return value


@cache
def _types(section: str) -> dict[str, Any]:
    return get_type_hints(SECTIONS[section])


def _unknown(name: str, known: Mapping[str, Any] | list[str]) -> str:
    if _table_of(name):
        return "is no key here"
    near = next(iter(difflib.get_close_matches(name[:80], known, n=1, cutoff=0.65)), None)
    guess = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
    return f"is no key of a recipe; {guess}"


def _table_of(name: str) -> str | None:
    """Where a key that stands in the wrong table belongs."""
    home = next((section for section in SECTIONS if name in _types(section)), None)
    return f"{name} stands under [{home}]" if home else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _example(type_: Any) -> str:
    return '["a folder"]' if get_args(type_)[0] is Path else '["q_proj", "v_proj"]'


def _anchored(recipe: Recipe, folder: Path) -> Recipe:
    def beside(path: Path) -> Path:
        return folder / os.path.expanduser(path)

    model, data, run, grpo = recipe.model, recipe.data, recipe.run, recipe.grpo
    names: dict[str, Any] = {
        name: _reference(getattr(model, name), folder) for name in ("init", "tokenizer", "template")
    }
    return replace(
        recipe,
        model=replace(model, **names),
        data=replace(data, train=tuple(map(beside, data.train)), evaluation=tuple(map(beside, data.evaluation))),
        run=replace(run, out=beside(run.out)),
        grpo=replace(grpo, prompts=tuple(map(beside, grpo.prompts))),
    )


def _reference(model: str, folder: Path) -> str:
    """A file or a folder, beside the recipe; names of the catalogue, of hubs, and of built-in templates stay."""
    is_name = model.startswith("hf:") or model in CATALOGUE or model in NAMED_TEMPLATES
    is_path = "/" in model or model.endswith(".gguf") or (folder / model).exists()
    return str(folder / os.path.expanduser(model)) if model and is_path and not is_name else model


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's, but for the one control character that JSON lets stand.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
