"""How much memory a run takes on each device, from its recipe: what is there all the time, and the peak of a step.

Always there are weights, AdamW's two moments (float32) and, from the first backward pass of a step to its update, the
gradients. The peak is at the end of a forward pass, when the activations of all layers are kept and the loss computes
gradients of a chunk of logits, or at the start of the backward pass. What a layer keeps is counted from what autograd
saves of `engine/model.py` under `TorchOps`; a test holds the counts against it.

Not covered: mixtures of experts (counted as dense), masks of windows and ALiBi, workspaces of matrix libraries, the
process itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from openherd.checkpoints.required_tensors import linear_maps, linear_shape, required_tensors
from openherd.config import ModelConfig
from openherd.quant.types import BLOCK_TYPES
from openherd.train.recipe import Recipe

CHUNK_LOGITS = 1 << 24
"""Of `train/loss.py`: logits that exist at once."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each device, by what they are for; parts that are not there at the same time are not added up."""

    weights: int
    reference: int
    moments: int
    gradients: int
    activations: int
    loss: int
    samples: int

    @property
    def peak(self) -> int:
        """A step and the engine that writes samples between steps do not meet."""
        always = self.weights + self.reference + self.moments
        return always + max(self.gradients + self.activations + self.loss, self.samples)


def memory_of(recipe: Recipe, config: ModelConfig, *, device: str, processes: int = 1) -> Memory:
    """Of a resolved recipe. `processes` share weights, moments and gradients evenly (FSDP2)."""
    run, lora = recipe.run, recipe.lora
    size = 2 if run.dtype == "bfloat16" else 4
    every, trained = num_parameters_of(config), trained_parameters(recipe, config)
    frozen_bytes = size if lora.rank else 4
    weights = _base_bytes(recipe, config, frozen_bytes) + (4 * trained if lora.rank else 0)
    tokens = run.micro_rows * recipe.data.seq_len
    casts = (
        size * every if size == 2 and not lora.rank else 0
    )  # matrices in the type of the products, kept for backward
    return Memory(
        weights=weights // processes,
        reference=(4 * every // processes) if recipe.needs_reference and not lora.rank else 0,
        moments=8 * trained // processes,
        gradients=4 * trained // processes,
        activations=tokens * _kept_per_token(recipe, config, size) + casts,
        loss=_loss_bytes(recipe, config, tokens, size),
        samples=_sample_bytes(recipe, config, every, frozen_bytes)
        if device == "cpu"
        else 0,  # the engine is on the host
    )


def num_parameters_of(config: ModelConfig) -> int:
    """Of any family."""
    total = 0
    for _, shape in required_tensors(config):
        count = 1
        for length in shape:
            count *= length
        total += count
    return total


def trained_parameters(recipe: Recipe, config: ModelConfig) -> int:
    """All, or those of the adapters."""
    if not recipe.lora.rank:
        return num_parameters_of(config)
    shapes = [linear_shape(config, name) for name in linear_maps(config) if _is_target(recipe, name)]
    return config.n_layers * recipe.lora.rank * sum(n + k for n, k in shapes)


def flops_per_token(recipe: Recipe, config: ModelConfig) -> float:
    """Forward and backward: 2 for each weight that a token meets and 4 more for gradients (Kaplan et al. 2020, section
    2.1), half of these where weights are frozen, and attention over half of the row's positions on average.

    An embedding that is looked up costs nothing. What activation checkpointing computes again is not counted: this is
    the work that must be done, of which utilisation is a share.
    """
    embeddings = config.vocab_size * config.dim
    met = num_parameters_of(config) - (0 if config.tied_embeddings else embeddings)
    attention = 2 * 2 * config.n_layers * config.q_dim * recipe.data.seq_len / 2  # forward: scores and values
    return met * (4 if recipe.lora.rank else 6) + 3 * attention


def _is_target(recipe: Recipe, path: str) -> bool:
    targets = recipe.lora.targets
    return not targets or path.rpartition(".")[2] in targets


def _base_bytes(recipe: Recipe, config: ModelConfig, each: int) -> int:
    """Of all weights but the adapters'; linear maps may be in blocks."""
    every = num_parameters_of(config)
    if not recipe.lora.base_type:
        return each * every
    block = BLOCK_TYPES[recipe.lora.base_type.upper()]
    shapes = [linear_shape(config, name) for name in linear_maps(config)]
    linear = config.n_layers * sum(n * k for n, k in shapes)
    return each * (every - linear) + config.n_layers * sum(n * block.row_bytes(k) for n, k in shapes)


def _kept_per_token(recipe: Recipe, config: ModelConfig, size: int) -> int:
    """Bytes of activations at the peak, for each token of a micro-batch."""
    layer = _layer_bytes(recipe, config, size)
    outside = (4 + size) * config.dim + 4  # the last norm's
    # The first layer to go back through has gradients of its widest values beside what was kept of them.
    gradients = size * (3 * config.ffn_dim + 2 * config.dim)
    if recipe.run.activation_checkpointing:
        return config.n_layers * size * config.dim + layer + outside + gradients
    return config.n_layers * layer + outside + gradients


def _layer_bytes(recipe: Recipe, config: ModelConfig, size: int) -> int:
    """What autograd keeps of a layer for each token."""
    norms = 2 * ((4 + size) * config.dim + 4)  # values before and after the weight, and their scale
    # Queries and what attention gives, keys and values, sums of softmax. Shared key heads are copied for their queries.
    keys = config.q_dim if 1 < config.n_kv_heads < config.n_heads else config.kv_dim
    heads = 2 * size * (config.q_dim + keys) + 4 * config.n_heads
    documents = size * config.q_dim if recipe.data.pack else 0  # attention's results, of each document by itself first
    widths = 4 * size * config.ffn_dim if config.gated else 2 * size * config.ffn_dim
    adapters = size * recipe.lora.rank * sum(_is_target(recipe, name) for name in linear_maps(config))
    return norms + heads + documents + widths + adapters


def _loss_bytes(recipe: Recipe, config: ModelConfig, tokens: int, size: int) -> int:
    """A chunk of logits, their softmax and its gradient; gradients of the hidden states and of the output matrix."""
    chunk = min(tokens, max(1, CHUNK_LOGITS // config.vocab_size))
    matrix = 0 if recipe.lora.rank else 4 * config.vocab_size * config.dim
    return 3 * 4 * chunk * config.vocab_size + tokens * size * config.dim + matrix


def _sample_bytes(recipe: Recipe, config: ModelConfig, every: int, each: int) -> int:
    """The engine's own copy of the weights, and its cache of keys and values in float32. Weights that adapters are
    added to, or that lie in blocks, are whole in float32 beside that copy."""
    context = min(recipe.data.seq_len, config.max_seq_len)
    made = config.n_layers * sum(
        math.prod(linear_shape(config, linear))
        for linear in linear_maps(config)
        if recipe.lora.rank and (recipe.lora.base_type or _is_target(recipe, linear))
    )
    cache = 4 * 2 * config.n_layers * config.kv_dim * context * 3
    return each * (every - made) + 2 * 4 * made + cache


def as_table(memory: Memory) -> list[tuple[str, int]]:
    return [(entry.name, getattr(memory, entry.name)) for entry in fields(memory) if getattr(memory, entry.name)]
