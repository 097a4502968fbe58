"""Which chat template a model is asked with: its own, a built-in one by name, or a file."""

from __future__ import annotations

from pathlib import Path

from openherd.errors import TemplateError
from openherd.tokenizers.named_templates import NAMED_TEMPLATES, named_template

MAX_TEMPLATE_BYTES = 256 * 1024


def template_source(asked: str) -> str:
    """The Jinja source that `asked` names: a built-in template, or else a file. Raises `TemplateError`."""
    return named_template(asked) if asked in NAMED_TEMPLATES else _read(Path(asked))


def _read(path: Path) -> str:
    hint = f"--template takes a Jinja file or one of: {', '.join(NAMED_TEMPLATES)}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise TemplateError(f"cannot read the chat template {str(path)!r}: {error.strerror}", hint=hint) from None
    if len(data) > MAX_TEMPLATE_BYTES:
        raise TemplateError(f"the chat template {str(path)!r} is longer than {MAX_TEMPLATE_BYTES} bytes", hint=hint)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TemplateError(f"the chat template {str(path)!r} is not UTF-8 text", hint=hint) from None
