"""The recorded program: what is fused, which buffers are shared, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
b1 f32[R,64]
b2 q8[T,64]
b3 f32[T,32]
b4 f32[T,32]
b5 f32[T,64]
b6 q8[R,64]
b7 f32[R,96]
b8 f32[R,96]
b9 q8[R,96]
b10 f32[R,100]
b0 = embed(model.embed_tokens)
b1 = pick_rows(b0)
b2 = rms_norm(b0, model.layers.0.input_layernorm)
b0, b3, b4 = linear(b2, L.self_attn.q_proj, L.self_attn.k_proj, L.self_attn.v_proj)
store_kv[0](rope b3, b4)
b5 = attention[0](rope b0)
b6 = pick_rows(b5)
b1 = linear(b6, L.self_attn.o_proj) + b1
b6 = rms_norm(b1, model.layers.0.post_attention_layernorm)
b7, b8 = linear(b6, L.mlp.gate_proj, L.mlp.up_proj)
b9 = silu_mul(b7, b8)
b1 = linear(b9, L.mlp.down_proj) + b1
b6 = rms_norm(b1, model.norm)
b10 = linear(b6, model.embed_tokens)
logits b10""".replace("L.", "model.layers.0.")


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
        return ops.logit_rows(ops.tap(late, 0, "resid"))

    program = _record(twice, taps=((0, "resid"),))
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
    kinds = ["embed", "pick_rows", "rms_norm", "linear", "pick_rows", "keep", "add"]
    assert [op.kind for op in program.operations] == kinds
    assert program.operations[3].residuals == (None,)


def test_rows_that_nobody_reads_are_not_computed_behind_the_last_attention() -> None:
    program = record(forward, replace(CONFIG, n_layers=2), width_of=_width_of, form_of=_quantised)
    rows = [program.buffers[op.writes[0]].rows for op in program.operations if op.kind == "linear"]
    assert rows == ["T"] * 5 + ["R"] * 4
    last = max(i for i, op in enumerate(program.operations) if op.kind == "attention")
    assert program.operations[last + 1].kind == "pick_rows"
    assert sum(op.kind == "pick_rows" for op in program.operations) == 2


@pytest.mark.parametrize(("site", "whole"), [("o_in", 0), ("ffn_in", 1), ("down_in", 2), ("resid", 3), ("final", 3)])
def test_a_tap_sees_all_rows_also_of_the_last_layer(site: TapName, whole: int) -> None:
    """`whole` linear maps behind the last attention have all rows."""
    program = _record(taps=((0, site),))
    kept = next(op for op in program.operations if op.kind == "keep")
    assert program.buffers[kept.reads[0]].rows == "T"
    rows = [program.buffers[op.writes[0]].rows for op in program.operations if op.kind == "linear"]
    assert rows == ["T"] * (1 + whole) + ["R"] * (4 - whole)


def _listing(config: ModelConfig) -> str:
    """Of two layers, since the last one is cut short; the first one's names begin with L."""
    program = record(forward, replace(config, n_layers=2), width_of=_width_of, form_of=_quantised)
    return str(program).replace("model.layers.0.", "L.")


def test_halves_side_by_side_add_to_one_residual() -> None:
    """Falcon's block: one norm feeds both, and both sums take the residual's room."""
    config = replace(CONFIG, norm="layer", parallel_norms=1, gated=False, activation="gelu")
    assert """\
b1 = layer_norm(b0, L.input_layernorm)
b2, b3, b4 = linear(b1, L.self_attn.q_proj, L.self_attn.k_proj, L.self_attn.v_proj)
store_kv[0](rope b3, b4)
b5 = attention[0](rope b2)
b0 = linear(b5, L.self_attn.o_proj) + b0
b6 = linear(b1, L.mlp.up_proj)
b7 = gelu(b6)
b0 = linear(b7, L.mlp.down_proj) + b0
""" in _listing(config)


def test_layers_choose_angles_and_windows() -> None:
    """Of three layers the second sees everything, and the third is not rotated."""
    config = replace(
        CONFIG,
        n_layers=3,
        sliding_window=9,
        full_attention_every=2,
        local_rope_theta=1e4,
        no_rope_every=3,
        qk_norm=True,
    )
    program = record(forward, config, width_of=_width_of, form_of=_quantised)
    assert [(op.rope, op.window) for op in program.operations if op.kind == "attention"] == [(1, 9), (0, 0), (-1, 9)]
    assert [op.rope for op in program.operations if op.kind == "store_kv"] == [1, 0, -1]
    assert "local rope b" in str(program)
    assert sum(op.kind == "head_norm" for op in program.operations) == 6


def test_what_becomes_of_single_values_takes_no_room() -> None:
    listing = _listing(replace(CONFIG, logit_scale=0.5, logit_softcap=30.0, embedding_scale=8.0, clip_qkv=6.0))
    assert "b0 = embed(model.embed_tokens)\nb0 = scale(b0, 8)\n" in listing
    assert "b13 = scale(b13, 0.5)\nb13 = softcap(b13, 30)\nlogits b13" in listing
    assert "b3 = clip(b3, 6)\n" in listing


def test_norms_on_both_sides_leave_the_sum_to_itself() -> None:
    listing = _listing(replace(CONFIG, post_norms=True, activation="gelu_tanh"))
    assert "rms_norm(b2, L.post_attention_layernorm)" in listing
    assert "gelu_tanh_mul" in listing
    assert listing.count("= add(") == 4


def test_experts_read_rows_and_router_in_float() -> None:
    config = replace(CONFIG, n_experts=2, n_experts_per_token=1)
    program = record(
        forward, config, width_of=lambda name: 2 if name.endswith("moe.gate") else _width_of(name), form_of=_quantised
    )
    experts = next(op for op in program.operations if op.kind == "experts")
    assert all(program.buffers[i].forms >= {"f32"} for i in experts.reads)
    assert [name.rpartition(".moe.")[2][-2:] for name in experts.names] == ["w1", "w3", "w2"] * 2
    assert experts.value == 1
    with pytest.raises(ValueError, match="gated by silu"):
        _listing(replace(config, activation="gelu"))


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
    per_token = 4 * (64 + 32 + 32 + 64) + 96 * 2
    per_logit_row = 4 * (64 + 96 + 96 + 100) + 96 * (2 + 3)
    assert scratch_bytes(_record(), 10, 3) == 10 * per_token + 3 * per_logit_row
