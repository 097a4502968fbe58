"""Which format a model is said to use, by its chat template alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.parsers import HERMES, LLAMA_3, MISTRAL, ToolFormat, model_format

TEMPLATES = Path(__file__).parents[2] / "parity" / "chat_templates"


@pytest.mark.parametrize(
    ("template", "form", "is_native"),
    [
        ('{{ tools }}<tool_call>{"name": NAME, "arguments": ARGS}</tool_call>', HERMES, True),
        ("{{ tools }}[TOOL_CALLS][", MISTRAL, True),
        ('{{ tools }}<|start_header_id|>{"name": NAME, "parameters": ARGS}', LLAMA_3, True),
        ("<tool_call> arguments, and the variable is not there", HERMES, False),
        ("{{ tools }}<tool_call><function=NAME><parameter=arguments>", HERMES, False),
        ("{{ tools }}[TOOL_CALLS]NAME[ARGS]", HERMES, False),
        ("{{ tools }}<|start_header_id|>", HERMES, False),
        ("{{ messages }}", HERMES, False),
        (None, HERMES, False),
    ],
)
def test_the_rule(template: str | None, form: ToolFormat, is_native: bool) -> None:
    found = model_format(template)
    assert (found.tools, found.is_native, found.thinks) == (form, is_native, False)
    assert found.description == (form.name if is_native else "hermes, in a system message")


def test_templates_as_models_carry_them() -> None:
    def of(name: str) -> tuple[str, bool]:
        form = model_format((TEMPLATES / f"{name}.jinja").read_text())
        return form.description, form.thinks

    assert of("tools") == ("hermes", False)
    assert of("smollm2") == ("hermes, in a system message", False)
    assert of("reasoning") == ("hermes, in a system message", True)
