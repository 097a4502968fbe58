"""What the hub answers about a repository, where it is hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openherd.errors import FormatError
from openherd.store.hub_answer import read_repository


def answer(**changes: Any) -> bytes:
    return json.dumps({"id": "o/r", "sha": "a" * 40, "siblings": [{"rfilename": "m.gguf"}], **changes}).encode()


def test_half_of_a_character_in_a_name_is_refused() -> None:
    with pytest.raises(FormatError, match="half of a character"):
        read_repository(answer(siblings=[{"rfilename": "d\ud800/m.gguf"}]), "o/r")


def test_a_nested_licence_is_none() -> None:
    nested: object = "mit"
    for _ in range(900):
        nested = [nested]
    assert read_repository(answer(cardData={"license": nested}), "o/r").licence == ""
    assert read_repository(answer(cardData={"license": ["mit", "apache-2.0", 3]}), "o/r").licence == "mit, apache-2.0"
