"""herd models: what is here and what can be fetched."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from openherd.cli import output
from openherd.cli.flags import JsonFlag

if TYPE_CHECKING:
    from openherd.store.local import LocalModel


def models(*, json: JsonFlag = False) -> None:
    """List the models on this machine and in the catalogue."""
    from openherd.store.home import models_folder
    from openherd.store.progress import megabytes
    from openherd.store.removal import unfinished

    rows = _rows()
    left = unfinished()
    if json:
        leftovers = [{"path": str(one.path), "size": one.size} for one in left]
        output.document({"folder": str(models_folder()), "models": rows, "unfinished": leftovers})
        return
    width = max(len(row["name"]) for row in rows if row["catalogue"])
    for row in rows:
        default = "  (default)" if row["default"] else ""
        is_known = row["here"] or row["default"]
        size = megabytes(row["size"]) if is_known else f"about {row['size'] / 1e9:.1f} GB"
        print(f"{row['name']:{width}}  {size:>12}  {row['licence'] or 'licence unknown'}  {row['title']}{default}")
        print(f"{'':{width}}  {_whereabouts(row)}")
    for one in left:
        print(f"unfinished: {megabytes(one.size)} in {one.path}; the same herd pull goes on with it")


def _whereabouts(row: dict[str, Any]) -> str:
    from openherd.store.progress import megabytes

    if row["here"]:
        hub = row["record"]["hub"]
        return str(row["path"]) + (f"  (commit {hub['commit'][:12]})" if hub else "")
    download = f", a download of {megabytes(row['download_size'])}" if row["download_size"] else ""
    source = f" from {row['reference']}" if row["reference"] else ""
    return f"not here; herd pull {row['name']} fetches it{source}{download}"


def _rows() -> list[dict[str, Any]]:
    """The catalogue in its order, then models that it does not list."""
    from openherd.store.catalogue import CATALOGUE, DEFAULT
    from openherd.store.hub_catalogue import HUB_CATALOGUE
    from openherd.store.hub_local import find_hub_models
    from openherd.store.hub_reference import parse_hub_reference
    from openherd.store.local import local_models
    from openherd.store.removal import spelling

    local = local_models()
    by_name = {model.record.name: model for model in local if model.record.hub is None}
    rows = [
        _row(name, entry.title, entry.licence, entry.size, by_name.pop(name, None))
        | {"catalogue": True, "default": name == DEFAULT, "download_size": entry.source.wheel_size}
        for name, entry in CATALOGUE.items()
    ]
    listed = set()
    for name, hub_entry in HUB_CATALOGUE.items():
        model = next(iter(find_hub_models(parse_hub_reference(hub_entry.reference))), None)
        listed.add(model.folder if model else None)
        row = _row(name, hub_entry.title, hub_entry.licence, hub_entry.about_bytes, model)
        rows.append(row | {"catalogue": True, "reference": hub_entry.reference})
    for model in local:
        if model.folder not in listed and (model.record.hub is not None or model.record.name in by_name):
            record = model.record
            title = record.file or f"{len(record.files)} files"
            rows.append(_row(spelling(model), title, record.licence, record.size, model))
    return rows


def _row(name: str, title: str, licence: str, size: int, model: LocalModel | None) -> dict[str, Any]:
    """What was fetched counts where it differs from what the catalogue says."""
    return {
        "name": name,
        "title": title,
        "licence": (model.record.licence if model else "") or licence,
        "size": model.record.size if model else size,
        "download_size": None,
        "reference": None,
        "catalogue": False,
        "default": False,
        "here": model is not None,
        "path": str(model.path) if model else None,
        "record": asdict(model.record) if model else None,
    }
