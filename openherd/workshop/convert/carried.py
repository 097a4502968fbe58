"""What goes along with the weights into a Hugging Face folder: licence, model card, tokenizer, template, settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.tokenizer_json_writer import tokenizer_config, tokenizer_json
from openherd.errors import InputError

# By the beginnings of their names, whatever case they have.
_PAPERS = ("license", "licence", "notice", "use_policy", "readme", "model_card")
_TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "vocab.json", "merges.txt",
)  # fmt: skip
_MAX_BYTES = 128 << 20
# What a model card's front matter takes for a licence's name; anything else could say more there than a licence.
_LICENSE = re.compile(r"[\w.+-]{1,64}", re.ASCII)


def carried_files(folder: Path, *, tokenizer: bool) -> dict[str, bytes]:
    """Files of a model folder that are taken over as they are."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_carried(path.name) and (tokenizer or path.name not in _TOKENIZER):
            if path.stat().st_size > _MAX_BYTES:
                raise InputError(f"{path} has more than {_MAX_BYTES >> 20} MiB, too much to be carried along")
            found[path.name] = path.read_bytes()
    return found


def is_carried(name: str) -> bool:
    """Whether a new folder can have a file of this name from the old one; what is made has such names too."""
    return name.lower().startswith(_PAPERS) or name == "generation_config.json" or name in _TOKENIZER


def made_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Tokenizer, template, settings and a model card, made from what the model says."""
    spec = checkpoint.tokenizer
    files = {
        "tokenizer.json": _json(tokenizer_json(spec), indent=None),
        "tokenizer_config.json": _json(tokenizer_config(spec, checkpoint.config.max_seq_len)),
        "generation_config.json": _json(_generation(checkpoint)),
    }
    if checkpoint.chat_template is not None:
        files["chat_template.jinja"] = checkpoint.chat_template.encode()
    if checkpoint.license is not None:
        files["README.md"] = _card(checkpoint.license, checkpoint.format).encode()
    return files


def _card(license: str, format: str) -> str:
    """A licence whose name is none stands below, as a JSON string on a line of its own."""
    made = f"Converted by openherd from {format}.\n"
    if _LICENSE.fullmatch(license):
        return f"---\nlicense: {license}\n---\n\n{made}"
    return f"{made}\nThe licence that its file states:\n\n    {json.dumps(license)}\n"


def _generation(checkpoint: Checkpoint) -> dict[str, Any]:
    """Every id that ends an answer, so that it is not lost: Hugging Face's tokenizer knows one."""
    spec = checkpoint.tokenizer
    settings: dict[str, Any] = {"eos_token_id": sorted(spec.stop_ids)} if spec.stop_ids else {}
    if spec.bos_id is not None:
        settings["bos_token_id"] = spec.bos_id
    if spec.pad_id is not None:
        settings["pad_token_id"] = spec.pad_id
    return settings


def _json(value: dict[str, Any], *, indent: int | None = 2) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode()
