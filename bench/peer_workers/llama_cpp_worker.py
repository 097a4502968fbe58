"""llama.cpp by `llama-cpp-python`, and its fork ik_llama.cpp by `ik-llama-cpp-python`, both by `llama_decode` itself.

The loop around it is the least that greedy decoding needs: logits are read and the likeliest token is taken; no text.
"""

import ctypes
from pathlib import Path

import numpy as np
import protocol

try:
    import llama_cpp
    from llama_cpp import llama_cpp as api

    version = f"llama-cpp-python {llama_cpp.__version__}"
except ImportError:
    import ik_llama_cpp
    from ik_llama_cpp import _ctypes_api as api

    version = f"ik-llama-cpp-python {ik_llama_cpp.__version__}"

options = protocol.arguments()


def load():
    api.llama_backend_init()
    model = api.llama_model_load_from_file(options.model.encode(), api.llama_model_default_params())
    if not model:
        raise SystemExit(f"{version} cannot load {options.model}")
    params = api.llama_context_default_params()
    # 32 short sequences or one long: cells of a cache that sequences share where the library has it so
    params.n_ctx = protocol.CONTEXT
    params.n_batch = protocol.MAX_BATCH_TOKENS
    params.n_ubatch = protocol.MAX_BATCH_TOKENS
    params.n_seq_max = protocol.MAX_SEQS
    params.n_threads = params.n_threads_batch = options.threads
    if hasattr(params, "kv_unified"):
        params.kv_unified = True
    if hasattr(params, "flash_attn"):  # ik_llama.cpp's fails an assertion without AVX-VNNI, as its own package warns
        params.flash_attn = b"avx_vnni" in Path("/proc/cpuinfo").read_bytes()
    context = api.llama_init_from_model(model, params)
    if not context:
        raise SystemExit(f"{version} cannot make a context for {options.model}")
    return model, context, api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))


model, context, vocab_size = load()
batch = api.llama_batch_init(protocol.MAX_BATCH_TOKENS, 0, 1)


def clear():
    if hasattr(api, "llama_memory_clear"):
        api.llama_memory_clear(api.llama_get_memory(context), True)
    else:
        api.llama_kv_cache_clear(context)


def compute(rows, wanted):
    """One step of (token, position, sequence) rows, with logits of the rows `wanted`."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence) in enumerate(rows):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.logits[i] = i in wanted
    status = api.llama_decode(context, batch)
    if status != 0:
        raise RuntimeError(f"llama_decode returned {status}")


def likeliest(row):
    logits = ctypes.cast(api.llama_get_logits_ith(context, row), ctypes.POINTER(ctypes.c_float))
    return int(np.ctypeslib.as_array(logits, (vocab_size,)).argmax())


def fill(ids):
    """A prompt in chunks; returns the token drawn after it."""
    clear()
    for start in range(0, len(ids), protocol.MAX_BATCH_TOKENS):
        chunk = ids[start : start + protocol.MAX_BATCH_TOKENS]
        is_last = start + len(chunk) == len(ids)
        compute([(token, start + i, 0) for i, token in enumerate(chunk)], {len(chunk) - 1} if is_last else ())
    return likeliest(len(chunk) - 1)


def steps(tokens, position, num):
    """`num` tokens for each sequence, whose last tokens and common position are given."""
    wanted = range(len(tokens))
    for step in range(num):
        compute([(token, position + step, sequence) for sequence, token in enumerate(tokens)], wanted)
        tokens = [likeliest(row) for row in wanted]
    return tokens


def prefill(ids):
    return len(ids) / protocol.seconds_of(fill, ids)


def decode(batch, tokens, ids):
    clear()
    last = steps(ids[:batch], 0, 1)
    return batch * (tokens - 1) / protocol.seconds_of(steps, last, 1, tokens - 1)


def decode_at(ids, tokens):
    last = fill(ids)
    return (tokens - 1) / protocol.seconds_of(steps, [last], len(ids), tokens - 1)


protocol.serve(version, {"prefill": prefill, "decode": decode, "decode_at": decode_at})
