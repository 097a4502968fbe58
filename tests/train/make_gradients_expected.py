"""Record transformers' logits, loss and every gradient in float32, for a small random model of each family.

Run with torch and transformers: `PYTHONPATH=. python tests/train/make_gradients_expected.py`. Writes
expected/transformers_gradients.npz (arrays) and .json (config.json and shapes). Gradients are saved as
`save_pretrained` saves weights, so a reader of that layout makes them canonical.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.parity.make_family_parity import CASES
from tests.train.model.gradient_cases import CASES_FILE, EXPECTED_FILE, VOCAB, tokens, weights

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "d_model": 32,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "n_heads": 4,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 9,
    "num_local_experts": 3,
    "max_position_embeddings": 64,
    "max_seq_len": 64,
}
LAYERS = {"smollm3": 4, "gemma3": 6}  # one of which is not rotated, or sees everything
CHOSEN = (
    "llama31",
    "mistral",
    "mixtral",
    "smollm3",
    "qwen2",
    "qwen25_yarn",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "falcon_40b",
    "falcon_rw",
    "mpt_7b",
)


def model_of(name: str, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The random model, and what the json keeps of it."""
    family, settings = CASES[name]
    small = {**settings, **{key: value for key, value in SMALL.items() if key in settings}}
    small["num_hidden_layers" if "n_layers" not in settings else "n_layers"] = LAYERS.get(name, 2)
    attention = "sdpa" if settings.get("alibi") else "eager"  # as in make_family_parity
    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    model_class = getattr(transformers, f"{family}ForCausalLM")
    model_class(config_class(**small)).save_pretrained(folder)
    path = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version")
    shapes = {tensor: list(values.shape) for tensor, values in sorted(load_file(path).items())}
    case = {"config": config, "shapes": shapes}
    save_file(weights(case), path, metadata={"format": "pt"})
    model = model_class.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32)
    return model.eval(), case


def record(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        model, case = model_of(name, Path(folder))
        ids = torch.from_numpy(tokens())
        logits = model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        for parameter in model.parameters():
            parameter.data = parameter.grad
        model.save_pretrained(Path(folder) / "gradients")
        gradients = load_file(Path(folder) / "gradients" / "model.safetensors")
    assert gradients.keys() == case["shapes"].keys(), name
    arrays = {f"{name}/gradient/{tensor}": values for tensor, values in gradients.items()}
    return case, {f"{name}/logits": logits.detach().numpy(), f"{name}/loss": loss.detach().numpy(), **arrays}


if __name__ == "__main__":
    kept: dict[str, dict[str, Any]] = {}
    expected: dict[str, np.ndarray] = {}
    for case_name in CHOSEN:
        kept[case_name], arrays = record(case_name)
        expected.update(arrays)
        print(case_name, float(arrays[f"{case_name}/loss"]))
    lines = [f"{json.dumps(name)}: {json.dumps(case, sort_keys=True)}" for name, case in kept.items()]
    CASES_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(EXPECTED_FILE, **expected)
