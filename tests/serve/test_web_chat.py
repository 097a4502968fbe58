"""The web chat in a browser: what a person does with it, on a real server, and with answers that a test decides."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.serve.browser import CHAT, StandIn, Visit, stream
from tests.serve.conftest import Server

PARIS = "What is the capital of France?"


def test_a_conversation_with_a_model_is_kept(visit: Visit, server: Server) -> None:
    page = visit.open()
    assert page.inner_text(".welcome h2") == "smollm2"
    page.keyboard.press("Alt+p")
    page.fill("[name=temperature]", "0")
    page.click("#settings .primary")
    visit.ask(PARIS)
    assert visit.answered() == "The capital of France is Paris."
    assert re.fullmatch(r"8 tokens · [\d.]+ tokens/s", page.inner_text(".facts"))
    assert re.fullmatch(r"4\d of 2,048 tokens", page.inner_text("#context"))
    assert "Paris." in page.inner_text("#live")
    visit.ask("Say it again.")
    visit.answered()
    page.reload()
    page.click(f".conversation:has-text('{PARIS}')")
    assert page.locator("article.answer").count() == 2
    assert "The capital of France is Paris." in page.inner_text("#messages")


def test_stop_ends_the_answer_on_the_server_too(visit: Visit, server: Server) -> None:
    cancelled = server.metrics()["openherd_cancelled_requests_total"]
    page = visit.open()
    # So that nothing but the key ends it.
    page.route(CHAT, lambda route: route.continue_(post_data={**route.request.post_data_json, "ignore_eos": True}))
    visit.ask("Count to one thousand.")
    page.locator("article.answer > .text", has_text=re.compile(".{20}")).wait_for()
    assert "tokens/s" in page.inner_text(".facts")
    page.keyboard.press("Escape")
    text = visit.answered()
    assert page.inner_text(".ending") == "Stopped."
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.wait_for_timeout(300)
    assert visit.answered() == text
    assert server.metrics()["openherd_cancelled_requests_total"] == cancelled + 1
    page.reload()
    page.click(".conversation")
    assert visit.answered() == text


def test_answers_made_again_and_edited_questions_stand_beside_the_first(visit: Visit) -> None:
    page = visit.open()
    said = StandIn(page, [stream("One."), stream("Two."), stream("Three."), stream("Four.")])
    page.keyboard.press("Alt+p")
    page.fill("[name=seed]", "7")
    page.keyboard.press("Escape")
    visit.ask("First")
    assert visit.answered() == "One."
    page.click("article.answer >> button[aria-label='Answer again']")
    page.wait_for_selector("text=Two.")
    visit.answered()
    assert [asked["seed"] for asked in said.asked] == [7, 8]
    assert page.inner_text(".answer .versions") == "2/2"
    page.click(".answer .versions button[aria-label='The version before']")
    assert visit.answered() == "One."
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "The next version"

    visit.ask("Second")
    page.wait_for_selector("text=Three.")
    visit.answered()
    assert [message["content"] for message in said.asked[2]["messages"]] == ["First", "One.", "Second"]
    page.hover("article.question >> nth=0")
    page.click("article.question >> nth=0 >> button[aria-label='Edit and send again']")
    page.fill(".editor textarea", "Other")
    page.click(".editor .primary")
    page.wait_for_selector("text=Four.")
    visit.answered()
    assert [message["content"] for message in said.asked[3]["messages"]] == ["Other"]
    assert page.locator("article").count() == 2
    page.click(".question .versions button[aria-label='The version before']")
    assert page.locator("article").count() == 4
    assert visit.answered() == "Three."


def test_settings_are_sent_and_begin_the_next_conversation(visit: Visit) -> None:
    page = visit.open()
    said = StandIn(page)
    values = {"system": "Be brief.", "temperature": "0.5", "top_p": "0.8", "max_tokens": "50", "seed": "3"}
    page.click("#show-settings")
    for name, value in values.items():
        page.fill(f"#settings [name={name}]", value)
    page.fill("#settings [name=temperature]", "-1")
    page.click("#settings .primary")
    assert page.locator("#settings").is_visible(), "a number out of range was taken"
    page.fill("#settings [name=temperature]", "0.5")
    page.click("#settings .primary")
    assert page.locator("#show-settings.marked").count() == 1
    visit.ask("Hello")
    visit.answered()
    page.click("#new-chat")
    visit.ask("Again")
    visit.answered()
    for asked, text in zip(said.asked, ("Hello", "Again"), strict=True):
        assert asked == {
            "model": "smollm2",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
            "temperature": 0.5, "top_p": 0.8, "max_tokens": 50, "seed": 3,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip


def test_conversations_are_found_renamed_and_deleted(visit: Visit) -> None:
    page = visit.open()
    StandIn(page, [stream("About cats."), stream("About dogs.")])
    for text in ("A question", "Another question"):
        page.click("#new-chat")
        visit.ask(text)
        visit.answered()
    titles = page.locator(".conversation")
    assert titles.all_inner_texts() == ["Another question", "A question"]
    page.fill("#find", "CATS")
    assert titles.all_inner_texts() == ["A question"]
    page.click(".conversation")
    assert visit.answered() == "About cats."
    page.fill("#find", "")
    page.click("button[aria-label='More about A question']")
    page.click("#menu [data-action=rename]")
    page.fill("#rename [name=title]", "Cats")
    page.keyboard.press("Enter")
    page.wait_for_selector(".conversation:has-text('Cats')")
    assert titles.all_inner_texts() == ["Another question", "Cats"]
    other = visit.open(visit.new_page())
    other.wait_for_selector(".conversation:has-text('Cats')")
    page.bring_to_front()

    page.click("#current-menu")
    page.click("#menu [data-action=delete]")
    assert page.inner_text("#delete-name") == "Cats"
    page.click("#delete .plain")
    assert titles.count() == 2
    page.click("#current-menu")
    page.click("#menu [data-action=delete]")
    page.click("#delete .danger")
    page.wait_for_selector(".conversation:has-text('Cats')", state="detached")
    assert titles.all_inner_texts() == ["Another question"]
    assert page.locator("article").count() == 0
    other.wait_for_selector(".conversation:has-text('Cats')", state="detached")
    page.reload()
    page.wait_for_selector(".conversation")
    assert titles.all_inner_texts() == ["Another question"]


def test_copying_and_exporting_take_what_the_model_wrote(visit: Visit) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.open()
    text = "Look:\n\n```python\nprint('<b>&amp;')\n```\n"
    StandIn(page, [stream(text)])
    visit.ask("Show me")
    visit.answered()
    page.click("button[aria-label='Copy the code']")
    page.wait_for_selector("button[aria-label='Copied']")
    assert page.evaluate("navigator.clipboard.readText()") == "print('<b>&amp;')"
    page.click("button[aria-label='Copy the answer']")
    page.wait_for_selector(".message-foot button[aria-label='Copied']")
    assert page.evaluate("navigator.clipboard.readText()") == text
    files = {}
    for action in ("markdown", "json"):
        page.click("#current-menu")
        with page.expect_download() as download:
            page.click(f"#menu [data-action={action}]")
        files[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
    assert files["show-me.md"] == f"# Show me\n\n## You\n\nShow me\n\n## smollm2\n\n{text.strip()}\n"
    exported = json.loads(files["show-me.json"])
    assert [message["content"] for message in exported["messages"].values()] == ["Show me", text]
