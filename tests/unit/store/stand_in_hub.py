"""A stand-in for a hub of models on loopback, with its storage on another origin and the faults a network has.

It answers as the public hub does: `/api/models/REPO/revision/REV?blobs=true` in JSON; `/REPO/resolve/COMMIT/FILE` with
the content of small files and a redirect to the storage for large ones, with `X-Repo-Commit`, `X-Linked-Etag`,
`X-Linked-Size` and the headers of Xet; errors with `X-Error-Code`; too many requests with `Retry-After` or `RateLimit`.
`test_stand_in_hub.py` holds it against the hub's own library.

Also a program: `python -m tests.unit.store.stand_in_hub REFERENCE` pulls, for tests that kill it or run two at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 4096  # bytes: larger files lie in the storage
TOKEN = "hf_stand_in_token"


@dataclass
class HubFaults:
    """What goes wrong. All of it may change while the hub runs."""

    cut_after: int | None = None  # bytes of a file sent on one connection to the storage
    hold_after: int | None = None  # bytes after which the storage waits for `go`
    go: threading.Event = field(default_factory=threading.Event)
    ignore_range: bool = False
    flip: int | None = None  # the byte of every large file that arrives changed
    extra: bytes = b""  # sent after every large file, and counted in its length
    drip_s: float | None = None  # between single bytes
    statuses: list[int] = field(default_factory=list)  # of the next answers of the hub, before it works again
    storage_statuses: list[int] = field(default_factory=list)
    retry_after: str | None = "0"
    rate_limit: str | None = None
    body: bytes | None = None  # instead of the API's JSON
    redirect_to: str | None = None  # instead of the storage
    interim: str | None = None  # "hub" or "storage", which says 100 Continue without end


@dataclass
class Stored:
    """A repository: what each revision's files are, and who may have them."""

    files: dict[str, bytes]
    commit: str
    card: dict[str, Any] = field(default_factory=lambda: {"license": "apache-2.0"})
    gated: bool = False
    private: bool = False
    accepted: bool = True  # for the holder of TOKEN
    branches: dict[str, str] = field(default_factory=dict)
    siblings: list[dict[str, Any]] | None = None  # instead of the true list


def commit_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    server: str  # "hub" or "storage"
    method: str
    path: str
    headers: dict[str, str]


class StandInHub:
    """`url` is the hub; its storage has another port, and so is another origin."""

    def __init__(self) -> None:
        self.faults = HubFaults()
        self.repositories: dict[str, Stored] = {}
        self.renamed: dict[str, str] = {}
        self.requests: list[Asked] = []
        self._hub = _server(self, "hub", self._answer_hub)
        self._storage = _server(self, "storage", self._answer_storage)
        self.url = f"http://127.0.0.1:{self._hub.server_port}"
        self.storage_url = f"http://127.0.0.1:{self._storage.server_port}"

    def add(self, name: str, files: dict[str, bytes], **facts: Any) -> Stored:
        stored = Stored(files, facts.pop("commit", commit_of(name)), **facts)
        stored.branches.setdefault("main", stored.commit)
        self.repositories[name] = stored
        return stored

    def __enter__(self) -> Self:
        for server in (self._hub, self._storage):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.faults.go.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def fetches(self, name: str = "") -> list[str | None]:
        """The Range header of each request that the storage got for that file."""
        asked = [one for one in self.requests if one.server == "storage" and name in one.path]
        return [one.headers.get("range") for one in asked]

    def _answer_hub(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        if self.faults.statuses:
            self._refuse(handler, self.faults.statuses.pop(0), "", "")
            return
        authorization = handler.headers["Authorization"]
        if authorization not in (None, f"Bearer {TOKEN}"):
            self._refuse(handler, 401, "", "Invalid credentials in Authorization header")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._answer_api(handler, match[1], match[2] or "main", authorization is not None)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._answer_resolve(handler, match[1], match[2], match[3], authorization is not None)
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/xet-read-token/.+", path):
            self._refuse(handler, 404, "", "")
        else:
            self._refuse(handler, 404, "", "Sorry, we can't find the page you are looking for.")

    def _visible(self, handler: BaseHTTPRequestHandler, name: str, revision: str, known: bool) -> Stored | None:
        """The repository, or None after an answer that it is elsewhere or not to be seen."""
        if name in self.renamed:
            handler.send_response(307)
            handler.send_header("Location", handler.path.replace(name, self.renamed[name]))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return None
        stored = self.repositories.get(name)
        if stored is None or (stored.private and not known):
            if known:
                self._refuse(handler, 404, "RepoNotFound", "Repository not found")
            else:
                self._refuse(handler, 401, "RepoNotFound", "Invalid username or password.")
            return None
        if revision not in {stored.commit, *stored.branches, *stored.branches.values()}:
            self._refuse(handler, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return stored

    def _answer_api(self, handler: BaseHTTPRequestHandler, name: str, revision: str, known: bool) -> None:
        stored = self._visible(handler, name, revision, known)
        if stored is None:
            return
        blobs = parse_qs(urlsplit(handler.path).query).get("blobs") == ["true"]
        body = self.faults.body
        if body is None:
            siblings = stored.siblings or [sibling(path, content, blobs) for path, content in stored.files.items()]
            facts = {
                "_id": "0123456789abcdef01234567",
                "id": name,
                "modelId": name,
                "author": name.split("/")[0],
                "sha": stored.branches.get(revision, stored.commit),
                "private": stored.private,
                "gated": "manual" if stored.gated else False,
                "disabled": False,
                "tags": ["gguf", "license:apache-2.0", "region:us"],
                "cardData": stored.card,
                "siblings": siblings,
                "createdAt": "2025-01-01T00:00:00.000Z",
                "lastModified": "2025-01-01T00:00:00.000Z",
                "usedStorage": sum(map(len, stored.files.values())),
            }
            body = json.dumps(facts).encode()
        _send(handler, 200, {"Content-Type": "application/json; charset=utf-8", "X-Repo-Commit": stored.commit}, body)

    def _answer_resolve(
        self, handler: BaseHTTPRequestHandler, name: str, revision: str, path: str, known: bool
    ) -> None:
        stored = self._visible(handler, name, revision, known)
        if stored is None:
            return
        headers = {"X-Repo-Commit": stored.commit, "Accept-Ranges": "bytes"}
        if stored.gated and not known:
            self._refuse(handler, 401, "GatedRepo", f"Access to model {name} is restricted. You must be authenticated.")
        elif stored.gated and not stored.accepted:
            self._refuse(handler, 403, "GatedRepo", f"Access to model {name} is restricted: awaiting a review.")
        elif path not in stored.files:
            self._refuse(handler, 404, "EntryNotFound", "Entry not found", headers)
        elif len(content := stored.files[path]) < LFS_FROM:
            self._send_ranged(handler, content, headers | {"ETag": f'"{git_name(content)}"'})
        else:
            digest = hashlib.sha256(content).hexdigest()
            location = f"{self.storage_url}/repos/xx/{digest}?filename={path}&Signature=abc&Expires=1"
            headers |= {
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{digest}"',
                "X-Xet-Hash": hashlib.sha256(digest.encode()).hexdigest(),
                "Link": f'<{self.url}/api/models/{name}/xet-read-token/{stored.commit}>; rel="xet-auth"',
                "Location": self.faults.redirect_to or location,
            }
            _send(handler, 302, headers, b"Found. Redirecting")

    def _answer_storage(self, handler: BaseHTTPRequestHandler) -> None:
        faults = self.faults
        if faults.storage_statuses:
            self._refuse(handler, faults.storage_statuses.pop(0), "", "")
            return
        digest = urlsplit(handler.path).path.rsplit("/", 1)[-1]
        contents = (c for stored in self.repositories.values() for c in stored.files.values())
        content = next((c for c in contents if hashlib.sha256(c).hexdigest() == digest), None)
        if content is None:
            self._refuse(handler, 403, "", "")
            return
        if faults.flip is not None:
            at = faults.flip % len(content)
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        self._send_ranged(handler, content + faults.extra, {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})

    def _send_ranged(self, handler: BaseHTTPRequestHandler, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers["Range"] or "")
        if asked is None or self.faults.ignore_range:
            self._send_faultily(handler, 200, headers, content)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if start >= len(content):
            _send(handler, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers = headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        self._send_faultily(handler, 206, headers, content[start : end + 1])

    def _send_faultily(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        faults = self.faults
        _head(handler, status, headers, len(body))
        if handler.command == "HEAD":
            return
        if (hold_after := faults.hold_after) is not None:
            handler.wfile.write(body[:hold_after])
            handler.wfile.flush()
            faults.go.wait(30)
            body = body[hold_after:]
        if faults.drip_s is not None:
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if faults.go.wait(faults.drip_s):
                    break
            return
        handler.wfile.write(body[: faults.cut_after])

    def _refuse(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        if code:
            headers["X-Error-Code"] = code
        if message:
            headers["X-Error-Message"] = message
        if status in (429, 503):
            if self.faults.retry_after is not None:
                headers["Retry-After"] = self.faults.retry_after
            if self.faults.rate_limit is not None:
                headers["RateLimit"] = self.faults.rate_limit
        _send(handler, status, headers, json.dumps({"error": message}).encode())


def sibling(path: str, content: bytes, blobs: bool = True) -> dict[str, Any]:
    """A file in the API's list."""
    if not blobs:
        return {"rfilename": path}
    facts: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_name(content)}
    if len(content) >= LFS_FROM:
        facts["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return facts


def in_seconds(seconds: float) -> str:
    """A date of HTTP that many seconds from now."""
    return formatdate(time.time() + seconds, usegmt=True)


def _server(hub: StandInHub, name: str, answer: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            hub.requests.append(Asked(name, self.command, self.path, headers))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has what it wanted
                while hub.faults.interim == name:
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                answer(self)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], length: int) -> None:
    handler.send_response(status)
    for key, value in headers.items():
        handler.send_header(key, value)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    _head(handler, status, headers, len(body))
    if handler.command != "HEAD":
        handler.wfile.write(body)


if __name__ == "__main__":
    from openherd.store.hub_pull import pull_from_hub
    from openherd.store.hub_reference import parse_hub_reference

    print(pull_from_hub(parse_hub_reference(sys.argv[1])).path)
