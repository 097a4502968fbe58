"""The hub's answers put together at random and mutated: refused in our words, or a choice that can be kept safely."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openherd.errors import HerdError
from openherd.store.digest import Pinned
from openherd.store.fit import need_of_config
from openherd.store.hub_answer import MAX_FILE_BYTES, read_repository
from openherd.store.hub_files import choose, local_name
from openherd.store.hub_reference import is_hub_reference, parse_hub_reference
from tests.fuzz.mutations import EDGES, mutated, only_herd_errors, seconds, seeds

QUICK = settings(max_examples=400, deadline=None, derandomize=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from(EDGES) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SHA256, SHA1 = st.just("ab" * 32) | st.text(max_size=5), st.just("cd" * 20) | st.text(max_size=5)
SIZES = st.integers(0, 10**10) | st.sampled_from(EDGES) | JSON
PATHS = st.sampled_from(
    ["config.json", "model.safetensors", "m-Q4_0.gguf", "m-Q4_0-00001-of-00002.gguf", "m-Q4_0-00002-of-00002.gguf",
     "../x.gguf", "/x.gguf", "x/.gguf", "a\x00.gguf", "record.json", "model.safetensors.index.json"]
) | st.text(max_size=8).map(lambda text: f"{text}.gguf")  # fmt: skip
SIBLINGS = st.fixed_dictionaries(
    {"rfilename": PATHS | JSON},
    optional={
        "size": SIZES,
        "blobId": SHA1 | JSON,
        "lfs": st.fixed_dictionaries({"sha256": SHA256 | JSON, "size": SIZES}) | JSON,
    },
)
ANSWERS = st.fixed_dictionaries(
    {
        "id": st.just("o/r") | JSON,
        "sha": st.just("0" * 40) | JSON,
        "siblings": st.lists(SIBLINGS | JSON, max_size=6) | JSON,
    },
    optional={"cardData": st.fixed_dictionaries({"license": JSON}) | JSON, "tags": JSON, "gated": JSON},
)
SOUND = {
    "id": "o/r",
    "sha": "0" * 40,
    "cardData": {"license": "mit"},
    "siblings": [
        {"rfilename": "m-Q4_0.gguf", "size": 10, "lfs": {"sha256": "ab" * 32, "size": 10, "pointerSize": 1}},
        {"rfilename": "config.json", "size": 2, "blobId": "cd" * 20},
    ],
}


def read_and_choose(body: bytes, select: str | None = None) -> None:
    repository = read_repository(body, "o/r")
    assert repository.licence.isprintable()
    choice = choose(repository, select)
    names = [local_name(file.path) for file in choice.files]
    assert len({name.casefold() for name in names}) == len(names)
    for file, name in zip(choice.files, names, strict=True):
        assert isinstance(file.pinned, Pinned)
        assert 0 <= file.pinned.size <= MAX_FILE_BYTES
        assert not set(name) & set("/\\\0")
        assert not name.startswith(".")


@QUICK
@given(answer=ANSWERS | JSON, select=st.none() | st.sampled_from(["Q4_0", "safetensors", "x"]))
def test_structures(answer: Any, select: str | None) -> None:
    body = json.dumps(answer).encode()
    only_herd_errors(lambda: read_and_choose(body, select), len(body))


def test_mutated_answers() -> None:
    whole = json.dumps(SOUND).encode()
    for seed in seeds(seconds(1), at_least=300):
        body = mutated(whole, Random(seed))
        only_herd_errors(lambda body=body: read_and_choose(body), len(body), seed)


@QUICK
@given(text=st.text(max_size=40) | st.text("hf:/@.ab-_%", max_size=30).map(lambda text: f"hf:{text}"))
def test_references(text: str) -> None:
    if not is_hub_reference(text):
        return
    try:
        reference = parse_hub_reference(text)
    except HerdError:
        return
    organisation, _, name = reference.repository.partition("/")
    for part in (organisation, name):
        assert part
        assert part[0].isalnum()
        assert ".." not in part


@QUICK
@given(
    config=st.dictionaries(
        st.sampled_from(["num_hidden_layers", "num_attention_heads", "hidden_size", "head_dim", "text_config"]), JSON
    )
)
def test_configs(config: dict[str, Any]) -> None:
    need = need_of_config(json.dumps(config).encode(), 1000)
    assert need.num_bytes(None) >= 1000
