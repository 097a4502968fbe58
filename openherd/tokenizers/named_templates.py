"""Chat templates for files that carry none, chosen by name and never by guess."""

from __future__ import annotations

from importlib.resources import files

from openherd.errors import TemplateError

NAMED_TEMPLATES = ("chatml", "llama-2", "llama-3")


def named_template(name: str) -> str:
    """Jinja source of one of `NAMED_TEMPLATES`. Raises `TemplateError` for any other name."""
    if name not in NAMED_TEMPLATES:
        raise TemplateError(
            f"there is no template named {name[:64]!r}",
            hint=f"--template takes a file or one of: {', '.join(NAMED_TEMPLATES)}",
        )
    return files("openherd.tokenizers").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
