"""JSON, and server-sent events that carry it: WHATWG HTML, section 9.2, one document on one `data:` line each."""

from __future__ import annotations

import json
from typing import Any

# How OpenAI's older APIs say that a stream is complete.
DONE = b"data: [DONE]\n\n"


def json_bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def sse(document: Any, name: str | None = None) -> bytes:
    """`name`: what kind of event it is, for APIs that have kinds."""
    kind = b"" if name is None else b"event: " + name.encode() + b"\n"
    return kind + b"data: " + json_bytes(document) + b"\n\n"
