"""Python's share of a decode step, from scheduling to text: `python bench/python_share.py [MODEL]`.

Decodes with 1 and with 32 sequences of the default model through `LLM.generate` and compares the wall time with the
time inside the backend's calls. What is left is Python: scheduling, batch and plan arrays, bookkeeping, text and stop
strings. Prompts are a few tokens, so that decode steps are nearly all of the run.
"""

from __future__ import annotations

import sys
from time import perf_counter

from openherd import LLM, SamplingParams

NUM_TOKENS = 200
PARAMS = SamplingParams(max_tokens=NUM_TOKENS, ignore_eos=True, stop=("\n\n\n\n\n",), seed=0)


def measure(model: LLM, num_seqs: int) -> None:
    prompts = [f"{number} is a number that" for number in range(num_seqs)]
    model.generate(prompts, PARAMS)  # warm: memory touched, prompts cached
    steps, backend_s = model.stats.num_steps, model.stats.backend_s
    started = perf_counter()
    model.generate(prompts, PARAMS)
    wall_s = perf_counter() - started
    steps, backend_s = model.stats.num_steps - steps, model.stats.backend_s - backend_s
    python_s = wall_s - backend_s
    print(
        f"batch {num_seqs:2}: {1e3 * wall_s / steps:7.3f} ms a step, {1e3 * python_s / steps:6.3f} ms of it Python"
        f" = {100 * python_s / wall_s:.1f} %; {num_seqs * NUM_TOKENS / wall_s:.0f} tokens/s"
    )


def main() -> None:
    with LLM.load(sys.argv[1] if len(sys.argv) > 1 else None) as model:
        print(model.name, model.numerics_id)
        for num_seqs in (1, 32):
            measure(model, num_seqs)


if __name__ == "__main__":
    main()
