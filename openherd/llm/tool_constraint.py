"""Holding an answer to the tools' schemas: as far as it must be, or else as far as can be."""

from __future__ import annotations

from time import perf_counter

from openherd.constrain import Constraint, Grammar, compile_grammar
from openherd.errors import SchemaError, ToolError, UnsupportedError
from openherd.llm.answer_grammar import answer_grammar
from openherd.llm.constrained import Schema, as_grammar
from openherd.llm.loading import LoadedModel
from openherd.llm.tools import Tool, Toolbox

# To find which of the schemas is to blame; each takes at most 0.2 s, and there may be many.
_SEARCH_S = 0.2


def tool_constraint(model: LoadedModel, box: Toolbox, *, is_thinking: bool, answer: Schema | None) -> Constraint | None:
    """Where a call is asked for, or a tool is strict, its arguments must follow its schema, or a `ToolError` says why
    they cannot. Where the model decides, a schema that cannot be enforced leaves any JSON object, and a model without
    an end token is held to nothing.
    """

    def compiled(*, is_loose: bool) -> Constraint:
        grammar = answer_grammar(
            model.format,
            box,
            control_ids=model.marker_ids,
            is_thinking=is_thinking,
            answer=answer,
            is_loose=is_loose,
        )
        return compile_grammar(grammar, model.tokenizer, model.config.vocab_size)

    try:
        return compiled(is_loose=False)
    except UnsupportedError:
        if box.must_call or answer is not None:
            raise
        return None
    except SchemaError as error:
        if answer is not None:  # refused by its own name where it is to blame
            compile_grammar(as_grammar(answer), model.tokenizer, model.config.vocab_size)
        strict = box.callable if box.must_call else tuple(tool for tool in box.callable if tool.is_strict)
        if strict:
            raise _blame(model, box, strict, error) from None
    try:
        return compiled(is_loose=True)
    except SchemaError as error:
        raise ToolError(f"the tools are too many to be offered: {error}", param="tools") from None


def _blame(model: LoadedModel, box: Toolbox, tools: tuple[Tool, ...], error: SchemaError) -> ToolError:
    """The error with the first tool whose schema cannot be enforced by itself, if it is found in time."""
    started = perf_counter()
    for tool in tools:
        if perf_counter() - started > _SEARCH_S:
            break
        try:
            compile_grammar(Grammar.json_schema(dict(tool.schema)), model.tokenizer, model.config.vocab_size)
        except SchemaError as found:
            place = next(place for place, other in enumerate(box.tools) if other is tool)
            return ToolError(f"the parameters of {tool.name}: {found}", param=f"tools[{place}].function.parameters")
    return ToolError(f"the tools' parameters: {error}", param="tools")
