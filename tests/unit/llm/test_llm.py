"""LLM over a model of random weights: streamed or not, alone or together, given up early, or guarded."""

from __future__ import annotations

import gc
import json
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import replace

import jsonschema
import pytest

from openherd import LLM, Message, SamplingParams
from openherd.errors import ContextLengthError, InputError, OptionError, SchemaError, TemplateError
from openherd.llm import Hooks
from openherd.messages import FinishReason
from tests.unit.constrain.random_schema import bounded_schema
from tests.unit.llm.tiny_llm import CONFIG, PROMPTS, SPEC, bits, num_used_blocks, params, tiny_llm


def test_stream_equals_generate(llm: LLM) -> None:
    for prompt in PROMPTS:
        (whole,) = llm.generate(prompt, params(logprobs=3))
        stream = llm.stream(prompt, params(logprobs=3))
        deltas = list(stream)
        assert "".join(d.text for d in deltas) == whole.text
        assert tuple(i for d in deltas for i in d.token_ids) == whole.token_ids
        assert tuple(p for d in deltas for p in d.logprobs) == whole.logprobs
        assert bits(stream.completion) == bits(whole)


def test_together_equals_alone(llm: LLM) -> None:
    together = llm.generate(PROMPTS, params(n=2, logprobs=2))
    assert llm.stats.max_batch_seqs >= 8
    alone = [c for prompt in PROMPTS for c in llm.generate(prompt, params(n=2, logprobs=2))]
    assert [bits(c) for c in together] == [bits(c) for c in alone]
    assert [c.choice for c in together] == [0, 1] * len(PROMPTS)
    assert len({c.text for c in together}) == len(together)


def test_streams_interleaved_in_one_thread(llm: LLM) -> None:
    expected = llm.generate(PROMPTS, params())
    streams = [llm.stream(prompt, params()) for prompt in PROMPTS]
    texts = [""] * len(streams)
    rng = random.Random(4)
    live = list(range(len(streams)))
    while live:
        i = rng.choice(live)
        delta = next(streams[i], None)
        if delta is None:
            live.remove(i)
        else:
            texts[i] += delta.text
    assert texts == [c.text for c in expected]
    assert [bits(s.completion) for s in streams] == [bits(c) for c in expected]


def test_threads_share_one_model(llm: LLM) -> None:
    expected = [bits(c) for c in llm.generate(PROMPTS, params(max_tokens=40))]
    results: list[object] = [None] * len(PROMPTS)

    def work(i: int) -> None:
        if i % 2:
            results[i] = bits(llm.generate(PROMPTS[i], params(max_tokens=40))[0])
        else:
            with llm.stream(PROMPTS[i], params(max_tokens=40)) as stream:
                for _ in stream:
                    pass
            results[i] = bits(stream.completion)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == expected


def test_seed_is_reported_and_repeats_the_answer(llm: LLM) -> None:
    (first,) = llm.generate("hello", params(seed=None))
    (again,) = llm.generate("hello", params(seed=first.seed))
    (other,) = llm.generate("hello", params(seed=None))
    assert bits(again) == bits(first)
    assert other.seed != first.seed
    assert other.text != first.text


def test_stop_strings_cut_exactly(llm: LLM) -> None:
    """Stop strings taken from what the model says anyway; the cut is that of the plain definition."""
    rng = random.Random(6)
    num_across = 0
    for seed in range(40):
        asked = params(seed=seed, max_tokens=30, ignore_eos=True)
        (full,) = llm.generate("hello", asked)
        start = rng.randrange(len(full.text) - 3)
        stop = full.text[start : start + 3]
        expected = full.text[: full.text.find(stop)]
        (cut,) = llm.generate("hello", replace(asked, stop=(stop, "never said")))
        streamed = "".join(d.text for d in llm.stream("hello", replace(asked, stop=(stop,))))
        assert cut.text == streamed == expected
        assert (cut.finish_reason, cut.stop_match) == (FinishReason.STOP, stop)
        assert cut.token_ids == full.token_ids[: len(cut.token_ids)]
        num_across += stop not in {llm.tokenizer.decode([i]) for i in full.token_ids}
    assert num_across > 30


@pytest.mark.parametrize("way", ["close", "with", "break", "drop"])
def test_abandoned_stream_frees_its_blocks(llm: LLM, way: str) -> None:
    for _ in range(20):
        stream = llm.stream("once upon a time there was", params(max_tokens=400, n=2))
        assert next(stream).token_ids
        assert num_used_blocks(llm) > 0
        if way == "close":
            stream.close()
            stream.close()
        elif way == "with":
            with stream:
                next(stream)
        elif way == "break":
            for _ in stream:
                break
        if way == "drop":
            del stream
            gc.collect()
        else:
            assert stream.completion.finish_reason is FinishReason.ABORTED
            assert list(stream) == []
        assert num_used_blocks(llm) == 0
    assert llm.stats.num_aborted == 40


def test_stream_dropped_while_another_thread_computes(llm: LLM) -> None:
    """The finaliser cannot wait for the engine; whoever holds it cancels the dropped stream."""
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            llm.generate("hello", params(max_tokens=10))

    computing = threading.Thread(target=compute)
    computing.start()
    for _ in range(30):
        stream = llm.stream("world", params(max_tokens=400))
        next(stream)
        del stream
    done.set()
    computing.join()
    assert llm.stats.num_aborted == 30
    assert num_used_blocks(llm) == 0


def test_interrupt_leaves_nothing_running(llm: LLM) -> None:
    class Interrupting:
        """A processor is a place inside a step where Ctrl-C can arrive."""

        def next(self, ids: Sequence[int]) -> None:
            raise KeyboardInterrupt

        def accept(self, ids: Sequence[int]) -> None: ...
        def rollback(self, n: int) -> None: ...
        def fork(self) -> Interrupting:
            return self

    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS, params(), hooks=Hooks(processors=(Interrupting(),)))
    assert num_used_blocks(llm) == 0
    assert llm.generate("hello", params())[0].finish_reason is FinishReason.LENGTH


NUM_SCHEMAS = 500 if os.environ.get("OPENHERD_FULL_TESTS") else 12  # A8


@pytest.mark.parametrize("seed", range(NUM_SCHEMAS))
def test_schema_on_random_weights(llm: LLM, seed: int) -> None:
    schema = bounded_schema(random.Random(seed))
    for answer in llm.generate("hello", params(seed=seed, max_tokens=450, n=2), schema=schema):
        assert answer.finish_reason is FinishReason.STOP, answer
        jsonschema.validate(json.loads(answer.text), schema)


def test_schema_errors_come_before_the_work(llm: LLM) -> None:
    with pytest.raises(SchemaError, match="uniqueItems"):
        llm.generate("hello", schema={"type": "array", "uniqueItems": True})
    with pytest.raises(OptionError, match="ignore_eos"):
        llm.generate("hello", params(ignore_eos=True), schema={})
    assert llm.stats.num_steps == 0


def test_control_tokens_in_text_stay_text(llm: LLM) -> None:
    text = "a<|end|>b"
    assert SPEC.eos_id not in llm.tokenizer.encode(text)
    assert llm.count_tokens(text) > llm.count_tokens("ab") + 1
    plain = llm.count_tokens([Message("user", "")])
    assert llm.count_tokens([Message("user", text)]) - plain == len(llm.tokenizer.encode(text))
    (as_text,) = llm.generate(text, params())
    (as_control,) = llm.generate(text, params(), special=True)
    assert as_control.usage.prompt_tokens == 3 < as_text.usage.prompt_tokens


def test_prompt_forms(llm: LLM) -> None:
    ids = llm.tokenizer.encode("hello")
    conversation = [{"role": "user", "content": "hello"}]
    assert bits(llm.generate(ids, params())[0]) == bits(llm.generate("hello", params())[0])
    assert bits(llm.generate([ids, "hello"], params())[0]) == bits(llm.generate(["hello", ids], params())[1])
    assert bits(llm.generate(conversation, params())[0]) == bits(llm.chat([Message("user", "hello")], params()))
    assert llm.generate([], params()) == []
    assert llm.generate("", params())[0].usage.prompt_tokens == 1  # the beginning-of-sequence token


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([CONFIG.vocab_size], "not a token id"),
        ([-1], "not a token id"),
        ([{"role": "user"}, {"content": "x"}], "needs a role"),
        ([{"role": "user", "text": "x"}], "no key 'text'"),
        ([{"role": "user", "content": 3}], "needs a role and a content"),
        ([{"role": "user", "content": "x"}, "y"], "a message has a role"),
    ],
)
def test_malformed_prompts(llm: LLM, prompt: list[object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        llm.stream(prompt, params())  # type: ignore[arg-type]


def test_prompt_longer_than_the_context_is_refused_whole() -> None:
    with tiny_llm(context=64) as llm:
        with pytest.raises(ContextLengthError, match=r"100 tokens.*64") as raised:
            llm.generate(["x" * 100, "hello"], params())
        assert "--context" in str(raised.value)
        with pytest.raises(ContextLengthError, match="64"):
            llm.generate("x" * 1_000_000, params())
        assert llm.stats.num_steps == 0
        (full,) = llm.generate("x" * 60, SamplingParams(seed=1))
        assert full.finish_reason is FinishReason.LENGTH
        assert full.usage.completion_tokens == 4


def test_unknown_adapter_lists_the_known(llm: LLM) -> None:
    with pytest.raises(InputError, match="no adapter is called 'x'; loaded: none"):
        llm.generate("hello", params(), adapter="x")


def test_chat_gives_one_answer(llm: LLM) -> None:
    with pytest.raises(OptionError, match="n must be 1"):
        llm.chat([Message("user", "hello")], params(n=2))


def test_model_without_template(llm: LLM) -> None:
    llm._model.template_source = None
    with pytest.raises(TemplateError, match="--template"):
        llm.chat([Message("user", "hello")])
    assert llm.generate("hello", params())[0].text


def test_closed_model_ends_its_streams() -> None:
    llm = tiny_llm()
    stream = llm.stream("hello", params())
    next(stream)
    llm.close()
    llm.close()
    assert list(stream) == []
    assert stream.completion.finish_reason is FinishReason.ABORTED


def test_timing_and_usage(llm: LLM) -> None:
    (answer,) = llm.generate("hello", params(max_tokens=3, ignore_eos=True))
    assert answer.timing.keys() == {"ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s"}
    assert all(value > 0 for value in answer.timing.values())
    assert answer.usage.completion_tokens == len(answer.token_ids) == 3
    (single,) = llm.generate("hello", params(max_tokens=1, ignore_eos=True))
    assert "decode_tokens_per_s" not in single.timing
    counted = llm.generate(PROMPTS, params(n=2))
    before = 4
    assert llm.stats.num_generated_tokens - before == sum(c.usage.completion_tokens for c in counted)


def test_timing_and_usage_of_choices_and_of_a_cached_prompt(llm: LLM) -> None:
    """The first choice computes the prompt, the others share it and claim no prefill rate of their own."""
    prompt = "once upon a time there was a model of random weights"
    num_prompt = llm.count_tokens(prompt)
    first, *others = llm.generate(prompt, params(n=3, ignore_eos=True))
    assert (first.usage.prompt_tokens, first.usage.cached_tokens) == (num_prompt, 0)
    assert "prefill_tokens_per_s" in first.timing
    for other in others:
        assert other.usage.prompt_tokens == num_prompt
        assert other.usage.cached_tokens == num_prompt - 1, "its own last prompt token is computed, to draw from"
        assert other.timing.keys() == {"ttft_s", "decode_tokens_per_s"}
    (again,) = llm.generate(prompt, params(max_tokens=2, ignore_eos=True))
    assert again.usage.cached_tokens == (num_prompt - 1) // 16 * 16 > 0
    computed = num_prompt - again.usage.cached_tokens
    assert again.timing["prefill_tokens_per_s"] == pytest.approx(computed / again.timing["ttft_s"])


def test_options_without_effect_are_refused(llm: LLM) -> None:
    with pytest.raises(InputError, match="tools have no effect"):
        llm.stream("hello", params(), tools=[{"type": "function"}])
    with pytest.raises(OptionError, match="stop must be"):
        params(stop="abc")
    with pytest.raises(OptionError, match="stop_token_ids"):
        params(stop_token_ids=("2",))
