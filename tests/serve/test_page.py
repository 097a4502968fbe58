"""The web chat's files as the server gives them out: policy, caching, keys, and that nothing in them was changed."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from openherd.serve.front.page import FOLDER
from tests.serve.client import JSON, PARIS
from tests.serve.conftest import Server
from tests.serve.make_vendored import VENDOR, record

CHAT = "/v1/chat/completions"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def basic(key: str, name: str = "anybody") -> dict[str, str]:
    return {**JSON, "Authorization": "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()}


def policy_of(header: str) -> dict[str, str]:
    return dict(rule.split(" ", 1) for rule in header.split("; "))


def test_the_page_and_its_files_come_under_a_strict_policy(server: Server) -> None:
    page = server.get("/", headers=BROWSER)
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    assert "{{" not in text, "a place of the page was not filled"
    files = set(re.findall(r'(?:href|src)="(/page/[^"]+)"', text))
    assert len(files) > 5
    answers = [page, *(server.get(file) for file in files)]
    for answer in answers:
        policy = policy_of(answer.headers["content-security-policy"])
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|<style", text), "an inline script or style"


def test_no_file_names_another_host(server: Server) -> None:
    """But the vendored ones, in comments, and the name of SVG's namespace."""
    for path in FOLDER.iterdir():
        if path.is_file():
            found = re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", path.read_text(encoding="utf-8"))
            assert not found, path.name


def test_every_module_that_a_module_imports_is_served(server: Server) -> None:
    base = re.search(rb'src="(/page/\w+)/app\.js"', server.get("/").body)[1].decode()
    wanted, seen = ["app.js"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        answer = server.get(f"{base}/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8"), name
        imported = re.findall(r'^import [^;]*?"\./([^"]+)";', answer.body.decode(), re.M)
        wanted += [(Path(name).parent / other).as_posix() for other in imported]
    modules = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*js") if path.is_file()}
    assert seen == modules - {"theme.js"}, "a module that nobody imports"


def test_files_may_be_kept_and_the_page_is_asked_for_again(server: Server) -> None:
    page = server.get("/")
    tag = page.headers["etag"]
    assert page.headers["cache-control"] == "no-cache"
    again = server.get("/", headers={"If-None-Match": f'W/"other", {tag}'})
    assert (again.status, again.body) == (304, b"")
    assert server.get("/", headers={"If-None-Match": '"other"'}).status == 200
    version = tag.strip('"')
    file = server.get(f"/page/{version}/app.js")
    assert file.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert server.get("/page/0123456789abcdef/app.js").status == 404


@pytest.mark.parametrize(
    "name",
    ["", "index.html", "vendor", "vendor/versions.json", "vendor/marked/LICENSE", "../front/page.py", "%2e%2e/keys.py",
     "..%2f..%2fkeys.py", "/etc/passwd", "app.js%00", "./app.js", "APP.JS", "vendor//marked/marked.esm.js"],
)  # fmt: skip
def test_no_other_name_is_a_file(server: Server, name: str) -> None:
    version = server.get("/").headers["etag"].strip('"')
    answer = server.get(f"/page/{version}/{name}")
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


def test_a_browser_without_a_key_is_asked_for_it(server_with_key: tuple[Server, str]) -> None:
    server, _ = server_with_key
    asked = server.get("/", headers=BROWSER)
    assert asked.status == 401
    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert asked.headers["cache-control"] == "no-store"
    assert b"<script" not in asked.body
    style = re.search(rb"<style>(.*)</style>", asked.body)[1]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert policy_of(asked.headers["content-security-policy"])["style-src"] == f"'sha256-{digest}'"
    for path, headers in (("/", {}), ("/v1/models", BROWSER), ("/page/x/app.js", BROWSER)):
        refused = server.get(path, headers=headers)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        assert refused.error["type"] == "authentication_error"


def test_a_key_as_a_password_opens_everything(server_with_key: tuple[Server, str]) -> None:
    server, key = server_with_key
    body = {"messages": PARIS, "temperature": 0}
    for name in ("anybody", "", "ü"):
        assert server.get("/", headers={**BROWSER, **basic(key, name)}).status == 200
        assert server.post(CHAT, body, headers=basic(key, name)).text == "The capital of France is Paris."
    for credentials in ("wrong", key + "x", "", key.upper()):
        assert server.get("/", headers={**BROWSER, **basic(credentials)}).status == 401
    for text in ("Basic", "Basic ", "Basic !!!", "Basic " + "A" * 5, "Basic " + base64.b64encode(b"\xff:\xff").decode(),
                 "Basic " + base64.b64encode(key.encode()).decode()):  # fmt: skip
        assert server.get("/", headers={**BROWSER, "Authorization": text}).status == 401, text
    both = {**basic(key), "x-api-key": "another"}
    assert server.get("/v1/models", headers=both).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://OWN"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://OWN"}, 403),
    ],
    ids=str,
)
def test_another_site_cannot_use_a_browsers_key(
    server_with_key: tuple[Server, str], headers: dict[str, str], status: int
) -> None:
    server, key = server_with_key
    filled = {name: value.replace("OWN", f"{server.host}:{server.port}") for name, value in headers.items()}
    body = {"messages": PARIS, "max_tokens": 1}
    answer = server.post(CHAT, body, headers={**basic(key), **filled})
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "cross_site"
    # A key in a header of a program's own was put there by somebody who has it.
    bearer = {**JSON, "Authorization": f"Bearer {key}", **filled}
    assert server.post(CHAT, body, headers=bearer).status == 200
    # A link to the page may be followed from anywhere.
    assert server.get("/", headers={**BROWSER, **basic(key), "Sec-Fetch-Site": "cross-site"}).status == 200


def test_vendored_files_are_those_that_were_recorded() -> None:
    versions = record()
    files = {path.relative_to(VENDOR).as_posix(): path for path in VENDOR.rglob("*") if path.is_file()}
    files.pop("versions.json")
    assert set(files) == set(versions["sha256"])
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == versions["sha256"][name], name
    for package in versions["packages"]:
        folder = {here.partition("/")[0] for here in package["files"].values()}
        assert len(folder) == 1
        assert f"{folder.pop()}/LICENSE" in files, "a package without its licence"
