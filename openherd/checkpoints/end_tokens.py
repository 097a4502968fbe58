"""Which tokens end an answer, by their names: files often call only one of them their end."""

from __future__ import annotations

from collections.abc import Mapping

# What ends a turn or a message in the chat formats in use; often the file's eos is another token.
END_OF_TURN = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|return|>", "<|call|>", "</s>", "[EOS]", "<eos>",
)  # fmt: skip
END_OF_MESSAGE = "<|eom_id|>"


def end_of_turn(special: Mapping[str, int]) -> int | None:
    """The first of `END_OF_TURN` among the special tokens."""
    return next((special[name] for name in END_OF_TURN if name in special), None)


def stop_ids(special: Mapping[str, int], *ids: int | None) -> frozenset[int]:
    """Every id that ends an answer: the ones given, and those of the special tokens whose names say so."""
    named = {special[name] for name in (*END_OF_TURN, END_OF_MESSAGE) if name in special}
    return frozenset({token_id for token_id in ids if token_id is not None} | named)
