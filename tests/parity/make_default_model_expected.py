"""Record what transformers computes in float32 with the default model's weights: default_model_expected.json.

Run in an environment with torch, transformers, gguf and llama-cpp-python (which tokenizes):

    PYTHONPATH=. python tests/parity/make_default_model_expected.py MODEL.gguf WIKI_TEST_RAW

WIKI_TEST_RAW is WikiText-2's raw test text, of which only figures are recorded. alice.txt is the opening of Lewis
Carroll's "Alice's Adventures in Wonderland" (1865, public domain).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from llama_cpp import Llama
from transformers import LlamaForCausalLM

from tests.parity.default_model_in_transformers import load

HERE = Path(__file__).parent
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS = [CHAT, "Once upon a time, in a village by the sea,", "def fibonacci(n):\n", "The three primary colours are"]
MAX_GREEDY_TOKENS = 24
TOP_POSITIONS = (0, 15, 16, 63, 64, 127, 300, -1)
CONTEXT, WIKI_TOKENS = 512, 8192


@torch.inference_mode()
def log_probabilities(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    """Of every next token, [len(ids), V], float64 from float32 logits."""
    return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)


def of_targets(logprobs: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Log-probability of each token given those before it: [len(ids) - 1]."""
    return logprobs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def greedy(model: LlamaForCausalLM, ids: list[int], eos_id: int) -> dict[str, Any]:
    """The likeliest continuation as far as the end token, and by how much each token led (in logits)."""
    continuation: list[int] = []
    leads: list[float] = []
    while len(continuation) < MAX_GREEDY_TOKENS and eos_id not in continuation:
        best = log_probabilities(model, ids + continuation)[-1].topk(2)
        continuation.append(int(best.indices[0]))
        leads.append(round(float(best.values[0] - best.values[1]), 6))
    return {"prompt_ids": ids, "token_ids": continuation, "leads": leads}


def text_facts(model: LlamaForCausalLM, ids: list[int]) -> dict[str, Any]:
    logprobs = log_probabilities(model, ids)
    tops = []
    for position in TOP_POSITIONS:
        best = logprobs[position].topk(10)
        values = [round(x, 6) for x in best.values.tolist()]
        tops.append({"position": position % len(ids), "ids": best.indices.tolist(), "logprobs": values})
    scores = [round(x, 6) for x in of_targets(logprobs, ids).tolist()]
    return {"token_ids": ids, "logprobs": scores, "top": tops}


def perplexity_facts(model: LlamaForCausalLM, ids: list[int]) -> dict[str, Any]:
    """Chunks of CONTEXT tokens, each scored from its second token on with nothing before its first."""
    chunks = [ids[start : start + CONTEXT] for start in range(0, len(ids), CONTEXT)]
    nll = -sum(float(of_targets(log_probabilities(model, chunk), chunk).sum()) for chunk in chunks)
    targets = len(ids) - len(chunks)
    return {
        "tokens": len(ids),
        "context": CONTEXT,
        "targets": targets,
        "nll": nll,
        "perplexity": math.exp(nll / targets),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("wiki_test_raw", type=Path)
    paths = arguments.parse_args()
    tokenizer = Llama(str(paths.model), vocab_only=True, verbose=False)
    model = load(paths.model)

    def ids_of(text: bytes) -> list[int]:
        return list(tokenizer.tokenize(text, add_bos=False, special=True))

    wiki = paths.wiki_test_raw.read_bytes()
    expected = {
        "model_sha256": hashlib.sha256(paths.model.read_bytes()).hexdigest(),
        "greedy": [greedy(model, ids_of(prompt.encode()), tokenizer.token_eos()) for prompt in PROMPTS],
        "alice": text_facts(model, ids_of((HERE / "alice.txt").read_bytes())),
        "wikitext2": {
            "sha256": hashlib.sha256(wiki).hexdigest(),
            **perplexity_facts(model, ids_of(wiki)[:WIKI_TOKENS]),
        },
    }
    text = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in expected.items())
    (HERE / "default_model_expected.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
