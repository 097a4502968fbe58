"""A tiny model that carries its golden values, and the many ways in which a copy of it can be damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES, BLOCK_TYPES_BY_ID
from openherd.workshop.golden.places import KEY
from openherd.workshop.golden.record import record
from tests.checkpoint_files import (
    DIM,
    FFN,
    HEAD_DIM,
    HEADS,
    LAYERS,
    Entry,
    GGUFFile,
    array,
    entry,
    f32,
    text,
    texts,
    tiny_llama,
    truth,
    u32,
)
from tests.unit.llm.tiny_llm import SPEC, TEMPLATE

EXPERTS = 4
# Names of the matrices that `requantised` rounds.
QUANTISED = (
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{name}.weight"
        for layer in range(LAYERS)
        for name in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        )
    ),
)  # fmt: skip


def model(linear_type: str = "F32", seed: int = 0, experts: bool = False) -> GGUFFile:
    """Two layers of random weights of a trained model's size, a byte-level vocabulary and a template.

    `experts`: as Mixtral has them, two of four for each token.
    """
    file = tiny_llama(linear_type="F32", seed=seed).without("token_embd.weight")
    if experts:
        _with_experts(file, seed)
    rows = np.random.default_rng(seed + 1).standard_normal((len(SPEC.tokens), DIM), np.float32)
    file.tensors.insert(0, entry("token_embd.weight", rows))
    for position, tensor in enumerate(file.tensors):
        scale = 0.25 if len(tensor.dims) >= 2 else 1.0
        values = np.frombuffer(tensor.data, "<f4").reshape(tensor.dims[::-1]) * np.float32(scale)
        if len(tensor.dims) == 1:
            values = 1 + np.float32(0.1) * values
        kind = linear_type if str(tensor.name).startswith("blk.") and _is_quantised(tensor) else "F32"
        file.tensors[position] = entry(str(tensor.name), values.astype(np.float32), kind)
    file.keys |= {
        "llama.context_length": u32(512),
        "tokenizer.ggml.pre": text(SPEC.pre),
        "tokenizer.ggml.tokens": texts(SPEC.tokens),
        "tokenizer.ggml.token_type": array(5, np.array(SPEC.token_types, "<i4")),
        "tokenizer.ggml.merges": texts(SPEC.merges),
        "tokenizer.ggml.bos_token_id": u32(SPEC.bos_id or 0),
        "tokenizer.ggml.eos_token_id": u32(SPEC.eos_id or 0),
        "tokenizer.chat_template": text(TEMPLATE),
    }
    return file


def _with_experts(file: GGUFFile, seed: int) -> None:
    """In place of each layer's own feed-forward maps: a router, and the maps of all experts in one tensor."""
    rng = np.random.default_rng(seed + 2)
    file.tensors = [
        t for t in file.tensors if not str(t.name).split(".")[-2].startswith(("ffn_gate", "ffn_up", "ffn_down"))
    ]
    shapes = {"gate_inp": (EXPERTS, DIM), "gate_exps": (EXPERTS, FFN, DIM), "up_exps": (EXPERTS, FFN, DIM)}
    for layer in range(LAYERS):
        for name, shape in {**shapes, "down_exps": (EXPERTS, DIM, FFN)}.items():
            file.tensors.append(entry(f"blk.{layer}.ffn_{name}.weight", rng.standard_normal(shape, np.float32)))
    file.keys |= {"llama.expert_count": u32(EXPERTS), "llama.expert_used_count": u32(2)}


def _is_quantised(tensor: Entry) -> bool:
    """Every matrix but the router, which stays as it is."""
    return len(tensor.dims) >= 2 and "gate_inp" not in str(tensor.name)


def golden_json(folder: Path, linear_type: str = "F32", seed: int = 0, experts: bool = False) -> str:
    path = folder / f"source-{linear_type}-{seed}-{experts}.gguf"
    path.write_bytes(model(linear_type, seed, experts).build())
    return record(path).to_json()


def written(file: GGUFFile, golden: str, path: Path) -> Path:
    file.keys[KEY] = text(golden)
    path.write_bytes(file.build())
    return path


def tensor(file: GGUFFile, name: str) -> Entry:
    return next(t for t in file.tensors if t.name == name)


def values(t: Entry) -> np.ndarray:
    block_type = BLOCK_TYPES_BY_ID[t.type_id]
    rows = np.frombuffer(t.data, np.uint8).reshape(-1, block_type.row_bytes(t.dims[0]))
    return dequantize(rows, block_type).reshape(t.dims[::-1])


def requantised(file: GGUFFile, type_name: str) -> GGUFFile:
    """Every matrix rounded to another type."""
    block_type = BLOCK_TYPES[type_name]
    for t in file.tensors:
        if _is_quantised(t):
            t.data, t.type_id = quantize(values(t), block_type).tobytes(), block_type.ggml_id
    return file


def _rows(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[GGUFFile], None]:
    """A fault in the rows of a tensor, whatever its type."""

    def damage(file: GGUFFile) -> None:
        t = tensor(file, name)
        width = BLOCK_TYPES_BY_ID[t.type_id].row_bytes(t.dims[0])
        t.data = change(np.frombuffer(t.data, np.uint8).reshape(-1, width)).tobytes()

    return damage


def _key(name: str, value: tuple[int, bytes]) -> Callable[[GGUFFile], None]:
    return lambda file: file.keys.update({name: value})


def _exchange(one: str, other: str) -> Callable[[GGUFFile], None]:
    def damage(file: GGUFFile) -> None:
        a, b = tensor(file, one), tensor(file, other)
        a.data, b.data = b.data, a.data

    return damage


def _swapped(items: list[str], a: int, b: int) -> list[str]:
    items = list(items)
    items[a], items[b] = items[b], items[a]
    return items


def _heads(rows: np.ndarray) -> np.ndarray:
    """The first two heads in each other's place."""
    heads = rows.reshape(-1, HEAD_DIM, rows.shape[-1]).copy()
    heads[[0, 1]] = heads[[1, 0]]
    return heads


def _experts_exchanged(*stems: str) -> Callable[[GGUFFile], None]:
    """Experts 1 and 2 of the second layer in each other's place, in these of their maps; the router does not know."""

    def exchanged(rows: np.ndarray) -> np.ndarray:
        experts = rows.reshape(EXPERTS, -1).copy()
        experts[[1, 2]] = experts[[2, 1]]
        return experts

    def damage(file: GGUFFile) -> None:
        for stem in stems:
            _rows(f"blk.1.{stem}.weight", exchanged)(file)

    return damage


def _router_rows(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[[0, 3]] = rows[[3, 0]]
    return rows


def _one_byte(rows: np.ndarray) -> np.ndarray:
    return rows ^ (np.arange(rows.shape[1]) == 5).astype(np.uint8)


def _as_halves(rows: np.ndarray) -> np.ndarray:
    """Rows as if the rotary order had been undone twice."""
    return rows.reshape(-1, HEAD_DIM // 2, 2, rows.shape[-1]).swapaxes(1, 2).copy()


def _flipped_scale(file: GGUFFile) -> None:
    """The sign of one block's scale."""
    t = tensor(file, "blk.1.ffn_down.weight")
    data = bytearray(t.data)
    data[BLOCK_TYPES["Q8_0"].block_bytes + 1] ^= 0x80
    t.data = bytes(data)


def _untied(file: GGUFFile) -> None:
    head = tensor(file, "token_embd.weight")
    file.tensors.append(replace(head, name="output.weight"))


def _as_other_float(file: GGUFFile) -> None:
    """BF16 bits that were taken for F16."""
    t = tensor(file, "blk.0.attn_v.weight")
    t.data, t.type_id = quantize(values(t), BLOCK_TYPES["BF16"]).tobytes(), BLOCK_TYPES["F16"].ggml_id


def _one_not_a_number(file: GGUFFile) -> None:
    t = tensor(file, "output_norm.weight")
    t.data = struct.pack("<f", float("nan")) + t.data[4:]


def _transposed(file: GGUFFile) -> None:
    t = tensor(file, "blk.0.attn_q.weight")
    t.data = quantize(np.ascontiguousarray(values(t).T), BLOCK_TYPES_BY_ID[t.type_id]).tobytes()


_TYPES = np.array(SPEC.token_types, "<i4")
_UNMARKED = np.where(np.arange(len(_TYPES)) == (SPEC.eos_id or 0) - 1, 1, _TYPES).astype("<i4")

# Name, damage, the check that must find it and a word of what it must say.
FAULTS: tuple[tuple[str, Callable[[GGUFFile], None], str, str], ...] = (
    (
        "template character",
        _key("tokenizer.chat_template", text(TEMPLATE.replace("\n", " \n", 1))),
        "chat template",
        "line",
    ),
    (
        "merges swapped",
        _key("tokenizer.ggml.merges", texts(_swapped(list(SPEC.merges), 0, 5))),
        "tokenizer",
        "merges 0",
    ),
    (
        "tokens swapped",
        _key("tokenizer.ggml.tokens", texts(_swapped(list(SPEC.tokens), 70, 200))),
        "tokenizer",
        "tokens",
    ),
    ("added token", _key("tokenizer.ggml.tokens", texts([*SPEC.tokens[:-1], "<|added|>"])), "tokenizer", "tokens"),
    ("token type", _key("tokenizer.ggml.token_type", array(5, _UNMARKED)), "tokenizer", "token_types"),
    ("pre-tokenizer", _key("tokenizer.ggml.pre", text("llama-bpe")), "tokenizer", "pre: was"),
    ("eos id", _key("tokenizer.ggml.eos_token_id", u32(40)), "tokenizer", "eos_id: was"),
    ("bos flag", _key("tokenizer.ggml.add_bos_token", truth(1)), "tokenizer", "add_bos: was False, is True"),
    ("rope base", _key("llama.rope.freq_base", f32(500000.0)), "config", "rope_theta: was 10000"),
    (
        "rope scaling",
        lambda f: f.keys.update({"llama.rope.scaling.type": text("linear"), "llama.rope.scaling.factor": f32(2.0)}),
        "config",
        "rope_scaling",
    ),
    ("norm epsilon", _key("llama.attention.layer_norm_rms_epsilon", f32(1e-6)), "config", "norm_eps: was"),
    ("context", _key("llama.context_length", u32(256)), "config", "max_seq_len: was 512, is 256"),
    (
        "number of heads",
        lambda f: f.keys.update(
            {"llama.attention.head_count": u32(HEADS // 2), "llama.attention.head_count_kv": u32(1)}
        ),
        "config",
        "n_heads: was 4, is 2",
    ),
    ("tied head", _untied, "config", "tied_embeddings: was True"),
    ("permuted query heads", _rows("blk.1.attn_q.weight", _heads), "tensors", "layers.1.self_attn.q_proj"),
    ("key rows in the other order", _rows("blk.0.attn_k.weight", _as_halves), "tensors", "layers.0.self_attn.k_proj"),
    ("transposed", _transposed, "tensors", "layers.0.self_attn.q_proj"),
    ("swapped layers", _exchange("blk.0.ffn_gate.weight", "blk.1.ffn_gate.weight"), "tensors", "mlp.gate_proj"),
    ("swapped gate and up", _exchange("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"), "tensors", "mlp.up_proj"),
    ("swapped norms", _exchange("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"), "tensors", "layernorm"),
    ("one byte of a norm", _rows("output_norm.weight", _one_byte), "tensors", "model.norm"),
    ("not a number", _one_not_a_number, "tensors", "model.norm"),
    ("float type", _as_other_float, "tensors", "v_proj"),
)
ON_QUANTISED: tuple[tuple[str, Callable[[GGUFFile], None], str, str], ...] = (
    ("flipped scale", _flipped_scale, "tensors", "layers.1.mlp.down_proj"),
    ("permuted query heads", _rows("blk.1.attn_q.weight", _heads), "tensors", "layers.1.self_attn.q_proj"),
)
# In a model of experts.
IN_EXPERTS: tuple[tuple[str, Callable[[GGUFFile], None], str, str], ...] = (
    (
        "swapped experts",
        _experts_exchanged("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
        "tensors",
        "layers.1.block_sparse_moe.experts.1",
    ),
    ("swapped down maps of experts", _experts_exchanged("ffn_down_exps"), "tensors", "experts.2.w2"),
    (
        "router rows swapped",
        _rows("blk.0.ffn_gate_inp.weight", _router_rows),
        "tensors",
        "layers.0.block_sparse_moe.gate",
    ),
    ("experts for each token", _key("llama.expert_used_count", u32(1)), "config", "n_experts_per_token: was 2, is 1"),
)
