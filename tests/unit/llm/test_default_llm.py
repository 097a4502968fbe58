"""The default model through the native core: text, schema and stop strings as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from openherd import LLM, SamplingParams
from openherd.messages import FinishReason
from openherd.options import EngineOptions

GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.fixture(scope="module")
def llm(default_model: Path) -> Iterator[LLM]:
    with LLM.load(default_model, options=EngineOptions(context=1024)) as model:
        yield model


def test_completes_a_fact_and_stops_before_a_string(llm: LLM) -> None:
    (answer,) = llm.generate("The capital of France is", SamplingParams(temperature=0, max_tokens=8, stop=(".",)))
    assert (answer.text, answer.finish_reason, answer.stop_match) == (" Paris", FinishReason.STOP, ".")


def test_ends_its_turn_in_a_chat(llm: LLM) -> None:
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    messages.append({"role": "user", "content": "What is the capital of France?"})
    answer = llm.chat(messages, GREEDY)
    assert answer.text == "The capital of France is Paris."
    assert answer.stop_match == llm.tokenizer.eos_id


def test_emoji_are_whole_in_every_delta(llm: LLM) -> None:
    """The vocabulary spells most emoji in several tokens; the grammar makes the model say them."""
    from openherd.llm import Grammar

    grammar = Grammar.regex("(\U0001f9d1\u200d\U0001f680|\U0001f600|\u4e2d\u6587){12}")
    params = SamplingParams(temperature=1, seed=3, max_tokens=300, speculate=False)  # one token a delta
    stream = llm.stream("Emoji:", params, schema=grammar)
    deltas = list(stream)
    text = "".join(delta.text for delta in deltas)
    assert "\ufffd" not in text
    assert sum(not delta.text for delta in deltas) > 12, "no character was split across tokens"
    assert text == stream.completion.text == llm.tokenizer.decode(stream.completion.token_ids)


def test_json_schema(llm: LLM) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    (answer,) = llm.generate([[{"role": "user", "content": "Invent a person."}]], GREEDY, schema=schema)
    assert answer.finish_reason is FinishReason.STOP
    assert json.loads(answer.text).keys() == {"name", "age"}


def test_score_of_plain_words_is_plausible(llm: LLM) -> None:
    plain = llm.score("The cat sat on the mat and looked out of the window at the birds in the garden.")
    shuffled = llm.score("garden window the at mat birds the sat of and out in on cat The the looked the.")
    assert 5 < plain.perplexity < 60 < shuffled.perplexity
    assert plain.bits_per_byte < 2 < shuffled.bits_per_byte
