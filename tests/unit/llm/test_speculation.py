"""Text from speculating requests: stop strings and schemas inside a run of accepted drafts, and what is reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openherd.llm import LLM
from openherd.llm.prompts import encode
from openherd.messages import Completion, FinishReason
from tests.unit.engine.drafters import Knowing, draft_always
from tests.unit.llm.tiny_llm import bits, params, tiny_llm

PROMPT = "hello hello hello hello"


def draft(llm: LLM, answer: Completion) -> None:
    """Draft this answer from now on, every seventh token wrongly, and always check the drafts."""
    engine = llm._model.engine
    known = (*encode(llm._model, PROMPT).ids, *answer.token_ids)
    engine._scheduler._speculator.make_drafter = lambda: Knowing([known], wrong_every=7)
    draft_always(engine)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_stop_strings_inside_a_run_cut_where_plain_decoding_does(backend: str) -> None:
    greedy = params(temperature=0, max_tokens=60, ignore_eos=True, logprobs=1, speculate=False)
    num_accepted = 0
    with tiny_llm(backend=backend) as llm:
        (full,) = llm.generate(PROMPT, greedy)
        assert full.usage.drafted_tokens == 0
        draft(llm, full)
        for start in range(0, len(full.text) - 2, 3):
            asked = replace(greedy, stop=(full.text[start : start + 2],))
            (plain,) = llm.generate(PROMPT, asked)
            before = llm.stats.num_generated_tokens
            (fast,) = llm.generate(PROMPT, replace(asked, speculate=True))
            assert bits(fast) == bits(plain)
            assert (fast.text, fast.stop_match, fast.finish_reason) == (plain.text, plain.stop_match, FinishReason.STOP)
            assert fast.usage.completion_tokens == plain.usage.completion_tokens
            assert llm.stats.num_generated_tokens - before == fast.usage.completion_tokens
            num_accepted += fast.usage.accepted_tokens
        (fast,) = llm.generate(PROMPT, replace(greedy, speculate=True))
        assert bits(fast) == bits(full)
        assert num_accepted > 100
        assert 10 < fast.usage.accepted_tokens < fast.usage.drafted_tokens
        assert fast.usage.drafted_tokens <= llm.stats.num_drafted_tokens


SCHEMAS: list[dict[str, Any]] = [
    {"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 6, "maxItems": 6},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 8, "maxItems": 12},
    {
        "type": "object",
        "properties": {"name": {"const": "name"}, "same": {"const": "name"}},
        "required": ["name", "same"],
    },
    {"type": "string", "maxLength": 30},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema)[:40])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_to_a_schema_are_bit_equal(schema: dict[str, Any], temperature: float) -> None:
    accepted = 0
    with tiny_llm(backend="native") as llm:
        for seed in range(5):
            asked = params(temperature=temperature, max_tokens=150, seed=seed, logprobs=1, speculate=False)
            (plain,) = llm.generate(PROMPT, asked, schema=schema)
            draft(llm, plain)
            (fast,) = llm.generate(PROMPT, replace(asked, speculate=True), schema=schema)
            assert bits(fast) == bits(plain)
            assert (fast.text, fast.finish_reason, fast.usage.completion_tokens) == (
                plain.text,
                plain.finish_reason,
                plain.usage.completion_tokens,
            )
            accepted += fast.usage.accepted_tokens
    assert accepted > 10
