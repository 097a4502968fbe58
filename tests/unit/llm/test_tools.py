"""Tool calls and reasoning of a model of random weights: every format, every choice, streamed and whole (bar A9)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest

from openherd import LLM
from openherd.errors import InputError, ToolError
from openherd.llm import Decision, NamedTool
from openherd.llm.answer import Delta
from openherd.llm.answer_grammar import answer_grammar
from openherd.llm.tools import toolbox
from openherd.messages import Completion, FinishReason, Message
from tests.unit.constrain.random_schema import bounded_schema
from tests.unit.llm.tiny_llm import params
from tests.unit.llm.tool_models import tool_llm

NUM_SCHEMAS = 500 if os.environ.get("OPENHERD_FULL_TESTS") else 20
CONTROL = {
    "fallback": (),
    "hermes": ("<tool_call>", "</tool_call>"),
    "mistral": ("[TOOL_CALLS]",),
    "llama-3": ("<|python_tag|>",),
    "opened": ("</think>",),
}
ASKED = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    },
}
NOW = {"type": "function", "function": {"name": "now"}}


@pytest.fixture(scope="module", params=CONTROL)
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    with tool_llm(request.param, control=CONTROL[request.param]) as model:
        yield model


def random_tool(rng: random.Random, number: int) -> dict[str, Any]:
    properties = {f"p{i}": bounded_schema(rng, 2) for i in range(rng.randrange(4))}
    required = [name for name in properties if rng.random() < 0.7]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": f"f{number}", "description": "f", "parameters": schema}}


def joined(deltas: list[Delta]) -> tuple[str, str, list[dict[str, str]]]:
    calls: list[dict[str, str]] = []
    for delta in deltas:
        for piece in delta.tool_calls:
            if piece.id is not None:
                assert piece.index == len(calls)
                calls.append({"name": piece.name or "", "arguments": ""})
            calls[piece.index]["arguments"] += piece.arguments
    return "".join(delta.text for delta in deltas), "".join(delta.reasoning for delta in deltas), calls


def check_calls(completion: Completion, tools: list[dict[str, Any]]) -> None:
    """Every call parses and validates; the last of an answer that was cut short is the beginning of one."""
    schemas: Mapping[str, Any] = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
    whole = completion.tool_calls
    if completion.finish_reason is FinishReason.LENGTH:
        whole = whole[:-1]
    else:
        assert completion.finish_reason is FinishReason.TOOL_CALLS, completion
        assert whole
    for call in whole:
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])
    assert len({call.id for call in completion.tool_calls}) == len(completion.tool_calls)
    assert all(call.id.startswith("call_") for call in completion.tool_calls)


def test_random_tools_are_called_with_arguments_that_validate(llm: LLM) -> None:
    """A9."""
    num_calls = num_ended = 0
    for seed in range(NUM_SCHEMAS):
        rng = random.Random(seed)
        tools = [random_tool(rng, number) for number in range(rng.randrange(1, 4))]
        named = NamedTool(rng.choice(tools)["function"]["name"])
        for choice, parallel in (("required", True), (named, False)):
            asked: dict[str, Any] = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}
            with llm.stream(ASKED, params(max_tokens=400, seed=seed), **asked) as stream:
                deltas = list(stream)
            completion = stream.completion
            check_calls(completion, tools)
            calls = [{"name": call.name, "arguments": call.arguments} for call in completion.tool_calls]
            assert joined(deltas) == (completion.text, completion.reasoning, calls)
            assert completion.text == "" or completion.finish_reason is FinishReason.LENGTH
            assert parallel or len(calls) <= 1
            assert choice == "required" or all(call["name"] == named.name for call in calls)
            num_calls += len(calls)
            num_ended += completion.finish_reason is FinishReason.TOOL_CALLS
        if seed < 20:
            again = llm.chat(ASKED, params(max_tokens=400, seed=seed), **asked)
            assert (again.token_ids, again.reasoning) == (completion.token_ids, completion.reasoning)
            assert [call.arguments for call in again.tool_calls] == [call["arguments"] for call in calls]
    assert num_ended > NUM_SCHEMAS / 2
    assert num_calls > NUM_SCHEMAS


def test_the_model_decides_and_a_call_once_begun_validates(llm: LLM) -> None:
    tools = [WEATHER, NOW]
    num_called = num_text = 0
    for seed in range(30):
        completion = llm.chat(ASKED, params(max_tokens=200, seed=seed), tools=tools)
        if completion.tool_calls:
            check_calls(completion, tools)
        num_called += bool(completion.tool_calls)
        num_text += bool(completion.text)
    assert num_text
    if llm.template.source.count("[TOOL_CALLS]"):  # a marker of one token, which noise does draw
        assert num_called


def test_none_offers_nothing(llm: LLM) -> None:
    plain = llm.chat(ASKED, params(seed=4))
    none = llm.chat(ASKED, params(seed=4), tools=[WEATHER], tool_choice="none")
    assert (none.text, none.token_ids) == (plain.text, plain.token_ids)


def test_a_conversation_goes_on_with_results(llm: LLM) -> None:
    first = llm.chat(ASKED, params(max_tokens=300), tools=[WEATHER], tool_choice=NamedTool("weather"))
    if not first.tool_calls:
        pytest.skip("this model thinks for ever")
    result = Message("tool", "18 degrees", tool_call_id=first.tool_calls[0].id)
    longer = [Message("user", "hi"), first.message, result]
    assert llm.chat(longer, params(), tools=[WEATHER]).usage.prompt_tokens > first.usage.prompt_tokens


def test_an_answer_with_tools_may_follow_a_schema_instead(llm: LLM) -> None:
    schema = {"enum": ["a", "b"]}
    for seed in range(6):
        completion = llm.chat(ASKED, params(max_tokens=200, seed=seed), tools=[NOW], schema=schema)
        if completion.finish_reason is FinishReason.STOP and completion.text:
            assert json.loads(completion.text) in ("a", "b")
        elif completion.finish_reason is FinishReason.TOOL_CALLS:
            assert {call.name for call in completion.tool_calls} == {"now"}


def canonical(kind: str, *, many: bool) -> str:
    call = '{"name": "weather", "KEY": {"city": "Paris"}}'
    calls = [call, '{"name": "now", "KEY": {}}'] if many else [call]
    match kind:
        case "mistral":
            return ("[TOOL_CALLS][" + ", ".join(calls) + "]").replace("KEY", "arguments")
        case "llama-3":
            return "; ".join(calls).replace("KEY", "parameters")
    text = "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls).replace("KEY", "arguments")
    return {"opened": "So.\n</think>", "thinking": "<think>So.</think>\n"}.get(kind, "") + text


@pytest.mark.parametrize("is_control", [False, True])
@pytest.mark.parametrize("kind", ["fallback", "hermes", "mistral", "llama-3", "thinking", "opened"])
def test_grammars_accept_what_models_write_and_the_parser_reads(kind: str, is_control: bool) -> None:
    from openherd.constrain import compile_grammar

    markers = {**CONTROL, "thinking": ("<think>", "</think>")}[kind] if is_control else ()
    with tool_llm(kind, control=markers, backend="reference") as model:
        loaded = model._model
        for choice in ("auto", "required"):
            box = toolbox([WEATHER, NOW], choice, parallel=True)
            ids, opened = loaded.marker_ids, kind == "opened"
            grammar = answer_grammar(loaded.format, box, control_ids=ids, is_thinking=opened)
            constraint = compile_grammar(grammar, model.tokenizer, model.config.vocab_size)
            for many in (False, True):
                state = constraint.fork()
                text = canonical(kind, many=many)
                for token in model.tokenizer.encode(text, special=True, add_bos=False):
                    mask = state.next([])
                    assert mask[token // 32] >> (token % 32) & 1, (text, token)
                    state.accept([token])
                assert state.is_accepting
            free = constraint.fork()
            said = ("So.</think>" if opened else "") + "Just text, with { and <tool."
            tokens = model.tokenizer.encode(said, special=True, add_bos=False)
            if choice == "auto":
                free.accept(tokens)
                assert free.is_accepting


def test_a_call_that_strays_from_its_schema_is_cut_off() -> None:
    from openherd.constrain import compile_grammar

    with tool_llm("hermes", backend="reference") as model:
        box = toolbox([WEATHER], "auto", parallel=True)
        grammar = answer_grammar(model._model.format, box, control_ids={}, is_thinking=False)
        state = compile_grammar(grammar, model.tokenizer, model.config.vocab_size)
        begun = 'Well: <tool_call>\n{"name": "weather", "arguments": {"city": "'
        state.accept(model.tokenizer.encode(begun, add_bos=False))
        mask = state.next([])
        allowed = [token for token in range(model.tokenizer.vocab_size) if mask[token // 32] >> (token % 32) & 1]
        assert {model.tokenizer.token_bytes(token)[:1] for token in allowed} == {b"P", b"R"}


def test_stop_strings_and_guards_see_the_text_as_written(llm: LLM) -> None:
    class Guard:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_prompt(self, spans: object) -> Decision:
            return Decision.RELEASE

        def on_text(self, held: str, final: bool) -> Decision:
            self.seen.append(held)
            return Decision.RELEASE

        def fork(self) -> Guard:
            return self

    guard = Guard()
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    whole = llm.chat(ASKED, params(max_tokens=300), guard=guard, **asked)
    if not whole.tool_calls:
        pytest.skip("this model thinks for ever")
    assert '{"name": "weather", ' in "".join(guard.seen)
    cut = llm.chat(ASKED, params(max_tokens=300, stop=('"city"',)), **asked)
    assert cut.stop_match == '"city"'
    assert whole.tool_calls[0].arguments.startswith(cut.tool_calls[0].arguments)
    assert '"city"' not in cut.tool_calls[0].arguments


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([{"type": "function"}], "auto", "tools[0]"),
        ([{"type": "function", "function": {"name": "a b"}}], "auto", "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "a" * 65}}], "auto", "tools[0].function.name"),
        ([NOW, NOW], "auto", "tools"),
        ([NOW] * 129, "auto", "tools"),
        ([NOW], NamedTool("then"), "tool_choice"),
        ([], "required", "tool_choice"),
        ([{"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}], "auto", None),
        ([{"type": "function", "function": {"name": "a", "description": "x" * 300_000}}], "auto", "tools"),
    ],
    ids=str,
)
def test_tools_that_cannot_be_offered(tools: Any, choice: Any, param: str | None) -> None:
    with pytest.raises(ToolError) as found:
        toolbox(tools, choice, parallel=True)
    assert param is None or found.value.param == param


def test_a_schema_that_cannot_be_enforced_is_refused_where_it_must_be() -> None:
    strange = {"type": "object", "properties": {"x": {"not": {"type": "null"}}}, "required": ["x"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": strange}}
    strict: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": strange, "strict": True}}
    with tool_llm("fallback", backend="reference") as model:
        with pytest.raises(ToolError, match="'not'") as found:
            model.chat(ASKED, params(), tools=[NOW, tool], tool_choice="required")
        assert found.value.param == "tools[1].function.parameters"
        with pytest.raises(ToolError, match="'not'"):
            model.chat(ASKED, params(), tools=[strict])
        assert model.chat(ASKED, params(max_tokens=2), tools=[tool]).finish_reason is FinishReason.LENGTH
        with pytest.raises(InputError, match="ignore_eos"):
            model.chat(ASKED, params(ignore_eos=True), tools=[NOW])


def test_a_model_that_thinks_still_follows_a_schema() -> None:
    schema = {"enum": ["a", "b"]}
    with tool_llm("opened", control=CONTROL["opened"]) as model:
        num_answers = 0
        for seed in range(8):
            completion = model.chat(ASKED, params(max_tokens=400, seed=seed), schema=schema)
            if completion.text:
                assert completion.reasoning
                assert json.loads(completion.text) in ("a", "b")
                num_answers += 1
        assert num_answers
