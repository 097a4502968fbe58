"""The tiny LLM as files: a GGUF model with a byte-level vocabulary and a chat template, and a LoRA adapter for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.checkpoint_files import DIM, HEAD_DIM, HEADS, array, entry, safetensors_of, text, texts, tiny_llama, u32
from tests.unit.llm.tiny_llm import SPEC, TEMPLATE

CONTEXT = 512


def write_model(path: Path, *, template: str | None = TEMPLATE) -> Path:
    file = tiny_llama().without("token_embd.weight")
    rows = np.random.default_rng(1).standard_normal((len(SPEC.tokens), DIM), np.float32)
    file.tensors.insert(0, entry("token_embd.weight", rows))
    file.keys |= {
        "llama.context_length": u32(CONTEXT),
        "tokenizer.ggml.pre": text(SPEC.pre),
        "tokenizer.ggml.tokens": texts(SPEC.tokens),
        "tokenizer.ggml.token_type": array(5, np.array(SPEC.token_types, "<i4")),
        "tokenizer.ggml.merges": texts(SPEC.merges),
        "tokenizer.ggml.bos_token_id": u32(SPEC.bos_id or 0),
        "tokenizer.ggml.eos_token_id": u32(SPEC.eos_id or 0),
    }
    if template is not None:
        file.keys["tokenizer.chat_template"] = text(template)
    path.write_bytes(file.build())
    return path


def write_adapter(folder: Path, *, seed: int) -> Path:
    """A PEFT folder that changes layer 1's queries a good deal."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    prefix = "base_model.model.model.layers.1.self_attn.q_proj.lora"
    pair = {
        f"{prefix}_A.weight": rng.standard_normal((2, DIM), np.float32),
        f"{prefix}_B.weight": rng.standard_normal((HEADS * HEAD_DIM, 2), np.float32),
    }
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_of(pair))
    return folder
