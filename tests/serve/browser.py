"""A browser on the web chat: Debian's Chromium, driven by Playwright.

Every visit watches what must never happen: a request to another host, a dialog, a broken rule of the page's
Content-Security-Policy, an error in a module. Leaving it asserts that there was none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

CHAT = "**/v1/chat/completions"
TIMEOUT_MS = 60_000  # the machine may be busy
_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Counted by the page itself, because a violation is no error of any script.
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window. Skips the test, saying what to install, where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        # No sandbox: tests may run as root, and the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page of the web chat in a browser profile of its own."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.context.add_init_script(_WATCH)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.new_page()

    def new_page(self) -> Any:
        page = self.context.new_page()
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._console)
        return page

    def open(self, page: Any = None) -> Any:
        """The page, with its model known."""
        page = page or self.page
        page.goto(f"{self.url}/")
        page.wait_for_selector("#model:not(:disabled)")
        return page

    def ask(self, text: str) -> None:
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")

    def answered(self) -> str:
        """The last answer's text, when it has ended."""
        self.page.wait_for_selector("article.answer.last:not(.running)")
        self.page.wait_for_selector("#stop", state="hidden")
        return self.page.inner_text("article.answer.last > .text").strip()

    def leave(self) -> None:
        """Asserts that nothing forbidden happened."""
        for page in self.context.pages:
            self.problems += page.evaluate("window.violations ?? []")
        outside = [url for url in self.requests if not url.startswith((f"{self.url}/", "blob:"))]
        self.context.close()
        assert not outside, outside
        assert not self.problems, self.problems

    def _console(self, message: Any) -> None:
        # What a server refuses is written there too; tests of refusals look at the page.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.problems.append(f"console: {message.text}")


class StandIn:
    """Answers chat requests in the server's place, with bodies that a test decides, and keeps what was asked."""

    def __init__(self, page: Any, answers: Sequence[str | dict[str, Any]] = ()) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers = list(answers)
        page.route(CHAT, self._answer)

    def _answer(self, route: Any) -> None:
        self.asked.append(json.loads(route.request.post_data))
        answer = self.answers.pop(0) if self.answers else stream("Yes.")
        if answer == "abort":
            route.abort("connectionrefused")
        elif isinstance(answer, dict):
            route.fulfill(**answer)
        else:
            route.fulfill(status=200, content_type="text/event-stream; charset=utf-8", body=answer)


def stream(*pieces: str, reasoning: Sequence[str] = (), finish: str = "stop", ending: str = "data: [DONE]\n\n") -> str:
    """An answer as the server streams it; `ending` is what stands in the place of [DONE]."""
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in reasoning]
    deltas += [{"content": piece} for piece in pieces]
    chunks = [_chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    if ending.startswith("data: [DONE]"):
        chunks.append(_chunk([{"index": 0, "delta": {}, "finish_reason": finish}]))
        chunks.append(_chunk([], {"prompt_tokens": 20, "completion_tokens": len(pieces), "total_tokens": 0}))
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + ending


def refusal(status: int, code: str | None, message: str, **headers: str) -> dict[str, Any]:
    """An error in the server's shape."""
    error = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    return {
        "status": status,
        "json": error,
        "headers": {name.replace("_", "-"): text for name, text in headers.items()},
    }


def _chunk(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, "usage": usage}
