"""herd rm: remove a fetched model."""

from __future__ import annotations

from openherd.cli import output
from openherd.cli.flags import JsonFlag


def rm(name: str, /, *, json: JsonFlag = False) -> None:
    """Remove a fetched model from this machine.

    Parameters
    ----------
    name
        Its name (see: herd models).
    """
    from openherd.store.local import remove
    from openherd.store.progress import megabytes

    model = remove(name)
    if json:
        output.document({"name": name, "removed": str(model.path), "size": model.record.size})
    else:
        print(f"removed {name} ({megabytes(model.record.size)})")
