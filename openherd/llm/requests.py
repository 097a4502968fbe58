"""From what a caller asks to the engine's requests and the answers that receive their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openherd.engine.protocols import HiddenTap, LogitsProcessor, NoiseSource
from openherd.engine.sequence import Request
from openherd.errors import OptionError
from openherd.llm.answer import Answer
from openherd.llm.guards import TextGuard
from openherd.llm.loading import LoadedModel
from openherd.llm.prompts import EncodedPrompt, Prompt, check_tools_have_effect, encode
from openherd.llm.stop_strings import StopStrings
from openherd.llm.tools import Toolbox, ToolChoice, toolbox
from openherd.options import SamplingParams
from openherd.parsers import OutputParser

if TYPE_CHECKING:
    from openherd.constrain import Constraint
    from openherd.llm.constrained import Schema


@dataclass(frozen=True, slots=True)
class Hooks:
    """What other parts of a program put into the engine. Each choice has processors of its own (forks), while noise
    and taps are shared by all; requests of different salts never share cached blocks."""

    processors: tuple[LogitsProcessor, ...] = ()
    noise: NoiseSource | None = None
    taps: tuple[HiddenTap, ...] = ()
    salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Ask:
    """Everything about a request but its prompt."""

    params: SamplingParams
    schema: Schema | None = None
    adapter: str | None = None
    guard: TextGuard | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    special: bool = False
    hooks: Hooks = Hooks()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True

    def fork(self) -> Ask:
        """The same for another prompt, with processors and a guard of its own."""
        hooks = replace(self.hooks, processors=tuple(processor.fork() for processor in self.hooks.processors))
        return replace(self, hooks=hooks, guard=self.guard.fork() if self.guard else None)


Choice = tuple[Request, Answer]


def prepare(model: LoadedModel, prompt: Prompt, ask: Ask) -> list[Choice]:
    """The choices of one prompt, `params.n` of them, with one seed. Answers that a guard refused are already ended.

    Raises `InputError`s for what cannot be run, before anything is queued.
    """
    check_tools_have_effect(prompt, ask.tools)
    box = toolbox(ask.tools, ask.tool_choice, parallel=ask.parallel_tool_calls)
    if ask.params.ignore_eos and (ask.schema is not None or box.tools):
        what = "tools, whose calls are" if box.tools else "a schema, whose end is"
        raise OptionError(f"ignore_eos cannot be combined with {what} held to a grammar that ends with an end token")
    encoded = encode(model, prompt, special=ask.special, tools=box.documents)
    grammar = _constraint(model, ask, box, encoded)
    processors = ask.hooks.processors
    if grammar is not None:
        from openherd.llm.constrained import GrammarProcessor

        processors = (*processors, GrammarProcessor(grammar))
    request = Request(
        prompt_ids=encoded.ids,
        params=ask.params,
        processors=processors,
        noise=ask.hooks.noise,
        taps=ask.hooks.taps,
        adapter=model.adapter(ask.adapter),
        salt=ask.hooks.salt,
    )
    request.check(model.config, model.engine.context)
    stops = StopStrings(ask.params.stop)
    choices = request.choices()
    guards = [ask.guard, *(ask.guard.fork() if ask.guard else None for _ in choices[1:])]
    return [
        (choice, _answer(model, choice, encoded, stops, guard, box, is_held=grammar is not None))
        for choice, guard in zip(choices, guards, strict=True)
    ]


def _constraint(model: LoadedModel, ask: Ask, box: Toolbox, encoded: EncodedPrompt) -> Constraint | None:
    """What the answer is held to; None: to nothing."""
    if box.tools:
        from openherd.llm.tool_constraint import tool_constraint

        return tool_constraint(model, box, is_thinking=encoded.is_thinking, answer=ask.schema)
    if ask.schema is None:
        return None
    from openherd.constrain import compile_grammar
    from openherd.llm.answer_grammar import answer_grammar
    from openherd.llm.constrained import as_grammar

    grammar = as_grammar(ask.schema)
    if encoded.is_conversation and model.format.thinks:
        ids, is_thinking = model.marker_ids, encoded.is_thinking
        grammar = answer_grammar(model.format, box, control_ids=ids, is_thinking=is_thinking, answer=grammar)
    return compile_grammar(grammar, model.tokenizer, model.config.vocab_size)


def _own_constraint(request: Request) -> Constraint:
    """That of the choice's own copy of the grammar's processor."""
    from openherd.llm.constrained import GrammarProcessor

    return next(p.constraint for p in request.processors if isinstance(p, GrammarProcessor))


def _answer(
    model: LoadedModel,
    request: Request,
    encoded: EncodedPrompt,
    stops: StopStrings,
    guard: TextGuard | None,
    box: Toolbox,
    *,
    is_held: bool,
) -> Answer:
    """What receives the outputs of a choice; already ended if the guard refuses the prompt."""
    parser, shown = None, frozenset[int]()
    has_tools = bool(box.tools) or encoded.has_results
    if encoded.is_conversation and (has_tools or model.format.thinks):
        names = {tool.name for tool in box.callable}
        parser = OutputParser(
            model.format, names, is_held=is_held, is_thinking=encoded.is_thinking, has_tools=has_tools
        )
        shown = model.shown_ids(with_tools=bool(box.tools))
    answer = Answer(
        choice=request.choice,
        seed=request.drawn_seed(),
        num_prompt_tokens=len(encoded.ids),
        detokenizer=model.tokenizer.detokenizer(continues=not encoded.is_conversation, shown=shown),
        stops=stops,
        guard=guard,
        constraint=_own_constraint(request) if is_held else None,
        parser=parser,
    )
    answer.open(encoded.spans)
    return answer
