"""Texts that come with the package, to measure models on.

`looking-glass.txt` is from the first chapters of Lewis Carroll's "Through the Looking-Glass" (1871), which is in the
public domain.
"""

from __future__ import annotations

from importlib.resources import files

DEFAULT_TEXT = "looking-glass.txt"


def default_text() -> str:
    """Some 6,000 tokens of English prose and verse."""
    return files(__name__).joinpath(DEFAULT_TEXT).read_text(encoding="utf-8")
