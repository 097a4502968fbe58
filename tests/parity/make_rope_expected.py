"""Record transformers' inverse frequencies for every rope scaling: rope_expected.json.

Run in an environment with torch and transformers: `PYTHONPATH=. python tests/parity/make_rope_expected.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# rope parameters as transformers spells them
CASES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 1.0, "rope_theta": 10000.0},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "rope_theta": 500000.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
    },
    {
        "rope_type": "llama3",
        "factor": 32.0,
        "rope_theta": 500000.0,
        "low_freq_factor": 2.0,
        "high_freq_factor": 6.0,
        "original_max_position_embeddings": 512,
    },
    {
        "rope_type": "yarn",
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 2048,
    },
    {
        "rope_type": "yarn",
        "factor": 16.0,
        "rope_theta": 1000000.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
    },
    {
        "rope_type": "yarn",
        "factor": 1.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 2048,
    },
]
MAX_SEQ_LEN = 2048
HEAD_DIM = 64


def record(case: dict[str, Any]) -> dict[str, Any]:
    config = LlamaConfig(
        hidden_size=4 * HEAD_DIM,
        num_attention_heads=4,
        head_dim=HEAD_DIM,
        max_position_embeddings=MAX_SEQ_LEN,
        rope_parameters=dict(case),
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS[case["rope_type"]](config, "cpu")
    return {**case, "attention_scale": scale, "inverse_frequencies": [float(f"{x:.8g}") for x in frequencies.tolist()]}


if __name__ == "__main__":
    expected = {"head_dim": HEAD_DIM, "max_seq_len": MAX_SEQ_LEN, "cases": [record(case) for case in CASES]}
    Path(__file__).with_name("rope_expected.json").write_text(json.dumps(expected, indent=1) + "\n")
