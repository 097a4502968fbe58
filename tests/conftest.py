"""What every test may ask for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from openherd.store.resolve import resolve


def pytest_configure() -> None:
    """A shell starts background jobs with interrupts ignored; processes that tests interrupt must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What these hold is arithmetic: it is right every time or wrong.
_NEVER_RERUN = ("parity", "native", "quant", "kernels", "test_determinism", "test_speculat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`--reruns`, which CI gives, is for tests that a busy machine can disturb."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        if any(word in file for word in _NEVER_RERUN):
            item.add_marker(pytest.mark.flaky(reruns=0))


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model's GGUF file, `OPENHERD_HOME/models/NAME/FILE`, fetched when it is missing; never skipped."""
    return resolve(None)
