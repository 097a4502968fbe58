"""From what a person calls a model to the file or folder that holds it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from openherd.errors import ModelNotFoundError, UnsupportedError
from openherd.store.catalogue import CATALOGUE, DEFAULT, Entry
from openherd.store.local import local_model, local_models
from openherd.store.progress import Progress
from openherd.store.pull import pull

_HUB = re.compile(r"(hf:|(https?://)?(www\.)?(hf\.co|huggingface\.co)/)", re.IGNORECASE)


def resolve(ref: str | None, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The GGUF file that `ref` means.

    `ref` is None (the default model), a name, or a path; a name wins over a file of the same spelling, which `./NAME`
    reaches; a folder means its only GGUF file. Only the default model is fetched when it is missing, after saying what,
    from where, its size and its licence. Raises ModelNotFoundError, UnsupportedError (the Hugging Face hub, a folder of
    safetensors), and DownloadError from fetching.
    """
    name = ref if ref is not None else DEFAULT
    if _HUB.match(name):
        raise _hub(name)
    if _is_name(name) and (model := local_model(name)) is not None:
        return model.path
    if name == DEFAULT:
        return pull(CATALOGUE[name], offline=offline, progress=progress).path
    if name in CATALOGUE:
        raise ModelNotFoundError(f"{name} is not on this machine", hint=f"try: herd pull {name}")
    path = os.path.expanduser(name)
    if os.path.isdir(path):  # of os.path, which finds nothing where pathlib raises: too long, no such user
        return _in_folder(Path(path))
    if os.path.exists(path):
        return Path(path)
    raise _unknown(name)


def catalogue_entry(name: str) -> Entry:
    """The catalogue's entry of that name. Raises ModelNotFoundError or UnsupportedError (the Hugging Face hub)."""
    if _HUB.match(name):
        raise _hub(name)
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise ModelNotFoundError(f"the catalogue has no model {name!r}{guess}", hint=f"it has: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _hub(ref: str) -> UnsupportedError:
    return UnsupportedError(
        f"{ref}: openherd cannot fetch from the Hugging Face hub",
        hint="download a .gguf file by hand, then: herd chat FILE.gguf",
    )


def _in_folder(folder: Path) -> Path:
    """A folder's only GGUF file."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files[:5])
        raise ModelNotFoundError(
            f"{folder} holds {len(files)} .gguf files: {names}", hint=f"name one, such as {files[0]}"
        )
    if any(folder.glob("*.safetensors")):
        raise UnsupportedError(
            f"{folder} holds .safetensors files, which this version does not run; it runs .gguf files",
            hint="look for the same model as a .gguf file",
        )
    raise ModelNotFoundError(f"{folder} holds no .gguf file", hint="give a .gguf file, or a folder with one in it")


def _is_name(ref: str) -> bool:
    return ref not in ("", ".", "..") and "/" not in ref and "\\" not in ref and "\0" not in ref


def _unknown(ref: str) -> ModelNotFoundError:
    path = Path(ref)
    if not _is_name(ref) or path.suffix:
        near = _neighbour(path)
        guess = f"; did you mean {near}?" if near else ""
        return ModelNotFoundError(f"there is no file or folder {ref or repr(ref)}{guess}")
    names = sorted({*CATALOGUE, *(model.record.name for model in local_models())})
    known = _nearest(ref, names)
    guess = f"; did you mean {known}?" if known else ""
    return ModelNotFoundError(
        f"no model is called {ref!r}, and no file or folder either{guess}",
        hint=f"names: {', '.join(names)} (herd models lists them)",
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
