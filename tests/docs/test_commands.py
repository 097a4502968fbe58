"""The page of commands is what the program says of itself."""

from __future__ import annotations

from tests.docs import make_commands


def test_the_page_of_commands_is_current() -> None:
    written = make_commands.PAGE.read_text(encoding="utf-8")
    assert written == make_commands.page(), "run: python -m tests.docs.make_commands"
