"""Runs a text through a model and sums the squares of every linear map's inputs (see `importance`).

The text is read in independent chunks, one after another, so the sums do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from openherd.checkpoints import open_checkpoint
from openherd.config import ModelConfig
from openherd.engine.protocols import F32, I32, TapSite
from openherd.engine.sequence import Request
from openherd.errors import EngineError, InputError
from openherd.kernels.ops import TapName
from openherd.llm.driver import Driver
from openherd.llm.loading import load_model
from openherd.llm.reading import Reading, read_all
from openherd.messages import FinishReason
from openherd.options import EngineOptions
from openherd.workshop.expert_inputs import ExpertInputs
from openherd.workshop.importance import F64, Importance

CHUNK_TOKENS = 512
# Some 50,000 tokens: the sums are means over them, and a longer text takes hours on a large model.
MAX_CHUNKS = 100
# What a step keeps of the inputs of all linear maps.
_STEP_BYTES = 128 << 20
_MIN_ROWS, _MAX_ROWS = 16, 512

# GGUF's weights of a layer by where their input is tapped.
_READERS: dict[TapName, tuple[str, ...]] = {
    "qkv_in": ("attn_q", "attn_k", "attn_v", "attn_qkv"),
    "o_in": ("attn_output",),
    "ffn_in": ("ffn_gate", "ffn_up"),
    "down_in": ("ffn_down",),
}


def calibrate(
    path: Path,
    text: str,
    text_name: str,
    weights: Mapping[str, tuple[int, ...]],
    *,
    threads: int | None = None,
    max_chunks: int = MAX_CHUNKS,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> Importance:
    """The importance of the GGUF tensors `weights` (shapes by name) for a model file and a text.

    The maps of an expert count by the tokens that were sent to it.
    A last chunk that is not full is left out unless it is the only one. Raises `InputError` for a text without
    tokens, `EngineError` when the model's activations are not finite numbers.
    """
    model = load_model(path, options=_options(path, threads), template=None, adapters={}, offline=True, progress=None)
    driver = Driver(model.engine)
    try:
        chunk_len = min(CHUNK_TOKENS, model.engine.context)
        chunks = chunks_of(model.tokenizer.encode(text), chunk_len, max_chunks)
        sites = tuple(sorted(_sites(model.config)))
        sums: dict[TapSite, F64] = {}
        experts = ExpertInputs(model.config, open_checkpoint(path).tensors) if model.config.n_experts else None
        for done, chunk in enumerate(chunks):
            reading = _SquareSums(sites, sums, experts)
            read_all(driver, [(Request(tuple(chunk), taps=(reading,), generate=False), reading)])
            if reading.finish_reason is not FinishReason.LENGTH:
                raise EngineError(f"the text could not be read: {reading.error or reading.finish_reason}")
            on_chunk(done + 1, len(chunks))
    finally:
        driver.close()
    num_rows = float(sum(map(len, chunks)))
    by_name: dict[str, F64] = {}
    for site, values in sums.items():
        if not np.isfinite(values).all():
            raise EngineError(f"the activations at {site[1]} of layer {site[0]} are not finite numbers")
        for name in _fed_by(site, model.config):
            if name in weights and weights[name][-1] == len(values):
                by_name[name] = values[None]
    counts = {name: np.full(len(sums), num_rows) for name, sums in by_name.items()}
    if experts is not None:
        for name, values, rows in experts.by_weight():
            if name in weights:
                by_name[name], counts[name] = values, rows
    return Importance(by_name, counts, (text_name,), len(chunks), chunk_len)


def chunks_of(ids: Sequence[int], length: int, most: int) -> list[Sequence[int]]:
    """Full chunks, at most `most`; or all there is, if that is less than one."""
    chunks = [ids[start : start + length] for start in range(0, len(ids), length)][:most]
    if not chunks or len(chunks[0]) < 2:
        raise InputError(f"the text is {len(ids)} tokens long; at least two are needed")
    return [chunk for chunk in chunks if len(chunk) == length] or chunks


class _SquareSums(Reading):
    """Taps one chunk; adds to `sums` in the order of positions."""

    rows: Literal["last", "new", "all"] = "all"

    def __init__(self, sites: tuple[TapSite, ...], sums: dict[TapSite, F64], experts: ExpertInputs | None) -> None:
        super().__init__()
        self._experts = experts
        self.sites = sites
        self._sums = sums

    def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> None:
        for site, rows in hidden.items():
            squares = np.einsum("tk,tk->k", rows, rows, dtype=np.float64)
            self._sums[site] = self._sums[site] + squares if site in self._sums else squares
            if self._experts is not None and site[1] == "ffn_in":
                self._experts.add(site[0], rows)


def _sites(config: ModelConfig) -> Iterable[TapSite]:
    for layer in range(config.n_layers):
        for name in _READERS:
            if name != "down_in" or not config.n_experts:
                yield layer, name
    yield config.n_layers, "final"


def _fed_by(site: TapSite, config: ModelConfig) -> Iterable[str]:
    layer, name = site
    if name == "final":
        return ("token_embd.weight" if config.tied_embeddings else "output.weight",)
    return (f"blk.{layer}.{part}.weight" for part in _READERS[cast(TapName, name)])


def _options(path: Path, threads: int | None) -> EngineOptions:
    """So few rows a step that what the taps keep stays within bounds."""
    c = open_checkpoint(path).config
    row_bytes = 4 * c.n_layers * (2 * c.dim + c.q_dim + c.ffn_dim)
    rows = max(_MIN_ROWS, min(_MAX_ROWS, math.floor(_STEP_BYTES / row_bytes)))
    context = min(CHUNK_TOKENS, c.max_seq_len)
    return EngineOptions(context=context, threads=threads, max_seqs=1, max_batch_tokens=rows, prefix_caching=False)
