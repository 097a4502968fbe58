"""What GRPO's rollouts cost beside the update: the default model, 8 answers of 64 tokens, on one thread.

    python bench/rollouts.py [--threads 1]

Prints processor seconds (which a busy machine does not stretch) for: handing the present weights to the engine, drawing
the answers, and one forward and backward pass over them with LoRA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openherd.checkpoints import open_checkpoint
from openherd.messages import Message
from openherd.options import SamplingParams
from openherd.store.resolve import resolve
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.train.generation import Generation, PresentWeights
from openherd.train.model.loading import model_from
from openherd.train.model.lora import add_lora
from openherd.train.objectives.grpo import Grpo, GrpoSettings, Rollout, RolloutBatch
from openherd.train.objectives.prompts import Prompts

ANSWERS, TOKENS = 8, 64
PROMPT = "Write a story about a lighthouse."


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=1)
    threads = arguments.parse_args().threads
    torch.set_num_threads(threads)
    checkpoint = open_checkpoint(resolve(None))
    tokenizer = Tokenizer(checkpoint.tokenizer)
    ids = tuple(
        tokenizer.encode_spans(ChatTemplate.of(checkpoint.chat_template, tokenizer).render([Message("user", PROMPT)]))
    )
    model = model_from(checkpoint)
    add_lora(model, 16, 32.0)
    found: dict[str, float] = {}
    params = SamplingParams(
        max_tokens=TOKENS, temperature=1.0, top_p=1.0, seed=0, n=ANSWERS, logprobs=0, ignore_eos=True
    )
    with timed(found, "hand weights over"):
        generation = Generation(model.config, PresentWeights(model), context=len(ids) + TOKENS, threads=threads)
    with generation, timed(found, "draw answers"):
        (answers,) = generation.answers([ids], [params])
    batch = RolloutBatch.of([Rollout(ids, answer, 0.0, 1.0) for answer in answers])
    settings = GrpoSettings(answers_per_step=ANSWERS, seed=0, group=ANSWERS)
    objective = Grpo(model, Prompts((), ""), tokenizer, settings)
    with timed(found, "forward and backward"):
        step = objective.loss(model, batch, float(ANSWERS))
        step.loss.backward()
    print(json.dumps({**found, "tokens drawn": sum(len(answer.token_ids) for answer in answers)}, indent=1))


@contextmanager
def timed(found: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    found[name] = round(time.process_time() - start, 2)


if __name__ == "__main__":
    main()
