"""Every parameter that the manual's table has does what the table says."""

from __future__ import annotations

from typing import Any

import pytest

from openherd.serve.api.parameters import REQUESTS, parameters
from tests.serve import make_parameters
from tests.serve.client import PARIS
from tests.serve.conftest import Server

NEEDED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": PARIS, "max_tokens": 2},
    "/v1/completions": {"prompt": "1, 2,", "max_tokens": 2},
    "/v1/responses": {"model": "smollm2", "input": "hi", "max_output_tokens": 2},
    "/v1/messages": {"model": "smollm2", "messages": PARIS, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "smollm2", "messages": PARIS},
    "/v1/embeddings": {"input": "a"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": PARIS},
}
assert set(REQUESTS) - set(NEEDED) == {"/models/load", "/models/unload"}, "tests/serve/test_models.py has these"
REFUSED = [(path, p.name) for path, request in REQUESTS.items() for p in parameters(request) if p.status == "400"]
ANTHROPIC = "/v1/messages"  # its errors have no param
# What a name means in one API and not in another.
HONOURED_BY_PATH: dict[str, dict[str, Any]] = {
    "/v1/responses": {"top_logprobs": 2},
    "/v1/messages": {"metadata": {"user_id": "a"}, "service_tier": "auto"},
}
HONOURED: dict[str, Any] = {
    "model": "smollm2",
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 1,
    "frequency_penalty": -1.0,
    "logit_bias": {"7": -100},
    "max_tokens": 3,
    "seed": 2**64 - 1,
    "stop": ["x", "y"],
    "stop_token_ids": [5],
    "ignore_eos": True,
    "n": 2,
    "response_format": {"type": "text"},
    "stream": True,
    "user": "somebody",
    "metadata": {"a": "b"},
    "safety_identifier": "a",
    "prompt_cache_key": "a",
    "modalities": ["text"],
    "input": "b",
    "max_output_tokens": 3,
    "instructions": "Be brief.",
    "include": ["message.output_text.logprobs"],
    "store": False,
    "truncation": "disabled",
    "background": False,
    "stop_sequences": ["x"],
    "system": "Be brief.",
    "thinking": {"type": "disabled"},
    "cache_control": {"type": "ephemeral"},
    "encoding_format": "base64",
    "content": "b",
    "tokens": [1, 2],
    "add_special": True,
    "parse_special": True,
    "with_pieces": True,
}


def test_the_page_of_parameters_is_current() -> None:
    written = make_parameters.PAGE.read_text(encoding="utf-8")
    assert written == make_parameters.page(), "run: python -m tests.serve.make_parameters"


@pytest.mark.parametrize(("path", "name"), REFUSED)
def test_a_parameter_that_is_not_done_is_refused_by_name(server: Server, path: str, name: str) -> None:
    for value in ({}, [], "x", 1, True):
        refused = server.post(path, {**NEEDED[path], name: value})
        assert refused.status == 400
        assert name in refused.json["error"]["message"]
        if not path.startswith(ANTHROPIC):
            assert refused.error["param"] == name
    assert server.post(path, {**NEEDED[path], name: None}).status == 200


@pytest.mark.parametrize(("value", "shown"), [(1, "not 1"), (0, "not 0"), ("x", "not 'x'")])
def test_an_error_shows_the_value_that_was_sent(server: Server, value: object, shown: str) -> None:
    assert server.chat(max_tokens=1, stream=value).error["message"].endswith(shown)
    assert server.chat(max_tokens=1, tools=True).error["message"].endswith("not true")


def test_what_python_finds_equal_is_not_taken_for_the_only_value(server: Server) -> None:
    for path, name, value in (
        ("/v1/completions", "echo", 0),
        ("/v1/completions", "best_of", True),
        ("/v1/chat/completions", "store", 0),
        ("/v1/responses", "background", 0.0),
    ):
        assert server.post(path, {**NEEDED[path], name: value}).error["param"] == name


@pytest.mark.parametrize("path", NEEDED)
def test_honoured_parameters_are_taken_and_their_null_too(server: Server, path: str) -> None:
    num_tried = 0
    honoured = HONOURED | HONOURED_BY_PATH.get(path, {})
    for parameter in parameters(REQUESTS[path]):
        if parameter.status != "400" and (value := honoured.get(parameter.name)) is not None:
            answer = server.post(path, {**NEEDED[path], parameter.name: value})
            assert answer.status == 200, (parameter.name, answer.body)
            num_tried += 1
    assert num_tried or path == "/apply-template"
    unknown = server.post(path, {**NEEDED[path], "parameter_of_nobody": 1})
    assert unknown.json["error"]["message"] == "unknown parameter: parameter_of_nobody"


def test_sampling_parameters_change_what_is_drawn(server: Server) -> None:
    """An honoured parameter that did nothing would be worse than a refused one."""
    messages = [{"role": "user", "content": "Invent names for five ships."}]
    base = {"messages": messages, "temperature": 1, "seed": 1, "max_tokens": 30, "top_p": 1, "n": 1}
    plain = server.chat(**base).text
    for change in (
        {"temperature": 0.01},
        {"top_p": 0.01},
        {"top_k": 1},
        {"min_p": 0.99},
        {"seed": 2},
        {"repetition_penalty": 3},
        {"presence_penalty": 50},
        {"frequency_penalty": 50},
        {"logit_bias": {"504": -100, "1": 50}},
        {"stop": plain[4:8]},
        {"max_tokens": 2},
    ):
        assert server.chat(**{**base, **change}).text != plain, change
    ended = server.chat(max_tokens=30).json["choices"][0]
    assert (
        ended["finish_reason"],
        server.chat(max_tokens=30, ignore_eos=True).json["choices"][0]["finish_reason"],
    ) == (
        "stop",
        "length",
    )
