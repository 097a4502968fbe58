"""Record transformers' logits for a small random model of each family: family_parity.npz and family_parity.json.

Run with torch and transformers: `PYTHONPATH=. python tests/parity/make_family_parity.py [CASE ...]`.
A checkpoint is what `save_pretrained` writes, with every tensor replaced by numbers that tests make again from its
name; the json has config.json and the tensors' shapes, the npz the logits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.parity.family_cases import EXPECTED_FILE, FAMILY_FILE, RECORDED, family_weights, prompts

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20}
_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 2048}
_FALCON = {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, **_IDS}
_MPT = {"vocab_size": 97, "d_model": 48, "n_heads": 6, "n_layers": 2, "max_seq_len": 256, "use_cache": False, **_IDS}
_LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(4)],
    "long_factor": [1.5 + 0.4 * i for i in range(4)],
    "original_max_position_embeddings": 64,
}

# Name: (class in transformers, its configuration).
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama31": (
        "Llama",
        {**SIZES, "head_dim": 16, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **_LLAMA3}},
    ),
    "mistral": ("Mistral", {**SIZES, "sliding_window": 70}),
    "mixtral": ("Mixtral", {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2, "rms_norm_eps": 1e-5}),
    "smollm3": ("SmolLM3", {**SIZES, "num_hidden_layers": 5}),
    "qwen2": ("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen25_yarn": (
        "Qwen2",
        {
            **SIZES,
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 16}),
    "gemma2": ("Gemma2", {**_GEMMA, "num_hidden_layers": 3}),
    "gemma3": (
        "Gemma3",
        {
            **_GEMMA,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": ("Phi3", {**SIZES, "sliding_window": 30}),
    "phi3_long": (
        "Phi3",
        {**SIZES, "original_max_position_embeddings": 64, "rope_parameters": {"rope_theta": 1e4, **_LONG}},
    ),
    "phi3_partial": (
        "Phi3",
        {
            **SIZES,
            "head_dim": 8,
            "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.75},
        },
    ),
    "falcon_7b": ("Falcon", {**_FALCON}),
    "falcon_40b": ("Falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_11b": (
        "Falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon_rw": (
        "Falcon",
        {**_FALCON, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
    ),
    "mpt_7b": ("Mpt", {**_MPT}),
    "mpt_30b": ("Mpt", {**_MPT, "n_heads": 8, "attn_config": {"clip_qkv": 0.9}}),
}


def record(name: str) -> tuple[dict[str, Any], np.ndarray]:
    """(what the json keeps of a case, logits [2, positions, V])."""
    family, settings = CASES[name]
    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    # Falcon's eager attention adds ALiBi to the mask and then again; the other does so once, as the paper does.
    attention = "sdpa" if settings.get("alibi") else "eager"
    config = config_class(**settings, attn_implementation=attention)
    model_class = getattr(transformers, f"{family}ForCausalLM")
    with tempfile.TemporaryDirectory() as folder:
        model_class(config).save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = {tensor: list(values.shape) for tensor, values in sorted(load_file(path).items())}
        save_file(family_weights(shapes), path, metadata={"format": "pt"})
        model = model_class.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
        saved = json.loads((Path(folder) / "config.json").read_text())
    saved.pop("transformers_version")
    with torch.inference_mode():
        ids = [torch.from_numpy(prompt.astype(np.int64))[None] for prompt in prompts(97)]
        rows = [model(prompt, use_cache=False).logits[0][list(RECORDED)].numpy() for prompt in ids]
    return {"config": saved, "shapes": shapes}, np.stack(rows)


if __name__ == "__main__":
    families = json.loads(FAMILY_FILE.read_text()) if FAMILY_FILE.exists() else {}
    expected = dict(np.load(EXPECTED_FILE)) if EXPECTED_FILE.exists() else {}
    for case in sys.argv[1:] or CASES:
        families[case], expected[case] = record(case)
        print(case, float(np.std(expected[case])))
    lines = [f"{json.dumps(name)}: {json.dumps(families[name], sort_keys=True)}" for name in CASES if name in families]
    FAMILY_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(EXPECTED_FILE, **{name: expected[name] for name in CASES if name in expected})
