"""Importance matrices: what they sum, their file, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.config import ModelConfig
from openherd.errors import FormatError, InputError
from openherd.quant.dequantize import dequantize
from openherd.tokenizers import Tokenizer
from openherd.workshop.calibrate import calibrate, chunks_of
from openherd.workshop.expert_inputs import ExpertInputs
from openherd.workshop.importance import Importance, read_importance, write_importance
from openherd.workshop.quantize.run import QuantizeOptions, Text, run_quantize
from tests.checkpoint_files import DIM, FFN, LAYERS, GGUFFile, entry, text
from tests.parity.random_llama import float_tensor
from tests.unit.workshop.golden_models import EXPERTS, model
from tests.unit.workshop.importance_file import importance_file
from tests.unit.workshop.quiet import Quiet

WORDS = "hello world, this is a text to be read through the model; hello again\n"


@pytest.fixture(scope="module")
def gathered(tiny_model: Path) -> Importance:
    shapes = {f"blk.{i}.{part}.weight": (1, DIM) for i in range(LAYERS) for part in ("attn_q", "attn_v", "attn_output")}
    shapes |= {f"blk.{i}.ffn_up.weight": (1, DIM) for i in range(LAYERS)}
    shapes |= {f"blk.{i}.ffn_down.weight": (1, FFN) for i in range(LAYERS)}
    return calibrate(tiny_model, WORDS, "words.txt", shapes | {"token_embd.weight": (1, DIM)}, threads=1)


def test_every_map_is_covered(gathered: Importance) -> None:
    assert len(gathered.sums) == 5 * LAYERS + 1
    assert {len(sums) for sums in gathered.sums.values()} == {1}
    assert (gathered.texts, gathered.num_chunks) == (("words.txt",), 1)


def test_first_layer_by_hand(gathered: Importance, tiny_model: Path) -> None:
    """The input of layer 0's queries is the normalised embedding of each token."""
    checkpoint = open_checkpoint(tiny_model)

    def values(name: str) -> np.ndarray:
        tensor = checkpoint.tensors[name]
        return dequantize(tensor.rows(), tensor.type).reshape(tensor.shape).astype(np.float64)

    x = values("model.embed_tokens.weight")[Tokenizer(checkpoint.tokenizer).encode(WORDS)]
    x /= np.sqrt((x**2).mean(axis=1, keepdims=True) + checkpoint.config.norm_eps)
    expected = ((x * values("model.layers.0.input_layernorm.weight")) ** 2).sum(axis=0)
    np.testing.assert_allclose(gathered.sums["blk.0.attn_q.weight"][0], expected, rtol=1e-5)
    np.testing.assert_array_equal(gathered.sums["blk.0.attn_v.weight"], gathered.sums["blk.0.attn_q.weight"])
    assert gathered.counts["blk.0.attn_q.weight"] == len(x)


def test_the_sums_do_not_depend_on_threads(gathered: Importance, tiny_model: Path) -> None:
    again = calibrate(tiny_model, WORDS, "words.txt", {"blk.1.ffn_down.weight": (1, FFN)}, threads=3)
    np.testing.assert_array_equal(again.sums["blk.1.ffn_down.weight"], gathered.sums["blk.1.ffn_down.weight"])


def test_a_mixture_of_experts(tmp_path: Path) -> None:
    """The maps of an expert count by its own tokens: of one layer, computed once more by the slow reference."""
    source, out, matrix = (tmp_path / f"{name}.gguf" for name in ("mixture", "out", "matrix"))
    source.write_bytes(model(experts=True).build())
    options = QuantizeOptions("Q4_0", calibrate=Text("words.txt", WORDS), importance=matrix, golden=False, threads=2)
    run_quantize(str(source), out, options, offline=True, progress=Quiet())
    found = read_importance(matrix)
    layer = {name.split(".")[2]: sums for name, sums in found.sums.items() if name.startswith("blk.1.")}
    experts = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}
    assert layer.keys() == {"attn_q", "attn_k", "attn_v", "attn_output", *experts}
    assert layer["attn_q"].shape == (1, DIM)
    assert layer["ffn_up_exps"].shape == layer["ffn_gate_exps"].shape == (EXPERTS, DIM)
    np.testing.assert_array_equal(layer["ffn_up_exps"], layer["ffn_gate_exps"])
    assert layer["ffn_down_exps"].shape == (EXPERTS, FFN)
    (tokens,) = found.counts["blk.1.attn_q.weight"]
    counts = [found.counts[f"blk.1.{stem}.weight"].tolist() for stem in sorted(experts)]
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0]) == 2 * tokens
    assert len(set(counts[0])) > 1, "experts get different tokens"
    assert open_checkpoint(out).config.n_experts == EXPERTS


def test_each_expert_reads_its_own_rows() -> None:
    """Against float64, one row at a time."""
    rng = np.random.default_rng(5)
    config = ModelConfig("llama", 8, 1, 1, 1, 8, 6, 9, 9, n_experts=3, n_experts_per_token=2)
    shapes = {"gate": (3, 8)} | {f"experts.{e}.{w}": (6, 8) for e in range(3) for w in ("w1", "w3")}
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tensors = {f"model.layers.0.block_sparse_moe.{name}.weight": float_tensor(name, v) for name, v in values.items()}
    rows = rng.standard_normal((20, 8), np.float32)
    inputs = ExpertInputs(config, tensors)
    inputs.add(0, rows[:7])
    inputs.add(0, rows[7:])
    down, own, counts = np.zeros((3, 6)), np.zeros((3, 8)), np.zeros(3)
    for row in rows.astype(np.float64):
        for e in np.argsort(-(values["gate"] @ row))[:2]:
            gate = values[f"experts.{e}.w1"] @ row
            down[e] += (gate / (1 + np.exp(-gate)) * (values[f"experts.{e}.w3"] @ row)) ** 2
            own[e] += row**2
            counts[e] += 1
    np.testing.assert_array_equal(inputs.counts[0], counts)
    np.testing.assert_allclose(inputs.sums[0, "in"], own, rtol=1e-5)
    np.testing.assert_allclose(inputs.sums[0, "down"], down, rtol=1e-4)


def test_file(gathered: Importance, tmp_path: Path) -> None:
    path = tmp_path / "importance.gguf"
    write_importance(path, gathered)
    back = read_importance(path)
    assert (back.texts, back.num_chunks, back.chunk_len) == (("words.txt",), 1, gathered.chunk_len)
    assert back.digest() == gathered.digest()
    for name, sums in gathered.sums.items():
        np.testing.assert_array_equal(back.sums[name], sums.astype(np.float32))


def test_weights_of_columns() -> None:
    sums = {"w": np.array([[1.0, 3.0, 0.0, 4.0], [0.0, 0.0, 0.0, 0.0]])}
    importance = Importance(sums, {"w": np.array([2.0, 0.0])}, (), 1, 4)
    columns = importance.of("w", (2, 3, 4))
    assert columns is not None
    np.testing.assert_allclose(columns[0], [0.5, 1.5, 1e-4, 2.0])  # mean 1, and none counts nothing
    np.testing.assert_array_equal(columns[1], 1)  # an expert that the text never reached
    assert importance.of("other", (2, 3, 4)) is None
    with pytest.raises(FormatError, match="is for 4 columns, and the weight has 5"):
        importance.of("w", (2, 3, 5))
    for shape, experts in (((4, 3, 4), 4), ((6, 4), 1), ((5, 4), 1)):
        with pytest.raises(FormatError, match=f"is for 2 experts, and the weight has {experts}"):
            importance.of("w", shape)
    one = Importance({"w": sums["w"][:1]}, {"w": np.array([2.0])}, (), 1, 4)
    np.testing.assert_array_equal(one.of("w", (3, 2, 4)), columns[:1])  # the same for all experts


def test_chunks() -> None:
    assert chunks_of(list(range(10)), 4, 9) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert chunks_of(list(range(10)), 4, 1) == [[0, 1, 2, 3]]
    assert chunks_of([1, 2, 3], 4, 9) == [[1, 2, 3]]
    with pytest.raises(InputError, match="at least two"):
        chunks_of([1], 4, 9)


def broken(what: str) -> GGUFFile:
    file = importance_file()
    match what:
        case "type":
            file.keys["general.type"] = text("model")
        case "no type":
            del file.keys["general.type"]
        case "empty":
            file.tensors = []
        case "no counts":
            file.tensors.pop()
        case "counts":
            file.tensors[1] = entry("w.counts", np.ones((3, 1), np.float32))
        case "nan":
            file.tensors[0] = entry("w.in_sum2", np.full((2, 8), np.nan, np.float32))
        case "signalling nan":
            file.tensors[0] = entry("w.in_sum2", np.full((2, 8), 0x7FA00000, np.uint32).view(np.float32))
        case "negative":
            file.tensors[0] = entry("w.in_sum2", np.full((2, 8), -1, np.float32))
        case "half":
            file.tensors[0] = entry("w.in_sum2", np.ones((2, 8), np.float32), "F16")
        case "chunks":
            file.keys["imatrix.chunk_count"] = text("three")
    return file


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("type", "no importance matrix"),
        ("no type", "no importance matrix"),
        ("empty", "without entries"),
        ("no counts", "no w.counts"),
        ("counts", "3 counts for 2"),
        ("nan", "finite"),
        ("signalling nan", "finite"),
        ("negative", "at least 0"),
        ("half", "must be F32"),
        ("chunks", "whole number"),
    ],
)
def test_files_that_are_none(what: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(broken(what).build())
    with pytest.raises(FormatError, match=words):
        read_importance(path)
