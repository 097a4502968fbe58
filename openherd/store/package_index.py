"""Finds one wheel on a package index by the Simple API, in JSON or HTML.

Source: Python packaging's "Simple repository API" (PEP 503, PEP 691). Not covered: choosing a version or a platform,
because the catalogue names the exact file; metadata and signatures, because its SHA-256 is pinned.
"""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from openherd.store.pip_settings import PipSettings
from openherd.store.web import RefusedError, Web, origin

_MAX_PAGE_BYTES = 16 << 20
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def index_web(settings: PipSettings) -> Web:
    """HTTP as pip would do it: its certificates, its proxy, and the credentials written in an index's address."""
    authorization = {}
    for index in settings.indexes:
        parts = urlsplit(index)
        if parts.username:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization[origin(index)] = f"Basic {base64.b64encode(words.encode()).decode()}"
    return Web(
        certificates=settings.certificates,
        proxy=settings.proxy,
        timeout_s=settings.timeout_s,
        authorization=authorization,
    )


def find_wheel(web: Web, index: str, package: str, wheel: str) -> str | None:
    """The address of file `wheel` of `package` on `index`, or None. Raises WebError."""
    page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', package).lower()}/"
    with web.open(page, {"Accept": _ACCEPT}) as response:
        body = response.text(_MAX_PAGE_BYTES)
        try:
            links = _json_links(body) if "json" in response.header("Content-Type") else _html_links(body)
            addresses = [urljoin(response.url, link).partition("#")[0] for link in links]
            files = [unquote(urlsplit(address).path).rsplit("/", 1)[-1] for address in addresses]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RefusedError("its page is not one of the Simple API") from error
    return addresses[files.index(wheel)] if wheel in files else None


def _json_links(body: bytes) -> list[str]:
    return [str(file["url"]) for file in json.loads(body)["files"]]


def _html_links(body: bytes) -> list[str]:
    class Anchors(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.links: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag == "a":
                self.links += [value for name, value in attrs if name == "href" and value]

    anchors = Anchors()
    anchors.feed(body.decode("utf-8", errors="replace"))
    return anchors.links
