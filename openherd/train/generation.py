"""Text from a model that is being trained, by openherd's own engine: rollouts and samples.

The engine is given the present weights without a file between: it packs them from the trainer's memory, which takes
about as long as reading them once, and then answers exactly as it would after an export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from openherd.config import ModelConfig
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.engine.sequence import Request
from openherd.errors import EngineError
from openherd.messages import FinishReason
from openherd.options import EngineOptions, SamplingParams

if TYPE_CHECKING:
    from openherd.train.model.present_weights import PresentWeights


@dataclass(slots=True)
class Generated:
    """One answer. A stop token that ended it is its last token."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()  # of each token, under the weights it was drawn from, at temperature 1
    stopped: bool = False  # by a stop token, not by the number of tokens


class Generation:
    """The engine on the weights that a model has now; later updates do not reach it. Use it in a `with`."""

    def __init__(
        self,
        config: ModelConfig,
        weights: PresentWeights,
        *,
        context: int,
        stop_ids: Sequence[int] = (),
        threads: int | None = None,
    ) -> None:
        """`context`: most tokens of prompt and answer. Raises `CapacityError` where memory does not suffice."""
        backend = make_backend("native", threads)
        options = EngineOptions(context=context, threads=threads, kv_dtype="f32")
        try:
            self._engine = Engine(backend, config, weights, options=options, stop_ids=stop_ids)
        except BaseException:
            backend.close()
            raise

    def answers(self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]) -> list[list[Generated]]:
        """`params[i].n` answers to `prompts[i]`, all in one batch. Seeds make them a function of weights and prompts.

        Raises `ContextLengthError` for a prompt that does not fit.
        """
        answers: dict[int, Generated] = {}
        groups: list[list[Generated]] = []
        for prompt, how in zip(prompts, params, strict=True):
            seq_ids = self._engine.add_choices(Request(tuple(prompt), params=how).choices())
            groups.append([answers.setdefault(seq_id, Generated()) for seq_id in seq_ids])
        while self._engine.has_work:
            for output in self._engine.step():
                if output.finish_reason is FinishReason.ERROR:
                    raise EngineError(f"an answer could not be generated: {output.error}")
                answer = answers[output.seq_id]
                answer.token_ids += output.token_ids
                answer.logprobs += tuple(one.logprob for one in output.logprobs)
                answer.stopped = output.finish_reason is FinishReason.STOP
        return groups

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()
