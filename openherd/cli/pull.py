"""herd pull: fetch a model before it is needed."""

from __future__ import annotations

from dataclasses import asdict

from openherd.cli import output
from openherd.cli.flags import JsonFlag, OfflineFlag


def pull(name: str | None = None, /, *, offline: OfflineFlag = False, json: JsonFlag = False) -> None:
    """Fetch a model of the catalogue: resumed when interrupted, verified, there whole or not at all.

    A model that is already here is verified again, and fetched anew if its checksum is wrong.

    Parameters
    ----------
    name
        Its name in the catalogue (see: herd models); none: the default model.
    """
    from openherd.store.catalogue import DEFAULT
    from openherd.store.pull import pull as fetch
    from openherd.store.resolve import catalogue_entry

    model = fetch(catalogue_entry(DEFAULT if name is None else name), offline=offline, verify=True)
    if json:
        output.document({"name": model.record.name, "path": str(model.path), "record": asdict(model.record)})
    else:
        print(model.path)
