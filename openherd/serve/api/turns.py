"""A conversation put together from smaller items than messages: texts, thoughts, calls and their answers."""

from __future__ import annotations

from typing import Any

from openherd.serve.api.conversation import check_arguments, wrong
from openherd.serve.api.json_size import JsonSize


class Turns:
    """`messages` is the conversation as the worker takes it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._made: set[str] = set()  # ids of the calls so far
        self._size = JsonSize()  # of their arguments

    def say(self, role: str, text: str) -> None:
        message = self._assistant() if role == "assistant" else self._begin(role)
        if message["content"] or message.get("tool_calls"):
            message = self._begin(role)
        message["content"] = text

    def think(self, text: str) -> None:
        """Before the assistant speaks or calls."""
        self._begin("assistant")["reasoning_content"] = text

    def call(self, call_id: str, name: str, arguments: str, *, param: str) -> None:
        """The assistant calls a function. Raises `ApiError` for arguments (at `param`) that are no JSON object."""
        check_arguments(arguments, param, self._size)
        function = {"name": name, "arguments": arguments}
        calls = self._assistant().setdefault("tool_calls", [])
        calls.append({"id": call_id, "type": "function", "function": function})
        self._made.add(call_id)

    def answer(self, call_id: str, text: str, *, param: str) -> None:
        """What the function gave. Raises `ApiError` for the id (at `param`) of a call that nobody made."""
        if call_id not in self._made:
            raise wrong(param, "nothing before it makes a call of this id")
        self._begin("tool").update(content=text, tool_call_id=call_id)

    def _assistant(self) -> dict[str, Any]:
        """The assistant's message that goes on."""
        if self.messages and self.messages[-1]["role"] == "assistant":
            return self.messages[-1]
        return self._begin("assistant")

    def _begin(self, role: str) -> dict[str, Any]:
        self.messages.append({"role": role, "content": ""})
        return self.messages[-1]
