"""Writes docs/manual/recipe-keys.md, every key of a training recipe, from the dataclasses that own them:
`python -m tests.docs.make_recipe_keys`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from openherd.options import help_text
from openherd.train.presets import DEPTHS, MAX_TOKENS, SHAPES, Facts, model_config, num_parameters, resolve
from openherd.train.recipe import SECTIONS, ModelRecipe, Recipe
from openherd.train.recipe_file import toml_value

PAGE = Path(__file__).parents[2] / "docs" / "manual" / "recipe-keys.md"
HEAD = """# Keys of a training recipe

Made from the program's own options by `python -m tests.docs.make_recipe_keys`; a test compares them.

`objective` stands at the top of the file, every other key under its table. Each is also a flag of `herd train run`
and `herd train estimate`: `optimizer.learning_rate` is `--learning-rate`, `data.pack` is `--pack` and `--no-pack`. A
list is given as a flag by repeating it. "Derived" means: by the preset or the depth, and the data; `RUN/recipe.toml`
has what came of it. See [Train a model](train.md).
"""
PRESETS = """
## Presets

For a vocabulary of {small:,} tokens (1b and 8b: {large:,}) and more data than the horizon needs.

| `--preset` | layers | width | heads | feed-forward | row | parameters | tokens a step | steps | learning rate |
|---|---|---|---|---|---|---|---|---|---|
"""
SMALL, LARGE = 4096, 128256


def page() -> str:
    top = "\n## objective\n\n" + _table(
        [("objective", help_text(Recipe, "objective"), _kind(Recipe, "objective"), '"pretrain"')]
    )
    return HEAD + top + "".join(_section(name, options) for name, options in SECTIONS.items()) + _presets()


def _section(name: str, options: type[Any]) -> str:
    default = options()
    rows = [
        (f.name, help_text(options, f.name), _kind(options, f.name), toml_value(getattr(default, f.name)))
        for f in fields(options)
    ]
    return f"\n## [{name}]\n\n" + _table(rows)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    head = "| key | | type | default |\n|---|---|---|---|\n"
    return head + "".join(f"| `{key}` | {text} | {kind} | `{default}` |\n" for key, text, kind, default in rows)


def _kind(options: type[Any], name: str) -> str:
    hint = get_type_hints(options)[name]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint) if choice)
    if get_origin(hint) is tuple:
        return "list of texts"
    return {bool: "true or false", int: "whole number", float: "number"}.get(hint, "text")


def _presets() -> str:
    rows = []
    for preset in (*DEPTHS, *SHAPES):
        vocab_size = LARGE if preset in SHAPES else SMALL
        recipe = resolve(Recipe(model=ModelRecipe(preset=preset)), Facts(vocab_size))  # type: ignore[arg-type]
        config, run = model_config(recipe.model, vocab_size), recipe.run
        heads = (
            str(config.n_heads) if config.n_heads == config.n_kv_heads else f"{config.n_heads} on {config.n_kv_heads}"
        )
        step = run.rows_per_step * recipe.data.seq_len
        cells = (
            f"`{preset}`",
            f"{config.n_layers}",
            f"{config.dim}",
            heads,
            f"{config.ffn_dim:,}",
            f"{recipe.data.seq_len:,}",
            f"{num_parameters(config) / 1e6:,.1f} million",
            f"{step:,}",
            f"{run.steps:,}",
            f"{recipe.optimizer.learning_rate:g}",
        )
        rows.append(f"| {' | '.join(cells)} |\n")
    ends = " and ".join(f"`{preset}` after {tokens / 1e6:g} million" for preset, tokens in MAX_TOKENS.items())
    return PRESETS.format(small=SMALL, large=LARGE) + "".join(rows) + f"\nHorizons are 20 tokens a parameter; {ends}.\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
