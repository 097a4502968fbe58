"""OpenVINO GenAI, which reads the GGUF file itself. Prompts are token ids, each time others, as it caches prefixes.

Rates come from its own performance metrics: time to the first token, and time per output token after it. It runs one
sequence here; batches are compared with llama.cpp.
"""

import numpy as np
import openvino as ov
import openvino_genai
import protocol

options = protocol.arguments()
settings = {"INFERENCE_NUM_THREADS": options.threads}
pipeline = openvino_genai.LLMPipeline(options.model, "CPU", settings)


def generate(ids, num_tokens):
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = num_tokens
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False
    tokens = ov.Tensor(np.array([ids], np.int64))
    mask = ov.Tensor(np.ones((1, len(ids)), np.int64))
    return pipeline.generate(openvino_genai.TokenizedInputs(tokens, mask), config).perf_metrics


def prefill(ids):
    return 1e3 * len(ids) / generate(ids, 1).get_ttft().mean


def decode(batch, tokens, ids):
    if batch != 1:
        raise NotImplementedError("one sequence at a time")
    return 1e3 / generate(ids[:1], tokens).get_tpot().mean


def decode_at(ids, tokens):
    return 1e3 / generate(ids, tokens).get_tpot().mean


protocol.serve(
    f"openvino-genai {openvino_genai.__version__}", {"prefill": prefill, "decode": decode, "decode_at": decode_at}
)
