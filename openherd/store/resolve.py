"""From what a person calls a model to the file or folder that holds it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from openherd.errors import ModelNotFoundError
from openherd.store.catalogue import CATALOGUE, DEFAULT, Entry
from openherd.store.hub_reference import HubReference, is_hub_reference, parse_hub_reference
from openherd.store.local import LocalModel, local_model, local_models
from openherd.store.progress import Progress

_MODEL_FOLDER = ("config.json", "params.json")
_LATER_PART = re.compile(r"-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf$")


def resolve(ref: str | None, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The GGUF file or model folder that `ref` means.

    `ref` is None (the default model), a name of the catalogue, a model of a hub (`hf:ORG/REPO...`), or a path; a name
    wins over a file of the same spelling, which `./NAME` reaches; a folder without config.json or params.json means
    its only GGUF file. Only the default model is fetched when it is missing, after saying what, from where, its size
    and its licence; any other takes `herd pull`. Raises ModelNotFoundError, InputError, UnsupportedError, and
    DownloadError from fetching.
    """
    name = ref if ref is not None else DEFAULT
    if (model := find_local(name)) is not None:
        return model.path
    if is_hub_reference(name):
        raise _not_here(name, parse_hub_reference(name))
    if name == DEFAULT:
        from openherd.store.pull import pull  # it brings HTTP and TLS

        return pull(CATALOGUE[name], offline=offline, progress=progress).path
    if name in CATALOGUE or _spelled_out(name):
        raise ModelNotFoundError(f"{name} is not on this machine", hint=f"try: herd pull {name}")
    path = os.path.expanduser(name)
    if os.path.isdir(path):  # of os.path, which finds nothing where pathlib raises: too long, no such user
        return _in_folder(Path(path))
    if os.path.exists(path):
        return Path(path)
    raise _unknown(name)


def find_local(name: str) -> LocalModel | None:
    """The fetched model of that name, or of that reference to a hub. Raises as `find_hub_model` does."""
    if _is_name(name) and (model := local_model(name)) is not None:
        return model
    spelled = _spelled_out(name)
    if spelled is None:
        return None
    from openherd.store.hub_local import find_hub_model

    return find_hub_model(parse_hub_reference(spelled))


def to_fetch(name: str) -> Entry | HubReference:
    """What `herd pull NAME` fetches. Raises ModelNotFoundError, InputError."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if spelled := _spelled_out(name):
        return parse_hub_reference(spelled)
    names = _catalogue_names()
    near = _nearest(name, names)
    guess = f"; did you mean {near}?" if near else ""
    raise ModelNotFoundError(
        f"the catalogue has no model {name!r}{guess}",
        hint=f"it has: {', '.join(names)}; a model of a hub is written hf:ORG/REPO",
    )


def _spelled_out(name: str) -> str | None:
    """The reference to a hub that `name` is, or stands for."""
    if is_hub_reference(name):
        return name
    from openherd.store.hub_catalogue import HUB_CATALOGUE

    return HUB_CATALOGUE[name].reference if name in HUB_CATALOGUE else None


def _catalogue_names() -> list[str]:
    from openherd.store.hub_catalogue import HUB_CATALOGUE

    return [*CATALOGUE, *HUB_CATALOGUE]


def _not_here(name: str, reference: HubReference) -> ModelNotFoundError:
    from openherd.store.hub_local import hub_models

    same = [m.record.name for m in hub_models() if m.record.hub and m.record.hub.repository == reference.repository]
    here = f"; of its repository here: {', '.join(sorted(set(same)))}" if same else ""
    return ModelNotFoundError(f"{name} is not on this machine{here}", hint=f"try: herd pull {name}")


def _in_folder(folder: Path) -> Path:
    """The folder itself where it is a model (Hugging Face's layout or Meta's), else its only GGUF model.

    All parts of a split file count as one, which its first part stands for.
    """
    if any((folder / name).exists() for name in _MODEL_FOLDER):
        return folder
    files = sorted(folder.glob("*.gguf"))
    models = [file for file in files if not _LATER_PART.search(file.name)]
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(file.name for file in models[:5])
        raise ModelNotFoundError(
            f"{folder} holds {len(models)} .gguf files: {names}", hint=f"name one, such as {models[0]}"
        )
    raise ModelNotFoundError(
        f"{folder} holds no model: no .gguf file, no config.json (Hugging Face's layout), no params.json (Meta's)",
        hint="give a .gguf file, or the folder that a model was downloaded to",
    )


def _is_name(ref: str) -> bool:
    return ref not in ("", ".", "..") and "/" not in ref and "\\" not in ref and "\0" not in ref


def _unknown(ref: str) -> ModelNotFoundError:
    path = Path(ref)
    if not _is_name(ref) or path.suffix:
        near = _neighbour(path)
        guess = f"; did you mean {near}?" if near else ""
        return ModelNotFoundError(f"there is no file or folder {ref or repr(ref)}{guess}")
    names = sorted({*_catalogue_names(), *(model.record.name for model in local_models())})
    known = _nearest(ref, names)
    guess = f"; did you mean {known}?" if known else ""
    return ModelNotFoundError(
        f"no model is called {ref!r}, and no file or folder either{guess}",
        hint=f"names: {', '.join(names)} (herd models lists them); of a hub: hf:ORG/REPO",
    )


def _neighbour(path: Path) -> Path | None:
    """The model file beside `path` whose name is spelled alike."""
    if not os.path.isdir(path.parent):
        return None
    beside = {child.name: child for child in path.parent.glob("*.gguf") if child.exists()}
    name = _nearest(path.name, beside)
    return beside[name] if name else None


def _nearest(word: str, words: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, words, n=1)), None)
