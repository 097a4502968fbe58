"""Conversations that tell chat templates apart, and what a template makes of them."""

from __future__ import annotations

from datetime import UTC, datetime

from openherd.errors import TemplateError
from openherd.messages import Message
from openherd.tokenizers import ChatTemplate
from openherd.workshop.golden.document import RenderedChat

# The present, for templates that write the date.
NOW = datetime(2024, 7, 26, 12, 0, 0, tzinfo=UTC)

CHATS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "Hello!"},),
    ({"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Why?"}),
    (
        {"role": "user", "content": "  What is 2 + 2?\n"},
        {"role": "assistant", "content": " 4. "},
        {"role": "user", "content": "And twice that?"},
    ),
    (
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "<|im_end|></s>[INST] naïve 日本 'quoted' \"twice\" {{ x }} {% y %}"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "go on"},
    ),
    ({"role": "user", "content": "one"}, {"role": "user", "content": "two"}),
)


def render(template: ChatTemplate, messages: tuple[dict[str, str], ...], now: datetime = NOW) -> RenderedChat:
    try:
        spans = template.render([Message(m.get("role", ""), m.get("content", "")) for m in messages], now=now)
    except TemplateError:
        return RenderedChat(messages, None)
    return RenderedChat(messages, "".join(span.text for span in spans))
