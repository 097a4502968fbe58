"""Record peft's logits under a LoRA adapter, and the adapter as peft saves it: lora_peft/.

Run in an environment with torch, transformers and peft: `PYTHONPATH=. python tests/parity/make_lora_expected.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from tests.parity.llama_cases import CASES, RECORDED, SEED, prompts
from tests.parity.lora_cases import ALPHA, RANK, SEEDS, random_pairs
from tests.parity.make_llama_parity import transformers_model
from tests.parity.random_llama import random_weights

HERE = Path(__file__).with_name("lora_peft")
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    config = CASES["biases"]
    base = transformers_model(config, random_weights(config, SEED))
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS)).eval()
    parameters = dict(model.named_parameters())
    for name, (a, b) in random_pairs(config, SEEDS[0]).items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        parameters[f"{prefix}.lora_A.default.weight"].data.copy_(torch.from_numpy(a))
        parameters[f"{prefix}.lora_B.default.weight"].data.copy_(torch.from_numpy(b))
    with torch.inference_mode():
        logits = [model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0] for ids in prompts(config)]
    model.save_pretrained(HERE)
    (HERE / "README.md").unlink()
    saved = HERE / "adapter_config.json"
    settings = json.loads(saved.read_text())
    settings["target_modules"].sort()  # a set: peft writes it in any order
    saved.write_text(json.dumps(settings, indent=1) + "\n")
    np.savez_compressed(HERE / "logits.npz", biases=np.stack([rows[list(RECORDED)].numpy() for rows in logits]))


if __name__ == "__main__":
    main()
