"""The page of recipe keys is what the program's options say."""

from __future__ import annotations

from tests.docs import make_recipe_keys


def test_the_page_of_recipe_keys_is_current() -> None:
    written = make_recipe_keys.PAGE.read_text(encoding="utf-8")
    assert written == make_recipe_keys.page(), "run: python -m tests.docs.make_recipe_keys"
