"""Streaming Markdown: nothing lost, nothing twice, nothing obeyed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from openherd.chat.render import Tail, show, split_blocks

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=60, height=12, legacy_windows=False)


def drawn(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("- a\n\n  still a\n\nb", "- a\n\n  still a\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("~~~\n```\n\nx\n~~~\n\ny", "~~~\n```\n\nx\n~~~\n\n"),
    ],
)
def test_blocks_end_where_nothing_can_change_them(text: str, finished: str) -> None:
    assert split_blocks(text) == (finished, text[len(finished) :])


@given(st.text(alphabet="ab \n`~-#|*1.", max_size=200), st.integers(1, 9))
def test_pieces_lose_nothing(text: str, size: int) -> None:
    done, pending = "", ""
    for start in range(0, len(text), size):
        finished, pending = split_blocks(pending + text[start : start + size])
        done += finished
    assert done + pending == text


def test_every_block_is_drawn_once() -> None:
    target = console()
    show(target, ["# Ti", "tle\n\nfirst par", "agraph\n\n```python\nx = 1\n", "```\n\nlast"])
    plain = ANSI.sub("", drawn(target))
    for words in ("Title", "first paragraph", "x = 1", "last"):
        assert words in plain
    assert plain.count("first paragraph") == 1


def test_a_block_taller_than_the_screen_is_cropped_while_it_grows() -> None:
    target = console()
    lines = target.render_lines(Tail("\n\n".join(f"line {i}" for i in range(100))))
    assert len(lines) <= target.size.height
    assert "line 99" in "".join(segment.text for line in lines for segment in line)


def test_what_there_is_stays_when_the_answer_is_stopped() -> None:
    def stopped() -> Iterator[str]:
        yield "half an ans"
        raise KeyboardInterrupt

    target = console()
    with pytest.raises(KeyboardInterrupt):
        show(target, stopped())
    assert "half an ans" in ANSI.sub("", drawn(target))


def test_escapes_of_the_model_are_shown_and_not_obeyed() -> None:
    target = console()
    show(target, ["\x1b]52;c;cm0gLXJmIH4=\x07", "\x1b[2J\x9b31m", "\u202egnp.exe", "[here](http://evil.example)"])
    out = drawn(target)
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert "\x9b" not in out
    assert "\u202e" not in out
    assert "http://evil.example" in ANSI.sub("", out).replace("\n", "")
