"""The answer to a request for vectors: a list of any length, written element by element.

Thousands of vectors are millions of digits; written at once they would keep the front from answering others.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openherd.serve.api.answers import Usage
from openherd.serve.api.embeddings import EmbeddingRequest, list_around
from openherd.serve.front.accounts import Account
from openherd.serve.front.calls import Call
from openherd.serve.front.clients import send_body, while_connected
from openherd.serve.front.errors import error_of
from openherd.serve.front.generation import Route
from openherd.serve.front.metrics import Metrics
from openherd.serve.front.records import Record


class Embeddings(Response):
    """An ASGI answer that runs one request on a worker."""

    def __init__(self, route: Route, asked: EmbeddingRequest, metrics: Metrics) -> None:
        super().__init__()
        self._route = route
        self._asked = asked
        self._metrics = metrics.of(route.worker.spec.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        account = Account(self._metrics, scope["state"]["tenant"])
        asked = self._asked.frame()
        record: Record = scope["state"]["record"]
        record.prompts = asked["texts"]
        frame = {**asked, "adapter": self._route.adapter, "salt": account.salt}
        call = self._route.worker.call(frame)
        call.on_unfinished = account.unfinished
        try:
            await while_connected(receive, self._answer(call, account, send))
        finally:
            call.cancel()
            record.prompt_tokens = call.prompt_tokens

    async def _answer(self, call: Call, account: Account, send: Send) -> None:
        """Nothing is sent before everything is there, so that a failure still has a status."""
        vectors: dict[int, str] = {}
        while (event := await call.next())["type"] != "end":
            if event["type"] == "error":
                raise error_of(event)
            if event["type"] == "embedding":
                vectors[event["index"]] = event["vector"]
        usage = Usage(prompt_tokens=call.prompt_tokens)
        account.finished(call, usage)
        await self._send(send, vectors, usage)

    async def _send(self, send: Send, vectors: dict[int, str], usage: Usage) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        head, tail = list_around(self._route.name, usage)
        await send_body(send, head)
        for index in range(len(vectors)):
            comma = b"," if index else b""
            await send_body(send, comma + self._asked.entry(index, vectors.pop(index)))
            await asyncio.sleep(0)  # the others' turn
        await send_body(send, tail, more=False)
