"""The page of families is what the program's table says."""

from __future__ import annotations

from dataclasses import fields

from openherd.checkpoints.families.variations import SIZES, WORDS
from openherd.config import ModelConfig
from tests.docs import make_families


def test_the_page_of_families_is_current() -> None:
    written = make_families.PAGE.read_text(encoding="utf-8")
    assert written == make_families.page(), "run: python -m tests.docs.make_families"


def test_every_variation_has_words() -> None:
    names = {field.name for field in fields(ModelConfig)}
    assert names == SIZES | set(WORDS)
    assert not SIZES & set(WORDS)
