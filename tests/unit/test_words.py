from __future__ import annotations

import pytest

from openherd.words import counted


@pytest.mark.parametrize(("count", "words"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")])
def test_what_is_counted_has_a_plural_and_its_thousands(count: int, words: str) -> None:
    assert counted(count, "row") == words
