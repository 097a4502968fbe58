"""Which chat template a model is asked with: its own, a built-in one by name, or a file."""

from __future__ import annotations

from pathlib import Path

from openherd.errors import TemplateError

MAX_TEMPLATE_BYTES = 256 * 1024

BUILT_IN = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
        "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "llama-2": (
        "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
        "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
        "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}"
        "{% for message in turns %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama-3": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim "
        "+ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
    "plain": (
        "{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
}


def find_template(asked: str | None, own: str | None) -> str:
    """The template's source: `asked` is a built-in name or a file, None the model's own.

    A template is never guessed: raises `TemplateError` when none was asked for and the model has none.
    """
    names = ", ".join(BUILT_IN)
    if asked is None:
        if own is None:
            raise TemplateError(
                "this model has no chat template", hint=f"Name one with --template: {names}, or a Jinja file."
            )
        return own
    if asked in BUILT_IN:
        return BUILT_IN[asked]
    return _read(Path(asked), names)


def _read(path: Path, names: str) -> str:
    hint = f"--template takes a built-in name ({names}) or a Jinja file."
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise TemplateError(f"cannot read the chat template {str(path)!r}: {error.strerror}", hint=hint) from None
    if len(data) > MAX_TEMPLATE_BYTES:
        raise TemplateError(
            f"the chat template {str(path)!r} is longer than {MAX_TEMPLATE_BYTES // 1024} KiB", hint=hint
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise TemplateError(f"the chat template {str(path)!r} is not UTF-8 text", hint=hint) from None
