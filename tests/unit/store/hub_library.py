"""What the hub's own library makes of the hub that HF_ENDPOINT names, as JSON: `python hub_library.py FOLDER`.

A program of its own, because that library reads its variables when it is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url


def error_of(action: Callable[[], Any]) -> str:
    """The kind of error that `action` raises."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "none"


def observe(folder: Path) -> dict[str, Any]:
    info = HfApi().model_info("org/sound", files_metadata=True)
    large = get_hf_file_metadata(hf_hub_url("org/sound", "large.gguf"))
    small = get_hf_file_metadata(hf_hub_url("org/sound", "config.json"))
    names = [sibling.rfilename for sibling in info.siblings or []]
    sizes = {name: Path(hf_hub_download("org/sound", name, local_dir=folder)).stat().st_size for name in names}

    def download(name: str, file: str = "large.gguf", **options: Any) -> str:
        return error_of(lambda: hf_hub_download(name, file, local_dir=folder / name, **options))

    return {
        "commit": info.sha,
        "gated": info.gated,
        "licence": info.card_data.license if info.card_data else None,
        "siblings": {s.rfilename: [s.size, s.blob_id, s.lfs.sha256 if s.lfs else None] for s in info.siblings or []},
        "large": [large.commit_hash, large.etag, large.size, large.location.split("?")[0]],
        "large_xet": large.xet_file_data.file_hash if large.xet_file_data else None,
        "small": [small.commit_hash, small.etag, small.size],
        "sizes": sizes,
        "renamed": HfApi().model_info("org/old").id,
        "missing_repository": download("org/none"),
        "missing_revision": download("org/sound", revision="v9"),
        "missing_file": download("org/sound", "none.gguf"),
        "gated_repository": download("org/gated"),
        "private_repository": download("org/private"),
    }


if __name__ == "__main__":
    print(json.dumps(observe(Path(sys.argv[1]))))
