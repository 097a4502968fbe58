"""LLM: a language model, text in and text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from openherd.config import ModelConfig
from openherd.engine.protocols import F32
from openherd.errors import OptionError
from openherd.llm.answer import Answer
from openherd.llm.driver import Driver
from openherd.llm.guards import TextGuard
from openherd.llm.loading import LoadedModel, load_model
from openherd.llm.prompts import Conversation, Prompt, as_prompts, encode
from openherd.llm.requests import Ask, Choice, Hooks, prepare
from openherd.llm.stream import Stream
from openherd.llm.tools import ToolChoice
from openherd.messages import Completion
from openherd.options import EngineOptions, SamplingParams
from openherd.stats import EngineStats
from openherd.store.progress import Progress
from openherd.tokenizers import Tokenizer

if TYPE_CHECKING:
    from openherd.llm.constrained import Schema
    from openherd.llm.embedding import Text
    from openherd.llm.scoring import Score
    from openherd.tokenizers import ChatTemplate

_NO_HOOKS = Hooks()


class LLM:
    """A loaded model. Any number of threads may use it; they share its steps. `with` or `close` gives memory back.

    A prompt is text, a list of token ids, or a conversation (a list of `Message`s or of mappings with `role` and
    `content`), which goes through the model's chat template. Control tokens written in text stay text. A prompt that
    does not fit the context raises `ContextLengthError`; nothing is ever cut.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._driver = Driver(model.engine)

    @classmethod
    def load(
        cls,
        ref: str | Path | None = None,
        *,
        options: EngineOptions | None = None,
        template: str | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        offline: bool = False,
        progress: Progress | None = None,
    ) -> LLM:
        """Load a model: a catalogue name, a file, or None for the default, which is fetched if it is not here.

        `template`: a built-in chat template's name or a Jinja file instead of the model's own. `adapters`: LoRA
        adapters by the name that requests choose them by. `offline` forbids fetching.
        """
        return cls(
            load_model(
                ref,
                options=options or EngineOptions(),
                template=template,
                adapters=adapters or {},
                offline=offline,
                progress=progress,
            )
        )

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def path(self) -> Path:
        return self._model.path

    @property
    def config(self) -> ModelConfig:
        return self._model.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._model.tokenizer

    @property
    def template(self) -> ChatTemplate:
        """Raises `TemplateError` when the model has none and none was named."""
        return self._model.template

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the model's files leave open and openherd filled in, each in a sentence; empty for most models."""
        return self._model.assumed

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._model.engine.context

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that requests may choose."""
        return tuple(self._model.adapters)

    @property
    def numerics_id(self) -> str:
        """Build, instruction set, backend and KV type: within one id, the same request gives the same bits."""
        return self._model.engine.numerics_id

    @property
    def stats(self) -> EngineStats:
        """The engine's counters."""
        return self._model.engine.stats

    @property
    def load_s(self) -> float:
        """Seconds from the file on disk to a model that is ready."""
        return self._model.load_s

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        schema: Schema | None = None,
        adapter: str | None = None,
        guard: TextGuard | None = None,
        special: bool = False,
        hooks: Hooks = _NO_HOOKS,
    ) -> list[Completion]:
        """Answer all prompts in one continuous batch: `params.n` completions for each, in order.

        `schema`: hold the answers to a JSON schema (or a `Grammar`). `special`: control tokens written in text prompts
        count as such. A request that fails while it runs gives a completion with FinishReason.ERROR.
        """
        ask = Ask(params or SamplingParams(), schema, adapter, guard, special=special, hooks=hooks)
        asked = as_prompts(prompts)
        asks = [ask, *(ask.fork() for _ in asked[1:])]  # before the first guard has seen anything
        per_prompt = [prepare(self._model, prompt, ask) for prompt, ask in zip(asked, asks, strict=False)]
        answers = [answer for choices in per_prompt for _, answer in choices]
        with self._running(answers):
            for choices in per_prompt:
                self._submit(choices)
            self._driver.run_to_end(answers)
        return [answer.completion() for answer in answers]

    def chat(
        self,
        messages: Conversation,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        schema: Schema | None = None,
        adapter: str | None = None,
        guard: TextGuard | None = None,
        hooks: Hooks = _NO_HOOKS,
    ) -> Completion:
        """The next message of a conversation. For several choices of it, give the conversation to `generate`.

        `tools`: functions that the model may ask to be called, in OpenAI's form; `tool_choice`: "none", "auto",
        "required", or `NamedTool(name)`. The calls are the completion's `tool_calls`. To go on, append its `message`
        and one `Message("tool", result, tool_call_id=call.id)` for each.
        """
        params = params or SamplingParams()
        if params.n != 1:
            raise OptionError("chat gives one answer, so n must be 1; generate([messages]) gives several")
        with self.stream(
            messages,
            params,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            schema=schema,
            adapter=adapter,
            guard=guard,
            hooks=hooks,
        ) as stream:
            for _ in stream:
                pass
        return stream.completion

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        schema: Schema | None = None,
        adapter: str | None = None,
        guard: TextGuard | None = None,
        special: bool = False,
        hooks: Hooks = _NO_HOOKS,
    ) -> Stream:
        """Answer one prompt, delta by delta. The same text as `generate` gives, and the same bits."""
        asked = params or SamplingParams()
        ask = Ask(asked, schema, adapter, guard, tools, special, hooks, tool_choice, parallel_tool_calls)
        choices = prepare(self._model, prompt, ask)
        stream = Stream(self._driver, [answer for _, answer in choices])
        self._submit(choices)
        return stream

    def score(
        self,
        text: str,
        *,
        context: int = 512,
        special: bool = True,
        max_tokens: int | None = None,
        adapter: str | None = None,
    ) -> Score:
        """Log-probability of each token of `text`, in independent chunks of `context` tokens.

        `special`: control tokens in the text count as such, and the text begins with the model's first token if its
        tokenizer says so. `max_tokens`: score only so many tokens from the beginning.
        """
        from openherd.llm.scoring import score

        return score(
            self._model, self._driver, text, context=context, special=special, max_tokens=max_tokens, adapter=adapter
        )

    def embed(self, texts: Text | Sequence[Text], *, adapter: str | None = None) -> F32:
        """A vector of length 1 for each text (or list of token ids), [N, D]: the mean of its last hidden states.

        The same bits alone or in a batch. A text that does not fit the context raises `ContextLengthError`.
        """
        from openherd.llm.embedding import embed

        return embed(self._model, self._driver, cast("list[Text]", as_prompts(texts)), adapter=adapter)

    def count_tokens(self, prompt: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Tokens that a prompt takes of the context; a conversation with its template around it."""
        return len(encode(self._model, prompt, tools=tools).ids)

    def close(self) -> None:
        """End what runs and give memory and threads back. Safe to repeat."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, choices: Sequence[Choice]) -> None:
        """Queue the choices that no guard refused."""
        self._driver.submit([choice for choice in choices if choice[1].finish_reason is None])

    @contextmanager
    def _running(self, answers: Sequence[Answer]) -> Iterator[None]:
        """Whatever ends the block, nothing of these answers goes on in the engine."""
        try:
            yield
        finally:
            self._driver.cancel(answers)
