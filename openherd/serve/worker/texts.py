"""Tokenizing, its inverse, and chat templates, as operations of their own."""

from __future__ import annotations

from typing import Any

from openherd.errors import InputError
from openherd.llm.loading import LoadedModel
from openherd.llm.prompts import encode, messages
from openherd.llm.tool_prompts import for_template
from openherd.llm.tools import toolbox
from openherd.serve.wire import Frame

# Tokenizing takes 130 bytes of memory for a character at worst: 32 MiB for a text of this length.
MAX_CHARACTERS = 2**18


def tokenize(model: LoadedModel, frame: Frame) -> dict[str, Any]:
    """Ids of `content`, with the bytes of each where asked."""
    tokenizer, content = model.tokenizer, frame["content"]
    if len(content) > MAX_CHARACTERS:
        raise InputError(f"content has {len(content)} characters; at most {MAX_CHARACTERS} are tokenized at once")
    ids = tokenizer.encode(content, special=frame["parse_special"], add_bos=frame["add_special"])
    value: dict[str, Any] = {"tokens": ids, "count": len(ids)}
    if frame["with_pieces"]:
        value["pieces"] = [
            {"id": token_id, "piece": data.decode("utf-8", "replace"), "bytes": list(data)}
            for token_id, data in ((token_id, tokenizer.token_bytes(token_id)) for token_id in ids)
        ]
    return value


def detokenize(model: LoadedModel, frame: Frame) -> dict[str, Any]:
    """Text of `tokens`, control tokens included."""
    size = model.tokenizer.vocab_size
    for token_id in frame["tokens"]:
        if not 0 <= token_id < size:
            raise InputError(f"{token_id} is not a token id; this model's are 0 to {size - 1}")
    return {"content": model.tokenizer.decode(frame["tokens"], skip_special=False)}


def render(model: LoadedModel, frame: Frame) -> dict[str, Any]:
    """The conversation as the model reads it."""
    box = toolbox(frame["tools"], "auto", parallel=True)
    given, offered = for_template(messages(frame["messages"]), box.documents, model.format)
    return {"prompt": "".join(span.text for span in model.template.render(given, tools=offered))}


def count(model: LoadedModel, frame: Frame) -> dict[str, Any]:
    """Tokens that the conversation takes of the context, as it would be answered."""
    tools = None if frame["tool_choice"] == "none" else frame["tools"]
    box = toolbox(tools, "auto", parallel=True)
    return {"input_tokens": len(encode(model, frame["messages"], tools=box.documents).ids)}
