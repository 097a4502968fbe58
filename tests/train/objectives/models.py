"""The tiny model of tiny.py as openherd's decoder, with its rows in the order that the oracles had."""

from __future__ import annotations

import numpy as np
import torch

from openherd.config import ModelConfig
from openherd.train.model.decoder import Decoder
from openherd.train.model.lora import add_lora, lora_parameters
from openherd.train.packing import PackedRows
from tests.train.objectives import tiny

CONFIG = ModelConfig(
    family="llama",
    dim=tiny.DIM,
    n_layers=tiny.LAYERS,
    n_heads=tiny.HEADS,
    n_kv_heads=tiny.KV_HEADS,
    head_dim=tiny.DIM // tiny.HEADS,
    ffn_dim=tiny.FFN,
    vocab_size=tiny.VOCAB,
    max_seq_len=tiny.CONTEXT,
)


def tiny_model(*, lora: bool = False) -> Decoder:
    model = Decoder(CONFIG)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in tiny.weights().items()})
    if lora:
        add_lora(model, tiny.LORA_RANK, tiny.LORA_ALPHA, tiny.LORA_TARGETS)
        parameters = dict(lora_parameters(model))
        arrays = tiny.lora_weights()
        assert parameters.keys() == arrays.keys()
        with torch.no_grad():
            for name, array in arrays.items():
                parameters[name].copy_(torch.from_numpy(array))
    return model


def place(rows: list[tuple[list[int], int]], *, packed: bool = False) -> PackedRows:
    """Rows of (ids, number of them given), one document a row, or all `packed` into one row."""
    lengths = [len(ids) - 1 for ids, _ in rows]
    out = PackedRows.empty(1, sum(lengths)) if packed else PackedRows.empty(len(rows), max(lengths))
    at = 0
    for row, (ids, given) in enumerate(rows):
        learnt = (np.arange(len(ids)) >= given).astype(np.uint8)
        end = out.place(0 if packed else row, at if packed else 0, np.array(ids, np.int32), learnt)
        at = end
    return out


class Rows:
    """An order that takes the same rows again and again, `per_step` at a time."""

    fingerprint = "rows of tiny.py"

    def __init__(self, rows: list[tuple[list[int], int]], per_step: int) -> None:
        self._rows, self._per_step = rows, per_step

    def rows(self, step: int) -> PackedRows:
        first = step * self._per_step
        return place([self._rows[at % len(self._rows)] for at in range(first, first + self._per_step)])


def sft_rows() -> Rows:
    return Rows(tiny.sft_rows(), tiny.ROWS_PER_STEP)


def pair_rows() -> Rows:
    ends = [(prompt + end, len(prompt)) for prompt, *both in tiny.pairs() for end in both]
    return Rows(ends, 2 * tiny.PAIRS_PER_STEP)
