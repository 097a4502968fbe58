"""Tokenizers: text to ids and back, and chat templates as spans.

`TokenizerSpec` is what a file carries; `Tokenizer` turns text and spans into ids and ids into text;
`ChatTemplate` turns a conversation into spans. Names load on first use: the `tokenizers` and `jinja2`
packages are not imported before they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["ChatTemplate", "IncrementalDetokenizer", "Tokenizer", "TokenizerSpec"]

if TYPE_CHECKING:
    from openherd.tokenizers.chat_template import ChatTemplate
    from openherd.tokenizers.detokenizer import IncrementalDetokenizer
    from openherd.tokenizers.spec import TokenizerSpec
    from openherd.tokenizers.tokenizer import Tokenizer

_HOME_OF = {
    "ChatTemplate": "openherd.tokenizers.chat_template",
    "IncrementalDetokenizer": "openherd.tokenizers.detokenizer",
    "Tokenizer": "openherd.tokenizers.tokenizer",
    "TokenizerSpec": "openherd.tokenizers.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)
