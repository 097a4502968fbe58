"""How models write tool calls and reasoning, and the rule that says which of these a model uses.

The rule reads the chat template alone, never the file's name:

    <tool_call> and "arguments", and no <function=      Hermes, as ChatML models have it
    [TOOL_CALLS], and no [ARGS]                         Mistral
    "parameters" and <|start_header_id|>                Llama 3.1 and later
    </think>                                            the model thinks aloud before it speaks

each only where the template also uses the variable `tools`, but for the last. A model of none of them is offered
tools in Hermes' form, in a system message: `is_native` is then False.

Not covered: calls written as XML (Qwen3-Coder), as a name before its arguments (Mistral from 2025 on), or as Python.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """A call is a JSON object of a name and arguments; formats differ in what stands around and between."""

    name: str
    marker: str  # begins a call, or a list of calls, anywhere in the text
    close: str = ""  # ends what `marker` began
    separator: str = ""  # between calls that no list holds
    in_list: bool = False  # calls are the items of one JSON list
    is_bare: bool = False  # an answer may also begin with a call, without the marker
    arguments_key: str = "arguments"
    result_marks: tuple[str, ...] = ()  # what opens and closes a function's result in the prompt


HERMES = ToolFormat("hermes", "<tool_call>", close="</tool_call>", result_marks=("<tool_response>", "</tool_response>"))
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", in_list=True)
LLAMA_3 = ToolFormat("llama-3", "<|python_tag|>", separator=";", is_bare=True, arguments_key="parameters")


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """What a model's answers may hold beside text."""

    tools: ToolFormat
    is_native: bool  # the template itself tells the model of tools, in this format
    thinks: bool

    @property
    def description(self) -> str:
        """For people: how tools are offered."""
        return self.tools.name if self.is_native else f"{self.tools.name}, in a system message"

    def markers(self, *, with_tools: bool) -> tuple[str, ...]:
        """Texts that are structure. In some vocabularies they are control tokens, which must then be shown."""
        thinking = (THINK_OPEN, THINK_CLOSE) if self.thinks else ()
        calling = tuple(filter(None, (self.tools.marker, self.tools.close))) if with_tools else ()
        return (*thinking, *calling)


def model_format(template: str | None) -> ModelFormat:
    """By the rule above; a model without a template neither calls nor thinks."""
    source = template or ""
    native = _native_tools(source)
    return ModelFormat(native or HERMES, native is not None, THINK_CLOSE in source)


def _native_tools(source: str) -> ToolFormat | None:
    if not re.search(r"\btools\b", source):
        return None
    if HERMES.marker in source and re.search(r"\barguments\b", source) and "<function=" not in source:
        return HERMES
    if MISTRAL.marker in source and "[ARGS]" not in source:
        return MISTRAL
    if "<|start_header_id|>" in source and re.search(r"\bparameters\b", source):
        return LLAMA_3
    return None
