"""Meta's params.json and the ModelConfig that it makes together with the shapes of the tensors.

params.json leaves out what Meta's code had as a default: the context, and which generation the model is of. What is
assumed is told in words, for `herd inspect`.

Source: `ModelArgs` in the code that Meta released with Llama 1, 2 and 3; the contexts of the papers (2,048, 4,096,
16,384 for Code Llama, 8,192, 131,072). Llama 3.2's factor of 32 is from its published config; params.json lacks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.families.llama import NAME
from openherd.checkpoints.gguf_keys import Keys
from openherd.config import ModelConfig, RopeScaling

Generation = Literal["Llama 1", "Llama 2", "Code Llama", "Llama 3", "Llama 3.1", "Llama 3.2"]

KEYS = KeyTable(
    read=frozenset(
        {
            "dim",
            "ffn_dim_multiplier",
            "high_freq_factor",
            "multiple_of",
            "n_heads",
            "n_kv_heads",
            "n_layers",
            "norm_eps",
            "rope_scaling_factor",
            "rope_theta",
            "use_scaled_rope",
            "vocab_size",
        }
    ),
    harmless=frozenset({"max_batch_size", "max_seq_len", "model_parallel_size", "use_kv_cache"}),
)
_CONTEXT: dict[Generation, int] = {
    "Llama 1": 2048, "Llama 2": 4096, "Code Llama": 16384, "Llama 3": 8192, "Llama 3.1": 131072, "Llama 3.2": 131072,
}  # fmt: skip
_SMALL_DIMS = (2048, 3072)  # of Llama 3.2 1B and 3B; 3.1's smallest has 4,096
_LLAMA1_65B = (8192, 80)  # (dim, layers) of the one Llama 1 whose norm has the epsilon of Llama 2
_CODE_LLAMA_THETA = 1e6


@dataclass(frozen=True, slots=True)
class MetaShapes:
    """What the tensors say: rows of the embedding, the width of the feed-forward, and whether there is an output."""

    vocab_size: int
    ffn_dim: int
    tied: bool


def read_params(keys: Keys, shapes: MetaShapes, *, tiktoken: bool) -> tuple[ModelConfig, Generation, tuple[str, ...]]:
    """(config, generation, what was assumed). `tiktoken`: the tokenizer is in Llama 3's form.

    Raises FormatError for a wrong value and UnsupportedError for a key that openherd does not know.
    """
    KEYS.refuse_unknown(keys)
    dim = keys.whole("dim", least=1)
    n_heads = keys.whole("n_heads", least=1)
    n_kv_heads = keys.whole("n_kv_heads", n_heads, least=1)
    if dim % n_heads or dim // n_heads % 2:
        raise keys.wrong("dim", f"must be an even multiple of the {n_heads} heads")
    if n_heads % n_kv_heads:
        raise keys.wrong("n_kv_heads", f"must divide the {n_heads} query heads")
    if keys["vocab_size"] != -1 if "vocab_size" in keys else False:
        vocab_size = keys.whole("vocab_size", least=1)
        if vocab_size != shapes.vocab_size:
            raise keys.wrong("vocab_size", f"must be the embedding's number of rows, {shapes.vocab_size}")
    _check_ffn(keys, dim, shapes.ffn_dim)
    generation = _generation(keys, dim, tiktoken)
    context = _CONTEXT[generation]
    notes = [f"read as {generation}: context {context:,}, which params.json does not say"]
    theta = keys.positive("rope_theta", 10000.0)
    if "rope_theta" not in keys:
        notes.append("rope base 10,000, which params.json does not say")
    scaling = _scaling(keys, generation, notes)
    config = ModelConfig(
        family=NAME,
        dim=dim,
        n_layers=keys.whole("n_layers", least=1),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=dim // n_heads,
        ffn_dim=shapes.ffn_dim,
        vocab_size=shapes.vocab_size,
        max_seq_len=context,
        norm_eps=keys.positive("norm_eps", 1e-5),
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embeddings=shapes.tied,
    )
    return config, generation, tuple(notes)


def _generation(keys: Keys, dim: int, tiktoken: bool) -> Generation:
    if keys.truth("use_scaled_rope", False):
        return "Llama 3.2" if dim in _SMALL_DIMS else "Llama 3.1"
    if tiktoken:
        return "Llama 3"
    if keys.number("rope_theta", 0.0) == _CODE_LLAMA_THETA:
        return "Code Llama"
    is_first_65b = "n_kv_heads" not in keys and (dim, keys.whole("n_layers", least=1)) == _LLAMA1_65B
    return "Llama 1" if keys.number("norm_eps", 1e-5) < 5e-6 or is_first_65b else "Llama 2"


def _scaling(keys: Keys, generation: Generation, notes: list[str]) -> RopeScaling:
    if generation not in ("Llama 3.1", "Llama 3.2"):
        return RopeScaling()
    default = 32.0 if generation == "Llama 3.2" else 8.0
    factor = keys.positive("rope_scaling_factor", default)
    if "rope_scaling_factor" not in keys:
        notes.append(f"rope scaling by {factor:g} from 8,192, which params.json does not say")
    return RopeScaling(
        "llama3",
        factor=factor,
        original_max_seq_len=8192,
        low_freq_factor=1.0,
        high_freq_factor=keys.positive("high_freq_factor", 4.0),
    )


def _check_ffn(keys: Keys, dim: int, found: int) -> None:
    """The width that Meta's code computes: two thirds of 4 * dim, times a multiplier, rounded up."""
    if "multiple_of" not in keys:
        return
    multiple = keys.whole("multiple_of", least=1)
    width = int(2 * (4 * dim) / 3)
    if "ffn_dim_multiplier" in keys:
        width = int(keys.positive("ffn_dim_multiplier") * width)
    width = -(-width // multiple) * multiple
    if width != found:
        raise keys.wrong("multiple_of", f"must give the feed-forward {found} values, not {width}")
