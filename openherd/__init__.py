"""openherd: Llama-family language models that people own end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LLM", "Completion", "HerdError", "Message", "ModelConfig", "SamplingParams", "__version__"]

if TYPE_CHECKING:
    from openherd.config import ModelConfig
    from openherd.errors import HerdError
    from openherd.llm import LLM
    from openherd.messages import Completion, Message
    from openherd.options import SamplingParams

_HOME_OF = {
    "LLM": "openherd.llm",
    "Completion": "openherd.messages",
    "HerdError": "openherd.errors",
    "Message": "openherd.messages",
    "ModelConfig": "openherd.config",
    "SamplingParams": "openherd.options",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `herd --help` loads neither NumPy nor the engine."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'openherd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME_OF[name]), name)
