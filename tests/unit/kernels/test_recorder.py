"""The recorded program: what is fused, which buffers are shared, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openherd.config import ModelConfig
from openherd.engine.model import forward
from openherd.kernels.ops import Ops, TapName, Value
from openherd.kernels.program import Form, Program, scratch_bytes
from openherd.kernels.recorder import record

CONFIG = ModelConfig("llama", 64, 1, 4, 2, 16, 96, 100, 512, tied_embeddings=True)
WIDTHS = {"q_proj": 64, "k_proj": 32, "v_proj": 32, "gate_proj": 96, "up_proj": 96, "embed_tokens": 100}

EXPECTED = """\
b0 f32[T,64]
b1 q8[T,64]
b2 f32[T,64]
b3 f32[T,32]
b4 f32[T,32]
b5 f32[T,96]
b6 f32[T,96]
b7 q8[T,96]
b8 q8[R,64]
b9 f32[R,100]
b0 = embed(model.embed_tokens)
b1 = rms_norm(b0, model.layers.0.input_layernorm)
b2, b3, b4 = linear(b1, L.self_attn.q_proj, L.self_attn.k_proj, L.self_attn.v_proj)
store_kv[0](rope b3, b4)
b1 = attention[0](rope b2)
b0 = linear(b1, L.self_attn.o_proj) + b0
b1 = rms_norm(b0, model.layers.0.post_attention_layernorm)
b5, b6 = linear(b1, L.mlp.gate_proj, L.mlp.up_proj)
b7 = silu_mul(b5, b6)
b0 = linear(b7, L.mlp.down_proj) + b0
b2 = rms_norm(b0, model.norm)
b8 = pick_rows(b2)
b9 = linear(b8, model.embed_tokens)
logits b9""".replace("L.", "model.layers.0.")


def _width_of(name: str) -> int:
    return WIDTHS.get(name.rpartition(".")[2], CONFIG.dim)


def _quantised(name: str) -> Form:
    return "q8"


def _record(
    body: Callable[[Ops, ModelConfig], object] = forward,
    *,
    form_of: Callable[[str], Form] = _quantised,
    taps: tuple[tuple[int, TapName], ...] = (),
    adapted: bool = False,
) -> Program:
    return record(body, CONFIG, width_of=_width_of, form_of=form_of, taps=taps, adapted=adapted)


def test_one_layer_reads_as_expected() -> None:
    assert str(_record()) == EXPECTED


def test_float_weights_leave_no_quantised_buffer() -> None:
    program = _record(form_of=lambda name: "f32")
    assert all(buffer.forms == {"f32"} for buffer in program.buffers)


def test_maps_of_one_input_split_by_the_form_they_read() -> None:
    program = _record(form_of=lambda name: "f32" if name.endswith("v_proj") else "q8")
    qkv = [op for op in program.operations if op.kind == "linear"][:2]
    assert [tuple(name[-6:] for name in op.names) for op in qkv] == [("v_proj",), ("q_proj", "k_proj")]
    assert program.buffers[qkv[0].reads[0]].forms == {"f32", "q8"}
    assert qkv[0].reads == qkv[1].reads


def test_adapters_keep_every_maps_input_in_f32() -> None:
    program = _record(adapted=True)
    inputs = [program.buffers[op.reads[0]] for op in program.operations if op.kind == "linear"]
    assert all(buffer.forms == {"f32", "q8"} for buffer in inputs)


def test_a_tapped_activation_is_kept_where_it_is_seen() -> None:
    program = _record(taps=((0, "resid"), (99, "final")))
    kept = [op for op in program.operations if op.kind == "keep"]
    assert [str(op) for op in kept] == ["keep[0](b0)", "keep[1](b2)"]


def test_a_site_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no tap site"):
        _record(taps=((1, "resid"),))


def test_a_buffer_is_not_reused_while_it_is_needed() -> None:
    """Follow each operation: what it reads must be what was written under that value, here across all layers."""

    def twice(ops: Ops, config: ModelConfig) -> Value:
        x = ops.embed("model.embed_tokens")
        h = ops.rms_norm(x, "n")
        (y,) = ops.linear(h, "a.o_proj")
        z = ops.add(x, y)
        late = ops.add(z, x)  # x lives past z's sum: z must not take its room
        return ops.logit_rows(late)

    program = record(twice, CONFIG, width_of=_width_of, form_of=_quantised)
    linear = next(op for op in program.operations if op.kind == "linear")
    late = next(op for op in program.operations if op.kind == "add")
    assert linear.residuals == (0,)
    assert linear.writes[0] != 0
    assert late.reads == (linear.writes[0], 0)


def test_a_map_whose_result_is_also_tapped_keeps_it_apart_from_the_residual() -> None:
    def tapped(ops: Ops, config: ModelConfig) -> Value:
        x = ops.embed("model.embed_tokens")
        (y,) = ops.linear(ops.rms_norm(x, "n"), "a.o_proj")
        return ops.logit_rows(ops.add(x, ops.tap(y, 0, "resid")))

    program = _record(tapped, taps=((0, "resid"),))
    assert [op.kind for op in program.operations] == ["embed", "rms_norm", "linear", "keep", "add", "pick_rows"]


def test_rotated_activations_go_to_attention_only() -> None:
    def wrong(ops: Ops, config: ModelConfig) -> Value:
        return ops.rms_norm(ops.rope(ops.embed("e")), "n")

    with pytest.raises(ValueError, match="rotated"):
        _record(wrong)


def test_a_quantised_map_cannot_read_another_maps_raw_result() -> None:
    def wrong(ops: Ops, config: ModelConfig) -> Value:
        (y,) = ops.linear(ops.rms_norm(ops.embed("e"), "n"), "a.o_proj")
        (z,) = ops.linear(y, "b.o_proj")
        return z

    with pytest.raises(ValueError, match="quantised form"):
        _record(wrong)


def test_scratch_is_counted_by_form_and_rows() -> None:
    per_token = 4 * (64 + 64 + 32 + 32 + 96 + 96) + 96 * (2 + 3)
    per_logit_row = 4 * 100 + 96 * 2
    assert scratch_bytes(_record(), 10, 3) == 10 * per_token + 3 * per_logit_row
