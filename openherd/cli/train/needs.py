"""What training needs beside the core, asked for before anything is begun."""

from __future__ import annotations

from importlib.util import find_spec

from openherd.errors import HerdError


def require_torch(command: str) -> None:
    """Raises HerdError with what to install."""
    if find_spec("torch") is None:
        raise HerdError(f"{command} needs what is not installed: torch", hint="try: pip install 'openherd[train]'")
