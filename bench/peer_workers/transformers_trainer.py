"""Trains a random Llama with transformers, peft and torch's AdamW for `bench.train_gpu`, in the peer's own Python.

Reads the case as JSON from standard input and writes seconds of each timed step and peak memory as JSON. All weights:
float32 masters under autocast; LoRA: frozen weights in the case's type, adapters in float32, as peft makes them.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM


def main() -> None:
    case = json.loads(sys.stdin.read())
    device, dtype = case["device"], getattr(torch, case["dtype"])
    model = make_model(case, device, dtype)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for step in range(case["warm_up"] + case["timed"]):
        began = time.perf_counter()
        train_step(model, optimizer, case, step, device, dtype)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * _resident()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"seconds": seconds[case["warm_up"] :], "peak_bytes": peak, "versions": versions}))


def make_model(case: dict[str, Any], device: str, dtype: torch.dtype) -> torch.nn.Module:
    c = case["config"]
    config = LlamaConfig(
        hidden_size=c["dim"], num_hidden_layers=c["n_layers"], num_attention_heads=c["n_heads"],
        num_key_value_heads=c["n_kv_heads"], head_dim=c["head_dim"], intermediate_size=c["ffn_dim"],
        vocab_size=c["vocab_size"], max_position_embeddings=c["max_seq_len"], rope_theta=c["rope_theta"],
        tie_word_embeddings=c["tied_embeddings"], use_cache=False, attn_implementation="sdpa",
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype if case["lora_rank"] else torch.float32)
    with torch.device(device):
        model: Any = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if case["lora_rank"]:
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        rank = case["lora_rank"]
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    model.train()
    return torch.compile(model) if case["compile"] else model  # type: ignore[return-value]


def train_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, case: dict[str, Any], step: int, device: str,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    parts = case["rows"] // case["micro_rows"]
    for part in range(parts):
        generator = torch.Generator().manual_seed(step * case["rows"] + part * case["micro_rows"])
        shape = (case["micro_rows"], case["seq_len"])
        ids = torch.randint(case["config"]["vocab_size"], shape, generator=generator).to(device)
        with torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext():
            loss = model(input_ids=ids, labels=ids).loss / parts
        loss.backward()
    torch.nn.utils.clip_grad_norm_((p for p in model.parameters() if p.requires_grad), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
