"""openherd through its public door, `LLM.generate`: scheduling, sampling and text included."""

import protocol

from openherd import LLM, SamplingParams, __version__
from openherd.options import EngineOptions

options = protocol.arguments()
llm = LLM.load(options.model, options=EngineOptions(context=protocol.CONTEXT, threads=options.threads))


def generate(prompts, num_tokens):
    # A token a step, as the peers decode.
    params = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True, speculate=False)
    return llm.generate(prompts, params)


def prefill(ids):
    return len(ids) / protocol.seconds_of(generate, [ids], 1)


def decode(batch, tokens, ids):
    """Tokens a second of `batch` sequences together, each from one token of its own."""
    completions = generate([[token] for token in ids[:batch]], tokens)
    return sum(completion.timing["decode_tokens_per_s"] for completion in completions)


def decode_at(ids, tokens):
    generate([ids], 1)  # the prefix cache keeps it
    return generate([ids], tokens)[0].timing["decode_tokens_per_s"]


protocol.serve(f"{__version__} ({llm.numerics_id})", {"prefill": prefill, "decode": decode, "decode_at": decode_at})
