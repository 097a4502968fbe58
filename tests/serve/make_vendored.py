"""Fetches the page's third-party files again: `python -m tests.serve.make_vendored` (needs npm).

`vendor/versions.json` names each package with its exact version, the integrity that npm published for it, and the files
that are taken. A package whose archive has another SHA-512 is not unpacked. The files' own SHA-256 are written beside,
so that a test without a network sees when one was changed. To take a newer version, change it and its integrity
(`npm view NAME@VERSION dist.integrity`) and run this.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[2] / "openherd" / "serve" / "page" / "vendor"
RECORD = VENDOR / "versions.json"


def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def fetch(package: dict[str, Any], folder: Path) -> dict[str, bytes]:
    """The wanted files of one package by the names they get here. Raises `ValueError` for an archive of other bytes."""
    name = f"{package['name']}@{package['version']}"
    command = ["npm", "pack", name, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    archive = folder / subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package["integrity"]:
        raise ValueError(f"{name} has the integrity sha512-{digest}, and versions.json says {package['integrity']}")
    taken = {}
    with tarfile.open(archive) as files:
        for path, here in package["files"].items():
            member = files.extractfile(f"package/{path}")
            if member is None:
                raise ValueError(f"{name} has no file {path}")
            taken[here] = member.read()
    return taken


def main() -> None:
    versions = record()
    versions["sha256"] = {}
    for package in versions["packages"]:
        with tempfile.TemporaryDirectory() as folder:
            for here, data in fetch(package, Path(folder)).items():
                (VENDOR / here).parent.mkdir(parents=True, exist_ok=True)
                (VENDOR / here).write_bytes(data)
                versions["sha256"][here] = hashlib.sha256(data).hexdigest()
    RECORD.write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
