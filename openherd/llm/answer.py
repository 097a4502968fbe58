"""One answer on its way from tokens to text: detokenizer, stop strings, guard, and what of it may be seen.

Tokens follow their text: a token is given out once all text up to its end has been. After a stop string only the
text before it is given out, while the tokens drawn stay in the completion, as they were computed and counted.
Stop strings and the guard read the text as the model wrote it; what they let through is then parsed for reasoning
and tool calls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from openherd.engine.sequence import StepOutput
from openherd.llm.guards import Decision, TextGuard
from openherd.llm.parsed_text import ParsedText
from openherd.llm.stop_strings import StopStrings
from openherd.messages import Completion, FinishReason, Span, TokenLogprob, ToolCallDelta, Usage
from openherd.parsers import OutputParser
from openherd.tokenizers.detokenizer import IncrementalDetokenizer

if TYPE_CHECKING:
    from openherd.constrain import Constraint

# The model came to its end, and nobody took the rest away.
_COMPLETE = (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True, slots=True)
class Delta:
    """Reasoning, then text, then calls that were added to one answer. All deltas, joined, are the completion."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class Answer:
    """Takes in the engine's outputs for one sequence; `take` gives out what may be seen, `completion` the whole."""

    def __init__(
        self,
        *,
        choice: int,
        seed: int,
        num_prompt_tokens: int,
        detokenizer: IncrementalDetokenizer,
        stops: StopStrings,
        guard: TextGuard | None = None,
        constraint: Constraint | None = None,
        parser: OutputParser | None = None,
    ) -> None:
        self.choice = choice
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._scanner = stops.scanner()
        self._guard = guard
        self._constraint = constraint
        self._num_prompt_tokens = num_prompt_tokens
        self._cached_tokens = 0
        self._num_drafted = self._num_accepted = 0
        self._seed = seed
        self._error: str | None = None
        self._stop_token: int | None = None
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._ends: list[int] = []  # characters of text known after each token
        self._num_read = 0
        self._held = ""  # past the stop strings, waiting for the guard
        self._released = ParsedText(parser)
        self.num_text_bytes = 0  # of the text as the model wrote it, as far as it may be seen
        self._num_taken = 0  # tokens already given out
        self._clock = _Clock()

    @property
    def num_tokens(self) -> int:
        """Tokens drawn so far."""
        return len(self._token_ids)

    def open(self, prompt: Sequence[Span]) -> None:
        """Show the prompt to the guard, which may end the answer before it begins."""
        if self._guard is None:
            return
        try:
            decision = self._guard.on_prompt(prompt)
        except Exception as error:
            self.fail(f"the text guard failed: {error!r}")
        else:
            if decision is not Decision.RELEASE:
                self.end(FinishReason.CONTENT_FILTER)

    def fail(self, error: str) -> None:
        """End with an error, said in words. Does nothing to an ended answer."""
        if self.finish_reason is None:
            self._error = error
            self.finish_reason = FinishReason.ERROR

    def receive(self, output: StepOutput) -> FinishReason | None:
        """Take in a step's output. Returns a reason when the sequence must end although the engine would go on."""
        self._cached_tokens = output.cached_tokens
        self._num_drafted += output.num_drafted
        self._num_accepted += output.num_accepted
        for i, token in enumerate(output.token_ids):
            is_end = output.stop_match is not None and i == len(output.token_ids) - 1
            self._read(token, "" if is_end else self._detokenizer.add(token))
            self._logprobs += output.logprobs[i : i + 1]
            if self.finish_reason is not None:
                return self.finish_reason
        if output.finish_reason is not None:
            self._stop_token, self._error = output.stop_match, output.error
            self.end(output.finish_reason)
            return None
        if self._constraint is not None and self._constraint.is_complete:
            self.end(FinishReason.STOP)
        return self.finish_reason

    def end(self, reason: FinishReason) -> None:
        """No more tokens will come; a half character at the end is left out. Does nothing to an ended answer."""
        if self.finish_reason is not None:
            return
        if reason in _COMPLETE:
            self._release(self._scanner.flush(), final=True)
            if self._scanner.match is not None:  # it waited for a longer one that never came
                reason = FinishReason.STOP
        self.finish_reason = self.finish_reason or reason

    def take(self) -> Delta | None:
        """What may be seen and was not yet taken; None when there is nothing. To be repeated until then."""
        self._settle()
        num_tokens = self._num_taken
        visible = self._num_visible(num_tokens)
        text, reasoning, calls = self._released.take()
        if visible == num_tokens and not (text or reasoning or calls):
            return None
        self._num_taken = visible
        tokens = slice(num_tokens, visible)
        ids, logprobs = tuple(self._token_ids[tokens]), tuple(self._logprobs[tokens])
        return Delta(text, ids, logprobs, self.choice, reasoning, calls)

    def completion(self) -> Completion:
        """The whole answer; before its end, what may be seen of it, as aborted."""
        self._settle()
        visible = self._num_visible(0)
        made_calls = self.finish_reason is FinishReason.STOP and self._released.has_calls
        return Completion(
            text=self._released.text,
            reasoning=self._released.reasoning,
            tool_calls=self._released.tool_calls,
            token_ids=tuple(self._token_ids[:visible]),
            finish_reason=FinishReason.TOOL_CALLS if made_calls else self.finish_reason or FinishReason.ABORTED,
            usage=Usage(
                self._num_prompt_tokens,
                len(self._token_ids),
                self._cached_tokens,
                self._num_drafted,
                self._num_accepted,
                self._num_reasoning,
            ),
            seed=self._seed,
            choice=self.choice,
            logprobs=tuple(self._logprobs[:visible]),
            stop_match=self._stop_token if self._scanner.match is None else self._scanner.match,
            error=self._error,
            timing=self._clock.rates(self._num_prefilled, len(self._token_ids)),
        )

    @property
    def _num_prefilled(self) -> int:
        """Prompt tokens computed for this answer; 0 for a further choice, which shares the first one's prompt."""
        return 0 if self.choice else self._num_prompt_tokens - self._cached_tokens

    @property
    def _num_reasoning(self) -> int:
        """Tokens up to the one that ends the thinking section; all of an answer that ends inside of it."""
        end = self._released.reasoning_end
        if end is None:
            return len(self._token_ids)
        return bisect_left(self._ends, end) + 1 if end else 0

    def _read(self, token: int, piece: str) -> None:
        self._clock.tick()
        self._token_ids.append(token)
        self._num_read += len(piece)
        self._ends.append(self._num_read)
        if piece:
            self._release(self._scanner.add(piece), final=False)
        if self._scanner.match is not None:
            self.end(FinishReason.STOP)

    def _release(self, text: str, *, final: bool) -> None:
        """Pass text to the guard, and give out what it lets go."""
        self._held += text
        if not self._held and not (final and self._guard):
            return
        decision = self._ask(final)
        if decision is Decision.RELEASE:
            self._released.add(self._held)
            self.num_text_bytes += len(self._held.encode("utf-8", "replace"))
            self._held = ""
        elif decision is Decision.STOP or final:
            self._held = ""
            self.finish_reason = FinishReason.ERROR if self._error else FinishReason.CONTENT_FILTER

    def _settle(self) -> None:
        """Of an ended answer nothing waits for more."""
        if self.finish_reason is not None:
            self._released.finish()

    def _ask(self, final: bool) -> Decision:
        if self._guard is None:
            return Decision.RELEASE
        try:
            return self._guard.on_text(self._held, final)
        except Exception as error:
            self._error = f"the text guard failed: {error!r}"
            return Decision.STOP

    def _num_visible(self, start: int) -> int:
        """Tokens that may be seen, from `start` on: all of a complete answer, else those whose text is out."""
        if self.finish_reason in _COMPLETE:
            return len(self._token_ids)
        while start < len(self._ends) and self._ends[start] <= self._released.num_settled:
            start += 1
        return start


class _Clock:
    """When the answer was asked for, when its first and last tokens came."""

    def __init__(self) -> None:
        self._asked = perf_counter()
        self._first: float | None = None
        self._last: float | None = None

    def tick(self) -> None:
        self._last = perf_counter()
        self._first = self._first or self._last

    def rates(self, num_prefilled: int, num_tokens: int) -> dict[str, float]:
        """Seconds and tokens per second; a rate that nothing was measured for is left out.

        Prefill counts the prompt tokens computed (not those found in the cache) until the first token is there;
        decode counts the tokens after it.
        """
        if self._first is None or self._last is None:
            return {}
        ttft = self._first - self._asked
        timing = {"ttft_s": ttft}
        if num_prefilled:
            timing["prefill_tokens_per_s"] = num_prefilled / ttft
        if self._last > self._first:
            timing["decode_tokens_per_s"] = (num_tokens - 1) / (self._last - self._first)
        return timing
