"""The native forward pass against the float64 oracle, and its promise of equal bits whatever the load."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from openherd._native import available_isas
from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Adapter, LoraPair, Tensor
from openherd.config import ModelConfig
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import Backend, KVSpec, Limits, TapRows, TapSite
from openherd.engine.reference_backend import ReferenceBackend
from openherd.errors import EngineError
from openherd.kernels import native
from openherd.kernels.reference_sampler import log_softmax
from openherd.kernels.rope import inverse_frequencies
from openherd.quant.types import BLOCK_TYPES
from tests.parity.random_llama import RandomUniform, float_source, float_tensor, random_weights
from tests.unit.native.native_models import LIMITS, batch_of, loaded

BASE = ModelConfig("llama", 64, 2, 4, 2, 16, 96, 101, 512)
CONFIGS = {
    "grouped": BASE,
    "one_kv_head": dataclasses.replace(BASE, n_kv_heads=1),
    "odd_heads": dataclasses.replace(BASE, n_heads=3, n_kv_heads=3, head_dim=24, dim=40, ffn_dim=72),
    "head_dim_64": dataclasses.replace(BASE, n_heads=9, n_kv_heads=3, head_dim=64),
    "head_dim_80": dataclasses.replace(BASE, head_dim=80, rope_dim=20),
    "head_dim_128": dataclasses.replace(BASE, n_heads=2, n_kv_heads=1, head_dim=128),
    "groups_of_5": dataclasses.replace(BASE, n_heads=10, n_kv_heads=2, head_dim=18, rope_dim=6),
    "groups_of_8": dataclasses.replace(BASE, n_heads=8, n_kv_heads=1, head_dim=34),
    "biased_and_tied": dataclasses.replace(BASE, qkv_bias=True, o_bias=True, mlp_bias=True, tied_embeddings=True),
}
# 150 rows cross two borders of attention tiles and several chunks of rows.
PROMPT = RandomUniform(5).ids(150, BASE.vocab_size).tolist()
BLOCKS = [7, 3, 9, 1, 0, 12, 4, 20, 21, 22, 5]


def _weights(config: ModelConfig, seed: int = 1) -> dict[str, Tensor]:
    return float_source(random_weights(config, seed))


def _quantised(name: str, values: np.ndarray, type_name: str) -> Tensor:
    """A tensor in a block type of the file format, quantised by the gguf package."""
    rows = gguf.quants.quantize(values, gguf.GGMLQuantizationType[type_name]).view(np.uint8)
    return Tensor(name, values.shape, BLOCK_TYPES[type_name], lambda: rows)


def _logits(backend: Backend, ids: list[int], blocks: list[int] = BLOCKS) -> np.ndarray:
    return backend.logits(backend.forward(batch_of([(ids, 0, blocks)])))


def _native(config: ModelConfig, weights: dict[str, Tensor], *, threads: int = 2, kv: str = "f32") -> Backend:
    return loaded(NativeBackend(threads), config, weights, KVSpec(kv))


def _reference(config: ModelConfig, weights: dict[str, Tensor], *, kv: str = "f32") -> Backend:
    return loaded(ReferenceBackend(), config, weights, KVSpec(kv))


@pytest.mark.parametrize("name", CONFIGS)
def test_float_weights_give_the_oracles_logits(name: str) -> None:
    """Logits are near 1. Each is a chain of some 30 float32 sums of up to 576 terms: sqrt(30 * 576) * 2^-24 is 8e-6,
    and sums of roundings rarely pass ten times their deviation."""
    config = CONFIGS[name]
    weights = _weights(config)
    expected = _logits(_reference(config, weights), PROMPT)
    np.testing.assert_allclose(_logits(_native(config, weights), PROMPT), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("name", ["odd_heads", "head_dim_64", "head_dim_80", "groups_of_5", "groups_of_8"])
def test_every_instruction_set_gives_the_oracles_logits(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float weights and an f16 cache, alone and in chunks; tolerance as with the oracle's own f16 cache."""
    monkeypatch.setattr(native, "default_isa", lambda: isa)
    config = CONFIGS[name]
    weights = _weights(config)
    backend = _native(config, weights, kv="f16")
    assert f"/{isa}/" in backend.numerics_id
    actual = _logits(backend, PROMPT)
    expected = _logits(_reference(config, weights, kv="f16"), PROMPT)
    np.testing.assert_allclose(actual, expected, atol=2e-3 * np.abs(expected).max())
    assert _in_chunks(backend, PROMPT, [33, 1, 64, 15, 37]).tobytes() == actual.tobytes()


def test_f16_cache_agrees_with_the_oracles_f16_cache() -> None:
    """Both round keys and values to halves; a float32 result on the other side of a border moves one by 2^-11."""
    config = CONFIGS["head_dim_64"]
    weights = _weights(config)
    expected = _logits(_reference(config, weights, kv="f16"), PROMPT)
    actual = _logits(_native(config, weights, kv="f16"), PROMPT)
    np.testing.assert_allclose(actual, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_1", "F16"])
def test_quantised_weights_stay_within_the_rounding_of_activations(type_name: str) -> None:
    """int8 activations: uniform errors of absmax / 127 / sqrt(12) a value, about 0.6 % of a map's result (0.3 % with
    f16 weights' nothing); through 4 + 4 maps and the head, in quadrature, 2 %. Bar: 5 % of the logits' deviation."""
    values = random_weights(BASE, 2)
    weights = {n: _quantised(n, v, type_name) if v.ndim == 2 else float_tensor(n, v) for n, v in values.items()}
    expected = _logits(_reference(BASE, weights), PROMPT)
    error = _logits(_native(BASE, weights), PROMPT) - expected
    assert np.sqrt(np.mean(error**2)) < (0.05 if type_name != "F16" else 1e-4) * np.std(expected)


def test_types_may_be_mixed_within_one_input() -> None:
    """Maps that read float32 and maps that read int8 blocks of the same activation, and an f16 head."""
    values = random_weights(BASE, 3)
    weights = {n: float_tensor(n, v) for n, v in values.items()}
    for n in [n for n in values if n.endswith(("q_proj.weight", "up_proj.weight"))]:
        weights[n] = _quantised(n, values[n], "Q8_0")
    weights["lm_head.weight"] = _quantised("lm_head.weight", values["lm_head.weight"], "F16")
    expected = _logits(_reference(BASE, weights), PROMPT)
    error = _logits(_native(BASE, weights), PROMPT) - expected
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.std(expected)


def _in_chunks(backend: Backend, ids: list[int], sizes: list[int], blocks: list[int] = BLOCKS) -> np.ndarray:
    logits, start = [], 0
    for size in sizes:
        logits.append(backend.logits(backend.forward(batch_of([(ids[start : start + size], start, blocks)]))))
        start += size
    return np.concatenate(logits)


@pytest.mark.parametrize("kv", ["f16", "f32"])
@pytest.mark.parametrize("name", ["grouped", "odd_heads", "head_dim_64"])
def test_chunks_and_threads_do_not_change_a_bit(name: str, kv: str) -> None:
    config = CONFIGS[name]
    values = random_weights(config, 4)
    kinds = "Q8_0" if config.dim % 32 == 0 else "F16"
    weights = {n: _quantised(n, v, kinds) if v.ndim == 2 else float_tensor(n, v) for n, v in values.items()}
    whole = _logits(_native(config, weights, threads=1, kv=kv), PROMPT)
    for threads in (1, 2, 3):
        backend = _native(config, weights, threads=threads, kv=kv)
        assert _logits(backend, PROMPT).tobytes() == whole.tobytes()
        assert _in_chunks(backend, PROMPT, [33, 1, 64, 15, 37]).tobytes() == whole.tobytes()
        assert _in_chunks(backend, PROMPT[:70], [1] * 70).tobytes() == whole[:70].tobytes()


@pytest.mark.parametrize("kv", ["f16", "f32"])
@pytest.mark.parametrize("name", ["one_kv_head", "groups_of_5", "head_dim_64"])
def test_threads_that_share_one_sequence_do_not_change_a_bit(name: str, kv: str) -> None:
    """Steps of 1 and 3 rows far into a sequence: up to seven threads share the tiles of a few KV heads, so that cuts
    fall inside a head, and several inside one. The whole prompt, by one thread, is never cut."""
    config = CONFIGS[name]
    weights = _weights(config)
    ids, blocks = RandomUniform(9).ids(500, config.vocab_size).tolist(), list(range(40, 72))
    sizes = [250, 196, 4, 46, 1, 3]  # 4 rows over a border of tiles: the first two see nothing of the second tile
    whole = _in_chunks(_native(config, weights, threads=1, kv=kv), ids, [250, 250], blocks)
    for threads in (1, 2, 3, 7):
        actual = _in_chunks(_native(config, weights, threads=threads, kv=kv), ids, sizes, blocks)
        assert actual.tobytes() == whole.tobytes()


def test_memory_of_attention_that_threads_share_is_planned() -> None:
    config = CONFIGS["head_dim_64"]
    weights, limits = _weights(config), dataclasses.replace(LIMITS, max_context=8192)
    alone, two, three = (NativeBackend(n).plan(config, weights, KVSpec(), limits).scratch for n in (1, 2, 3))
    records = 128 * 30 * (64 + 32) * 4  # tiles; queries of 10 rows; a query's record
    assert (two - alone, three - alone) == (records, 2 * records)


def test_company_does_not_change_a_bit() -> None:
    """A ragged batch of chunks and decode steps: each row as when its sequence is alone."""
    config = CONFIGS["head_dim_64"]
    values = random_weights(config, 6)
    weights = {n: _quantised(n, v, "Q4_1") if v.ndim == 2 else float_tensor(n, v) for n, v in values.items()}
    uniform = RandomUniform(8)
    prompts = [uniform.ids(n, config.vocab_size).tolist() for n in (65, 1, 130, 17, 40)]
    pools = [list(range(10 * i, 10 * i + 10)) for i in range(5)]
    backend = _native(config, weights, kv="f16")
    alone = [_logits(backend, ids, blocks) for ids, blocks in zip(prompts, pools, strict=True)]
    backend = _native(config, weights, kv="f16")
    cuts = [64, 0, 100, 16, 1]
    first = [(ids[:cut], 0, blocks) for ids, blocks, cut in zip(prompts, pools, cuts, strict=True) if cut]
    backend.forward(batch_of(first))
    rest = [(ids[cut:], cut, blocks) for ids, blocks, cut in zip(prompts, pools, cuts, strict=True)]
    together = backend.logits(backend.forward(batch_of(rest)))
    expected = np.concatenate([logits[cut:] for logits, cut in zip(alone, cuts, strict=True)])
    assert together.tobytes() == expected.tobytes()


def test_stale_numbers_in_reused_blocks_are_not_seen() -> None:
    """Blocks full of NaN, as an earlier sequence may leave them, change nothing."""
    weights = _weights(BASE)
    backend = _native(BASE, weights)
    clean = _logits(backend, PROMPT)
    blocks = np.array(BLOCKS, np.int32)
    poison = np.full(backend.read_blocks(0, blocks).shape, 0xFF, np.uint8)
    backend.write_blocks(0, blocks, poison)
    assert _in_chunks(backend, PROMPT, [5, 90, 55]).tobytes() == clean.tobytes()


def test_taps_see_what_the_oracle_sees() -> None:
    sites: list[TapSite] = [(0, "resid"), (1, "qkv_in"), (1, "o_in"), (0, "ffn_in"), (1, "down_in"), (2, "final")]
    rows = np.array([0, 3, 9], np.int32)
    taps = tuple(TapRows(site, rows) for site in sites)
    weights = _weights(BASE)
    batch = batch_of([(PROMPT[:10], 0, BLOCKS)], taps=taps)
    native, reference = _native(BASE, weights), _reference(BASE, weights)
    ours, theirs = native.forward(batch), reference.forward(batch)
    for i, site in enumerate(sites):
        expected = reference.hidden(theirs, i)
        np.testing.assert_allclose(
            native.hidden(ours, i), expected, atol=1e-4 * np.abs(expected).max(), err_msg=str(site)
        )


def test_an_unknown_tap_site_is_refused() -> None:
    taps = (TapRows((7, "resid"), np.array([0], np.int32)),)
    with pytest.raises(EngineError, match="no tap site"):
        _native(BASE, _weights(BASE)).forward(batch_of([(PROMPT[:2], 0, BLOCKS)], taps=taps))


def _adapter(config: ModelConfig, seed: int, names: list[str], values: dict[str, np.ndarray]) -> Adapter:
    uniform = RandomUniform(seed)
    pairs = {}
    for name in names:
        n, k = values[name].shape
        a, b = uniform.array((8, k), deviation=1 / np.sqrt(k)), uniform.array((n, 8), deviation=0.3)
        pairs[name] = LoraPair(float_tensor(f"{name}.a", a), float_tensor(f"{name}.b", b))
    return Adapter(Path("adapter"), 8, 0.5, pairs)


def test_adapters_change_their_own_rows_only() -> None:
    values = random_weights(BASE, 1)
    weights = float_source(values)
    names = [n for n in values if n.endswith("_proj.weight")]
    adapters = [_adapter(BASE, 1, names, values), _adapter(BASE, 2, [*names[:3], "lm_head.weight"], values)]
    native, reference = _native(BASE, weights), _reference(BASE, weights)
    plain = _logits(native, PROMPT[:20], [30, 31])
    assert [native.load_adapter(adapter) for adapter in adapters] == [0, 1]
    assert [reference.load_adapter(adapter) for adapter in adapters] == [0, 1]
    chunks = [(PROMPT[:20], 0, [2 * i, 2 * i + 1]) for i in range(4)]
    batch = batch_of(chunks, adapters=[0, -1, 1, 0])
    ours = native.logits(native.forward(batch)).reshape(4, 20, -1)
    theirs = reference.logits(reference.forward(batch)).reshape(4, 20, -1)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    assert ours[1].tobytes() == plain.tobytes()
    assert ours[0].tobytes() == ours[3].tobytes()
    assert np.abs(ours[0] - plain).max() > 0.1
    alone = native.logits(native.forward(batch_of(chunks[2:3], adapters=[1])))
    assert alone.tobytes() == ours[2].tobytes()


def test_adapters_find_their_rows_among_those_whose_logits_are_wanted() -> None:
    values = random_weights(BASE, 3)
    names = [name for name in values if name.endswith("_proj.weight")]
    backend = loaded(NativeBackend(2), BASE, float_source(values))
    for seed in (1, 2):
        backend.load_adapter(_adapter(BASE, seed, names, values))
    chunks = [(PROMPT[:20], 0, [0, 1]), (PROMPT[3:43], 0, [2, 3, 4]), (PROMPT[5:15], 0, [5])]
    whole = backend.logits(backend.forward(batch_of(chunks, adapters=[0, -1, 1]))).copy()
    for rows in ([19, 59, 69], [2, 21, 22, 60], [69]):
        step = backend.forward(batch_of(chunks, adapters=[0, -1, 1], logit_rows=rows))
        assert np.array_equal(backend.logits(step), whole[rows])


def test_adapters_give_the_same_bits_however_threads_are_scheduled() -> None:
    """More threads than cores, many times over: threads that shared a job's tile range would soon take each other's."""
    values = random_weights(BASE, 1)
    backend = _native(BASE, float_source(values), threads=4)
    backend.load_adapter(_adapter(BASE, 1, [n for n in values if n.endswith("_proj.weight")], values))
    batch = batch_of([(PROMPT[:20], 0, [0, 1])], adapters=[0])
    first = backend.logits(backend.forward(batch)).tobytes()
    assert all(backend.logits(backend.forward(batch)).tobytes() == first for _ in range(400))


def test_blocks_can_be_copied_saved_and_restored() -> None:
    backend = _native(BASE, _weights(BASE), kv="f16")
    whole = _logits(backend, PROMPT[:40], [0, 1, 2])
    saved = backend.read_blocks(0, np.array([0, 1], np.int32))
    backend.copy_blocks(0, np.array([[0, 50], [1, 51]], np.int32))
    copied = backend.logits(backend.forward(batch_of([(PROMPT[32:40], 32, [50, 51, 2])])))
    other = _native(BASE, _weights(BASE), kv="f16")
    other.write_blocks(0, np.array([8, 9], np.int32), saved)
    restored = other.logits(other.forward(batch_of([(PROMPT[32:40], 32, [8, 9, 10])])))
    assert copied.tobytes() == restored.tobytes() == whole[32:].tobytes()


def test_a_step_is_valid_until_the_next() -> None:
    backend = _native(BASE, _weights(BASE))
    step = backend.forward(batch_of([(PROMPT[:3], 0, BLOCKS)]))
    backend.forward(batch_of([(PROMPT[:3], 0, BLOCKS)]))
    with pytest.raises(EngineError, match="another forward"):
        backend.logits(step)
    backend.close()
    with pytest.raises(EngineError, match="no model"):
        backend.forward(batch_of([(PROMPT[:3], 0, BLOCKS)]))


GARBAGE = {
    "token past the vocabulary": {"token_ids": np.array([101, 0, 0], np.int32)},
    "negative token": {"token_ids": np.array([-1, 0, 0], np.int32)},
    "short positions": {"positions": np.array([0, 1], np.int32)},
    "positions with a hole": {"positions": np.array([0, 2, 3], np.int32)},
    "negative positions": {"positions": np.array([-1, 0, 1], np.int32), "kv_lens": np.array([2], np.int32)},
    "past max_context": {
        "positions": np.array([511, 512, 513], np.int32),
        "kv_lens": np.array([514], np.int32),
        "block_tables": np.zeros((1, 1, 40), np.int32),
    },
    "kv_len that is not the end": {"kv_lens": np.array([9], np.int32)},
    "seq_starts that fall": {"seq_starts": np.array([3, 0], np.int32)},
    "seq_starts past the rows": {"seq_starts": np.array([0, 9], np.int32)},
    "an empty sequence": {
        "seq_starts": np.array([0, 0, 3], np.int32),
        "kv_lens": np.array([0, 3], np.int32),
        "adapters": np.array([-1, -1], np.int32),
        "block_tables": np.zeros((1, 2, 1), np.int32),
    },
    "block past the pool": {"block_tables": np.array([[[128]]], np.int32)},
    "no block": {"block_tables": np.array([[[-1]]], np.int32)},
    "no columns": {"block_tables": np.zeros((1, 1, 0), np.int32)},
    "two sequences that write one block": {
        "seq_starts": np.array([0, 1, 3], np.int32),
        "positions": np.array([17, 16, 17], np.int32),
        "kv_lens": np.array([18, 18], np.int32),
        "adapters": np.array([-1, -1], np.int32),
        "block_tables": np.array([[[1, 3], [2, 3]]], np.int32),
    },
    "a sequence that writes one block twice": {
        "positions": np.array([15, 16, 17], np.int32),
        "kv_lens": np.array([18], np.int32),
        "block_tables": np.array([[[5, 5]]], np.int32),
    },
    "unknown adapter": {"adapters": np.array([0], np.int32)},
    "logit row past the rows": {"logit_rows": np.array([3], np.int32)},
    "tap row past the rows": {"taps": (TapRows((0, "resid"), np.array([7], np.int32)),)},
    "no rows": {"token_ids": np.zeros(0, np.int32), "positions": np.zeros(0, np.int32)},
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_in_a_batch_is_a_value_error(name: str) -> None:
    backend = _native(BASE, _weights(BASE))
    batch = dataclasses.replace(batch_of([(PROMPT[:3], 0, [0])]), **GARBAGE[name])
    with pytest.raises(ValueError, match=r"\w"):
        backend.forward(batch)
    assert _logits(backend, PROMPT[:3], [0]).shape == (3, 101)


def test_garbage_for_blocks_is_a_value_error() -> None:
    backend = _native(BASE, _weights(BASE))
    with pytest.raises(ValueError, match="not in the pool"):
        backend.copy_blocks(0, np.array([[0, 128]], np.int32))
    with pytest.raises(ValueError, match="not in the pool"):
        backend.read_blocks(0, np.array([-1], np.int32))
    with pytest.raises(ValueError, match="shape"):
        backend.write_blocks(0, np.array([1], np.int32), np.zeros((1, 3), np.uint8))


def test_a_matrix_of_another_shape_than_the_config_says_is_refused() -> None:
    weights = _weights(BASE)
    weights["model.layers.0.mlp.down_proj.weight"] = float_tensor(
        "model.layers.0.mlp.down_proj.weight", np.zeros((64, 95), np.float32)
    )
    with pytest.raises(ValueError, match="linear"):
        _native(BASE, weights)


def test_keys_far_into_a_long_context_are_turned_exactly() -> None:
    """Read back from the cache at position 100,003, where float32 angles would be off by 0.004 radians."""
    config = dataclasses.replace(BASE, n_layers=1)
    values = random_weights(config, 1)
    start, blocks = 6250 * 16, [0] * 6250 + [1]
    limits = Limits(max_context=200_000, max_seqs=1, max_batch_tokens=32, max_logit_rows=32)
    backend = NativeBackend(2)
    backend.load(config, float_source(values), KVSpec("f32"), limits, 2)
    tap = TapRows((0, "qkv_in"), np.array([3], np.int32))
    step = backend.forward(batch_of([(PROMPT[:4], start, blocks)], taps=(tap,)))
    key = values["model.layers.0.self_attn.k_proj.weight"].astype(np.float64) @ backend.hidden(step, 0)[0]
    left, right = np.split(key.reshape(config.n_kv_heads, config.head_dim), 2, axis=1)
    turn = (start + 3) * inverse_frequencies(config)[0]
    expected = np.hstack([left * np.cos(turn) - right * np.sin(turn), right * np.cos(turn) + left * np.sin(turn)])
    block = backend.read_blocks(0, np.array([1], np.int32)).view(np.float32).reshape(config.n_kv_heads, 2, -1)
    stored = block[:, 0].reshape(config.n_kv_heads, config.head_dim, 16)[:, :, 3]
    np.testing.assert_allclose(stored, expected, atol=1e-5)


@pytest.mark.parametrize("kv", ["f16", "f32"])
def test_the_default_model_says_what_the_oracle_says(default_model: Path, kv: str) -> None:
    """Mean KL of 12 positions to the float64 oracle; int8 activations cost about 0.003 nats."""
    checkpoint = open_checkpoint(default_model)
    ids = [504, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 4649, 314]
    limits = Limits(max_context=64, max_seqs=1, max_batch_tokens=64, max_logit_rows=64)
    rows = []
    for backend in (ReferenceBackend(), NativeBackend(2)):
        backend.load(checkpoint.config, checkpoint.tensors, KVSpec(kv), limits, 4)
        rows.append(_logits(backend, ids, [0]))
        backend.close()
    expected, actual = (log_softmax(x) for x in rows)
    assert np.mean(np.sum(np.exp(expected) * (expected - actual), axis=1)) < 0.02
