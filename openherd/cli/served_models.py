"""From a configuration to what each worker loads: files found, names made unique, cores divided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from openherd.cli.flags import parse_adapter
from openherd.errors import OptionError
from openherd.options import EngineOptions
from openherd.serve.configuration import Configuration
from openherd.serve.front.workers import ModelSpec
from openherd.serve.options import ModelOptions
from openherd.store.catalogue import CATALOGUE, DEFAULT
from openherd.store.hub_catalogue import HUB_CATALOGUE
from openherd.store.resolve import find_local, resolve


def model_specs(configuration: Configuration) -> list[ModelSpec]:
    """One for each model. A missing default model is fetched now. Raises `HerdError`s."""
    engines = _with_threads(configuration)
    specs = [
        _spec(model, engine, offline=configuration.is_offline)
        for (model, _), engine in zip(configuration.models, engines, strict=True)
    ]
    _check_names(specs)
    return specs


def _spec(options: ModelOptions, engine: EngineOptions, *, offline: bool) -> ModelSpec:
    """Files are named absolutely: a worker may have another folder."""
    path = resolve(options.model, offline=offline)
    reference = DEFAULT if options.model is None else options.model
    adapters: dict[str, str] = {}
    for adapter in options.adapter:
        for name, file in parse_adapter(adapter)[1].items():
            if name in adapters:
                raise OptionError(f"two adapters are called {name!r}", hint="give each a name: --adapter NAME=PATH")
            adapters[name] = str(Path(file).absolute())
    return ModelSpec(
        name=options.name or _name(reference, path),
        path=str(path.absolute()),
        engine=engine,
        template=options.template,
        adapters=adapters,
        on_demand=options.load == "demand",
    )


def _name(reference: str, path: Path) -> str:
    """What requests call the model where the configuration gives no name."""
    if reference in CATALOGUE or reference in HUB_CATALOGUE:
        return reference
    if not path.is_dir():
        return path.stem
    model = find_local(reference)
    return model.record.hub.repository.split("/")[1] if model and model.record.hub else path.resolve().name


def _with_threads(configuration: Configuration) -> Iterator[EngineOptions]:
    """One model computes with all threads. Several divide them: each has its own, or an even part of what is left."""
    engines = [engine for _, engine in configuration.models]
    if len(engines) == 1:
        (engine,) = engines
        yield engine if engine.threads is not None else replace(engine, threads=configuration.engine.threads)
        return
    from openherd.kernels.cores import compute_threads

    left = compute_threads(configuration.engine.threads) - sum(engine.threads or 0 for engine in engines)
    num_sharing = sum(engine.threads is None for engine in engines)
    for engine in engines:
        if engine.threads is not None:
            yield engine
            continue
        part = max(1, -(-left // num_sharing))
        left, num_sharing = left - part, num_sharing - 1
        yield replace(engine, threads=part)


def _check_names(specs: list[ModelSpec]) -> None:
    names = [name for spec in specs for name in (spec.name, *spec.adapters)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise OptionError(
            f"two models or adapters are called {twice!r}, and requests could not tell them apart",
            hint='give each its own name: a [[models]] table in --config takes name = "NAME"',
        )
