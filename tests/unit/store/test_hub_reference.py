"""What a person may write for a model of a hub."""

from __future__ import annotations

import pytest

from openherd.errors import HerdError, UnsupportedError
from openherd.store.hub_reference import HubReference, is_hub_reference, parse_hub_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:a/b", HubReference("a/b")),
        ("HF:a/b", HubReference("a/b")),
        ("hf://a/b", HubReference("a/b")),
        ("hf:Qwen/Qwen2.5-0.5B_x:Q4_K_M", HubReference("Qwen/Qwen2.5-0.5B_x", "Q4_K_M")),
        ("hf:a/b:dir/m-Q8_0.gguf", HubReference("a/b", "dir/m-Q8_0.gguf")),
        ("hf:a/b:m@v1", HubReference("a/b", "m", "v1")),
        ("hf:a/b@v1:m", HubReference("a/b", "m", "v1")),
        ("hf:a/b@main:m@x.gguf", HubReference("a/b", "m@x.gguf", "main")),
        ("hf:a/b@refs/pr/1", HubReference("a/b", None, "refs/pr/1")),
        (f"hf:a/b@{COMMIT}", HubReference("a/b", None, COMMIT)),
        ("https://huggingface.co/a/b", HubReference("a/b")),
        ("https://huggingface.co/a/b/", HubReference("a/b")),
        ("http://hf.co/a/b?not-for-all=1#x", HubReference("a/b")),
        ("huggingface.co/a/b", HubReference("a/b")),
        ("hf.co/a/b/tree/v1", HubReference("a/b", None, "v1")),
        ("https://huggingface.co/a/b/blob/main/x/m%20n.gguf", HubReference("a/b", "x/m n.gguf", "main")),
        ("https://huggingface.co/a/b/resolve/main/m.gguf?download=true", HubReference("a/b", "m.gguf", "main")),
    ],
)
def test_is_understood(text: str, expected: HubReference) -> None:
    assert is_hub_reference(text)
    assert parse_hub_reference(text) == expected
    assert parse_hub_reference(str(expected)) == expected or "@" in (expected.select or "")


@pytest.mark.parametrize(
    "text",
    [
        "hf:", "hf:a", "hf:a/", "hf:/b", "hf:a/b/c", "hf:a/b:", "hf:a/b@", "hf:a/b:@v", "hf:a/b:x@", "hf:a/b@:x",
        "hf:../b", "hf:a/..", "hf:a/b..c", "hf:a/b--c", "hf:a/.b", "hf:a b/c", "hf:a/b@../x", "hf:a/b@-x", "hf:a/b@x y",
        "hf:a/b:\x1b", "hf:a/b\n", f"hf:{'a' * 60}/{'b' * 60}", "hf:" + "a" * 5000, "hf:a/b?x", "https://huggingface.co/",
        "hf.co/a",
        "hf.co/a/b/commits/main", "https://huggingface.co/a/b/blob/main", "https://huggingface.co/a%2F../b",
    ],
)  # fmt: skip
def test_is_refused_in_one_way(text: str) -> None:
    assert is_hub_reference(text)
    with pytest.raises(HerdError) as caught:
        parse_hub_reference(text)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("text", ["https://huggingface.co/datasets/a/b", "hf.co/spaces/a/b"])
def test_what_is_no_model(text: str) -> None:
    with pytest.raises(UnsupportedError, match="is not a model"):
        parse_hub_reference(text)


@pytest.mark.parametrize(
    "text", ["", "smollm2", "a/b", "./hf/x", "https://example.org/a/b", "x.gguf", "http://[", "hfx:a/b"]
)
def test_is_none_of_a_hub(text: str) -> None:
    assert not is_hub_reference(text)


def test_the_mirrors_own_pages_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443")
    assert parse_hub_reference("https://mirror.example:8443/a/b") == HubReference("a/b")
