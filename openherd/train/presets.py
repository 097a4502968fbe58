"""One dial: from a preset or a depth to shape, batch, learning rate and horizon; and what a recipe leaves open, filled.

Shape. A new model of depth d has d layers, is 64 d wide, with d heads of 64 (the constant aspect ratio of nanochat's
dial), a feed-forward of 8/3 of the width rounded up to 64 (Touvron et al. 2023, section 2.2), rows of 128 d tokens
rounded down to a power of two, at most 2,048. The presets 1b and 8b are the shapes of Llama 3.2 1B and Llama 3.1 8B.

Horizon. 20 tokens a parameter (Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", table 3), but no
more than 4 passes over the data, up to which repeated data is nearly as good as new (Muennighoff et al. 2023). The
presets nano and tiny stop earlier: after what two cores compute in one minute and in ten.

Batch and learning rate follow from the compute C = 6 N D of N parameters and D tokens, for AdamW and a schedule that
falls to a tenth (DeepSeek-AI 2024, "DeepSeek LLM", section 3.1): 0.2920 C^0.3271 tokens a step and 0.3118 C^-0.1250.
The fit is over C from 1e17 to 2e19. Below it, where nano and tiny lie, the learning rate stays at that of 1e17: the
law's 8.5e-3 left nano at the frequencies of single tokens.

Fine-tuning. 2e-5 at a width of 4,096, more by the square root for narrower models, ten times that with LoRA (Schulman
et al. 2025, "LoRA Without Regret"); preferences move weights by a fortieth of that. SFT makes three passes, the others
one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from openherd.config import ModelConfig
from openherd.errors import InputError
from openherd.train.recipe import ModelRecipe, Recipe

TOKENS_PER_PARAMETER = 20
LEAST_COMPUTE = 1e17
"""Of the fit of the learning rate, in FLOPs."""
MAX_PASSES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a new model, and the rows it is trained on."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_dim: int
    seq_len: int
    rope_theta: float = 10000.0
    tied: bool = True


DEPTHS = {"nano": 2, "tiny": 4, "small": 12}
SHAPES = {
    "1b": Shape(2048, 16, 32, 8, 64, 8192, seq_len=4096, rope_theta=500000.0),
    "8b": Shape(4096, 32, 32, 8, 128, 14336, seq_len=8192, rope_theta=500000.0, tied=False),
}
MAX_TOKENS = {"nano": 600_000, "tiny": 2_500_000}
"""Horizons that end before 20 tokens a parameter."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recipe is resolved against: the data, the model it starts from, and the machine."""

    vocab_size: int
    start: ModelConfig | None = None  # of model.init
    tokens: int = 0  # of data.train
    documents: int = 0  # of data.train; pairs of preferences
    longest: int = 0  # tokens of the longest document of data.train
    prompts: int = 0  # of grpo.prompts
    device: Literal["cpu", "cuda"] = "cpu"
    cores: int = 1


def resolve(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with everything filled that is to be derived. What it says itself stays, so resolving again changes
    nothing. Raises InputError when it does not say what to train.
    """
    if facts.start is None:
        recipe = replace(recipe, model=_resolve_model(recipe.model))
        config = model_config(recipe.model, facts.vocab_size)
    else:
        config = facts.start
    recipe = replace(recipe, data=replace(recipe.data, seq_len=recipe.data.seq_len or _seq_len(recipe, config, facts)))
    rate, rows, steps = _pretraining(recipe, config, facts) if facts.start is None else _tuning(recipe, config, facts)
    recipe = _fill(recipe, "run", rows_per_step=rows, steps=steps, dtype=_DTYPES[facts.device], threads=facts.cores)
    run = recipe.run
    tenth = max(1, run.steps // 10)
    recipe = _fill(
        recipe,
        "run",
        micro_rows=_micro_rows(recipe, facts),
        eval_every=tenth,
        sample_every=tenth,
        checkpoint_every=min(tenth, 1000),
    )
    if recipe.run.device == "auto":
        recipe = replace(recipe, run=replace(recipe.run, device=facts.device))
    recipe = _fill(recipe, "optimizer", learning_rate=rate, warmup_steps=min(2000, max(1, run.steps // 10)))
    return _fill(recipe, "lora", alpha=2.0 * recipe.lora.rank)


_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


def model_config(model: ModelRecipe, vocab_size: int) -> ModelConfig:
    """The config of a new model, from a resolved recipe: Llama's family."""
    return ModelConfig(
        family="llama",
        dim=model.dim,
        n_layers=model.n_layers,
        n_heads=model.n_heads,
        n_kv_heads=model.n_kv_heads,
        head_dim=model.head_dim,
        ffn_dim=model.ffn_dim,
        vocab_size=vocab_size,
        max_seq_len=model.max_seq_len,
        rope_theta=model.rope_theta,
        tied_embeddings=model.embeddings == "tied",
    )


def num_parameters(config: ModelConfig) -> int:
    """Of Llama's family: one dense gated feed-forward, RMSNorm, no biases; embeddings counted once if tied."""
    attention = 2 * config.dim * (config.q_dim + config.kv_dim)
    layer = attention + 3 * config.dim * config.ffn_dim + 2 * config.dim
    embeddings = (1 if config.tied_embeddings else 2) * config.vocab_size * config.dim
    return config.n_layers * layer + config.dim + embeddings


def shape_of_depth(depth: int) -> Shape:
    """The shape that a depth stands for: see the module."""
    dim = 64 * depth
    ffn_dim = 64 * math.ceil(8 * dim / 3 / 64)
    return Shape(dim, depth, depth, depth, 64, ffn_dim, seq_len=min(2048, 1 << (128 * depth).bit_length() - 1))


def learning_rate_of(compute: float) -> float:
    """DeepSeek LLM, eq. 1; `compute` in FLOPs. Below the fit as at its lower end."""
    return 0.3118 * max(compute, LEAST_COMPUTE) ** -0.1250


def batch_tokens_of(compute: float) -> float:
    """DeepSeek LLM, eq. 1; `compute` in FLOPs."""
    return 0.2920 * compute**0.3271


def _shape(model: ModelRecipe) -> Shape:
    if model.preset in SHAPES:
        return SHAPES[model.preset]
    depth = model.depth or DEPTHS.get(model.preset, 0) or model.n_layers
    if not depth:
        raise InputError(
            "the recipe does not say what to train",
            hint="give a model to start from (--init MODEL), or a new one's size (--preset tiny, --depth 6)",
        )
    return shape_of_depth(depth)


def _resolve_model(model: ModelRecipe) -> ModelRecipe:
    """Whatever is given wins; the width of a head and of the feed-forward follow a given width."""
    shape = _shape(model)
    dim = model.dim or shape.dim
    given = bool(model.dim and model.dim != shape.dim)
    n_heads = model.n_heads or (max(1, dim // (model.head_dim or 64)) if given else shape.n_heads)
    resolved: dict[str, Any] = {
        "dim": dim,
        "n_layers": shape.n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_heads if given or n_heads != shape.n_heads else shape.n_kv_heads,
        "head_dim": dim // n_heads if given or n_heads != shape.n_heads else shape.head_dim,
        "ffn_dim": 64 * math.ceil(8 * dim / 3 / 64) if given else shape.ffn_dim,
        "max_seq_len": shape.seq_len,
        "rope_theta": shape.rope_theta,
        "embeddings": "tied" if shape.tied else "separate",
    }
    return replace(model, **{name: getattr(model, name) or value for name, value in resolved.items()})


def _seq_len(recipe: Recipe, config: ModelConfig, facts: Facts) -> int:
    """A new model's whole context; else room for the longest document, in steps of 64, at most 2,048."""
    if facts.start is None:
        return config.max_seq_len
    if recipe.objective == "grpo":
        return min(config.max_seq_len, 2048)
    return min(config.max_seq_len, 2048, 64 * max(1, math.ceil(facts.longest / 64)))


def _pretraining(recipe: Recipe, config: ModelConfig, facts: Facts) -> tuple[float, int, int]:
    """Learning rate, rows a step, steps."""
    parameters = num_parameters(config)
    tokens = TOKENS_PER_PARAMETER * parameters
    tokens = min(tokens, MAX_TOKENS.get(recipe.model.preset, tokens), MAX_PASSES * facts.tokens or tokens)
    compute = 6.0 * parameters * tokens
    rows = recipe.run.rows_per_step or _divisible(batch_tokens_of(compute) / recipe.data.seq_len)
    return _round(learning_rate_of(compute)), rows, max(1, round(tokens / (rows * recipe.data.seq_len)))


def _tuning(recipe: Recipe, config: ModelConfig, facts: Facts) -> tuple[float, int, int]:
    """Learning rate, rows a step, steps. A pass has at least 32 steps where the data allows."""
    rate = 2e-5 * (4096 / config.dim) ** 0.5 * (10 if recipe.lora.rank else 1)
    if recipe.objective in ("dpo", "grpo"):
        rate /= 40
    if recipe.objective == "grpo":
        rows, rows_of_pass = 8 * recipe.grpo.group, facts.prompts * recipe.grpo.group
    else:
        is_packed = recipe.data.pack and recipe.objective != "dpo"
        rows_of_pass = math.ceil(facts.tokens / recipe.data.seq_len) if is_packed else facts.documents
        rows = min(32, max(1, rows_of_pass // 32))
    rows = recipe.run.rows_per_step or rows
    passes = 3 if recipe.objective == "sft" else 1
    return _round(rate), rows, max(1, math.ceil(passes * rows_of_pass / rows))


def _divisible(rows: float) -> int:
    """To the nearest 8 where there are as many: rows of a step are shared by processes and cut into micro-batches."""
    return 8 * round(rows / 8) if rows > 8 else max(1, round(rows))


def _micro_rows(recipe: Recipe, facts: Facts) -> int:
    """The largest equal share of a step's rows that is about as fast as all of them at once."""
    rows = recipe.run.rows_per_step * (2 if recipe.objective == "dpo" else 1)
    most = max(1, (16384 if facts.device == "cuda" else 4096) // recipe.data.seq_len)
    least = 2 if recipe.objective == "dpo" else 1
    return max((n for n in range(least, min(rows, most) + 1, least) if rows % n == 0), default=least)


def _fill(recipe: Recipe, section: str, **derived: Any) -> Recipe:
    values = getattr(recipe, section)
    empty = {name: value for name, value in derived.items() if not getattr(values, name)}
    assert set(derived) <= {entry.name for entry in fields(values)}
    return replace(recipe, **{section: replace(values, **empty)})


def _round(rate: float) -> float:
    """Two digits: the rules are not finer."""
    return float(f"{rate:.1e}")
