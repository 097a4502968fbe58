"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.store.resolve import resolve


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model's GGUF file, `OPENHERD_HOME/models/NAME/FILE`, fetched when it is missing; never skipped."""
    return resolve(None)
