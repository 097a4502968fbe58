"""What the tests of the workshop share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.llm.tiny_file import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("workshop") / "tiny.gguf")
