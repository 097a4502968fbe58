"""How the web chat looks and is reached: themes, phones, the keyboard, Markdown, thoughts."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.serve.browser import StandIn, Visit, stream
from tests.serve.conftest import Server

WIDE = f"""
```python
x = "{"long " * 60}"
```

|{" a column of words |" * 12}
|{" --- |" * 12}
|{" cell |" * 12}

{"w" * 300}

https://a.example/{"p" * 300}
"""


def test_light_and_dark_follow_the_system_and_the_switch(visit: Visit) -> None:
    page = visit.open()

    def brightness() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert brightness() > 600
    page.emulate_media(color_scheme="dark")
    assert brightness() < 150
    page.check("[name=theme][value=light]")
    assert brightness() > 600
    page.emulate_media(color_scheme="light")
    page.check("[name=theme][value=dark]")
    assert brightness() < 150
    page.reload()
    assert brightness() < 150
    assert page.is_checked("[name=theme][value=dark]")


def test_a_phone_scrolls_in_one_direction_only(browser: Any, server: Server) -> None:
    visit = Visit(browser, server.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = visit.open()

    def is_narrow() -> bool:
        parts = "[document.scrollingElement, document.querySelector('#scroll')]"
        return page.evaluate(f"{parts}.every((e) => e.scrollWidth <= e.clientWidth)")

    assert is_narrow()
    StandIn(page, [stream(WIDE)])
    visit.ask("Something wide: " + "W" * 200)
    visit.answered()
    assert page.locator(".answer pre, .answer table").count() == 2
    assert is_narrow()
    assert not page.locator("#new-chat").is_visible()
    page.tap("#open-sidebar")
    assert page.evaluate("document.activeElement.id") == "close-sidebar"
    page.tap("#new-chat")
    page.wait_for_selector("#new-chat", state="hidden")
    assert page.locator(".welcome").is_visible()
    page.tap("#show-settings")
    box = page.locator("#settings").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    visit.leave()


def test_everything_is_there_without_a_mouse(visit: Visit) -> None:
    page = visit.open()
    StandIn(page, [stream("One."), stream("Two."), stream("Three.")])
    press, focused = (
        page.keyboard.press,
        "document.activeElement.id || document.activeElement.getAttribute('aria-label')",
    )
    assert page.evaluate(focused) == "prompt"
    page.focus(".skip")
    order = []
    for _ in range(11):
        press("Tab")
        order.append(page.evaluate(focused))
        outline = page.evaluate(
            "(() => { const e = document.activeElement; const shown = e.closest('label') ?? e;"
            " return getComputedStyle(shown).outlineStyle + getComputedStyle(e.closest('form') ?? e).borderColor; })()"
        )
        assert outline.startswith("solid") or order[-1] == "prompt", order
    colours, examples = [None], [None] * 4  # which have no names of their own
    assert order == ["new-chat", "find", *colours, "show-shortcuts", "model", "show-settings", *examples, "prompt"]
    press("Shift+Tab")
    press("?")
    assert "Answer again" in page.inner_text("#shortcuts")
    press("Escape")
    press("/")
    assert page.evaluate(focused) == "prompt"
    page.keyboard.type("Hello")
    press("Shift+Enter")
    page.keyboard.type("you")
    press("Enter")
    assert visit.answered() == "One."
    assert page.inner_text(".bubble") == "Hello\nyou"
    press("Alt+r")
    page.wait_for_selector("text=Two.")
    visit.answered()
    press("ArrowUp")
    assert page.evaluate(focused) == "Edit the message"
    page.keyboard.type("!")
    press("Enter")
    page.wait_for_selector("text=Three.")
    visit.answered()
    page.focus("#current-menu")
    press("Enter")
    press("ArrowUp")
    press("Enter")  # the last of the menu: delete
    press("Escape")
    assert page.locator(".conversation").count() == 1
    press("Alt+n")
    assert page.locator(".welcome").is_visible()
    press("Alt+ArrowDown")
    assert page.locator("article").count() == 2


def test_markdown_is_shown_as_it_is_meant(visit: Visit) -> None:
    page = visit.open()
    text = "3. three\n4. four\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\n- [x] done\n\n[a link](https://a.example/b)"
    StandIn(page, [stream(text)])
    visit.ask("Show me")
    visit.answered()
    assert page.get_attribute(".answer ol", "start") == "3"
    assert page.eval_on_selector_all(".answer td", "(cells) => cells.map((e) => getComputedStyle(e).textAlign)") == [
        "left", "right",
    ]  # fmt: skip
    assert page.inner_text(".answer ul") == "☑ done"
    assert page.get_attribute(".answer .text a", "rel") == "noopener noreferrer nofollow"


def test_thinking_is_folded_away(visit: Visit) -> None:
    page = visit.open()
    said = StandIn(page, [stream("It is 42.", reasoning=["Six times ", "**seven**."]), stream("Yes.")])
    visit.ask("How much?")
    assert visit.answered() == "It is 42."
    assert page.inner_text(".thinking summary").startswith("Thought")
    assert "seven" not in page.inner_text(".answer")
    page.click(".thinking summary")
    page.wait_for_selector(".thinking strong")
    assert page.inner_text(".thinking .text") == "Six times seven."
    visit.ask("Sure?")
    page.wait_for_selector("text=Yes.")
    assert "seven" not in json.dumps(said.asked[1])
