"""The catalogue's pins hold for what the index serves."""

from __future__ import annotations

from pathlib import Path

from openherd.store.catalogue import CATALOGUE, DEFAULT
from openherd.store.digest import sha256_of


def test_the_default_model_is_what_the_catalogue_says(default_model: Path) -> None:
    entry = CATALOGUE[DEFAULT]
    assert default_model.parts[-3:] == ("models", DEFAULT, entry.file)
    assert default_model.stat().st_size == entry.size == 98_362_432
    assert sha256_of(default_model) == entry.sha256
