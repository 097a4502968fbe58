"""Scores against the definition: a softmax over each position's logits, chunk by chunk."""

from __future__ import annotations

import math

import pytest

from openherd.errors import InputError, OptionError
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.llm.tiny_llm import num_used_blocks, tiny_llm

TEXT = "hello world, we score this text\u00e9 in chunks"


def test_chunks_are_scored_independently() -> None:
    with tiny_llm() as llm:
        whole = llm.score(TEXT, context=10)
        ids = list(whole.token_ids)
        chunks = [ids[i : i + 10] for i in range(0, len(ids), 10)]
        assert len(chunks) > 2
        assert len(whole.logprobs) == len(ids) - len(chunks)
        alone = [value for chunk in chunks for value in llm.score(llm.tokenizer.decode(chunk), context=512).logprobs]
        assert list(whole.logprobs) == alone
        assert num_used_blocks(llm) == 0


def test_logprobs_are_those_that_generation_reports() -> None:
    """What a generated token was said to be worth is what scoring the text says, bit for bit."""
    with tiny_llm() as llm:
        greedy = SamplingParams(temperature=0, max_tokens=20, logprobs=0, ignore_eos=True)
        prompt = llm.tokenizer.encode("hello world")
        (answer,) = llm.generate(prompt, greedy)
        text = llm.tokenizer.decode([*prompt, *answer.token_ids], skip_special=False)
        ids = (*prompt, *answer.token_ids)
        score = llm.score(text, special=True)
        same = 0
        for position, (a, b) in enumerate(zip(ids, score.token_ids, strict=False)):
            if a != b:  # the text's own tokenization takes another way from here
                break
            if position >= len(prompt):
                assert answer.logprobs[position - len(prompt)].logprob == score.logprobs[position - 1]
                same += 1
        assert same > 0


def test_derived_numbers() -> None:
    with tiny_llm() as llm:
        score = llm.score("hello world", context=512)
    total = -sum(score.logprobs)
    assert score.nll == pytest.approx(total / len(score.logprobs))
    assert score.perplexity == pytest.approx(math.exp(score.nll))
    assert score.num_bytes == len("hello world") - len(llm.tokenizer.token_bytes(score.token_ids[0]))
    assert score.bits_per_byte == pytest.approx(total / math.log(2) / score.num_bytes)


def test_max_tokens_and_a_last_chunk_of_one() -> None:
    with tiny_llm() as llm:
        full = llm.score(TEXT, context=5)
        part = llm.score(TEXT, context=5, max_tokens=11)
        assert part.token_ids == full.token_ids[:11]
        assert part.logprobs == full.logprobs[:8]  # 4 + 4, and nothing of the eleventh token


def test_special_tokens() -> None:
    with tiny_llm() as llm:
        text = "hello<|end|>hello"
        as_control, as_text = llm.score(text), llm.score(text, special=False)
        assert llm.tokenizer.eos_id in as_control.token_ids
        assert llm.tokenizer.eos_id not in as_text.token_ids


def test_scoring_beside_generation() -> None:
    with tiny_llm() as llm:
        alone = llm.score(TEXT, context=16)
        stream = llm.stream("hello", SamplingParams(max_tokens=30, seed=1))
        next(stream)
        assert llm.score(TEXT, context=16) == alone
        assert len(list(stream)) > 0
        assert stream.completion.finish_reason is not FinishReason.ABORTED


def test_what_cannot_be_scored() -> None:
    with tiny_llm(context=64) as llm:
        with pytest.raises(InputError, match="at least two"):
            llm.score("h", context=64)
        with pytest.raises(OptionError, match="--context must be from 2 to 64"):
            llm.score(TEXT, context=65)
        with pytest.raises(OptionError, match="--context"):
            llm.score(TEXT, context=1)
