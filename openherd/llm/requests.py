"""From what a caller asks to the engine's requests and the answers that receive their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openherd.constrain import compile_grammar
from openherd.engine.protocols import HiddenTap, LogitsProcessor, NoiseSource
from openherd.engine.sequence import Request
from openherd.errors import OptionError
from openherd.llm.answer import Answer
from openherd.llm.constrained import GrammarProcessor, Schema, as_grammar
from openherd.llm.guards import TextGuard
from openherd.llm.loading import LoadedModel
from openherd.llm.prompts import EncodedPrompt, Prompt, encode
from openherd.llm.stop_strings import StopStrings
from openherd.options import SamplingParams


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

    def fork(self) -> Ask:
        """The same for another prompt, with processors and a guard of its own."""
        hooks = replace(self.hooks, processors=tuple(processor.fork() for processor in self.hooks.processors))
        return replace(self, hooks=hooks, guard=self.guard.fork() if self.guard else None)


Choice = tuple[Request, Answer]


def prepare(model: LoadedModel, prompt: Prompt, ask: Ask) -> list[Choice]:
    """The choices of one prompt, `params.n` of them, with one seed. Answers that a guard refused are already ended.

    Raises `InputError`s for what cannot be run, before anything is queued.
    """
    if ask.schema is not None and ask.params.ignore_eos:
        raise OptionError("ignore_eos cannot be combined with a schema, whose end is an end token")
    encoded = encode(model, prompt, special=ask.special, tools=ask.tools)
    processors, grammar = ask.hooks.processors, None
    if ask.schema is not None:
        grammar = GrammarProcessor(compile_grammar(as_grammar(ask.schema), model.tokenizer, model.config.vocab_size))
    request = Request(
        prompt_ids=encoded.ids,
        params=ask.params,
        processors=(*processors, grammar) if grammar else processors,
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
        (choice, _answer(model, choice, encoded, stops, guard)) for choice, guard in zip(choices, guards, strict=True)
    ]


def _answer(
    model: LoadedModel, request: Request, encoded: EncodedPrompt, stops: StopStrings, guard: TextGuard | None
) -> Answer:
    """What receives the outputs of a choice; already ended if the guard refuses the prompt."""
    constraints = [p.constraint for p in request.processors if isinstance(p, GrammarProcessor)]
    answer = Answer(
        choice=request.choice,
        seed=request.drawn_seed(),
        num_prompt_tokens=len(encoded.ids),
        detokenizer=model.tokenizer.detokenizer(continues=not encoded.is_conversation),
        stops=stops,
        guard=guard,
        constraint=constraints[0] if constraints else None,
    )
    answer.open(encoded.spans)
    return answer
