"""Writes docs/manual/families.md from the table of families and the configs of the parity tests:
`python -m tests.docs.make_families`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from openherd.checkpoints.families import FAMILIES, Family
from openherd.checkpoints.families.variations import variations
from tests.parity.family_cases import families
from tests.parity.family_layouts import from_hf

PAGE = Path(__file__).parents[2] / "docs" / "manual" / "families.md"
HEAD = """# Families of models

Made from the program's own table by `python -m tests.docs.make_families`; a test compares them.

One forward pass runs them all; a family is a set of declared variations of it, and a way to read its files. For each
form in the second table a small random model gives transformers' logits within 1e-4 in float32, from Hugging Face's
layout and from GGUF as llama.cpp's converter writes it, in prefill and decode, alone and in batches, on the native core
and on the NumPy oracle. A key of a file that would change the mathematics and is not known here is an error, never
ignored.

| Family | `model_type` in config.json | GGUF architecture | Meta's layout |
|---|---|---|---|
"""
VARIATIONS = """
## Variations

Beside Llama 2: RMSNorm before each half of a layer, grouped queries, RoPE, a feed-forward gated by SiLU, no biases.

| Form | Variations |
|---|---|
"""
NOTES = """
## Worth knowing

- A sliding window hides old positions from attention, which skips whole tiles of them; their keys and values stay in
  the cache.
- LongRoPE's list of divisors is chosen once, by the context that the model is loaded for: the long one for contexts
  beyond the original, for all positions. transformers changes over in the middle of a sequence, which no cache of keys
  can follow.
- Phi-3's window is applied, also from GGUF, where llama.cpp leaves it out. Mistral's is read from
  `llama.attention.sliding_window`, which llama.cpp's converter does not write: GGUF files of Mistral 7B v0.1 attend to
  everything.
- A key that config.json leaves out has the value that transformers gives it in that family, which differs: a window of
  4096 in Mistral and Gemma, soft caps of 50 and 30 in Gemma 2, an epsilon of 1e-5 in Mixtral and Phi-3. GGUF files have
  llama.cpp's: Gemma 2's window is 4096 there too. Windows by layer are of Qwen and Gemma; one rotation for layers with
  a window and another for the rest is Gemma 3's, and Gemma 2's in GGUF.
- Experts have no capacity: a token's experts are those with the highest router logits, ties to the lowest number,
  summed by number. GGUF files with a tensor for each expert (the form of early 2024) are refused, and LoRA adapters do
  not reach experts.
- Falcon's GGUF files do not say whether a model is one of the RefinedWeb series (1B, with ALiBi); those are read from
  Hugging Face's layout only.
- llama.cpp takes GELU from a table of halves: its logits of Gemma, Falcon and MPT differ from these by thousandths.
- Not covered: Gemma 1 and 3n, Qwen's mixtures of experts, anything that sees images, learned positions.
"""


def page() -> str:
    rows = "".join(_row(family) for family in FAMILIES)
    return HEAD + rows + VARIATIONS + "".join(map(_form, families())) + NOTES


def _form(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        config, _ = from_hf(name, Path(folder))
    return f"| {name} | {'; '.join(variations(config)) or 'none'} |\n"


def _row(family: Family) -> str:
    types = ", ".join(f"`{name}`" for name in family.model_types)
    return f"| {family.shown} | {types} | `{family.architecture}` | {'yes' if 'meta' in family.names else 'no'} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
