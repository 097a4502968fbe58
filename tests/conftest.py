"""What every test may ask for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from openherd.store.resolve import resolve


def pytest_configure() -> None:
    """A shell starts background jobs with interrupts ignored; processes that tests interrupt must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model's GGUF file, `OPENHERD_HOME/models/NAME/FILE`, fetched when it is missing; never skipped."""
    return resolve(None)
