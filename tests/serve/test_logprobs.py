"""A10: the log-probabilities that an answer reports are those of a teacher-forced pass over it, bit for bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openherd import LLM
from openherd.options import EngineOptions
from tests.serve.conftest import Server

QUESTIONS = [
    "What is the capital of France?",
    "Write a limerick about a pump, with an emoji and accents: é, ü, ß.",
    "List the first ten prime numbers.",
    "Say something in Greek.",
]


def test_a10_logprobs_are_those_of_a_teacher_forced_pass(server: Server) -> None:
    """Drawn at temperature 1 over HTTP, all at once and twice each; then prompt and answer are scored as one text, in
    one pass of another process that draws nothing."""

    def ask(seed: int) -> tuple[str, Any]:
        messages = [{"role": "user", "content": QUESTIONS[seed % len(QUESTIONS)]}]
        answer = server.chat(messages, temperature=1, top_p=1, seed=seed, max_tokens=60, logprobs=True)
        prompt = server.post("/apply-template", {"messages": messages}).json["prompt"]
        return prompt, answer.json

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert server.engine("max_batch_seqs") >= 4
    num_compared = 0
    with LLM.load(options=EngineOptions(context=2048), offline=True) as llm:
        for prompt, document in answers:
            assert document["system_fingerprint"] == llm.numerics_id
            choice = document["choices"][0]
            tokens = choice["logprobs"]["content"]
            score = llm.score(prompt + choice["message"]["content"], context=2048, special=True)
            start = len(llm.tokenizer.encode(prompt, special=True))
            for place, token in enumerate(tokens, start):
                if list(llm.tokenizer.token_bytes(score.token_ids[place])) != token["bytes"]:
                    break  # the text's own tokenization takes another way from here
                assert score.logprobs[place - 1] == token["logprob"]
                num_compared += 1
    assert num_compared >= 200, "too few tokens were compared to mean anything"
