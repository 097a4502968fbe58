"""Every API reaches every model: loaded when asked for, logged, counted, and refused in its own words meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import serving
from tests.serve.test_models import NAMES, busy, configuration, herd_of_three, states
from tests.serve.test_overload import wait_until
from tests.unit.llm.tiny_file import write_model

TEXT = "a b"
MESSAGES = [{"role": "user", "content": TEXT}]
# What each path takes, and where its answer says how many tokens the prompt had and the answer has.
APIS: dict[str, tuple[dict[str, Any], str, str]] = {
    "/v1/chat/completions": ({"messages": MESSAGES, "max_tokens": 4}, "prompt_tokens", "completion_tokens"),
    "/v1/completions": ({"prompt": TEXT, "max_tokens": 4}, "prompt_tokens", "completion_tokens"),
    "/v1/responses": ({"input": TEXT, "max_output_tokens": 4}, "input_tokens", "output_tokens"),
    "/v1/messages": ({"messages": MESSAGES, "max_tokens": 4}, "input_tokens", "output_tokens"),
    "/v1/embeddings": ({"input": TEXT}, "prompt_tokens", ""),
}
COUNTED = {"/v1/messages/count_tokens": {"messages": MESSAGES}}
BODIES = {path: body for path, (body, *_) in APIS.items()} | COUNTED
ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        write_model(folder / f"{name}.gguf")
    return folder


@pytest.mark.parametrize("path", BODIES)
def test_each_api_loads_the_model_it_names_logs_it_and_counts_for_it(folder: Path, tmp_path: Path, path: str) -> None:
    log = tmp_path / "log"
    flags = ("--config", str(configuration(folder)), "--log", "json", "--log-prompts")
    with log.open("w") as stderr, serving(*flags, stderr=stderr) as server:
        assert states(server)["beta"] == "unloaded"
        answer = server.post(path, {**BODIES[path], "model": "beta"})
        assert answer.status == 200, answer.body
        assert states(server)["beta"] == "loaded"
        wait_until(lambda: f'"{path}"' in log.read_text())
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        (line,) = (line for line in lines if line["path"] == path)
        assert (line["model"], line["status"]) == ("beta", 200)
        if path in COUNTED:
            return
        _, prompt, completion = APIS[path]
        usage = answer.json["usage"]
        made = usage[completion] if completion else None
        assert line["prompt_tokens"] == usage[prompt] > 0
        assert line["completion_tokens"] == made
        assert TEXT in json.dumps(line["prompts"])
        metrics = server.metrics()
        assert metrics['openherd_model_prompt_tokens_total{model="beta"}'] == usage[prompt]
        assert metrics['openherd_model_completion_tokens_total{model="beta"}'] == (made or 0)
        assert metrics["openherd_prompt_tokens_total"] == usage[prompt]


def test_a_model_that_finds_no_room_is_an_error_of_the_api_that_was_asked(folder: Path) -> None:
    with herd_of_three(folder, load_wait=0.5) as server, busy(server, "alpha", "beta"):
        for path, body in BODIES.items():
            refused = server.post(path, {**body, "model": "gamma"})
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
            unknown = server.post(path, {**body, "model": "delta"})
            assert unknown.status == 404
            if path in ANTHROPIC:
                assert set(refused.json) == {"type", "error"}
                assert refused.json["error"]["type"] == "overloaded_error"
                assert unknown.json["error"]["type"] == "not_found_error"
            else:
                assert refused.error["code"] == "unavailable"
                assert unknown.error["code"] == "model_not_found"
