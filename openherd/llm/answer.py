"""One answer on its way from tokens to text: detokenizer, stop strings, guard, and what of it may be seen.

Tokens follow their text: a token is given out once all text up to its end has been. After a stop string only the
text before it is given out, while the tokens drawn stay in the completion, as they were computed and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from openherd.constrain import Constraint
from openherd.engine.sequence import StepOutput
from openherd.llm.guards import Decision, TextGuard
from openherd.llm.stop_strings import StopStrings
from openherd.messages import Completion, FinishReason, Span, TokenLogprob, Usage
from openherd.tokenizers.detokenizer import IncrementalDetokenizer

# The model came to its end, and nobody took the rest away.
_COMPLETE = (FinishReason.STOP, FinishReason.LENGTH)


@dataclass(frozen=True, slots=True)
class Delta:
    """What a step added to one answer. Text and tokens of all deltas, joined, are those of the completion."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


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
    ) -> None:
        self.choice = choice
        self.finish_reason: FinishReason | None = None
        self._detokenizer = detokenizer
        self._scanner = stops.scanner()
        self._guard = guard
        self._constraint = constraint
        self._num_prompt_tokens = num_prompt_tokens
        self._cached_tokens = 0
        self._seed = seed
        self._error: str | None = None
        self._stop_token: int | None = None
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._ends: list[int] = []  # characters of text known after each token
        self._num_read = 0
        self._held = ""  # past the stop strings, waiting for the guard
        self._released: list[str] = []
        self._num_released = 0  # characters
        self._taken = (0, 0)  # pieces of `_released` and tokens already given out
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
        """What may be seen and was not yet taken; None when there is nothing."""
        num_pieces, num_tokens = self._taken
        visible = self._num_visible(num_tokens)
        text = "".join(self._released[num_pieces:])
        if not text and visible == num_tokens:
            return None
        self._taken = (len(self._released), visible)
        tokens = slice(num_tokens, visible)
        return Delta(text, tuple(self._token_ids[tokens]), tuple(self._logprobs[tokens]), self.choice)

    def completion(self) -> Completion:
        """The whole answer; before its end, what may be seen of it, as aborted."""
        visible = self._num_visible(0)
        return Completion(
            text="".join(self._released),
            token_ids=tuple(self._token_ids[:visible]),
            finish_reason=self.finish_reason or FinishReason.ABORTED,
            usage=Usage(self._num_prompt_tokens, len(self._token_ids), self._cached_tokens),
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
            self._released.append(self._held)
            self._num_released += len(self._held)
            self._held = ""
        elif decision is Decision.STOP or final:
            self._held = ""
            self.finish_reason = FinishReason.ERROR if self._error else FinishReason.CONTENT_FILTER

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
        while start < len(self._ends) and self._ends[start] <= self._num_released:
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
