"""Which layout a verb writes: what `--to` says, or else the name of OUT; the two must not contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from openherd.errors import InputError

Layout = Literal["safetensors", "gguf"]


def require_gguf_name(out: Path) -> None:
    """Of a verb that writes nothing but GGUF files. Raises InputError for the name of another layout's file."""
    if out.suffix.lower() == ".safetensors":
        raise InputError(
            f"{out} is the name of a safetensors file, and what is written is a GGUF file",
            hint=f"name a file that ends in .gguf, such as {out.with_suffix('.gguf')}",
        )


def require_adapter_name(out: Path, to: Layout | None) -> None:
    """Raises InputError for what says that something else than PEFT's folder is to be written."""
    if to == "gguf":
        raise InputError("--to gguf is for whole models; an adapter is a folder in PEFT's form")
    if out.suffix.lower() in (".gguf", ".safetensors"):
        raise InputError(
            f"{out} is the name of a file, and an adapter is a folder",
            hint=f"name a folder, such as {out.with_suffix('')}",
        )


def layout_of(out: Path, to: Layout | None) -> Layout:
    """Raises InputError for a name that people and programs would take for another layout's."""
    ending = out.suffix.lower()
    layout = to or ("gguf" if ending == ".gguf" else "safetensors")
    if layout == "safetensors" and ending == ".gguf":
        raise InputError(
            f"{out} is the name of a GGUF file, and --to safetensors writes a folder",
            hint="name a folder, or give --to gguf",
        )
    if layout == "safetensors" and ending == ".safetensors":
        raise InputError(
            f"{out} is the name of a file, and a model in safetensors is a folder",
            hint=f"name a folder, such as {out.with_suffix('')}; the files of safetensors lie in it",
        )
    if layout == "gguf" and ending == ".safetensors":
        raise InputError(
            f"{out} is the name of a safetensors file, and --to gguf writes a GGUF file",
            hint="name a file that ends in .gguf, or give --to safetensors and a folder",
        )
    return layout
