"""A text as one vector: the mean of the model's hidden states over the text's tokens, of length 1.

The states are those that the model's last norm gives, before the output projection. The model was trained to predict
text and not to compare it, so its vectors separate topics, and less well than those of a model trained for that.

Positions are added one by one, ascending, in float64, so that a vector has the same bits whatever else the engine
does: alone or in a batch, its prompt prefilled whole or in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from openherd.engine.protocols import F32, I32, TapSite
from openherd.engine.sequence import Request
from openherd.errors import EngineError, InputError
from openherd.llm.driver import Driver
from openherd.llm.loading import LoadedModel
from openherd.llm.prompts import encode, is_token_ids
from openherd.llm.reading import Reading, read_all
from openherd.messages import FinishReason

Text = str | Sequence[int]  # or its token ids


class MeanState(Reading):
    """Taps one sequence's last hidden states."""

    sites: tuple[TapSite, ...] = ((0, "final"),)
    rows: Literal["last", "new", "all"] = "all"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._sum = np.zeros(dim)
        self.num_positions = 0  # computed so far

    def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> None:
        for state in hidden[self.sites[0]]:
            self._sum += state
        self.num_positions += len(positions)

    def vector(self) -> F32:
        """[D] of length 1. Raises `EngineError` where the text could not be computed."""
        if self.finish_reason is not FinishReason.LENGTH:
            raise EngineError(f"the text has no embedding: {self.error or self.finish_reason}")
        mean = self._sum / self.num_positions
        length = math.sqrt(math.fsum(mean * mean))
        if not (math.isfinite(length) and length):
            raise EngineError("the text has no embedding: its hidden states are not finite numbers, or all zero")
        return (mean / length).astype(np.float32)


def prepare_embedding(
    model: LoadedModel, text: Text, *, adapter: str | None = None, salt: bytes = b""
) -> tuple[Request, MeanState]:
    """What the engine runs for one text. Raises `InputError`s for what it cannot."""
    if not (isinstance(text, str) or is_token_ids(text)):
        raise InputError("what is embedded is text or token ids; render a conversation first")
    if not text:
        raise InputError("an empty text has no embedding")
    state = MeanState(model.config.dim)
    request = Request(
        prompt_ids=encode(model, text).ids,
        taps=(state,),
        adapter=model.adapter(adapter),
        salt=salt,
        generate=False,
    )
    request.check(model.config, model.engine.context)
    return request, state


def embed(model: LoadedModel, driver: Driver, texts: Sequence[Text], *, adapter: str | None) -> F32:
    """See `LLM.embed`."""
    prepared = [prepare_embedding(model, text, adapter=adapter) for text in texts]
    read_all(driver, prepared)
    vectors = [state.vector() for _, state in prepared]
    return np.array(vectors, np.float32).reshape(len(vectors), model.config.dim)
