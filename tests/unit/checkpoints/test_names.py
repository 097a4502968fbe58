"""The table of names, both ways."""

from __future__ import annotations

import pytest

from openherd.checkpoints.names import STEMS, from_gguf, to_gguf


@pytest.mark.parametrize("suffix", ["weight", "bias"])
def test_the_table_is_two_way(suffix: str) -> None:
    assert len({gguf for gguf, _ in STEMS}) == len({canonical for _, canonical in STEMS}) == len(STEMS)
    for gguf, canonical in STEMS:
        for layer in (0, 7, 125):
            a, b = f"{gguf.format(layer)}.{suffix}", f"{canonical.format(layer)}.{suffix}"
            assert from_gguf(a) == b
            assert to_gguf(b) == a


@pytest.mark.parametrize(
    "name",
    ["", "weight", ".weight", "output", "blk.weight", "blk.0.weight", "blk.00.attn_q.weight", "blk.-1.attn_q.weight",
     "blk.0.attn_q.weight.lora_a", "blk.{}.attn_q.weight", "blk.0.attn_q.scale", "blk.1234567890.attn_q.weight",
     "blk.0.1.attn_q.weight", "rope_freqs.weight", "blk.٣.attn_q.weight"],
)  # fmt: skip
def test_other_names_have_no_translation(name: str) -> None:
    assert from_gguf(name) is None
