"""S8 and S9: stop strings and characters across tokens. And /v1/completions, /tokenize and its like."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.client import PARIS, check_chat_grammar
from tests.serve.conftest import FULL, Server

CHAT = "/v1/chat/completions"
NUM_OUTPUTS = 1000 if FULL else 20
STORY = [{"role": "user", "content": "Tell me about rivers and the sea."}]


def test_s8_stop_strings_cut_exactly(server: Server) -> None:
    """Stops cut at random places of a known answer: stream and whole agree, and are the prefix before the stop."""
    body = {"messages": STORY, "temperature": 0, "max_tokens": 60, "ignore_eos": True}
    full = server.post(CHAT, body).text

    def begins_inside_a_token(number: int) -> bool:
        rng = random.Random(number)
        start = rng.randrange(1, len(full) - 12)
        stop = full[start : start + rng.randint(1, 12)]
        expected = full[: full.index(stop)]
        whole = server.post(CHAT, {**body, "stop": [stop, "\0never"], "logprobs": True}).json["choices"][0]
        assert whole["message"]["content"] == expected
        assert whole["finish_reason"] == "stop"
        (streamed,), _ = check_chat_grammar(server.events(CHAT, {**body, "stop": stop}))
        assert (streamed.text, streamed.finish_reason) == (expected, "stop")
        said = b"".join(bytes(token["bytes"]) for token in whole["logprobs"]["content"])
        assert said.startswith(expected.encode())
        return said != expected.encode()

    with ThreadPoolExecutor(16) as pool:
        assert any(list(pool.map(begins_inside_a_token, range(NUM_OUTPUTS)))), "no stop began inside a token"


def test_s9_characters_split_across_tokens_come_whole(server: Server) -> None:
    """Outputs at a temperature that makes odd characters; the tokens' bytes show that some were split."""

    def is_split(seed: int) -> bool:
        body = {
            "messages": [{"role": "user", "content": "Write emoji and 日本語: 🙂🚀🌍"}],
            "temperature": 1.2,
            "seed": seed,
            "max_tokens": 30,
            "logprobs": True,
        }
        (streamed,), _ = check_chat_grammar(server.events(CHAT, body))
        whole = server.post(CHAT, body).json["choices"][0]
        assert streamed.text == whole["message"]["content"]
        pieces = [bytes(token["bytes"]) for token in whole["logprobs"]["content"]]
        # A half character at the very end is left out; one broken in the middle is U+FFFD, as decoding at once has it.
        decoded = b"".join(pieces).decode("utf-8", "replace")
        assert decoded.startswith(streamed.text)
        assert set(decoded[len(streamed.text) :]) <= {"\ufffd"}
        return any(not is_whole(piece) for piece in pieces)

    with ThreadPoolExecutor(16) as pool:
        assert any(list(pool.map(is_split, range(NUM_OUTPUTS)))), "no character was split across tokens"


def is_whole(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_completions_of_text_ids_and_lists(server: Server) -> None:
    ids = server.post("/tokenize", {"content": "1, 2, 3,"}).json["tokens"]
    by_text, by_ids = (server.complete(prompt, max_tokens=4) for prompt in ("1, 2, 3,", ids))
    assert by_text.text == by_ids.text
    assert by_text.text.startswith(" 4")
    both = server.complete(["1, 2, 3,", "The capital of France is"], max_tokens=4, n=2, seed=1, temperature=1).json
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    apart = [
        server.complete(prompt, max_tokens=4, n=2, seed=1, temperature=1).json["choices"]
        for prompt in ("1, 2, 3,", "The capital of France is")
    ]
    assert [c["text"] for c in both["choices"]] == [c["text"] for choices in apart for c in choices]
    assert both["usage"]["completion_tokens"] <= 16


def test_completion_logprobs_stand_side_by_side(server: Server) -> None:
    document = server.complete("The capital of France is", max_tokens=6, logprobs=2).json
    logprobs, text = document["choices"][0]["logprobs"], document["choices"][0]["text"]
    assert "".join(logprobs["tokens"]) == text
    assert len({len(entries) for entries in logprobs.values()}) == 1
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert text[offset : offset + len(token)] == token
    events = server.events(
        "/v1/completions", {"prompt": "The capital of France is", "max_tokens": 6, "logprobs": 2, "temperature": 0}
    )
    chunks = [event["choices"][0] for event in events[:-1]]
    assert "".join(chunk["text"] for chunk in chunks) == text
    streamed = [offset for chunk in chunks if chunk["logprobs"] for offset in chunk["logprobs"]["text_offset"]]
    assert streamed == logprobs["text_offset"]


@pytest.mark.parametrize("prompt", ["", [], [[]], [""], [["a"]], [[1], "a"], {"a": 1}, 1, None], ids=str)
def test_odd_prompts_are_answered_or_refused(server: Server, prompt: object) -> None:
    assert server.complete(prompt, max_tokens=1).status in (200, 400)


def test_tokenize_and_back(server: Server) -> None:
    text = "Grüße, 世界! <|im_end|>"
    tokens = server.post("/tokenize", {"content": text, "with_pieces": True}).json
    assert tokens["count"] == len(tokens["tokens"])
    assert b"".join(bytes(piece["bytes"]) for piece in tokens["pieces"]).decode() == text
    assert server.post("/detokenize", {"tokens": tokens["tokens"]}).json == {"content": text}
    with_control = server.post("/tokenize", {"content": text, "parse_special": True}).json
    assert with_control["count"] < tokens["count"], "control tokens in text stayed text when asked to count"


def test_the_template_shows_what_the_model_reads(server: Server) -> None:
    prompt = server.post("/apply-template", {"messages": PARIS}).json["prompt"]
    assert prompt.endswith("<|im_start|>assistant\n")
    assert PARIS[0]["content"] in prompt
    count = server.post("/tokenize", {"content": prompt, "parse_special": True}).json["count"]
    assert server.chat(max_tokens=1).json["usage"]["prompt_tokens"] == count
