"""Cross-origin requests: nothing without a named origin, exactly those with one, and never credentials."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openherd.errors import OptionError
from openherd.serve.keys import add_key
from openherd.serve.options import ServeOptions
from tests.serve.conftest import Server, serving
from tests.unit.llm.tiny_file import write_model

ORIGIN = "https://app.example:8443"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server for two origins, and a key of its."""
    folder = tmp_path_factory.mktemp("cors")
    key = add_key(str(folder / "keys"), "page")
    origins = ("--cors-origin", ORIGIN, "--cors-origin", "http://localhost:3000")
    with serving(str(write_model(folder / "tiny.gguf")), "--keys", str(folder / "keys"), *origins) as server:
        yield server, key


def cors(headers: dict[str, str]) -> set[str]:
    return {name.lower() for name in headers if name.lower().startswith("access-control-")}


def test_a_named_origin_may_ask_first_without_a_key(shared: tuple[Server, str]) -> None:
    server, _ = shared
    for origin in (ORIGIN, "http://localhost:3000"):
        answer = server.send("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, **PREFLIGHT})
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["x-request-id"]
    odd = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "a b(c)"}
    assert "access-control-allow-headers" not in server.send("OPTIONS", "/v1/models", headers=odd).headers


def test_answers_and_errors_can_be_read_by_that_page(shared: tuple[Server, str]) -> None:
    server, key = shared
    with_key = {"Origin": ORIGIN, "Authorization": f"Bearer {key}"}
    for headers, status in ((with_key, 200), ({"Origin": ORIGIN}, 401)):
        answer = server.get("/v1/models", headers=headers)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://app.example", "http://app.example:8443", "https://app.example:8443.evil.example", "null", "*", "",
     "https://APP.example:8443", f"{ORIGIN}/", f" {ORIGIN}, https://evil.example"],
)  # fmt: skip
def test_every_other_origin_gets_nothing(shared: tuple[Server, str], origin: str) -> None:
    server, key = shared
    refused = server.send("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, **PREFLIGHT})
    assert (refused.status, cors(dict(refused.headers))) == (401, set())
    answer = server.get("/v1/models", headers={"Origin": origin, "Authorization": f"Bearer {key}"})
    assert (answer.status, cors(dict(answer.headers))) == (200, set())


def test_without_named_origins_there_is_nothing_of_it(server: Server) -> None:
    answer = server.send("OPTIONS", "/v1/models", headers={"Origin": "http://localhost:3000", **PREFLIGHT})
    assert (answer.status, cors(dict(answer.headers))) == (405, set())
    assert "vary" not in server.get("/v1/models", headers={"Origin": "http://localhost:3000"}).headers


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://a/", "https://A.example", "ftp://a", "https://"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(OptionError, match="--cors-origin"):
        ServeOptions(cors_origin=(origin,))
