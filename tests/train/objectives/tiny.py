"""A tiny Llama, rows and preference pairs that openherd and the oracles compute alike. NumPy only: both import it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

DIM, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 32, 2, 4, 2, 48, 64, 64
STEPS, ROWS_PER_STEP, PAIRS_PER_STEP = 50, 4, 2
LEARNING_RATE, WEIGHT_DECAY, BETAS, EPS, MAX_GRAD_NORM = 3e-3, 0.1, (0.9, 0.95), 1e-8, 1.0
LORA_RANK, LORA_ALPHA, LORA_TARGETS, LORA_LEARNING_RATE = 4, 8.0, ("q_proj", "v_proj", "down_proj"), 1e-2
DPO_BETA = 0.1


def shapes() -> dict[str, tuple[int, ...]]:
    """Canonical names; embeddings are not tied."""
    kv = DIM * KV_HEADS // HEADS
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, DIM), "lm_head.weight": (VOCAB, DIM)}
    out["model.norm.weight"] = (DIM,)
    for layer in range(LAYERS):
        p = f"model.layers.{layer}"
        out |= {f"{p}.{name}.weight": (DIM,) for name in ("input_layernorm", "post_attention_layernorm")}
        out |= {
            f"{p}.self_attn.{name}_proj.weight": (n, DIM) for name, n in (("q", DIM), ("k", kv), ("v", kv), ("o", DIM))
        }
        out |= {f"{p}.mlp.{name}_proj.weight": (FFN, DIM) for name in ("gate", "up")}
        out[f"{p}.mlp.down_proj.weight"] = (DIM, FFN)
    return out


def weights() -> dict[str, F32]:
    """Norms near 1, the rest uniform with deviation 0.06: wide enough that every part matters."""
    return {n: uniform(n, s, 0.1) + (np.float32(1) if len(s) == 1 else np.float32(0)) for n, s in shapes().items()}


def lora_weights() -> dict[str, F32]:
    """A uniform, B 0, by PEFT's names without its prefix."""
    out = {}
    for name, shape in shapes().items():
        path = name.removesuffix(".weight")
        if path.rpartition(".")[2] in LORA_TARGETS:
            out[f"{path}.lora_A.weight"] = uniform(f"{path}.lora_A", (LORA_RANK, shape[1]), shape[1] ** -0.5)
            out[f"{path}.lora_B.weight"] = np.zeros((shape[0], LORA_RANK), np.float32)
    return out


def sft_rows() -> list[tuple[list[int], int]]:
    """40 rows of ids, and how many of the first of them are given."""
    rows = []
    for row in range(40):
        numbers = integers(f"row {row}", 32)
        length, given = 6 + numbers[0] % 15, 2 + numbers[1] % 4
        rows.append(([2 + n % (VOCAB - 2) for n in numbers[2 : 2 + length]], given))
    return rows


def pairs() -> list[tuple[list[int], list[int], list[int]]]:
    """20 of (prompt, chosen, rejected)."""
    out = []
    for pair in range(20):
        numbers = integers(f"pair {pair}", 48)
        lengths = [2 + numbers[0] % 5, 3 + numbers[1] % 10, 3 + numbers[2] % 10]
        starts = np.cumsum([3, *lengths])
        out.append(
            tuple([2 + n % (VOCAB - 2) for n in numbers[a : a + k]] for a, k in zip(starts, lengths, strict=False))
        )
    return out  # type: ignore[return-value]


def uniform(name: str, shape: tuple[int, ...], bound: float) -> F32:
    """In [-bound, bound), from a generator whose raw numbers NumPy keeps the same in all its versions."""
    raw = _generator(name).random_raw(int(np.prod(shape)))
    return (((raw >> np.uint64(40)).astype(np.float64) / 2**23 - 1) * bound).astype(np.float32).reshape(shape)


def integers(name: str, count: int) -> list[int]:
    return [int(n) for n in _generator(name).random_raw(count) >> np.uint64(33)]


def _generator(name: str) -> np.random.Philox:
    return np.random.Philox(key=int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little"))
