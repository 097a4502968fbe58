"""Hugging Face transformers on the file's weights dequantised, in --dtype; the loop is the model's own forward."""

from pathlib import Path

import protocol
import torch
import transformers

options = protocol.arguments()
torch.set_num_threads(options.threads)
file = Path(options.model).resolve()
model = transformers.AutoModelForCausalLM.from_pretrained(
    file.parent, gguf_file=file.name, dtype=getattr(torch, options.dtype)
).eval()


@torch.inference_mode()
def forward(tokens, cache):
    """Last logits' likeliest tokens [B, 1], and the cache."""
    out = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values


def steps(tokens, cache, num):
    for _ in range(num):
        tokens, cache = forward(tokens, cache)


def prefill(ids):
    return len(ids) / protocol.seconds_of(forward, torch.tensor([ids]), None)


def decode(batch, tokens, ids):
    last, cache = forward(torch.tensor([[token] for token in ids[:batch]]), None)
    return batch * (tokens - 1) / protocol.seconds_of(steps, last, cache, tokens - 1)


def decode_at(ids, tokens):
    last, cache = forward(torch.tensor([ids]), None)
    return (tokens - 1) / protocol.seconds_of(steps, last, cache, tokens - 1)


protocol.serve(
    f"transformers {transformers.__version__}, torch {torch.__version__}, {options.dtype}",
    {"prefill": prefill, "decode": decode, "decode_at": decode_at},
)
