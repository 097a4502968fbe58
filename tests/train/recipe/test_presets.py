"""The dial: from a preset or a depth to a whole recipe, by the rules that `presets` cites."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openherd.config import ModelConfig
from openherd.errors import InputError
from openherd.train.memory import num_parameters_of
from openherd.train.presets import Facts, model_config, num_parameters, resolve, shape_of_depth
from openherd.train.recipe import LoraRecipe, ModelRecipe, OptimizerRecipe, Recipe, RunRecipe

NEW = Facts(vocab_size=4096, cores=2)
LLAMA_VOCABULARY = 128256


def of(preset: str, vocab_size: int = 4096, **facts: int) -> tuple[Recipe, ModelConfig]:
    recipe = resolve(Recipe(model=ModelRecipe(preset=preset)), Facts(vocab_size=vocab_size, **facts))  # type: ignore[arg-type]
    return recipe, model_config(recipe.model, vocab_size)


@pytest.mark.parametrize(
    ("preset", "vocab_size", "dim", "layers", "seq_len", "parameters"),
    [
        ("nano", 1024, 128, 2, 256, 558e3),
        ("tiny", 4096, 256, 4, 512, 4.26e6),
        ("small", 32768, 768, 12, 1024, 110e6),
        # What Meta's model cards count: 1.24 and 8.03 billion.
        ("1b", LLAMA_VOCABULARY, 2048, 16, 4096, 1.236e9),
        ("8b", LLAMA_VOCABULARY, 4096, 32, 8192, 8.03e9),
    ],
)
def test_presets(preset: str, vocab_size: int, dim: int, layers: int, seq_len: int, parameters: float) -> None:
    recipe, config = of(preset, vocab_size)
    assert (config.dim, config.n_layers, recipe.data.seq_len) == (dim, layers, seq_len)
    assert num_parameters(config) == pytest.approx(parameters, rel=0.005)
    assert num_parameters(config) == num_parameters_of(config), "the closed form counts what the tensors are"


def test_a_depth_gives_width_heads_and_feed_forward() -> None:
    shape = shape_of_depth(6)
    assert (shape.dim, shape.n_heads, shape.head_dim, shape.ffn_dim) == (384, 6, 64, 1024)
    assert shape_of_depth(100).seq_len == 2048


def test_the_horizon_is_twenty_tokens_a_parameter_unless_the_data_or_the_preset_ends_it() -> None:
    recipe, config = of("small", 32768)
    tokens = recipe.run.steps * recipe.run.rows_per_step * recipe.data.seq_len
    assert tokens == pytest.approx(20 * num_parameters(config), rel=0.01)
    short, _ = of("small", 32768, tokens=10_000_000)
    assert short.run.steps * short.run.rows_per_step * 1024 == pytest.approx(4 * 10_000_000, rel=0.05)
    assert of("nano")[0].run.steps * of("nano")[0].run.rows_per_step * 256 < 1_000_000


def test_batch_and_learning_rate_follow_the_compute() -> None:
    """DeepSeek LLM's table 4 has a batch of 4.6M and a rate of 4.2e-4 for 7B and 2T tokens, C near 7e22."""
    from openherd.train.presets import batch_tokens_of, learning_rate_of

    assert learning_rate_of(7e22) == pytest.approx(4.3e-4, rel=0.05)
    assert learning_rate_of(1e12) == learning_rate_of(1e17) == pytest.approx(2.3e-3, rel=0.02)
    assert batch_tokens_of(1e20) == pytest.approx(1.02e6, rel=0.05)


def test_whatever_is_given_wins_and_resolving_again_changes_nothing() -> None:
    asked = Recipe(
        model=ModelRecipe(preset="tiny", dim=192, n_layers=3),
        optimizer=OptimizerRecipe(learning_rate=1e-4),
        run=RunRecipe(steps=7, rows_per_step=6, micro_rows=2),
    )
    recipe = resolve(asked, NEW)
    model = recipe.model
    assert (model.dim, model.n_layers, model.n_heads, model.head_dim, model.ffn_dim) == (192, 3, 3, 64, 512)
    assert (recipe.run.steps, recipe.run.rows_per_step, recipe.run.micro_rows) == (7, 6, 2)
    assert recipe.optimizer.learning_rate == 1e-4
    assert resolve(recipe, NEW) == recipe


def test_fine_tuning_fits_the_data() -> None:
    start = ModelConfig("llama", 576, 30, 9, 3, 64, 1536, 49152, 8192)
    facts = Facts(vocab_size=49152, start=start, tokens=80_000, documents=400, longest=700, cores=2)
    full = resolve(Recipe(objective="sft", model=ModelRecipe(init="smollm2")), facts)
    assert full.data.seq_len == 704, "the longest document, rounded up to 64"
    assert full.run.steps * full.run.rows_per_step * 704 >= 3 * 80_000, "three passes"
    assert full.optimizer.learning_rate == pytest.approx(2e-5 * (4096 / 576) ** 0.5, rel=0.05)
    lora = resolve(replace(full, optimizer=OptimizerRecipe(), lora=LoraRecipe(rank=8)), facts)
    assert lora.optimizer.learning_rate == pytest.approx(10 * full.optimizer.learning_rate, rel=0.05)
    assert lora.lora.alpha == 16
    pairs = resolve(Recipe(objective="dpo", model=ModelRecipe(init="smollm2")), facts)
    assert pairs.run.micro_rows % 2 == 0, "a pair is not cut"


def test_nothing_to_train_is_said() -> None:
    with pytest.raises(InputError, match="does not say what to train"):
        resolve(Recipe(), NEW)
