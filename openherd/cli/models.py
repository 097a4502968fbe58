"""herd models: what is here and what can be fetched."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from openherd.cli import output
from openherd.cli.flags import JsonFlag


def models(*, json: JsonFlag = False) -> None:
    """List the models on this machine and in the catalogue."""
    from openherd.store.home import models_folder
    from openherd.store.progress import megabytes

    rows = _rows()
    if json:
        output.document({"folder": str(models_folder()), "models": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        here = (
            row["path"]
            or f"not here; herd pull {row['name']} fetches it, a download of {megabytes(row['download_size'])}"
        )
        default = "  (default)" if row["default"] else ""
        print(f"{row['name']:{width}}  {megabytes(row['size']):>9}  {row['licence']}  {row['title']}{default}")
        print(f"{'':{width}}  {here}")


def _rows() -> list[dict[str, Any]]:
    """The catalogue in its order, then models that it does not list."""
    from openherd.store.catalogue import CATALOGUE, DEFAULT
    from openherd.store.local import local_models

    here = {model.record.name: model for model in local_models()}
    rows = []
    for name in [*CATALOGUE, *(name for name in here if name not in CATALOGUE)]:
        entry, model = CATALOGUE.get(name), here.get(name)
        known = entry or here[name].record
        rows.append(
            {
                "name": name,
                "title": entry.title if entry else known.file,
                "licence": known.licence,
                "size": known.size,
                "download_size": entry.source.wheel_size if entry else None,
                "default": name == DEFAULT,
                "here": model is not None,
                "path": str(model.path) if model else None,
                "record": asdict(model.record) if model else None,
            }
        )
    return rows
