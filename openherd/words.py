"""Numbers as a person reads them."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {what}{'s' * (count != 1)}"
