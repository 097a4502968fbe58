"""Takes the pictures of the web chat that the documents show: `python -m tests.serve.make_screenshots`.

A real conversation with the default model at temperature 0, so that the same build writes the same words. Debian's
fonts-inter and fonts-jetbrains-mono make the letters those of the pictures that are committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serve.browser import Visit, chromium
from tests.serve.conftest import serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MAX_BYTES = 150_000
EARLIER = ("What is the capital of France?", "Write a haiku about a river in the morning.")
PROMPTS = (
    "What are the three states of matter? Answer with a list.",
    "Write a Python function that says whether a word is a palindrome.",
)
PICTURES: dict[str, dict[str, Any]] = {
    "web-chat": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "web-chat-dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
}


def picture(visit: Visit, path: Path) -> None:
    page = visit.open()
    page.click("#show-settings")
    page.fill("[name=temperature]", "0")
    page.click("#settings .primary")
    for number, prompt in enumerate((*EARLIER, *PROMPTS)):
        if number <= len(EARLIER):
            page.keyboard.press("Alt+n")
        visit.ask(prompt)
        page.wait_for_selector("article.answer.running")
        visit.answered()
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path.name} has {size} bytes"


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with serving("--context", "8192") as server, chromium() as browser:
        for name, options in PICTURES.items():
            visit = Visit(browser, server.url, **options)
            picture(visit, IMAGES / f"{name}.png")
            visit.leave()


if __name__ == "__main__":
    main()
