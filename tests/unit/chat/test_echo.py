"""The terminal does not echo while an answer is drawn, and does again afterwards."""

from __future__ import annotations

import os
import pty
import sys
import termios
from collections.abc import Iterator

import pytest

from openherd.chat.echo import no_echo


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as standard input."""
    controller, device = pty.openpty()
    with os.fdopen(device, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield device
    os.close(controller)


def echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def test_echo_is_off_inside_and_as_before_after(terminal: int) -> None:
    with no_echo():
        assert not echoes(terminal)
        assert termios.tcgetattr(terminal)[3] & termios.ISIG, "Ctrl-C still interrupts"
    assert echoes(terminal)


def test_an_interrupt_restores_it(terminal: int) -> None:
    with pytest.raises(KeyboardInterrupt), no_echo():
        raise KeyboardInterrupt
    assert echoes(terminal)


def test_it_is_nothing_to_do_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing, no_echo():
        monkeypatch.setattr(sys, "stdin", nothing)
        with no_echo():
            pass
