"""herd verify --against: a server that answers rightly, one that answers wrongly, and what it does not offer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openherd.cli import main
from openherd.errors import InputError
from openherd.llm import LLM
from openherd.messages import Message
from openherd.options import EngineOptions, SamplingParams
from openherd.workshop.verify import server
from openherd.workshop.verify.against import verify_server
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.run import golden_for
from openherd.workshop.verify.server import Server, UnreachableError
from tests.unit.workshop.golden_models import QUANTISED, golden_json, model, requantised, written

Route = Callable[[dict[str, Any]], tuple[int, Any]]


class StandIn:
    """Answers as llama.cpp's server does, from a model in this process; routes can be replaced."""

    def __init__(self, path: Path) -> None:
        self.llm = LLM.load(path, options=EngineOptions(context=128, kv_dtype="f16"), offline=True)
        self.routes: dict[str, Route] = {
            "/v1/models": lambda body: (200, {"data": [{"id": "other"}, {"id": "my-copy"}]}),
            "/tokenize": self.tokenize,
            "/apply-template": self.render,
            "/v1/completions": self.complete,
        }
        self.models: set[str] = set()

    def tokenize(self, body: dict[str, Any]) -> tuple[int, Any]:
        ids = self.llm.tokenizer.encode(body["content"], special=body["parse_special"], add_bos=body["add_special"])
        return 200, {"tokens": ids}

    def render(self, body: dict[str, Any]) -> tuple[int, Any]:
        spans = self.llm.template.render([Message(m["role"], m["content"]) for m in body["messages"]])
        return 200, {"prompt": "".join(span.text for span in spans)}

    def top(self, body: dict[str, Any]) -> list[tuple[int, float]]:
        params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=body["logprobs"], ignore_eos=True)
        return list(self.llm.generate([body["prompt"]], params)[0].logprobs[0].top)

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        by_text = {self.llm.tokenizer.token_bytes(i).decode("utf-8", "replace"): lp for i, lp in self.top(body)}
        return 200, {"choices": [{"logprobs": {"top_logprobs": [by_text]}}]}

    def complete_as_chat(self, body: dict[str, Any]) -> tuple[int, Any]:
        """The form of newer llama.cpp servers."""
        tops = [
            {"id": i, "token": self.llm.tokenizer.token_bytes(i).decode("utf-8", "replace"), "logprob": lp}
            for i, lp in self.top(body)
        ]
        return 200, {"choices": [{"logprobs": {"content": [{"top_logprobs": tops}]}}]}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if "model" in body:
            self.models.add(body["model"])
        return self.routes[path](body) if path in self.routes else (404, {"error": "no such path"})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return written(model(), golden_json(folder), folder / "copy.gguf")


@pytest.fixture
def served(path: Path) -> Iterator[tuple[StandIn, str]]:
    stand_in = StandIn(path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: dict[str, Any]) -> None:
            status, document = stand_in.answer(self.path, body)
            raw = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield stand_in, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    stand_in.llm.close()


def check(url: str, path: Path) -> Report:
    return verify_server(url, path, golden_for(path, None))


def outcomes(report: Report) -> dict[str, str]:
    return {finding.name: finding.outcome for finding in report.findings}


def test_a_server_of_the_same_model_passes(served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    report = check(url + "/v1/", path)
    assert report.passed, report.findings
    assert stand_in.models == {"my-copy"}
    stand_in.routes["/v1/completions"] = stand_in.complete_as_chat
    assert check(url, path).passed


def test_what_the_file_went_through_is_told(served: tuple[StandIn, str], path: Path, tmp_path: Path) -> None:
    """Where its digests are others; the limit is that of the type in between."""
    golden = golden_for(path, None).rewritten(dict.fromkeys(QUANTISED, ("Q4_0", "F32"))).to_json()
    limits = []
    for file in (model(), requantised(requantised(model(), "Q4_0"), "F32")):
        report = check(served[1], written(file, golden, tmp_path / "my-copy.gguf"))
        limits.append((report.in_between, report.findings[-1].detail.split("mean at most ")[1]))
    assert limits == [((), "0.1"), (("Q4_0",), "1.72")]


def test_one_character_of_a_template(served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    right = stand_in.render
    stand_in.routes["/apply-template"] = lambda body: (
        200,
        {"prompt": right(body)[1]["prompt"].replace("user", "User")},
    )
    report = check(url, path)
    assert outcomes(report) == {"token ids": "right", "rendered chats": "differs", "log-probabilities": "right"}
    assert "chat 0: line 1: was '<s>user" in report.findings[1].lines[0]


def test_other_ids_and_other_logits(served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    right = stand_in.tokenize
    stand_in.routes["/tokenize"] = lambda body: (200, {"tokens": right(body)[1]["tokens"][::-1]})

    def moved(body: dict[str, Any]) -> tuple[int, Any]:
        status, document = stand_in.complete(body)
        tops = document["choices"][0]["logprobs"]["top_logprobs"]
        return status, {"choices": [{"logprobs": {"top_logprobs": [{t: lp - 1 for t, lp in tops[0].items()}]}}]}

    stand_in.routes["/v1/completions"] = moved
    report = check(url, path)
    assert outcomes(report) == {"token ids": "differs", "rendered chats": "right", "log-probabilities": "differs"}


@pytest.mark.parametrize("missing", ["/tokenize", "/apply-template", "/v1/completions"])
def test_what_a_server_does_not_offer_does_not_pass(missing: str, served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    del stand_in.routes[missing]
    report = check(url, path)
    assert not report.passed
    assert sorted(outcomes(report).values()) == ["right", "right", "unchecked"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        {"tokens": {}},
        {"tokens": ["a"]},
        b"garbage",
        b"[" * 100_000,
        {"choices": [{"logprobs": {"top_logprobs": [{"a": float("nan")}]}}]},
    ],
    ids=["empty", "list", "null", "object", "texts", "no JSON", "deep", "NaN"],
)
def test_nonsense_is_no_answer(document: Any, served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    for route in ("/v1/models", "/tokenize", "/apply-template", "/v1/completions"):
        stand_in.routes[route] = lambda body: (200, document)
    report = check(url, path)
    assert not report.passed
    assert "right" not in outcomes(report).values()


def test_a_redirect_is_not_followed(served: tuple[StandIn, str], path: Path) -> None:
    stand_in, url = served
    for route in list(stand_in.routes):
        stand_in.routes[route] = lambda body: (302, {})
    assert set(outcomes(check(url, path)).values()) == {"unchecked"}


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (400, {}, "differs"),
        (422, {}, "differs"),
        (500, {"error": {"code": 500, "message": "raised", "type": "server_error"}}, "differs"),
        (500, {"error": "out of memory"}, "unchecked"),
        (500, b"<h1>", "unchecked"),
        (429, {}, "unchecked"),
        (502, {}, "unchecked"),
        (413, {}, "unchecked"),
    ],
)
def test_what_counts_as_the_refusal_of_a_chat(
    status: int, document: Any, outcome: str, served: tuple[StandIn, str], path: Path
) -> None:
    stand_in, url = served
    stand_in.routes["/apply-template"] = lambda body: (status, document)
    assert outcomes(check(url, path))["rendered chats"] == outcome


def test_a_busy_server_refuses_no_recorded_refusal(served: tuple[StandIn, str], path: Path) -> None:
    """A chat that the template refuses is right when the server says so, not when it is busy."""
    stand_in, url = served
    golden = golden_for(path, None)
    refused = replace(golden, chats=tuple(replace(chat, text=None) for chat in golden.chats))
    for status, outcome in ((400, "right"), (429, "unchecked")):
        stand_in.routes["/apply-template"] = lambda body, status=status: (status, {})
        assert outcomes(verify_server(url, path, refused))["rendered chats"] == outcome


def test_without_recorded_texts_ids_are_not_checked(served: tuple[StandIn, str], path: Path) -> None:
    golden = golden_for(path, None)
    report = verify_server(served[1], path, replace(golden, vocabulary=replace(golden.vocabulary, texts=())))
    assert outcomes(report)["token ids"] == "unchecked"
    assert not report.passed


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]
)
def test_a_server_that_drips_is_left(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps the time-out of packets from ever coming."""
    monkeypatch.setattr(server, "TOTAL_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            taken, _ = listening.accept()
            with taken, suppress(OSError):
                taken.sendall(head)
                for _ in range(100):
                    taken.sendall(b"1")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(UnreachableError, match=r"not complete after 0\.4 s"):
            Server.parse(f"http://127.0.0.1:{listening.getsockname()[1]}", {}).get("/v1/models")
        assert time.monotonic() - begun < 3
        thread.join()


def test_interim_answers_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            taken, _ = listening.accept()
            with taken, suppress(OSError):
                while True:
                    taken.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UnreachableError, match="more than 8 interim answers"):
            Server.parse(f"http://127.0.0.1:{listening.getsockname()[1]}", {}).get("/v1/models")
        thread.join()


def test_addresses() -> None:
    server = Server.parse("http://[::1]:8080/prefix/v1", {})
    assert (server.host, server.port, server.root, server.key) == ("::1", 8080, "/prefix", None)
    assert Server.parse("https://example.org", {"OPENHERD_API_KEY": "k"}).port == 443
    for url in (
        "ftp://x",
        "127.0.0.1:80",
        "http://",
        "http://a:b@c",
        "http://x?y",
        "http://x:99999",
        "http://x y",
        "http://[x",
    ):
        with pytest.raises(InputError, match="--against"):
            Server.parse(url, {})
    with pytest.raises(UnreachableError):
        Server.parse("http://127.0.0.1:1", {}).get("/v1/models")


def test_the_verb(served: tuple[StandIn, str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path), "--against", served[1]]) == 0
    assert "verified: a server's answers" in capsys.readouterr().out
    assert main(["verify", str(path), "--against", "http://127.0.0.1:1"]) == 1
