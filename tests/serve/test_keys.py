"""X9 and X10: keys, what they allow, and that one key's requests show nothing about another's."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from openherd.errors import InputError
from openherd.serve.api.parameters import REQUESTS
from openherd.serve.front.access import Tenant
from openherd.serve.front.app import build_app
from openherd.serve.front.errors import ApiError
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.records import RequestLog
from openherd.serve.front.workers import ModelSpec
from openherd.serve.keys import Key, KeyRing, add_key, digest_of, load_keys
from openherd.serve.lifecycle import Lifecycle
from openherd.serve.options import ServeOptions
from tests.serve.client import JSON, PARIS
from tests.serve.conftest import Server, serving
from tests.serve.test_lifecycle import herd_serve
from tests.serve.test_overload import wait_until

CHAT = "/v1/chat/completions"


def bearer(key: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three keys by name; `few` may ask three times a minute, `short` may use 60 tokens."""
    file = str(tmp_path_factory.mktemp("keys") / "keys")
    made = {name: add_key(file, name) for name in ("alice", "bob", "few", "short")}
    lines = Path(file).read_text().splitlines()
    lines = [line + {"few": " requests=3", "short": " tokens=60"}.get(line.split()[0], "") for line in lines]
    Path(file).write_text("# who may ask\n\n" + "\n".join(lines) + "\n")
    return {**made, "file": file}


@pytest.fixture(scope="module")
def guarded(default_model: Path, keys: dict[str, str]) -> Iterator[Server]:
    with serving("--context", "2048", "--keys", keys["file"], "--host", "0.0.0.0") as server:
        server.host = "127.0.0.1"
        yield server


@pytest.mark.parametrize(
    "path", [*REQUESTS, "/v1/models", "/v1/models/x", "/metrics", "/openapi.json", "/", "/nothing"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong-key-of-nobody"},
        {"Authorization": "Basic KEY"},
        {"Authorization": "KEY"},
        {"x-api-key": "wrong"},
        {"Authorization": "Bearer KEY", "x-api-key": "another"},
        {"Host": "localhost"},
        {"Host": "[::1]:80", "X-Forwarded-For": "127.0.0.1"},
        {"Cookie": "key=KEY"},
    ],
    ids=str,
)
def test_x9_every_path_asks_for_a_key(
    guarded: Server, keys: dict[str, str], path: str, headers: dict[str, str]
) -> None:
    filled = {name: value.replace("KEY", keys["alice"]) for name, value in headers.items()}
    for method in ("GET", "POST"):
        answer = guarded.send(method, path, {} if method == "POST" else None, headers={**JSON, **filled})
        assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error"), (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["//v1/models", "/v1//models", "/%76%31/models", "/v1%2fmodels", "/%2fhealth", "/health/", "/health%00", "/HEALTH",
     "/./health", "/v1/../health", "/health/../v1/models", "/ready?x=/v1", "/health;/v1/models", "http://a/health"],
)  # fmt: skip
def test_x9_odd_spellings_reach_nothing(guarded: Server, keys: dict[str, str], path: str) -> None:
    """Without a key there is 401, or no more than the open probe itself; with one, at most the path that it spells."""
    answer = guarded.get(path)
    assert answer.status == 401 or set(answer.json) == {"status"}
    assert guarded.get(path, headers=bearer(keys["alice"])).status in (200, 404, 400)


def routes() -> list[tuple[str, str]]:
    """Every path of the application with a method that it takes, from its router."""
    options, log = ServeOptions(), RequestLog("off")
    pool = ModelPool([ModelSpec("m", "m.gguf")], memory=None, patience_s=1, tell=lambda news: None)
    app: Any = build_app(pool, Lifecycle(), options, KeyRing(), log)
    while not isinstance(app, FastAPI):
        app = app._app
    found = [
        (re.sub(r"{.*?}", "x", route.path), method)
        for route in app.routes
        for method in sorted(getattr(route, "methods", None) or {"GET"})
    ]
    assert {path for path, _ in found} >= {
        *REQUESTS,
        "/v1/models",
        "/metrics",
        "/openapi.json",
        "/health",
        "/",
        "/page/x/x",
    }
    return found


OPEN = {(path, method) for path in ("/health", "/ready") for method in ("GET", "HEAD")}


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "[::1]", "evil.example", "", "/health", "a:b:c", "health"]
)
def test_x9_every_route_of_the_router_asks_for_a_key(guarded: Server, host: str) -> None:
    """Whatever the Host header says, and for every method."""
    for path, taken in routes():
        for method in {taken, "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"}:
            if (path, method) not in OPEN:
                answer = guarded.send(method, path, b"{}", headers={**JSON, "Host": host})
                assert answer.status == 401, (method, path, answer.body)
                assert answer.headers["www-authenticate"] == "Bearer"
        for odd in (f"/{path}", f"/{path}/", "/" + path.replace("/", "%2f"), f"/.{path}", f"/health/..{path}",
                    f"/health%2f..{path}", f"{path}?a=/health", f"/health;{path}", f"/%2e{path}"):  # fmt: skip
            answer = guarded.get(odd, headers={"Host": host})
            assert answer.status == 401 or (odd.partition("?")[0], "GET") in OPEN, (odd, answer.body)


def test_x9_probes_are_open_and_keys_open_the_rest(guarded: Server, keys: dict[str, str]) -> None:
    assert guarded.get("/health").status == guarded.get("/ready").status == 200
    assert guarded.post("/health", {}).status == 401
    for headers in (bearer(keys["alice"]), {**JSON, "x-api-key": keys["bob"]}):
        assert guarded.get("/v1/models", headers=headers).json["data"]
        body = {"messages": PARIS, "temperature": 0}
        assert guarded.post(CHAT, body, headers=headers).text == "The capital of France is Paris."


def test_x9_a_server_without_keys_listens_to_itself_only(server: Server) -> None:
    for host in (
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.0.1",
    ):
        refused = server.get("/v1/models", headers={"Host": host})
        assert (refused.status, refused.error["code"]) == (403, "wrong_host")
    for host in ("localhost", "LocalHost:99", "127.0.0.1", "[::1]:8080"):
        assert server.get("/v1/models", headers={"Host": host}).status == 200
    done = herd_serve("--host", "0.0.0.0")
    assert done.returncode == 2
    assert "--keys" in done.stderr


def test_x10_keys_share_no_cached_prefix(guarded: Server, keys: dict[str, str]) -> None:
    """The same prompt of another key finds nothing; of one's own, all but its last block. The times' ratio is shown."""
    seconds: dict[str, list[float]] = {"own": [], "other": [], "never seen": []}

    def ask(name: str, number: int) -> tuple[int, float]:
        text = f"{number}: " + "The quick brown fox jumps over the lazy dog. " * 40
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
        answer = guarded.post(CHAT, body, headers=bearer(keys[name]))
        return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"], answer.seconds

    for number in range(3):
        cached, first = ask("alice", number)
        assert cached < 100
        cached, own = ask("alice", number)
        assert cached > 300, "the cache was never warm"
        cached, other = ask("bob", number)
        assert cached < 100
        seconds["never seen"].append(first)
        seconds["own"].append(own)
        seconds["other"].append(other)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"seconds by key: {medians}; other to never seen: {medians['other'] / medians['never seen']:.2f}")


def test_a_key_has_limits_of_its_own(guarded: Server, keys: dict[str, str]) -> None:
    def ask(name: str) -> Any:
        return guarded.post(CHAT, {"messages": PARIS, "max_tokens": 2}, headers=bearer(keys[name]))

    answers = [ask("few") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].error["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert ask("short").status == 200
    assert ask("short").status == 200
    refused = ask("short")
    assert (refused.status, "tokens" in refused.error["message"]) == (429, True)
    assert ask("alice").status == 200


def test_an_allowance_fills_within_a_minute() -> None:
    now = [0.0]
    tenant = Tenant(Key("a", b"", requests=6, tokens=100), clock=lambda: now[0])
    for _ in range(6):
        tenant.begin()
    with pytest.raises(ApiError, match="6 requests"):
        tenant.begin()
    now[0] = 10.1
    tenant.begin()
    tenant.used(250)
    now[0] = 70.0
    with pytest.raises(ApiError, match="100 tokens") as refused:
        tenant.begin()
    assert int(refused.value.headers["Retry-After"]) == pytest.approx(31, abs=1)
    now[0] += 32
    tenant.begin()


def test_keys_are_kept_as_hashes_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    done = herd_serve("--keys", str(file), "--add-key", "alice")
    key = done.stdout.strip()
    assert done.returncode == 0
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = load_keys(str(file), {}).find(key)
    assert found is not None
    assert found.name == "alice"
    assert load_keys(str(file), {}).find(key + "x") is None
    assert load_keys(None, {"OPENHERD_API_KEYS": "a" * 16 + "," + "b" * 16}).find("b" * 16) is not None
    again = herd_serve("--keys", str(file), "--add-key", "alice")
    assert again.returncode == 2


@pytest.mark.parametrize("before", ["", "# ours\n", f"bob {'a' * 64} requests=10"])
def test_a_key_is_added_to_a_file_as_people_leave_them(before: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(before)
    key = add_key(str(file), "alice")
    found = load_keys(str(file), {}).find(key)
    assert found is not None
    assert found.name == "alice"
    assert file.read_text().startswith(before)


def test_keys_of_the_environment_may_have_blanks_around_them() -> None:
    ring = load_keys(None, {"OPENHERD_API_KEYS": f"{'a' * 16}, {'b' * 16}\n"})
    assert ring.find("a" * 16) is not None
    assert ring.find("b" * 16) is not None
    with pytest.raises(InputError, match="printable ASCII"):
        load_keys(None, {"OPENHERD_API_KEYS": "é" * 16})


def test_only_a_line_of_the_file_makes_an_admin(tmp_path: Path) -> None:
    """A key of the environment may use the models, whatever it is called."""
    file = tmp_path / "keys"
    file.write_text(f"boss {digest_of('b' * 16).hex()} admin\n")
    ring = load_keys(str(file), {"OPENHERD_API_KEYS": "a" * 16 + ",admin-0123456789"})
    found = [ring.find(key) for key in ("b" * 16, "a" * 16, "admin-0123456789")]
    assert [key is not None and key.is_admin for key in found] == [True, False, False]
    assert None not in found


def test_head_is_answered_as_get_without_a_body(guarded: Server, keys: dict[str, str]) -> None:
    for path in ("/health", "/ready"):
        head, get = guarded.send("HEAD", path), guarded.get(path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))
    for path in ("/", "/v1/models", "/metrics"):
        assert guarded.send("HEAD", path).status == 401
        head = guarded.send("HEAD", path, headers=bearer(keys["alice"]))
        assert (head.status, head.body) == (200, b"")
    assert guarded.send("HEAD", CHAT, headers=bearer(keys["alice"])).status == 405


def test_tokens_are_charged_however_a_request_ends(tmp_path: Path, default_model: Path) -> None:
    """Its worker dies, or its model is unloaded by force: what came until then counts against the key."""
    file = tmp_path / "keys"
    made = {name: add_key(str(file), name) for name in ("first", "second", "boss")}
    limits = {"first": " tokens=60", "second": " tokens=60", "boss": " admin"}
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line + limits[line.split()[0]] for line in lines) + "\n")
    boss = bearer(made["boss"])
    body = {"messages": PARIS, "max_tokens": 1900, "ignore_eos": True, "temperature": 0}

    def cut(key: str, end: Callable[[], object]) -> list[bytes]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
        connection.request("POST", CHAT, json.dumps({**body, "stream": True}).encode(), bearer(key))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        for _ in range(2 * 80):  # an event is a line and an empty one
            response.readline()
        end()
        rest = response.read().strip().split(b"\n\n")
        connection.close()
        return rest

    with serving("--context", "2048", "--keys", str(file)) as server:
        rest = cut(made["first"], lambda: os.kill(server.worker_pid, signal.SIGKILL))
        assert b"stopped unexpectedly" in rest[-1], "the answer had ended"
        wait_until(lambda: server.get("/ready").status == 200)
        unload = {"model": "smollm2", "force": True}
        rest = cut(made["second"], lambda: server.post("/models/unload", unload, headers=boss))
        assert b"was unloaded" in rest[-1], "the answer had ended"
        assert server.post("/models/load", {"model": "smollm2"}, headers=boss).status == 200
        for name in ("first", "second"):
            refused = server.post(CHAT, {"messages": PARIS, "max_tokens": 2}, headers=bearer(made[name]))
            assert (refused.status, "60 tokens" in refused.error["message"]) == (429, True)
        failed = server.get("/metrics", headers=boss).body.decode()
        assert "openherd_failed_requests_total 2.0" in failed


@pytest.mark.parametrize(
    "text",
    ["", "alice", "alice xyz", f"alice {'a' * 64} requests=0", f"alice {'a' * 64} speed=3", f"a/b {'a' * 64}",
     f"alice {'a' * 64} tokens=1 tokens=2", f"alice {'a' * 64}\nalice {'b' * 64}", "\xff\xfe", f"a {'A' * 64}"],
    ids=range(10),
)  # fmt: skip
def test_a_file_of_keys_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        load_keys(str(file), {})


def test_short_keys_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than 16"):
        load_keys(None, {"OPENHERD_API_KEYS": "short"})
    with pytest.raises(InputError, match="--add-key"):
        load_keys(str(tmp_path / "none"), {})
    assert not load_keys(None, {})
    assert digest_of("a") != digest_of("b")
