"""The tables of names, both ways; tensors that hold several; families that share nothing by mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from openherd.checkpoints.families import FAMILIES
from openherd.checkpoints.mapped_tensors import FileTensors, canonical_tensors
from openherd.checkpoints.name_table import NameTable, Source, expert_rows, picked
from openherd.checkpoints.source import Tensor
from openherd.errors import FormatError, UnsupportedError
from tests.parity.llama_cases import PLAIN
from tests.parity.random_llama import F32, float_tensor, random_weights

TABLES = {f"{family.name} {layout}": table for family in FAMILIES for layout, table in family.names.items()}
LLAMA_GGUF = TABLES["llama gguf"]


@pytest.mark.parametrize("suffix", ["weight", "bias"])
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_two_way(table: str, suffix: str) -> None:
    names = TABLES[table]
    for stem, source in names.sources.items():
        for layer, expert in ((0, 0), (7, 1), (125, 63)):
            canonical = f"{stem.format(layer, expert)}.{suffix}"
            in_file = names.to_file(canonical)
            assert in_file == f"{source.stem.format(layer, expert)}.{suffix}"
            held = names.from_file(in_file)
            assert canonical in held or f"{stem.format(layer, '*')}.{suffix}" in held


def test_families_are_told_apart() -> None:
    for kinds in ([f.name for f in FAMILIES], [f.architecture for f in FAMILIES],
                  [kind for f in FAMILIES for kind in f.model_types]):  # fmt: skip
        assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(
    "name",
    ["", "weight", ".weight", "blk.weight", "blk.0.weight", "blk.00.attn_q.weight", "blk.-1.attn_q.weight",
     "blk.0.attn_q.weight.lora_a", "blk.{}.attn_q.weight", "blk.0.attn_q.scale", "blk.1234567890.attn_q.weight",
     "blk.0.1.attn_q.weight", "rope_freqs.weight", "blk.٣.attn_q.weight"],
)  # fmt: skip
def test_other_names_have_no_translation(name: str) -> None:
    assert LLAMA_GGUF.from_file(name) == ()


def test_experts_in_one_tensor() -> None:
    names = NameTable({"model.layers.{}.experts.{}.up_proj": Source("blk.{}.ffn_up_exps", expert_rows(lambda c: 5))})
    place = names.place("model.layers.3.experts.2.up_proj.weight")
    assert place is not None
    assert (place.name, place.rows and place.rows(PLAIN, place.expert)) == ("blk.3.ffn_up_exps.weight", [range(10, 15)])
    assert names.from_file("blk.3.ffn_up_exps.weight") == ("model.layers.3.experts.*.up_proj.weight",)


def _fused() -> tuple[dict[str, F32], FileTensors]:
    """The plain Llama with biases, whose q, k and v stand in one tensor: v first, q in two pieces around k."""
    config = replace(PLAIN, qkv_bias=True)
    weights = random_weights(config, 1)
    half = config.q_dim // 2
    order = (config.kv_dim, half, config.kv_dim, half)
    in_file = {name: values for name, values in weights.items() if ".self_attn." not in name or "o_proj" in name}
    for layer in range(config.n_layers):
        for suffix in ("weight", "bias"):
            q, k, v = (weights[f"model.layers.{layer}.self_attn.{x}_proj.{suffix}"] for x in "qkv")
            in_file[f"model.layers.{layer}.qkv.{suffix}"] = np.concatenate([v, q[:half], k, q[half:]])
    parts = [picked(lambda c: order, part) for part in range(4)]
    stem = "model.layers.{}.self_attn."
    sources: dict[str, str | Source] = {name: name for name in TABLES["llama hf"].sources}
    sources |= {
        f"{stem}q_proj": Source("model.layers.{}.qkv", lambda c, e: [*parts[1](c, e), *parts[3](c, e)]),
        f"{stem}k_proj": Source("model.layers.{}.qkv", parts[2]),
        f"{stem}v_proj": Source("model.layers.{}.qkv", parts[0]),
    }
    tensors = {name: float_tensor(name, values) for name, values in in_file.items()}
    return weights, FileTensors("FILE", tensors, NameTable(sources), False, lambda name: False)


def test_fused_tensors_are_taken_apart() -> None:
    weights, file = _fused()
    tensors = canonical_tensors(file, replace(PLAIN, qkv_bias=True))
    assert tensors.keys() == weights.keys()
    for name, tensor in tensors.items():
        assert tensor.shape == weights[name].shape
        np.testing.assert_array_equal(tensor.rows().view(np.float32).reshape(tensor.shape), weights[name])


@pytest.mark.parametrize("rows", [-1, 1])
@pytest.mark.parametrize("suffix", ["weight", "bias"])
def test_a_fused_tensor_of_another_size_is_refused(rows: int, suffix: str) -> None:
    _, file = _fused()
    name = f"model.layers.1.qkv.{suffix}"
    tensors = dict(file.tensors)
    n, *rest = tensors[name].shape
    tensors[name] = float_tensor(name, np.zeros((n + rows, *rest), np.float32))
    with pytest.raises(FormatError, match=r"qkv.*(does not hold|of which the keys ask for)"):
        canonical_tensors(replace(file, tensors=tensors), replace(PLAIN, qkv_bias=True))


def test_a_tensor_of_no_use_is_refused_by_name() -> None:
    _, file = _fused()
    extra = {"model.x.weight": float_tensor("model.x.weight", np.zeros((2, 2), np.float32))}
    tensors: dict[str, Tensor] = {**file.tensors, **extra}
    with pytest.raises(UnsupportedError, match=r"model\.x\.weight is not part"):
        canonical_tensors(replace(file, tensors=tensors), replace(PLAIN, qkv_bias=True))
    canonical_tensors(replace(file, tensors=tensors, ignored=lambda name: name == "model.x.weight"),
                      replace(PLAIN, qkv_bias=True))  # fmt: skip
