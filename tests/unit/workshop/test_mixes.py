"""Which tensor gets which type."""

from __future__ import annotations

from collections import Counter

import pytest

from openherd.errors import OptionError
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.quantize.mixes import MIXES, Shape, find_mix, fitting

LLAMA = Shape("llama", n_layers=32, heads_per_kv_head=1, n_experts=0, tied=False)
LAYER_MAPS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def types_of(
    mix: str, model: Shape = LLAMA, parts: tuple[str, ...] = LAYER_MAPS, *, weighted: bool = False
) -> dict[str, str]:
    """Types by name, all rows 4096 long."""
    names = ["token_embd.weight", *([] if model.tied else ["output.weight"])]
    names += [f"blk.{i}.{part}.weight" for i in range(model.n_layers) for part in parts]
    chosen = {name: find_mix(mix).type_for(name, (4096, 4096), model, weighted=weighted) for name in names}
    return {name: block_type.name for name, block_type in chosen.items() if block_type}


# As files of Llama 2 7B have them that llama.cpp's quantiser wrote.
@pytest.mark.parametrize(
    ("mix", "counts"),
    [
        ("Q8_0", {"Q8_0": 226}),
        ("Q6_K", {"Q6_K": 226}),
        ("Q5_K_M", {"Q5_K": 193, "Q6_K": 33}),
        ("Q5_K_S", {"Q5_K": 225, "Q6_K": 1}),
        ("Q4_K_M", {"Q4_K": 193, "Q6_K": 33}),
        ("Q4_K_S", {"Q4_K": 217, "Q5_K": 8, "Q6_K": 1}),
        ("Q4_0", {"Q4_0": 225, "Q6_K": 1}),
        ("Q3_K_L", {"Q3_K": 129, "Q5_K": 96, "Q6_K": 1}),
        ("Q3_K_M", {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
        ("Q3_K_S", {"Q3_K": 225, "Q6_K": 1}),
        ("Q2_K", {"Q2_K": 129, "Q3_K": 96, "Q6_K": 1}),
    ],
)
def test_counts_for_llama_2_7b(mix: str, counts: dict[str, int]) -> None:
    assert Counter(types_of(mix).values()) == counts


def test_first_and_last_layers_keep_more_bits() -> None:
    types = types_of("Q4_K_M")
    finer = [i for i in range(32) if types[f"blk.{i}.ffn_down.weight"] == "Q6_K"]
    assert finer == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert all(types[f"blk.{i}.attn_q.weight"] == "Q4_K" for i in range(32))


def test_tied_embeddings_are_the_head() -> None:
    model = Shape("llama", 32, 1, 0, tied=True)
    assert types_of("Q4_K_M", model)["token_embd.weight"] == "Q6_K"
    assert find_mix("Q4_0").type_for("token_embd.weight", (100, 96), model) == BLOCK_TYPES["Q6_K"]
    assert find_mix("Q4_K_M").type_for("token_embd.weight", (100, 96), model) == BLOCK_TYPES["Q8_0"]


def test_grouped_queries_share_their_values() -> None:
    assert types_of("Q2_K", Shape("llama", 32, 4, 0, tied=False))["blk.9.attn_v.weight"] == "Q4_K"


# By the rules of llama.cpp's quantiser for its 70B type: values of three and four bits get five.
@pytest.mark.parametrize(
    ("mix", "counts"),
    [
        ("Q2_K", {"Q5_K": 80}),
        ("Q3_K_S", {"Q5_K": 80}),
        ("Q3_K_M", {"Q5_K": 80}),
        ("Q3_K_L", {"Q5_K": 80}),
        ("Q4_K_S", {"Q5_K": 80}),
        ("Q4_K_M", {"Q6_K": 40, "Q5_K": 40}),
        ("Q5_K_M", {"Q6_K": 40, "Q5_K": 40}),
        ("Q4_0", {"Q4_0": 80}),
    ],
)
def test_values_of_eighty_layers(mix: str, counts: dict[str, int]) -> None:
    types = types_of(mix, Shape("llama", 80, 8, 0, tied=False))
    assert Counter(kind for name, kind in types.items() if "attn_v" in name) == counts
    assert {kind for name, kind in types.items() if "attn_k" in name} == {find_mix(mix).type}


@pytest.mark.parametrize(
    ("family", "heads", "kind"),
    [
        ("llama", 2, "Q5_K"),  # any sharing counts, not eight alone
        ("llama", 1, "Q3_K"),  # 65B
        ("qwen2", 1, "Q5_K"),  # Qwen 1.5 72B
        ("gemma2", 8, "Q3_K"),
    ],
)
def test_which_eighty_layers(family: str, heads: int, kind: str) -> None:
    assert types_of("Q3_K_S", Shape(family, 80, heads, 0, tied=False))["blk.40.attn_v.weight"] == kind


# Queries, keys and values in one tensor go by the rules of values: 32 layers, as Phi-3 mini, Falcon 7B and MPT 7B.
@pytest.mark.parametrize(
    ("mix", "counts"),
    [
        ("Q2_K", {"Q3_K": 32}),
        ("Q3_K_S", {"Q3_K": 32}),
        ("Q3_K_M", {"Q5_K": 2, "Q4_K": 30}),
        ("Q3_K_L", {"Q5_K": 32}),
        ("Q4_K_S", {"Q5_K": 4, "Q4_K": 28}),
        ("Q4_K_M", {"Q6_K": 16, "Q4_K": 16}),
        ("Q5_K_S", {"Q5_K": 32}),
        ("Q5_K_M", {"Q6_K": 16, "Q5_K": 16}),
    ],
)
def test_fused_queries_keys_and_values(mix: str, counts: dict[str, int]) -> None:
    for family in ("phi3", "mpt"):
        types = types_of(mix, Shape(family, 32, 1, 0, tied=False), ("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
        assert Counter(kind for name, kind in types.items() if "attn_qkv" in name) == counts
    assert types_of("Q2_K", Shape("falcon", 32, 71, 0, tied=False), ("attn_qkv",))["blk.9.attn_qkv.weight"] == "Q4_K"


@pytest.mark.parametrize(("mix", "finer"), [("Q4_0", "Q4_1"), ("Q5_0", "Q5_1")])
def test_importance_raises_the_first_down_maps(mix: str, finer: str) -> None:
    weighted, plain = types_of(mix, weighted=True), types_of(mix)
    changed = {name: kind for name, kind in weighted.items() if kind != plain[name]}
    assert changed == {f"blk.{i}.ffn_down.weight": finer for i in range(4)}
    for other in set(MIXES) - {"Q4_0", "Q5_0"}:
        assert types_of(other, weighted=True) == types_of(other)


def test_eight_experts() -> None:
    model = Shape("llama", 32, 4, 8, tied=False)
    mix = find_mix("Q4_K_M")
    for name, wanted in {
        "blk.9.attn_v.weight": "Q8_0",
        "blk.9.attn_k.weight": "Q8_0",
        "blk.9.attn_output.weight": "Q5_K",
        "blk.1.ffn_down_exps.weight": "Q6_K",
        "blk.9.ffn_up_exps.weight": "Q4_K",
    }.items():
        assert mix.type_for(name, (8, 64, 256), model) == BLOCK_TYPES[wanted]
    assert mix.type_for("blk.9.ffn_gate_inp.weight", (8, 256), model) is None


@pytest.mark.parametrize(
    "name", ["blk.0.attn_norm.weight", "output_norm.weight", "rope_freqs.weight", "blk.0.attn_q.bias"]
)
def test_vectors_stay(name: str) -> None:
    assert find_mix("Q4_0").type_for(name, (64,), LLAMA) is None


@pytest.mark.parametrize(
    ("wanted", "width", "got"),
    [
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 576, "Q5_0"),
        ("Q5_K", 576, "Q5_1"),
        ("Q6_K", 576, "Q8_0"),
        ("Q3_K", 96, "Q4_0"),
        ("Q2_K", 96, "Q4_0"),
        ("Q4_0", 96, "Q4_0"),
        ("Q4_0", 40, "F16"),
        ("Q6_K", 40, "F16"),
    ],
)
def test_rows_that_are_no_whole_blocks(wanted: str, width: int, got: str) -> None:
    assert fitting(BLOCK_TYPES[wanted], (3, width)).name == got


def test_spelling() -> None:
    assert find_mix("q4_k_m") is find_mix("Q4_K") is find_mix("Q4-K-M") is MIXES["Q4_K_M"]
    with pytest.raises(OptionError, match="did you mean Q4_K_M") as caught:
        find_mix("Q4_KM")
    assert "Q5_1" in str(caught.value)
