"""Taking models away again: fetched ones, and what interrupted pulls left of one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from openherd.errors import HerdError, ModelNotFoundError
from openherd.store.catalogue import CATALOGUE
from openherd.store.home import fetching_folder
from openherd.store.hub_catalogue import HUB_CATALOGUE
from openherd.store.hub_local import fetching_name, fetching_prefix, find_hub_models
from openherd.store.hub_reference import HubReference, is_hub_reference, parse_hub_reference
from openherd.store.local import LocalModel, local_model, local_models, remove_model
from openherd.store.lock import exclusive


@dataclass(frozen=True, slots=True)
class Removed:
    path: Path
    size: int


def remove(name: str) -> Removed:
    """Delete the model that `name` means. Raises ModelNotFoundError for none or several, HerdError of the disk."""
    reference = _hub_reference(name)
    models = find_hub_models(reference, exactly=True) if reference else _named(name)
    if len(models) > 1:
        listed = ", ".join(map(spelling, models))
        raise ModelNotFoundError(
            f"{name} may mean {len(models)} models: {listed}", hint=f"try: herd rm {listed.split(', ')[0]}"
        )
    if models:
        remove_model(models[0])
        return Removed(models[0].path, models[0].record.size)
    if (left := _remove_unfinished(name, reference)) is not None:
        return left
    here = ", ".join(map(spelling, local_models())) or "none"
    raise ModelNotFoundError(f"no fetched model is called {name!r}; here: {here}", hint="try: herd models")


def spelling(model: LocalModel) -> str:
    """What names exactly this model."""
    hub = model.record.hub
    return f"{model.record.name}@{hub.commit[:12]}" if hub else model.record.name


def _hub_reference(name: str) -> HubReference | None:
    if name in HUB_CATALOGUE:
        return parse_hub_reference(HUB_CATALOGUE[name].reference)
    return parse_hub_reference(name) if is_hub_reference(name) else None


def _named(name: str) -> list[LocalModel]:
    is_name = name and not name.startswith(".") and not set(name) & set("/\\\0")
    model = local_model(name) if is_name else None
    return [model] if model else []


def unfinished() -> list[Removed]:
    """What interrupted pulls left, each with its size."""
    folder = fetching_folder()
    found = [path for path in folder.iterdir() if path.suffix != ".lock"] if folder.is_dir() else []
    return [Removed(path, _size(path)) for path in sorted(found)]


def _remove_unfinished(name: str, reference: HubReference | None) -> Removed | None:
    """The partial files of one model; None: there are none. One that is being fetched is left alone."""
    meant = [left for left in unfinished() if _is_meant(left.path.name, name, reference)]
    if reference and len(meant) > 1:
        prefix = fetching_prefix(reference.repository)
        listed = [f"hf:{reference.repository}:{left.path.name.removeprefix(prefix)}" for left in meant]
        raise ModelNotFoundError(
            f"{name} may mean {len(meant)} unfinished downloads: {', '.join(listed)}", hint=f"try: herd rm {listed[0]}"
        )
    if not meant:
        return None
    left = meant[0]
    lock = left.path.with_name(f"{left.path.name if reference else name}.lock")
    try:
        with exclusive(lock, on_wait=lambda: _refuse(name)):
            shutil.rmtree(left.path) if left.path.is_dir() else left.path.unlink()
    except OSError as error:
        raise HerdError(f"cannot remove {left.path}: {error.strerror or error}") from error
    return left


def _is_meant(left: str, name: str, reference: HubReference | None) -> bool:
    """Whether what is called `left` is an unfinished download of that model."""
    if reference is None:
        return name in CATALOGUE and left.removesuffix(".partial") == CATALOGUE[name].source.wheel
    if reference.select is None:
        return left.startswith(fetching_prefix(reference.repository))
    return left == fetching_name(reference.repository, reference.select)


def _refuse(name: str) -> None:
    raise HerdError(f"another process is fetching {name} just now", hint="stop it first")


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
