"""A stream whose reader was slow: what waited goes out in pieces, whole, and others have their turn between."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from starlette.types import Message

from openherd.serve.api.answers import Head
from openherd.serve.api.chat import ChatRequest
from openherd.serve.front.calls import Call, Calls
from openherd.serve.front.errors import ApiError
from openherd.serve.front.generation import MAX_PIECE_BYTES, Generation, Route
from openherd.serve.front.metrics import Metrics
from openherd.serve.front.workers import ModelSpec, ModelWorker
from openherd.serve.lifecycle import Lifecycle

NUM_DELTAS = 20_000
ACCEPTED = {"type": "accepted", "prompt_tokens": 3, "seed": 1}
END = {
    "type": "end", "choice": 0, "finish_reason": "length", "stop": None,
    "completion_tokens": NUM_DELTAS, "cached_tokens": 0, "reasoning_tokens": 0,
}  # fmt: skip
ERROR = {"type": "error", "status": 503, "message": "it died", "param": None, "code": None}


def delta(number: int) -> dict[str, Any]:
    return {"type": "delta", "choice": 0, "text": f"{number} ", "tokens": None}


async def written(*events: dict[str, Any]) -> tuple[list[bytes], int]:
    """What goes out where all these events wait already, and how many turns others had meanwhile."""
    worker = ModelWorker(ModelSpec("m", "m.gguf"), tell=lambda news: None)
    asked = ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], "stream": True})
    generation = Generation(
        Route("m", worker, None), asked.answer_format(), Metrics(Lifecycle(), [worker]), stream=True
    )
    generation._arrived, generation._head = 0.0, Head("id", 1, "m", "n")
    generation._account = cast(Any, SimpleNamespace(finished=lambda call, usage: None))
    call = Call(Calls(lambda frame: None), 1)
    for event in events:
        call.put(event)
    pieces: list[bytes] = []
    turns = 0

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await generation._write_events(call, send)
    task.cancel()
    return pieces, turns


def texts(pieces: list[bytes]) -> str:
    blocks = b"".join(pieces).strip().split(b"\n\n")
    chunks = [json.loads(block[6:]) for block in blocks if block != b"data: [DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if "choices" in chunk)


def test_what_waited_goes_out_in_pieces() -> None:
    pieces, turns = asyncio.run(written(ACCEPTED, *map(delta, range(NUM_DELTAS)), END))
    assert texts(pieces) == "".join(f"{number} " for number in range(NUM_DELTAS))
    assert max(map(len, pieces)) < MAX_PIECE_BYTES + 1000
    assert turns > sum(map(len, pieces)) // MAX_PIECE_BYTES // 2


def test_what_came_before_an_error_is_written_before_it() -> None:
    pieces, _ = asyncio.run(written(ACCEPTED, delta(1), delta(2), ERROR))
    assert texts(pieces) == "1 2 "
    assert json.loads(pieces[-1].strip().split(b"\n\n")[-1][6:])["error"]["message"] == str(ApiError(503, "it died"))
