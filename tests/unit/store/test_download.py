"""One file over HTTP: how long it tries, and when it gives up."""

from __future__ import annotations

import hashlib
from email.message import Message
from io import StringIO
from pathlib import Path
from urllib.request import HTTPRedirectHandler, Request

import pytest

from openherd.errors import DownloadError
from openherd.store.digest import Pinned
from openherd.store.download import download
from openherd.store.package_index import index_web
from openherd.store.patience import MAX_FAILURES
from openherd.store.pip_settings import PipSettings
from openherd.store.progress import TerminalProgress
from openherd.store.web import RefusedError, Web, without_credentials
from tests.unit.store.stand_in import WHEEL, StandInIndex


@pytest.fixture
def pinned(index: StandInIndex) -> Pinned:
    return Pinned(len(index.wheel), hashlib.sha256(index.wheel).hexdigest())


def address(index: StandInIndex) -> str:
    return index.url.replace("/simple", f"/files/{WHEEL}")


def test_gives_up_when_no_byte_comes_and_keeps_what_it_has(index: StandInIndex, pinned: Pinned, tmp_path: Path) -> None:
    partial, pauses = tmp_path / "partial", list[float]()
    partial.write_bytes(index.wheel[:1000])
    index.faults.file_status = 503
    with pytest.raises(DownloadError, match="HTTP 503") as caught:
        download(index_web(PipSettings()), address(index), partial, pinned, TerminalProgress(), pause=pauses.append)
    assert len(index.fetches()) == MAX_FAILURES
    assert pauses == [1.0, 2.0, 4.0]
    assert partial.read_bytes() == index.wheel[:1000]
    assert "run the same command again" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(index: StandInIndex, pinned: Pinned, tmp_path: Path, status: int) -> None:
    index.faults.file_status = status
    with pytest.raises(RefusedError, match=f"HTTP {status}"):
        download(index_web(PipSettings()), address(index), tmp_path / "partial", pinned, TerminalProgress())
    assert len(index.fetches()) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "x", ""])
def test_only_http_is_opened(index: StandInIndex, url: str) -> None:
    with pytest.raises(RefusedError, match="not http"), index_web(PipSettings()).open(url, {}):
        pass


def test_credentials_go_to_their_host_alone(index: StandInIndex) -> None:
    web = index_web(PipSettings(indexes=("http://me:secret@another.example/simple",)))
    index.faults.credentials = "Basic bWU6c2VjcmV0"
    with pytest.raises(RefusedError, match="HTTP 401"), web.open(index.url, {}):
        pass
    assert without_credentials("https://me:secret@host:8080/simple/") == "https://host:8080/simple/"


@pytest.mark.parametrize("target", ["http://host.example/x", "file:///etc/passwd", "ftp://host.example/x"])
def test_a_redirect_never_leaves_https(target: str) -> None:
    (redirects,) = (h for h in Web()._opener.handlers if isinstance(h, HTTPRedirectHandler))
    request = Request("https://host.example/a")
    with pytest.raises(RefusedError):
        redirects.redirect_request(request, None, 302, "Found", Message(), target)


def test_credentials_follow_a_redirect_within_their_origin_alone() -> None:
    web = Web(authorization={"https://host.example:443": "Bearer x"})
    (redirects,) = (h for h in web._opener.handlers if isinstance(h, HTTPRedirectHandler))
    for target, expected in [
        ("/b", "Bearer x"),
        ("https://HOST.example/b", "Bearer x"),
        ("https://host.example:444/b", None),
        ("https://host.example.evil/b", None),
        ("https://host.example@evil.example/b", None),
    ]:
        request = Request("https://host.example/a")
        request.add_unredirected_header("Authorization", "Bearer x")
        followed = redirects.redirect_request(request, None, 302, "Found", Message(), target)
        assert followed is not None
        assert followed.get_header("Authorization") == expected, target


def test_names_of_strangers_do_not_steer_the_terminal() -> None:
    stream = StringIO()
    TerminalProgress(stream).say("fetching \x1b]0;owned\x07")
    assert stream.getvalue() == "fetching \u241b]0;owned\u2407\n"
