"""Data and killable processes, once for all tests here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.train.loop.forks import Forks
from tests.train.loop.small_run import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "tokens").path


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture(scope="session")
def uninterrupted(forks: Forks, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of weights, moments, random numbers and state of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert forks.call("train", out=out, data=data) == 0
    return digests_of(out)


def digests_of(out: Path) -> dict[str, str]:
    digests = json.loads((out / "digests.json").read_text())
    assert isinstance(digests, dict)
    return digests
