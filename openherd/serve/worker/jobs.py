"""One request inside the worker: its choices, and the events that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openherd.engine.sequence import Request
from openherd.errors import ContextLengthError, InputError, OptionError
from openherd.llm.answer import Answer, Delta
from openherd.llm.driver import Driver
from openherd.llm.loading import LoadedModel
from openherd.llm.requests import Ask, Choice, Hooks, prepare
from openherd.llm.tools import NamedTool
from openherd.messages import Completion, FinishReason, TokenLogprob, ToolCallDelta
from openherd.options import SamplingParams
from openherd.serve.wire import Event, Frame
from openherd.serve.worker.refusals import error_event
from openherd.tokenizers import Tokenizer

# A text of more characters than this for each token of context is refused before it is tokenized, which takes time and
# memory in proportion. Text has 3 to 5 characters to a token, and deeply indented code 10.
MAX_CHARACTERS_PER_TOKEN = 32

# JSON has no infinity; OpenAI's API writes this for a token that cannot be.
LEAST_LOGPROB = -9999.0


@dataclass(slots=True)
class _Progress:
    """One answer, and how much of it was sent."""

    answer: Answer
    num_bytes: int = 0  # of the tokens sent
    is_ended: bool = False


@dataclass(slots=True)
class Job:
    """A request that can be run. Choices are numbered through its prompts: all of the first, then of the second."""

    id: int
    prompts: list[list[Choice]]
    tokenizer: Tokenizer
    with_tokens: bool  # log-probabilities were asked
    held_by: str | None  # the parameter that holds answers to a grammar
    shown_ids: frozenset[int]  # control tokens that answers show
    has_failed: bool = False  # one choice ended with an error, and with it the request
    _progress: list[_Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._progress = [_Progress(answer) for answer in self.answers]

    @property
    def answers(self) -> list[Answer]:
        return [answer for choices in self.prompts for _, answer in choices]

    @property
    def is_done(self) -> bool:
        return self.has_failed or all(progress.is_ended for progress in self._progress)

    def submit(self, driver: Driver) -> None:
        """Queue all choices or, if some are refused, none."""
        try:
            for choices in self.prompts:
                driver.submit(choices)
        except BaseException:
            driver.cancel(self.answers)
            raise

    def accepted(self) -> Event:
        request = self._first_requests[0]
        return {"id": self.id, "type": "accepted", "prompt_tokens": self._prompt_tokens, "seed": request.drawn_seed()}

    def used(self, driver: Driver) -> tuple[int, int]:
        """Tokens computed so far: of the prompts, where a prompt has drawn nothing as far as it has come, and drawn."""
        prompts = (choices[0] for choices in self.prompts)
        open_answers = []
        prompt_tokens = 0
        for request, answer in prompts:
            if answer.num_tokens:
                prompt_tokens += len(request.prompt_ids)
            else:
                open_answers.append(answer)
        if open_answers:
            prompt_tokens += driver.num_computed(open_answers)
        return prompt_tokens, sum(answer.num_tokens for answer in self.answers)

    def events(self) -> list[Event]:
        """What is new since the last call."""
        events = []
        for choice, progress in enumerate(self._progress):
            if not (progress.is_ended or self.has_failed):
                events += self._events_of(choice, progress)
        return events

    @property
    def _first_requests(self) -> list[Request]:
        return [choices[0][0] for choices in self.prompts]

    @property
    def _prompt_tokens(self) -> int:
        return sum(len(request.prompt_ids) for request in self._first_requests)

    def _events_of(self, choice: int, progress: _Progress) -> list[Event]:
        answer = progress.answer
        events = []
        ended = answer.completion() if answer.finish_reason is not None else None
        while (delta := answer.take()) is not None:
            tokens = self._tokens(delta, ended, progress) if self.with_tokens else None
            content = _content(delta)
            if content["text"] or tokens or len(content) > 1:
                events.append({"id": self.id, "type": "delta", "choice": choice, **content, "tokens": tokens})
        if ended is not None:
            progress.is_ended = True
            events.append(self._end(choice, ended))
        return events

    def _end(self, choice: int, completion: Completion) -> Event:
        if completion.finish_reason is FinishReason.ERROR:
            self.has_failed = True
            return {"id": self.id, **self._failure(completion)}
        return {
            "id": self.id,
            "type": "end",
            "choice": choice,
            "finish_reason": completion.finish_reason.value,
            "stop": completion.stop_match if isinstance(completion.stop_match, str) else None,
            "completion_tokens": completion.usage.completion_tokens,
            # Choices share the first one's prompt: only what that one found in the cache was saved.
            "cached_tokens": 0 if completion.choice else completion.usage.cached_tokens,
            "reasoning_tokens": completion.usage.reasoning_tokens,
        }

    def _failure(self, completion: Completion) -> Event:
        """A grammar that grows too ambiguous on the way is the request's fault; anything else is the server's."""
        if self.held_by and "the grammar cannot go on" in (completion.error or ""):
            message = f"the answer could not be held to the schema: {completion.error}"
            return error_event(400, message, param=self.held_by, code="invalid_schema")
        return error_event(500, "the answer ended with an error inside the server")

    def _tokens(self, delta: Delta, ended: Completion | None, progress: _Progress) -> list[dict[str, Any]]:
        """The delta's tokens with their log-probabilities: those whose bytes are the text.

        Left out are control tokens, and what was drawn at the end but belongs to a stop.
        """
        entries = []
        stop = ended.stop_match if ended is not None else None
        end_of_text = progress.answer.num_text_bytes if isinstance(stop, str) else None
        for place, (token_id, logprob) in enumerate(zip(delta.token_ids, delta.logprobs, strict=True)):
            is_last = ended is not None and place == len(delta.token_ids) - 1
            data = self.tokenizer.token_bytes(token_id)
            is_cut = end_of_text is not None and progress.num_bytes >= end_of_text
            is_hidden = self.tokenizer.is_control(token_id) and token_id not in self.shown_ids
            if is_hidden or is_cut or (is_last and stop == token_id):
                continue
            progress.num_bytes += len(data)
            entries.append({**self._entry(token_id, data, logprob.logprob), "top": self._top(logprob)})
        return entries

    def _top(self, logprob: TokenLogprob) -> list[dict[str, Any]]:
        return [self._entry(token_id, self.tokenizer.token_bytes(token_id), value) for token_id, value in logprob.top]

    def _entry(self, token_id: int, data: bytes, logprob: float) -> dict[str, Any]:
        text = data.decode("utf-8", "replace")
        return {"id": token_id, "token": text, "bytes": list(data), "logprob": max(logprob, LEAST_LOGPROB)}


def prepare_job(model: LoadedModel, frame: Frame) -> Job:
    """From a `generate` frame. Raises `InputError`s for what cannot be run."""
    params = _params(frame["params"])
    if params.max_tokens is not None and params.max_tokens > model.engine.context:
        raise OptionError(f"max_tokens is {params.max_tokens}, and the context holds {model.engine.context} tokens")
    room = MAX_CHARACTERS_PER_TOKEN * model.engine.context
    for prompt in frame["prompts"]:
        if (length := _num_characters(prompt)) > room:
            raise ContextLengthError(
                f"the prompt has {length} characters, far more than fit the context of {model.engine.context} tokens"
            )
    choice = frame.get("tool_choice", "auto")
    ask = Ask(
        params,
        frame["schema"],
        frame["adapter"],
        tools=frame.get("tools"),
        hooks=Hooks(salt=bytes.fromhex(frame["salt"])),
        tool_choice=NamedTool(choice["name"]) if isinstance(choice, dict) else choice,
        parallel_tool_calls=frame.get("parallel_tool_calls", True),
    )
    is_chat = all(prompt and isinstance(prompt[0], dict) for prompt in frame["prompts"])
    return Job(
        id=frame["id"],
        prompts=[prepare(model, _prompt(prompt), ask) for prompt in frame["prompts"]],
        tokenizer=model.tokenizer,
        with_tokens=params.logprobs is not None,
        held_by=_held_by(frame),
        shown_ids=model.shown_ids(with_tools=_held_by(frame) == "tools") if is_chat else frozenset(),
    )


def _held_by(frame: Frame) -> str | None:
    if frame.get("tools") and frame.get("tool_choice") != "none":
        return "tools"
    return None if frame["schema"] is None else "response_format"


def _content(delta: Delta) -> dict[str, Any]:
    """What a delta event says beside its tokens; most have text alone."""
    content: dict[str, Any] = {"text": delta.text}
    if delta.reasoning:
        content["reasoning"] = delta.reasoning
    if delta.tool_calls:
        content["tool_calls"] = [_call_piece(call) for call in delta.tool_calls]
    return content


def _call_piece(call: ToolCallDelta) -> dict[str, Any]:
    opening = {} if call.id is None else {"id": call.id, "name": call.name}
    return {"index": call.index, **opening, "arguments": call.arguments}


def _params(values: dict[str, Any]) -> SamplingParams:
    """JSON has lists and string keys only."""
    biases = {int(token_id): bias for token_id, bias in values["logit_bias"].items()}
    stops = {"stop": tuple(values["stop"]), "stop_token_ids": tuple(values["stop_token_ids"])}
    return SamplingParams(**{**values, **stops, "logit_bias": biases})


def _num_characters(prompt: Any) -> int:
    """Of a text or of messages; token ids have none."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(_num_message_characters(message) for message in prompt if isinstance(message, dict))


def _num_message_characters(message: dict[str, Any]) -> int:
    calls = sum(len(call["function"]["arguments"]) for call in message.get("tool_calls", ()))
    return len(message["content"]) + len(message.get("reasoning_content", "")) + calls


def _prompt(prompt: Any) -> str | Sequence[Any]:
    """Text, token ids, or messages; an empty list would pass for any of them."""
    if not isinstance(prompt, (str, list)) or prompt == []:
        raise InputError("the prompt is empty")
    return prompt
