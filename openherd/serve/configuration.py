"""What a server is told, from its TOML file and its flags: the same names in both, and flags win.

At the top of the file stand the options of the server and, for all models, of the engine; every `[[models]]` table has
a model's own. Keys, their types, ranges and help come from the dataclasses of `options`, spelled as their flags are.
Files named in the file are looked for beside it. TOML: v1.0.0, as the standard library reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openherd.errors import InputError, OptionError
from openherd.options import EngineOptions
from openherd.serve.options import ModelOptions, ServeOptions
from openherd.serve.toml_keys import Place, lines_of_keys, read_table
from openherd.store.hub_reference import is_hub_reference
from openherd.toml_file import parse_toml, read_text

MAX_FILE_BYTES = 2**20
MAX_MODELS = 64


@dataclass(frozen=True, slots=True)
class Table:
    """What one table of the file sets, by field name."""

    serve: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileConfiguration:
    """A file, checked: its top, and its models in order."""

    top: Table = Table()
    models: tuple[Table, ...] = ()
    is_offline: bool = False


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says; `given` names the options that were typed."""

    models: Sequence[str]
    model: ModelOptions
    options: ServeOptions
    engine: EngineOptions
    given: frozenset[str]
    is_offline: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything resolved. `engine` is what models have that say nothing else; its threads are for all together."""

    options: ServeOptions
    engine: EngineOptions
    models: tuple[tuple[ModelOptions, EngineOptions], ...]
    is_offline: bool


def configure(flags: Flags, file: FileConfiguration) -> Configuration:
    """Flags over the file over the defaults. Models named as flags are served instead of the file's.

    A flag also wins over what a model of the file says for itself; only `--threads`, which are for all models together,
    leaves a model's own alone. Raises `OptionError`.
    """
    options = replace(ServeOptions(**file.top.serve), **_typed(flags.options, flags.given))
    typed = _typed(flags.engine, flags.given)
    engine = replace(EngineOptions(**file.top.engine), **typed)
    for_each = {name: value for name, value in typed.items() if name != "threads"}
    models = [
        (
            replace(ModelOptions(**table.model), **_typed(flags.model, flags.given)),
            replace(engine, **{"threads": None, **table.engine, **for_each}),
        )
        for table in _asked(flags.models, file.models)
    ]
    return Configuration(options, engine, tuple(models), flags.is_offline or file.is_offline)


def read_configuration(file: str | None) -> FileConfiguration:
    """Raises `InputError` that names the file, the line and the key, and says what is expected."""
    if file is None:
        return FileConfiguration()
    path = Path(file)
    text = read_text(path, "the configuration", MAX_FILE_BYTES)
    document = parse_toml(text, path)
    lines = lines_of_keys(text)
    models = document.pop("models", [])
    if not isinstance(models, list) or not all(isinstance(table, dict) for table in models):
        raise InputError(f"{Place(path, lines.get((None, 'models')))}: models must be tables, each under [[models]]")
    if len(models) > MAX_MODELS:
        raise InputError(f"{path} has {len(models)} models; at most {MAX_MODELS} are served at once")
    offline = document.pop("offline", False)
    if not isinstance(offline, bool):
        raise InputError(f"{Place(path, lines.get((None, 'offline')))}: offline must be true or false")
    folder = Path(os.path.abspath(path)).parent
    return FileConfiguration(
        _anchored(Table(*read_table(document, (ServeOptions, EngineOptions, None), path, lines, None)), folder),
        tuple(
            _anchored(Table(*read_table(table, (None, EngineOptions, ModelOptions), path, lines, number)), folder)
            for number, table in enumerate(models)
        ),
        offline,
    )


def _typed(options: Any, given: frozenset[str]) -> dict[str, Any]:
    """The fields of an options dataclass that were typed as flags."""
    return {name: getattr(options, name) for name in options.__dataclass_fields__ if name in given}


def _asked(named: Sequence[str], tables: Sequence[Table]) -> Iterator[Table]:
    """A model named as a flag keeps the options that the file has for it, under that name or that reference."""
    if not named:
        yield from tables or (Table(),)
    for name in named:
        meant = {name, os.path.abspath(os.path.expanduser(name))}  # paths of the file have been made absolute
        known = (table for table in tables if meant & {table.model.get("name"), _absolute(table.model.get("model"))})
        yield next(known, Table(model={"model": name}))


def _absolute(reference: str | None) -> str | None:
    return os.path.abspath(reference) if reference and _is_path(reference) else reference


def _anchored(table: Table, folder: Path) -> Table:
    """Relative files made absolute, from the folder of the configuration."""
    serve, model = dict(table.serve), dict(table.model)
    if serve.get("keys"):
        serve["keys"] = _beside(folder, serve["keys"])
    if (reference := model.get("model")) and _is_path(reference):
        model["model"] = _beside(folder, reference)
    if (template := model.get("template")) and ("/" in template or "." in template):
        model["template"] = _beside(folder, template)
    if "adapter" in model:
        model["adapter"] = tuple(_adapter_beside(folder, adapter) for adapter in model["adapter"])
    return Table(serve, table.engine, model)


def _is_path(reference: str) -> bool:
    return not is_hub_reference(reference) and ("/" in reference or reference.endswith(".gguf"))


def _adapter_beside(folder: Path, adapter: str) -> str:
    name, equals, path = adapter.rpartition("=")
    return f"{name}{equals}{_beside(folder, path)}"


def _beside(folder: Path, file: str) -> str:
    if "\0" in file:
        raise OptionError(f"a file's name has a zero byte: {file!r}")
    return str(folder / os.path.expanduser(file))
