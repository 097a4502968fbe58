"""The chat template of a Hugging Face folder, and where it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from openherd.checkpoints.hf_tokenizer import SETTINGS
from openherd.checkpoints.json_keys import LARGE, read_json_keys_if_there
from openherd.checkpoints.mapped_file import map_file
from openherd.errors import FormatError

FILE, OLD_FILE = "chat_template.jinja", "chat_template.json"
_KEY = "chat_template"
MAX_BYTES = 1 << 20


def read_hf_template(folder: Path) -> tuple[str | None, str | None]:
    """(template, its place). A file of its own wins over tokenizer_config.json, as in transformers.

    Of several named templates the one called "default" is taken. Raises FormatError.
    """
    path = folder / FILE
    if os.path.lexists(path):
        return _text(path), FILE
    for name in (OLD_FILE, SETTINGS):
        keys = read_json_keys_if_there(folder / name, limit=LARGE)
        if _KEY in keys:
            value: Any = keys[_KEY]
            if isinstance(value, list):
                return _default(folder / name, value), f"{name}, 'default' of {len(value)}"
            return keys.text(_KEY), name
    return None, None


def _text(path: Path) -> str:
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: {len(data)} bytes are more than the limit of {MAX_BYTES}")
    try:
        return data[:].decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8 text") from None


def _default(where: Path, templates: list[Any]) -> str | None:
    for entry in templates:
        if not isinstance(entry, dict) or not isinstance(entry.get("template"), str):
            raise FormatError(f"{where}: {_KEY} must be a string or a list of named templates")
    return next((entry["template"] for entry in templates if entry.get("name") == "default"), None)
