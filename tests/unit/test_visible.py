from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from openherd.visible import visible


@given(st.text())
def test_visible_text_cannot_steer(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode()
    assert visible(shown) == shown
