"""Backends by name. A backend is imported when it is chosen, so that one does not cost the other's start-up."""

from __future__ import annotations

from openherd.engine.protocols import Backend
from openherd.errors import OptionError


def make_backend(name: str, threads: int | None = None) -> Backend:
    """The backend called `name`: "native", the compiled core, or "reference", the NumPy oracle.

    `threads` None means one for each core this process may use; the oracle has no use for it. Raises `OptionError`
    for an unknown name.
    """
    if name == "native":
        from openherd.engine.native_backend import NativeBackend

        return NativeBackend(threads)
    if name == "reference":
        from openherd.engine.reference_backend import ReferenceBackend

        return ReferenceBackend()
    raise OptionError(f"backend must be native or reference, not {name!r}")
