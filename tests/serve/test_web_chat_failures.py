"""The web chat when something goes wrong or is not there yet: it says so in words, and loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.browser import StandIn, Visit, refusal, stream
from tests.serve.conftest import Server

PARIS = "What is the capital of France?"


FAILURES: list[tuple[Any, str]] = [
    (refusal(429, "queue_full", "68 requests are running", Retry_After="7"), "queue is full. Try again in 7 s."),
    (refusal(429, "rate_limit_exceeded", "this key's 3 requests a minute are used up"), "This key's 3 requests"),
    (refusal(503, "shutting_down", "the server is shutting down"), "shutting down"),
    (refusal(503, "unavailable", "the worker of the model died"), "The worker of the model died."),
    (refusal(400, "context_length_exceeded", "9000 tokens"), "no longer fits"),
    (refusal(400, "invalid_value", "max_tokens is above the context"), "Max_tokens is above the context."),
    (refusal(401, "invalid_api_key", "a key is needed"), "Reload the page"),
    ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "The server answered with status 502."),
    ("abort", "cannot be reached"),
    (stream("Half an", ending=""), "broke off"),
    (stream("Half an", ending='data: {"error": {"message": "it died", "code": null}}\n\n'), "It died."),
]


def test_what_goes_wrong_is_said_and_can_be_tried_again(visit: Visit) -> None:
    page = visit.open()
    answers = [answer for failure, _ in FAILURES for answer in (failure, stream("Here it is."))]
    said = StandIn(page, answers)
    for number, (_, words) in enumerate(FAILURES):
        page.click("#new-chat")
        visit.ask(f"Hello {number}")
        visit.answered()
        assert words in page.inner_text(".failure span")
        assert words in page.inner_text("#live")
        page.click(".failure button")
        page.wait_for_selector("text=Here it is.")
        assert visit.answered() == "Here it is."
        assert said.asked[-2]["messages"] == said.asked[-1]["messages"]
        assert not page.locator(".failure").is_visible()
    assert len(said.asked) == 2 * len(FAILURES)


def test_a_model_that_is_being_loaded_is_waited_for(visit: Visit) -> None:
    page = visit.page
    status = {"now": "loading"}
    loading = refusal(503, "unavailable", "the model smollm2 is being loaded")

    def models(route: Any) -> None:
        facts = {"id": "smollm2", "context": None, "status": {"value": "loading"}}
        route.fulfill(json={"data": [facts]}) if status["now"] == "loading" else route.continue_()

    page.route("**/v1/models", models)
    page.route(
        "**/ready",
        lambda route: route.fulfill(status=503 if status["now"] == "loading" else 200, json={"status": status["now"]}),
    )
    said = StandIn(page, [loading, stream("At last.")])
    page.goto(visit.url)
    page.wait_for_selector("text=The model is being loaded")
    visit.ask("Hello")
    page.wait_for_selector("text=The answer begins when it is there.")
    status["now"] = "ready"
    assert visit.answered() == "At last."
    assert len(said.asked) == 2
    page.wait_for_selector("text=of 2,048 tokens")


def test_the_context_of_a_model_that_is_loaded_on_demand_is_known_after_its_first_answer(visit: Visit) -> None:
    page = visit.page
    facts = {"id": "smollm2", "context": None, "status": {"value": "unloaded"}}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [facts]}))
    StandIn(page)
    visit.open()
    assert page.inner_text(".welcome h2") == "smollm2"
    facts |= {"context": 1234, "status": {"value": "loaded"}}
    visit.ask("Hello")
    assert visit.answered() == "Yes."
    page.wait_for_selector("text=of 1,234 tokens")


def test_a_browser_that_stores_nothing_says_so(visit: Visit) -> None:
    visit.page.add_init_script("IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };")
    page = visit.open()
    StandIn(page)
    assert "does not store" in page.inner_text("#notice")
    visit.ask("Hello")
    assert visit.answered() == "Yes."
    assert page.locator(".conversation").count() == 1


def test_a_browser_is_asked_for_the_key(browser: Any, server_with_key: tuple[Server, str]) -> None:
    guarded, key = server_with_key
    stranger = browser.new_page()
    # What Chromium says when it was asked for a password and nobody there knew one.
    with pytest.raises(Exception, match="ERR_INVALID_AUTH_CREDENTIALS"):
        stranger.goto(guarded.url)
    stranger.close()
    wrong = browser.new_page(http_credentials={"username": "me", "password": "herd-wrong"})
    assert wrong.goto(guarded.url).status == 401
    assert "give the key as the password" in wrong.inner_text("body")
    assert wrong.evaluate("getComputedStyle(document.body).maxWidth") == "544px", "its style was not applied"
    wrong.close()
    visit = Visit(browser, guarded.url, http_credentials={"username": "anything", "password": key})
    page = visit.open()
    page.click("#show-settings")
    page.fill("[name=temperature]", "0")
    page.click("#settings .primary")
    visit.ask(PARIS)
    assert visit.answered() == "The capital of France is Paris."
    visit.leave()
