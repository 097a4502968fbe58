"""A resolved configuration written out: as TOML that `--config` reads back, and as a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from openherd.options import EngineOptions, help_text
from openherd.serve.configuration import Configuration
from openherd.serve.toml_keys import key_of, toml_of


def configuration_document(configuration: Configuration) -> dict[str, Any]:
    """By the file's own keys; null is what the file would leave out."""
    return {
        **_keys(asdict(configuration.options)),
        **_keys(asdict(configuration.engine)),
        "offline": configuration.is_offline,
        "models": [
            {**_keys(asdict(model)), **_keys(_own(engine, configuration.engine))}
            for model, engine in configuration.models
        ],
    }


def configuration_toml(configuration: Configuration) -> str:
    """Every option with its help; one that has no value is a comment."""
    blocks = [*_top(configuration)]
    for model, engine in configuration.models:
        own = _own(engine, configuration.engine)
        entries = [*_entries(model), *(f"{key_of(name)} = {toml_of(value)}" for name, value in own.items())]
        blocks.append("\n".join(["[[models]]", *entries]))
    return "\n\n".join(blocks)


def _top(configuration: Configuration) -> Iterator[str]:
    for options in (configuration.options, configuration.engine):
        for entry, one in zip(_entries(options), fields(options), strict=True):
            yield f"# {help_text(type(options), one.name)}\n{entry}"
    yield f"# Fetch nothing, whatever is missing.\noffline = {toml_of(configuration.is_offline)}"


def _entries(options: Any) -> Iterator[str]:
    for one in fields(options):
        value = getattr(options, one.name)
        yield f"# {key_of(one.name)} =" if value is None else f"{key_of(one.name)} = {toml_of(value)}"


def _own(engine: EngineOptions, base: EngineOptions) -> dict[str, Any]:
    """What a model has other than all models. Threads are its own only when it has some: the base's are for all."""
    return {
        f.name: value
        for f in fields(engine)
        if (value := getattr(engine, f.name)) is not None and (f.name == "threads" or value != getattr(base, f.name))
    }


def _keys(values: dict[str, Any]) -> dict[str, Any]:
    return {key_of(name): value for name, value in values.items()}
