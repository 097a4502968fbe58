"""herd rm: remove a fetched model."""

from __future__ import annotations

from openherd.cli import output
from openherd.cli.flags import JsonFlag


def rm(name: str, /, *, json: JsonFlag = False) -> None:
    """Remove a fetched model from this machine, or what an interrupted pull of it left.

    Parameters
    ----------
    name
        Its name (see: herd models): of the catalogue, or hf:ORG/REPO[:VARIANT][@COMMIT].
    """
    from openherd.store.progress import megabytes
    from openherd.store.removal import remove

    removed = remove(name)
    if json:
        output.document({"name": name, "removed": str(removed.path), "size": removed.size})
    else:
        print(f"removed {name} ({megabytes(removed.size)})")
