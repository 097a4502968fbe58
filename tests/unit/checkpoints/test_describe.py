"""What `herd inspect` shows: true, JSON, and from headers alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from openherd.checkpoints.describe import describe
from openherd.errors import FormatError, UnsupportedError
from tests.bounds import within_cpu, within_memory
from tests.checkpoint_files import (
    DIM,
    FFN,
    HEAD_DIM,
    KV_HEADS,
    LAYERS,
    VOCAB,
    Entry,
    GGUFFile,
    f32,
    text,
    tiny_llama,
    u32,
)


def write(tmp_path: Path, file: GGUFFile) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(file.build())
    return path


def test_a_model_we_run(tmp_path: Path) -> None:
    file = tiny_llama(linear_type="Q8_0")
    file.keys |= {
        "tokenizer.chat_template": text("{{ x }}" * 100),
        "general.name": text("tiny"),
        "a.nan": f32(float("nan")),
    }
    path = write(tmp_path, file)
    facts = describe(path)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts

    linear = LAYERS * (DIM * DIM * 2 + 2 * DIM * KV_HEADS * HEAD_DIM + 3 * DIM * FFN)
    plain = VOCAB * DIM + DIM + LAYERS * 2 * DIM
    assert facts["parameters"] == linear + plain
    assert facts["types"]["Q8_0"] == {
        "tensors": 14,
        "parameters": linear,
        "bytes": linear // 32 * 34,
        "bits_per_weight": 8.5,
    }
    assert facts["types"]["F32"]["bytes"] == 4 * plain
    weights = linear // 32 * 34 + 4 * plain
    assert facts["bits_per_weight"] == pytest.approx(8 * weights / (linear + plain), abs=1e-3)
    kv = 2 * LAYERS * KV_HEADS * HEAD_DIM * 2  # keys and values, two bytes each
    assert facts["memory"] == {"weights": weights, "kv_per_token_f16": kv, "full_context_f16": weights + 128 * kv}
    assert facts["config"]["n_kv_heads"] == KV_HEADS
    assert facts["tokenizer"] == {"model": "gpt2", "pre": "smollm", "vocab_size": VOCAB, "source": "header"}
    assert facts["chat_template"] == {
        "sha256": hashlib.sha256(b"{{ x }}" * 100).hexdigest(),
        "characters": 700,
        "source": "tokenizer.chat_template",
        "start": ("{{ x }}" * 100)[:200],
    }
    assert (facts["name"], facts["license"], facts["format"]) == ("tiny", "apache-2.0", "GGUF v3")
    assert facts["file_bytes"] == path.stat().st_size
    assert facts["metadata"]["a.nan"] == "nan"
    assert "tokenizer.chat_template" not in facts["metadata"]
    assert facts["unsupported"] is None
    q = next(t for t in facts["tensors"] if t["name"] == "blk.1.ffn_down.weight")
    assert q == {
        "name": "blk.1.ffn_down.weight",
        "canonical": "model.layers.1.mlp.down_proj.weight",
        "shape": [DIM, FFN],
        "type": "Q8_0",
        "bytes": DIM * FFN // 32 * 34,
    }


def test_a_model_we_do_not_run_says_why(tmp_path: Path) -> None:
    file = tiny_llama()
    file.keys["general.architecture"] = text("mamba")
    facts = describe(write(tmp_path, file))
    assert "architecture 'mamba'; openherd runs 'llama'" in facts["unsupported"]
    assert facts["config"] is None
    assert facts["memory"] is None
    assert facts["parameters"] > 0


def test_a_file_with_nothing_in_it(tmp_path: Path) -> None:
    facts = describe(write(tmp_path, GGUFFile()))
    assert facts["parameters"] == 0
    assert facts["bits_per_weight"] is None
    assert facts["tokenizer"] == {"model": None, "pre": None, "vocab_size": None, "source": "header"}
    assert facts["chat_template"] is None


def test_a_terabyte_at_once(tmp_path: Path) -> None:
    """A sparse file of 1 TiB: only its header is read."""
    path = tmp_path / "model.gguf"
    head = GGUFFile(
        {"general.architecture": text("llama")}, [Entry("token_embd.weight", (1 << 12, 1 << 26), 0, b"")]
    ).head()
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + (1 << 40))
    within_cpu(1, lambda: describe(path))
    facts = within_memory(1 << 20, lambda: describe(path))
    assert facts["memory"] is None
    assert facts["types"]["F32"]["bytes"] == 1 << 40


def test_broken_headers_raise(tmp_path: Path) -> None:
    path = write(tmp_path, tiny_llama())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FormatError, match=r"cannot fit|ends inside|goes past the end"):
        describe(path)


def test_types_we_do_not_read_raise(tmp_path: Path) -> None:
    file = GGUFFile({"general.architecture": text("llama"), "a": u32(1)}, [Entry("x", (256,), 17, bytes(128))])
    with pytest.raises(UnsupportedError, match="IQ2_XS"):
        describe(write(tmp_path, file))
