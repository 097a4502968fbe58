"""How a file was made, in its own metadata: enough to make it again, and to know what it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from openherd import __version__
from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor
from openherd.store.digest import sha256_of
from openherd.workshop.importance import Importance
from openherd.workshop.quantize.mixes import Mix
from openherd.workshop.quantize.source import Source

RECIPE_KEY = "openherd.quantize.recipe"
# Rises when the search gives other bytes for the same weights.
SEARCH_REVISION = 1
# A source of this size is hashed in about a second; a larger one is named without its hash.
MAX_HASHED_BYTES = 2 << 30


# In the place of a digest until it is known.
NO_DIGEST_YET = "0" * 64


def is_hashed(source: Source) -> bool:
    """Whether a digest names the source beyond its name; not many files, nor a large one."""
    return len(source.files) == 1 and source.nbytes <= MAX_HASHED_BYTES


def digest_of(source: Source) -> str:
    """Of a source that `is_hashed`."""
    return sha256_of(source.files[0])


def recipe(
    source: Source, digest: str | None, mix: Mix, planned: Sequence[PlannedTensor], importance: Importance | None
) -> dict[str, Any]:
    """JSON values only. File names are given without their folders."""
    made_from: dict[str, Any] = {"name": source.name, "types": _counts(t.type.name for t in source.tensors)}
    if digest is not None:
        made_from["sha256"] = digest
    return {
        "openherd": __version__,
        "search": SEARCH_REVISION,
        "mix": mix.name,
        "types": _counts(t.type.name for t in planned),
        "importance": _importance(importance),
        "source": made_from,
    }


def recipe_keys(mix: Mix, document: Mapping[str, Any], importance: Importance | None) -> dict[str, KeyValue]:
    """What the new file says beside the source's own keys. `quantize.imatrix.*` are llama.cpp's names."""
    keys: dict[str, KeyValue] = {
        "general.file_type": mix.file_type,
        "general.quantization_version": 2,
        RECIPE_KEY: json.dumps(document, ensure_ascii=False),
    }
    if importance is not None:
        keys["quantize.imatrix.dataset"] = ", ".join(importance.texts)
        keys["quantize.imatrix.entries_count"] = len(importance.sums)
        keys["quantize.imatrix.chunks_count"] = importance.num_chunks
    return keys


def _importance(importance: Importance | None) -> dict[str, Any] | None:
    if importance is None:
        return None
    return {
        "texts": list(importance.texts),
        "chunks": importance.num_chunks,
        "chunk_tokens": importance.chunk_len,
        "sha256": importance.digest(),
    }


def _counts(names: Any) -> dict[str, int]:
    return dict(Counter(names).most_common())
