"""http.client with a bound that it lacks: interim answers (100 Continue and its like) may be few, not endless."""

from __future__ import annotations

import http.client

MOST_INTERIM = 8


class _Response(http.client.HTTPResponse):
    _heads = 0

    def _read_status(self) -> tuple[str, int, str]:
        """Called once for each head of an answer: the interim ones, which http.client skips, and the last."""
        self._heads += 1
        if self._heads > MOST_INTERIM + 1:
            raise http.client.HTTPException(f"more than {MOST_INTERIM} interim answers")
        head: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return head


class Connection(http.client.HTTPConnection):
    response_class = _Response


class SecureConnection(http.client.HTTPSConnection):
    response_class = _Response
