"""The request log and request ids: every request, nothing that a client wrote, and no line that a client can forge."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openherd.serve.api.answers import Usage
from openherd.serve.front.records import MAX_WAITING_LINES, Record, RequestLog, request_id, text_line
from openherd.serve.keys import add_key
from tests.serve.client import JSON, parse
from tests.serve.conftest import serving
from tests.serve.test_overload import wait_until
from tests.unit.llm.tiny_file import write_model

SECRET = "Zanzibarr"
NAMES = {
    "time", "id", "key", "method", "path", "status", "model", "stream", "prompt_tokens", "completion_tokens",
    "cached_tokens", "finish_reason", "ttft_s", "duration_s",
}  # fmt: skip


def lines(file: Path, count: int) -> list[dict[str, Any]]:
    wait_until(lambda: file.read_text().count("\n") >= count)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == count
    return found


def test_a_line_for_every_request_and_none_of_its_text(tmp_path: Path) -> None:
    model, file, log = write_model(tmp_path / "tiny.gguf"), tmp_path / "keys", tmp_path / "log"
    auth = {**JSON, "Authorization": f"Bearer {add_key(str(file), 'alice')}"}
    with log.open("w") as stderr, serving(str(model), "--log", "json", "--keys", str(file), stderr=stderr) as server:
        body = {"messages": [{"role": "user", "content": f"{SECRET} a b"}], "max_tokens": 5, "ignore_eos": True}
        chat = "/v1/chat/completions"
        whole = server.post(chat, body, headers={**auth, "x-request-id": "my-id:1"})
        answers = [
            whole,
            server.post(chat, {**body, "stream": True, "user": SECRET}, headers=auth),
            server.post(chat, {**body, "model": SECRET}, headers=auth),
            server.post(chat, {**body, SECRET: 1}, headers=auth),
            server.post(chat, f"{SECRET}{{".encode(), headers=auth),
            server.get(f"/{SECRET}?{SECRET}={SECRET}", headers=auth),
            server.get(f"/v1/models/{SECRET}", headers=auth),
            server.get("/v1/models", headers={**auth, "x-request-id": f"{SECRET} {SECRET}"}),
            server.get("/v1/models", headers={**auth, "x-request-id": "a\x1b[31mb"}),
            server.get("/v1/models", headers={"Authorization": f"Bearer {SECRET}", "User-Agent": SECRET}),
            server.get("/health", headers={"x-request-id": "i" * 65}),
            server.send("REPORT", f"/{SECRET}", headers=auth),
            server.post("/tokenize", {"content": SECRET}, headers=auth),
        ]
        with server.raw() as raw:
            raw.sendall(f"{SECRET}\r\n\r\n".encode())
            refused = raw.recv(4096).decode()
        entries = lines(log, 14)
        text = log.read_text()
        assert SECRET.lower() not in text.lower()
        assert "\x1b" not in text
        ids = [answer.headers["x-request-id"] for answer in answers]
        ids.append(re.search(r"x-request-id: (\S+)", refused)[1])  # type: ignore[index]
        assert ids[0] == "my-id:1"
        assert all(re.fullmatch(r"[0-9a-f]{24}", made) for made in ids[1:])
        assert len(set(ids)) == 14
        by_id = {entry["id"]: entry for entry in entries}
        assert set(by_id) == set(ids)
        assert all(set(entry) == NAMES for entry in entries)
        assert [by_id[made]["status"] for made in ids] == [*(answer.status for answer in answers), 400]
        assert by_id[ids[9]]["status"] == 401
        assert (by_id[ids[12]]["model"], by_id[ids[12]]["prompt_tokens"]) == ("tiny", None)
        for entry, answer in ((by_id[ids[0]], answers[0]), (by_id[ids[1]], answers[1])):
            assert (entry["key"], entry["model"], entry["path"]) == ("alice", "tiny", chat)
            assert (entry["completion_tokens"], entry["finish_reason"]) == (5, "length")
            assert 0 < entry["ttft_s"] <= entry["duration_s"] < answer.seconds + 1
            assert entry["prompt_tokens"] == whole.json["usage"]["prompt_tokens"]
        assert by_id[ids[1]]["stream"] is True
        assert answers[1].headers["content-type"].startswith("text/event-stream")
        assert {by_id[ids[n]]["path"] for n in (5, 11)} == {"other"}
        assert by_id[ids[6]]["path"] == "/v1/models/..."
        assert (
            parse(answers[1].body)[0]["id"]
            != parse(server.post(chat, {**body, "stream": True}, headers=auth).body)[0]["id"]
        )


def test_prompts_are_logged_when_asked_with_a_warning(tmp_path: Path) -> None:
    model, log = write_model(tmp_path / "tiny.gguf"), tmp_path / "log"
    with log.open("w") as stderr, serving(str(model), "--log", "json", "--log-prompts", stderr=stderr) as server:
        assert server.complete("a b\x1b[31m\n{}", max_tokens=2).status == 200
        wait_until(lambda: log.read_text().count("\n") >= 2)
        warning, line = log.read_text().splitlines()
        assert "--log-prompts" in warning
        assert json.loads(line)["prompts"] == ["a b\x1b[31m\n{}"]


def test_no_text_can_forge_or_colour_a_line() -> None:
    written: list[str] = []
    hostile = 'a\n2026-01-01 200 "forged"\r\x1b[2J\x7f\x85\u2028\u202e\ud800'
    for form in ("text", "json"):
        log = RequestLog(form, with_prompts=True, write=written.append)
        record = Record("id", path="/v1/completions", model=hostile, key=hostile, prompts=[hostile])
        record.answered(Usage(3, 2, 1), record.arrived + 0.5, ["stop", None])
        log.add(record)
        log.close()
    assert len(written) == 2
    for line in written:
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert line[:-1].isascii()
        assert line[:-1].isprintable()
    assert json.loads(written[1])["prompts"] == [hostile]
    assert "finish_reason=stop+unfinished" in written[0]
    assert text_line(Record("x", "GET", "/health", status=200).document(with_prompts=False)).startswith("20")


def test_a_log_that_nobody_reads_holds_up_no_request() -> None:
    going_on, written = threading.Event(), []

    def write(line: str) -> None:
        going_on.wait(30)
        written.append(line)

    log = RequestLog("text", write=write)
    started = time.perf_counter()
    for _ in range(MAX_WAITING_LINES + 500):
        log.add(Record("id"))
    assert time.perf_counter() - started < 10
    going_on.set()
    wait_until(lambda: len(written) > MAX_WAITING_LINES)
    log.add(Record("id"))
    log.close()
    (dropped,) = (line for line in written if "dropped" in line)
    assert int(dropped.split()[0]) == MAX_WAITING_LINES + 500 - (len(written) - 2)


@pytest.mark.parametrize(
    "presented", [[], [b""], [b"a b"], [b"a\n"], [b"\xff"], [b"a" * 65], [b"a", b"b"], [b"../x"], [b'"'], [b"%0a"]]
)
def test_ids_that_are_not_harmless_are_replaced(presented: list[bytes]) -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", request_id(presented))
    assert request_id([b"Ab.9_:-"]) == "Ab.9_:-"
