"""From a row to token ids and a loss mask, through the tokens that inference would see.

For each of the assistant's turns the conversation is rendered twice with the chat template, exactly as it would be at
inference: up to the turn with a generation prompt (what the model is given), and through the turn (what it should have
written). What the second has beyond the first, up to and with the first stop token, is learnt. So the model is trained
on the markers of its tool calls and on its end of turn, and never on a header that it is given. No marker is searched
for in the ids.

A template may write an earlier turn differently once a later one follows (those of models that think drop old
thoughts). The whole conversation then does not begin with what inference saw at that turn: the turn is given, not
learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.errors import TemplateError, ToolError
from openherd.llm.tool_prompts import for_template
from openherd.messages import Message
from openherd.parsers import model_format
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.train.rows import Completion, Conversation, Preference, Row, RowError, Text


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of one document, and which of them are learnt: the loss at position t - 1 predicts a token t with mask 1."""

    ids: NDArray[np.int32]  # [n]
    mask: NDArray[np.uint8]  # [n] 0 or 1; the first is 0, since nothing predicts it
    skipped_turns: int = 0  # the assistant's turns that are not learnt because the template rewrites them

    @property
    def num_learnt(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class EncodedPair:
    chosen: Encoded
    rejected: Encoded


class RowEncoder:
    """Encodes rows for one model: its tokenizer and, for conversations, its chat template."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._format = model_format(None if template is None else template.source)

    def encode(self, row: Row, where: str) -> list[Encoded]:
        """One document; two (chosen, rejected) for a preference. Raises RowError for a row with nothing to learn."""
        if isinstance(row, Preference):
            pair = self.encode_pair(row, where)
            return [pair.chosen, pair.rejected]
        encoded = self._encode(row, where)
        if not encoded.num_learnt:
            raise RowError(f"{where}: no token of this row would be learnt")
        return [encoded]

    def encode_pair(self, row: Preference, where: str) -> EncodedPair:
        """Both ends learn only their answer's turns: those after the prompt."""
        ends = []
        for name, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
            encoded = self._conversation((*row.prompt, *answer), len(row.prompt), where)
            if not encoded.num_learnt:
                raise RowError(f"{where}: no token of {name} would be learnt")
            ends.append(encoded)
        return EncodedPair(*ends)

    def _encode(self, row: Text | Completion | Conversation, where: str) -> Encoded:
        if isinstance(row, Conversation):
            return self._conversation(row.messages, 0, where, row.tools)
        prompt, learnt = ("", row.text) if isinstance(row, Text) else (row.prompt, row.completion)
        given = self.tokenizer.encode(prompt)
        if prompt:
            ids = [*given, *self.tokenizer.encode(learnt, add_bos=False)]
        else:
            ids = self.tokenizer.encode(learnt)
            given = ids[:1] if ids[:1] == [self.tokenizer.bos_id] else []
        if self.tokenizer.eos_id is not None:
            ids.append(self.tokenizer.eos_id)
        return _masked(ids, [(len(given), len(ids))])

    def _conversation(
        self, messages: tuple[Message, ...], first: int, where: str, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Encoded:
        """`first`: the first message whose turn may be learnt."""
        whole = self._ids(messages, tools, False, where)
        learnt: list[tuple[int, int]] = []
        skipped = 0
        for index in range(first, len(messages)):
            if messages[index].role != "assistant":
                continue
            if index and messages[index - 1].role == "assistant":
                raise RowError(
                    f"{where}: two turns of the assistant follow each other (messages {index} and {index + 1})"
                )
            given = self._ids(messages[:index], tools, True, where)
            written = whole if index + 1 == len(messages) else self._ids(messages[: index + 1], tools, False, where)
            if written[: len(given)] != given:
                raise RowError(
                    f"{where}: the chat template does not continue its own generation prompt at message {index + 1}, "
                    "so what inference would see there cannot be trained on"
                )
            end = self._end_of_turn(written, len(given))
            if whole[:end] == written[:end]:
                learnt.append((len(given), end))
            else:
                skipped += 1
        return _masked(whole, learnt, skipped)

    def _ids(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], generation_prompt: bool, where: str
    ) -> list[int]:
        if self._template is None:
            raise RowError(f"{where}: a conversation needs a chat template, and the model has none; name one")
        try:
            given, offered = for_template(list(messages), list(tools) or None, self._format)
            spans = self._template.render(given, tools=offered, add_generation_prompt=generation_prompt)
        except (TemplateError, ToolError) as why:
            raise RowError(f"{where}: {Exception.__str__(why)}") from None
        return self.tokenizer.encode_spans(spans)

    def _end_of_turn(self, ids: list[int], start: int) -> int:
        """Just behind the first stop token from `start` on, where inference would end; all of it where none comes."""
        stops = self.tokenizer.stop_ids
        return next((at + 1 for at in range(start, len(ids)) if ids[at] in stops), len(ids))


def _masked(ids: list[int], learnt: list[tuple[int, int]], skipped: int = 0) -> Encoded:
    mask = np.zeros(len(ids), np.uint8)
    for start, end in learnt:
        mask[start:end] = 1
    mask[:1] = 0
    return Encoded(np.asarray(ids, np.int32), mask, skipped)
