"""A6: clients that people use, each through chat, stream, tools, JSON schema, abort and typed errors.

Each is a program in the environment that `make clients` made (OPENHERD_CLIENTS names its folder), run once; a line of
its output is the result of a case.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openherd.serve.keys import digest_of
from tests.serve.conftest import Server, serving
from tests.serve.test_overload import wait_until

HERE = Path(__file__).parent
CLIENTS = Path(os.environ.get("OPENHERD_CLIENTS", ".clients")).absolute()
PYTHON = CLIENTS / "python" / "bin" / "python"
PARIS = "The capital of France is Paris."
LIMIT_S = 240


@dataclass(slots=True)
class Client:
    """`errors`: the exception's type for each mistake; its status is the same for all."""

    name: str
    program: str
    errors: dict[str, str]
    lacks: tuple[str, ...] = ()  # what its docstring says that it does not do
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_aborted: float = 0.0

    def value(self, case: str) -> Any:
        result = self.results[case]
        assert "error" not in result, result["error"]
        return result["value"]


OPENAI = {
    "unknown model": "NotFoundError",
    "bad parameter": "BadRequestError",
    "wrong key": "AuthenticationError",
    "too many": "RateLimitError",
}
LANGCHAIN = {
    "unknown model": "OpenAIModelNotFoundError",
    "bad parameter": "OpenAIInvalidRequestError",
    "wrong key": "OpenAIAuthenticationError",
    "too many": "OpenAIRateLimitError",
}
AI_SDK = dict.fromkeys(OPENAI, "APICallError")
CLIENTS_TRIED = [
    Client("openai", "openai_python.py", OPENAI),
    Client("langchain-openai", "langchain_openai_python.py", LANGCHAIN),
    Client("litellm", "litellm_python.py", OPENAI),
    Client("llm", "llm_python.py", {k: v for k, v in OPENAI.items() if k != "too many"}, ("tools", "streamed_tools")),
    Client("npm openai", "openai_node.mjs", OPENAI),
    Client("npm @ai-sdk/openai-compatible", "ai_sdk_node.mjs", AI_SDK),
]
STATUSES = {"unknown model": 404, "bad parameter": 400, "wrong key": 401, "too many": 429}


@pytest.fixture(scope="module")
def server(default_model: Path) -> Iterator[Server]:
    with serving("--context", "2048") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def guarded(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose keys, one for each client, may ask once a minute."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    lines = [f"k{i} {digest_of(key_of(client)).hex()} requests=1" for i, client in enumerate(CLIENTS_TRIED)]
    file.write_text("\n".join(lines))
    with serving("--context", "512", "--keys", str(file)) as server:
        yield server


def key_of(client: Client) -> str:
    return f"herd-key-of-{client.program}"


@pytest.fixture(scope="module", params=CLIENTS_TRIED, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest, server: Server, guarded: Server) -> Client:
    """One that has been through all cases."""
    tried: Client = request.param
    if tried.program.endswith(".mjs"):
        for path in (HERE / "programs").glob("*.mjs"):
            shutil.copy(path, CLIENTS / "node")  # beside its modules, where node looks for them
        command = ["node", str(CLIENTS / "node" / tried.program)]
    else:
        command = [str(PYTHON), str(HERE / "programs" / tried.program)]
    aborted = server.engine("aborted_total")
    done = subprocess.run(
        [*command, server.url, guarded.url, key_of(tried)], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Some clients write words of their own between.
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case":')]
    tried.results = {result["case"]: result for result in results}
    wait_until(lambda: server.engine("running") == 0)
    tried.num_aborted = server.engine("aborted_total") - aborted
    return tried


def test_chat(client: Client) -> None:
    assert client.value("chat") == PARIS


def test_stream(client: Client) -> None:
    value = client.value("stream")
    assert value["text"] == PARIS
    assert value["pieces"] > 1, "it came in one piece"
    assert value["tokens"] == 8


def test_tools(client: Client) -> None:
    value = client.value("tools")
    assert value["after"], "nothing was said after the tool's result"
    if "tools" not in client.lacks:
        assert value["name"] == "get_weather"
        assert set(value["arguments"]) == {"city"}


def test_streamed_tools(client: Client) -> None:
    if "streamed_tools" in client.lacks:
        assert "streamed_tools" not in client.results
        return
    value = client.value("streamed_tools")
    assert value["name"] == "get_weather"
    assert set(value["arguments"]) == {"city"}


def test_a_schema_is_followed(client: Client) -> None:
    value = client.value("schema")
    assert set(value) == {"city", "big"}
    assert isinstance(value["big"], bool)


def test_leaving_early_frees_the_work(client: Client) -> None:
    assert client.value("abort") == 5
    assert client.num_aborted == 1, "it ended by itself, or was left to run"


def test_errors_are_typed(client: Client) -> None:
    assert client.value("errors") == {mistake: [kind, STATUSES[mistake]] for mistake, kind in client.errors.items()}
