"""herd verify: what recording may overwrite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Herd


@pytest.mark.parametrize("target", ["model", "a document", "a link to the model"])
def test_recording_destroys_nothing(herd: Herd, tiny_model: Path, tmp_path: Path, target: str) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(tiny_model.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "link.json").symlink_to(model)
    place = {"model": model, "a document": tmp_path / "config.json", "a link to the model": tmp_path / "link.json"}[
        target
    ]
    before = place.read_bytes()
    result = herd("verify", model, "--record", "--golden", place)
    assert (result.status, "holds no golden values" in result.err) == (2, True), result.err
    assert place.read_bytes() == before


def test_golden_values_may_be_recorded_again(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "golden.json"
    for _ in range(2):
        assert herd("verify", tiny_model, "--record", "--golden", place).status == 0
    assert "openherd_golden" in json.loads(place.read_text())


def test_values_are_recorded_where_they_can_be_read(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    result = herd("verify", tiny_model, "--record", "--golden", tmp_path / "values.golden")
    assert result.status == 2
    assert ".json" in result.err
    assert not list(tmp_path.iterdir())


def test_values_go_where_a_link_leads(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    place, link = tmp_path / "golden.json", tmp_path / "link.json"
    assert herd("verify", tiny_model, "--record", "--golden", place).status == 0
    place.chmod(0o600)
    link.symlink_to(place)
    assert herd("verify", tiny_model, "--record", "--golden", link).status == 0
    assert link.is_symlink()
    assert place.stat().st_mode & 0o777 == 0o600
