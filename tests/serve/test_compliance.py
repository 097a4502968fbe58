"""A1, A2, A3, A5: programs that were written by others to judge such an API, against a server of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import FULL, Server, serving

NUM_EXAMPLES = 200 if FULL else 4  # an operation
# Coverage makes some 4,000 requests, which takes a minute or two.
PHASES = "examples,coverage,fuzzing" if FULL else "examples,fuzzing"

# Format, its tests that must pass, of how many. Not passed: images, which no text model takes, and what is skipped
# for models that are not of the API's own company.
COMPLY = [("openai-chat", 7, 9), ("open-responses", 10, 13), ("anthropic", 7, 9)]
# Not checked: that every request which fits the document is answered. Some are a 400 that no schema can foresee: what
# does not fit the context, a schema that no text can follow, parameters that exclude each other.
UNCHECKED = "positive_data_acceptance"
# What a request that does not fit the document may get: schemathesis itself does not know 413, which is what a body of
# too many values gets.
CONFIGURATION = "[checks]\nnegative_data_rejection.expected-statuses = [400, 404, 405, 413, 415]\n"


@pytest.fixture(scope="module")
def strict(default_model: Path) -> Iterator[Server]:
    """A server that wants every request to name its model, as these programs do."""
    with serving("--context", "2048", "--require-model") as server:
        yield server


@pytest.mark.parametrize(("api_format", "least", "num_tests"), COMPLY)
def test_llm_comply(strict: Server, api_format: str, least: int, num_tests: int) -> None:
    command = ["-m", "llm_comply.cli", "run", "--format", api_format, "--json", "-u", f"{strict.url}/v1"]
    options = ["-m", "smollm2", "-k", "none", "-H", "anthropic-version:2023-06-01", "--timeout", "200"]
    done = subprocess.run(
        [sys.executable, *command, *options], capture_output=True, text=True, timeout=240, check=False
    )
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    assert len(results) == num_tests
    passed = [result["id"] for result in results if result["status"] == "passed"]
    failed = {result["id"]: result["errors"] for result in results if result["status"] == "failed"}
    assert len(passed) >= least, failed


def test_a_request_must_name_its_model_where_that_is_asked(strict: Server) -> None:
    body = {"prompt": "a", "max_tokens": 1}
    refused = strict.post("/v1/completions", body)
    assert (refused.status, refused.error["param"], refused.error["code"]) == (400, "model", "missing_parameter")
    assert strict.post("/v1/completions", {**body, "model": "smollm2"}).status == 200


@pytest.mark.usefixtures("default_model")
@pytest.mark.timeout(1800)
def test_a5_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Requests made from our own OpenAPI document, valid and not. The context is short, as most are answered to its
    end."""
    with serving("--context", "64") as server:
        configuration = tmp_path / "schemathesis.toml"
        configuration.write_text(CONFIGURATION)
        command = ["-m", "schemathesis.cli", "--config-file", str(configuration), "run", f"{server.url}/openapi.json"]
        bounds = ["--max-examples", str(NUM_EXAMPLES), "--seed", "1", "--request-timeout", "60", "--no-color"]
        phases = ["--phases", PHASES, "--suppress-health-check", "all"]
        checks = ["--exclude-checks", UNCHECKED]
        done = subprocess.run(
            [sys.executable, *command, *bounds, *phases, *checks],
            capture_output=True,
            text=True,
            timeout=1700,
            check=False,
            cwd=tmp_path,  # where it keeps what it found
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert server.get("/ready").status == 200
