"""Fetching from a hub: what it says first, what it brings, and what the hub's refusals mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.errors import CapacityError, DownloadError, ModelNotFoundError, UnsupportedError
from openherd.store.digest import sha256_of
from openherd.store.fit import Machine
from openherd.store.home import models_folder
from openherd.store.hub_pull import pull_from_hub
from openherd.store.hub_reference import parse_hub_reference
from openherd.store.local import LocalModel, local_models
from openherd.store.resolve import resolve
from tests.unit.store.hub_models import (
    FETCHED_OF_SAFETENSORS,
    REPOSITORY,
    noise,
    safetensors_files,
    sound_folder,
    split_gguf,
    tiny_gguf,
)
from tests.unit.store.stand_in_hub import TOKEN, StandInHub, commit_of
from tests.unit.store.told import Told

PLENTY = Machine(1 << 40, 1 << 40)


def fetch(reference: str = f"hf:{REPOSITORY}", **options: object) -> LocalModel:
    options = {"progress": Told(), "pause": lambda _: None, "machine": PLENTY} | options
    return pull_from_hub(parse_hub_reference(reference), **options)  # type: ignore[arg-type]


def kept() -> list[str]:
    """Every file in the store but the empty locks."""
    files = (path for path in models_folder().rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(models_folder())) for path in files)


def test_one_file_is_fetched_verified_and_recorded(hub: StandInHub) -> None:
    model = hub.add(REPOSITORY, {"tiny.Q4_K_M.gguf": tiny_gguf(), "README.md": b"x"}).files["tiny.Q4_K_M.gguf"]
    told = Told()
    local = fetch(progress=told)
    folder = f"hf--some-org--tiny-gguf--q4_k_m--{commit_of(REPOSITORY)[:12]}"
    assert kept() == [f"{folder}/record.json", f"{folder}/tiny.Q4_K_M.gguf"]
    assert local.path.read_bytes() == model
    assert local.record.name == f"hf:{REPOSITORY}:Q4_K_M"
    assert local.record.hub is not None
    assert local.record.hub.commit == commit_of(REPOSITORY)
    assert local.record.hub.asked == "main"
    assert local.record.sha256 == sha256_of(local.path)
    assert local.record.licence == "apache-2.0"
    assert local.record.source == f"{hub.url}/{REPOSITORY}/tree/{commit_of(REPOSITORY)}"
    assert told.steps[-1] == (len(model), len(model))
    assert local_models() == [local]


def test_says_everything_before_the_file_is_fetched(hub: StandInHub) -> None:
    class Before(Told):
        def say(self, text: str) -> None:
            self.said.append(f"{len(hub.fetches())} {text}")

    hub.add(REPOSITORY, {"tiny.Q4_K_M.gguf": tiny_gguf()}, card={"license": "other", "license_name": "tiny-1"})
    told = Before()
    fetch(progress=told)
    announced, memory = told.said[:2]
    assert announced.startswith("0 ")
    for fact in (
        REPOSITORY,
        commit_of(REPOSITORY),
        "(main)",
        f"{len(tiny_gguf()) / 1e6:.1f} MB",
        "tiny.Q4_K_M.gguf",
        "tiny-1",
        hub.url,
    ):
        assert fact in announced
    assert memory.startswith("1 "), "one ranged request for the header"
    assert "KV cache for" in memory
    assert hub.fetches()[0] == "bytes=0-1048575"


def test_the_look_at_the_header_is_the_beginning_of_the_download(hub: StandInHub) -> None:
    content = tiny_gguf(3 << 20)
    hub.add(REPOSITORY, {"tiny.gguf": content})
    assert fetch().path.read_bytes() == content
    assert hub.fetches() == [f"bytes=0-{(1 << 20) - 1}", f"bytes={1 << 20}-"]


def test_safetensors_without_code_or_pickles(hub: StandInHub) -> None:
    files = hub.add(REPOSITORY, safetensors_files()).files
    local = fetch()
    assert sorted(path.name for path in local.path.iterdir()) == sorted([*FETCHED_OF_SAFETENSORS, "record.json"])
    assert local.path.is_dir()
    assert all((local.path / name).read_bytes() == files[name] for name in FETCHED_OF_SAFETENSORS)
    assert local.record.name == f"hf:{REPOSITORY}:safetensors"
    assert not any("bin" in one.path or ".py" in one.path or "pth" in one.path for one in hub.requests)


def test_all_parts_of_a_split_model(hub: StandInHub) -> None:
    parts = {f"Q8_0/tiny-Q8_0-0000{i}-of-00003.gguf": noise(30_000, str(i)) for i in (1, 2, 3)}
    hub.add(REPOSITORY, parts | {"tiny-Q4_0.gguf": tiny_gguf()})
    local = fetch(f"hf:{REPOSITORY}:Q8_0")
    assert local.path.name == "tiny-Q8_0-00001-of-00003.gguf"
    assert len(local.record.files) == 3
    assert local.record.size == 90_000


def test_many_small_files_at_once_are_all_right(hub: StandInHub) -> None:
    files = {f"model-{i:05}-of-00040.safetensors": noise(5_000 + i, str(i)) for i in range(1, 41)}
    hub.add(REPOSITORY, safetensors_files() | files | {"model-00001-of-00002.safetensors": b""})
    stored = hub.repositories[REPOSITORY].files
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        del stored[name]
    local = fetch()
    assert all((local.path / name).read_bytes() == content for name, content in files.items())


def test_an_ambiguous_repository_is_a_list_and_a_suggestion(hub: StandInHub) -> None:
    names = ["Q2_K", "Q4_K_M", "Q8_0", "F16"]
    hub.add(REPOSITORY, {f"tiny-{name}.gguf": noise(5_000 * (i + 1)) for i, name in enumerate(names)})
    with pytest.raises(ModelNotFoundError) as caught:
        fetch()
    assert "has 4 models: Q2_K (0.0 MB), Q4_K_M" in str(caught.value)
    assert caught.value.hint == f"try: herd pull hf:{REPOSITORY}:Q4_K_M"
    with pytest.raises(ModelNotFoundError, match="has no 'Q8_1'") as caught:
        fetch(f"hf:{REPOSITORY}:Q8_1")
    assert caught.value.hint == f"try: herd pull hf:{REPOSITORY}:Q8_0"
    assert hub.fetches() == []


def test_a_model_that_is_here_asks_nobody(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})
    local = fetch()
    hub.requests.clear()
    for reference in (
        f"hf:{REPOSITORY}", f"hf:{REPOSITORY.lower()}:q4_0", f"hf:{REPOSITORY}:tiny-Q4_0.gguf",
        f"hf:{REPOSITORY}@{commit_of(REPOSITORY)}", f"{hub.url}/{REPOSITORY}", f"hf.co/{REPOSITORY}",
    ):  # fmt: skip
        assert fetch(reference, offline=True, verify=True) == local
        assert resolve(reference, offline=True) == local.path
    assert hub.requests == []


def test_offline_fetches_nothing(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})
    with pytest.raises(DownloadError, match="--offline forbids"):
        fetch(offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids"):
        fetch()
    assert hub.requests == []
    assert not models_folder().exists()


def test_a_verb_says_how_to_fetch_what_is_missing(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"a-Q4_0.gguf": tiny_gguf()})
    fetch()
    with pytest.raises(ModelNotFoundError, match=r"here: hf:Some-Org/Tiny-GGUF:Q4_0") as caught:
        resolve(f"hf:{REPOSITORY}:Q8_0")
    assert caught.value.hint == f"try: herd pull hf:{REPOSITORY}:Q8_0"


def test_revisions_are_pinned_and_live_side_by_side(hub: StandInHub) -> None:
    old, new = tiny_gguf(seed="old"), tiny_gguf(seed="new")
    stored = hub.add(REPOSITORY, {"tiny-Q4_0.gguf": old})
    first = fetch()
    stored.commit, stored.files = commit_of("new"), {"tiny-Q4_0.gguf": new}
    stored.branches["main"] = stored.commit
    assert fetch().path == first.path, "what is here stays at its commit"
    second = fetch(f"hf:{REPOSITORY}@main")
    assert second.path.read_bytes() == new
    assert first.path.read_bytes() == old
    assert resolve(f"hf:{REPOSITORY}") == second.path, "the latest fetched"
    assert resolve(f"hf:{REPOSITORY}@{commit_of(REPOSITORY)[:12]}") == first.path
    with pytest.raises(ModelNotFoundError, match="has no revision 'v9'"):
        fetch(f"hf:{REPOSITORY}@v9")


def test_a_renamed_repository_is_followed_and_recorded_by_its_name(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})
    hub.renamed["old-org/tiny"] = REPOSITORY
    assert fetch("hf:old-org/tiny").record.name == f"hf:{REPOSITORY}:Q4_0"


def test_a_wrong_bit_on_the_disk_is_found_and_only_that_file_is_fetched_anew(hub: StandInHub) -> None:
    files = hub.add(REPOSITORY, safetensors_files()).files
    local = fetch()
    shard = local.path / "model-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DownloadError, match="wrong checksum"):
        fetch(offline=True, verify=True)
    hub.requests.clear()
    again = fetch(verify=True)
    assert again.path == local.path
    assert shard.read_bytes() == files[shard.name]
    assert len(hub.fetches()) == 1


@pytest.mark.parametrize("token", [None, TOKEN, "hf_wrong"])
def test_gated(hub: StandInHub, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()}, gated=True, accepted=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    told = Told()
    with pytest.raises(DownloadError) as caught:
        fetch(progress=told)
    if token == "hf_wrong":
        assert "refuses the token from HF_TOKEN" in str(caught.value)
    else:
        assert f"{hub.url}/{REPOSITORY}" in str(caught.value.hint)
        assert "is gated" in str(caught.value)
        assert ("awaiting a review" if token else "HF_TOKEN") in str(caught.value)
        assert "gated: its owner asks" in told.said[0]
    assert hub.fetches() == []
    assert not [name for name in kept() if name.endswith((".gguf", ".json"))]


def test_a_token_opens_what_is_gated_or_private_and_stays_at_its_origin(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()}, gated=True)
    hub.add("me/mine", {"tiny-Q4_0.gguf": tiny_gguf()}, private=True)
    with pytest.raises(ModelNotFoundError, match="does not show it to you") as caught:
        fetch("hf:me/mine")
    assert "HF_TOKEN" in str(caught.value)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    hub.requests.clear()
    told = Told()
    for name in (REPOSITORY, "me/mine"):
        assert fetch(f"hf:{name}", progress=told).path.is_file()
    on_hub = {one.headers.get("authorization") for one in hub.requests if one.server == "hub"}
    on_storage = {one.headers.get("authorization") for one in hub.requests if one.server == "storage"}
    assert on_hub == {f"Bearer {TOKEN}"}
    assert on_storage == {None}
    written = "".join(path.read_text() for path in models_folder().rglob("record.json"))
    assert TOKEN not in written + "".join(told.said)


def test_a_token_is_not_sent_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from openherd.store.hub import Hub
    from openherd.store.hub_settings import read_hub_settings

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    assert "not https" in str(Hub(read_hub_settings()).note)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert Hub(read_hub_settings()).note is None


@pytest.mark.parametrize(
    ("reference", "why"),
    [("hf:no/such", "has no repository no/such"), (f"hf:{REPOSITORY}:none.gguf", "has no 'none.gguf'")],
)
def test_what_is_not_there(hub: StandInHub, reference: str, why: str) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})
    with pytest.raises(ModelNotFoundError, match=why):
        fetch(reference)


def test_no_network_is_one_clear_error(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    pauses: list[float] = []
    with pytest.raises(DownloadError, match=r"cannot reach the hub http://127\.0\.0\.1:9"):
        fetch(pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0]


def test_what_does_not_fit_is_refused_before_the_download(hub: StandInHub) -> None:
    content = tiny_gguf(3 << 20)
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": content})
    with pytest.raises(CapacityError, match="does not fit") as caught:
        fetch(machine=Machine(1000, 1000))
    assert "--force" in str(caught.value.hint)
    with pytest.raises(CapacityError, match="--context 1,000,000 is more than"):
        fetch(context=1_000_000)
    assert len(hub.fetches()) == 1, "only the header"
    assert fetch(machine=Machine(1000, 1000), force=True).path.read_bytes() == content


def test_what_openherd_would_not_run_is_refused_before_the_download(hub: StandInHub) -> None:
    content = tiny_gguf(3 << 20).replace(b"general.architecture", b"general.architecturf", 1)
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": content})
    with pytest.raises(UnsupportedError, match="openherd would not run it"):
        fetch()
    assert len(hub.fetches()) == 1
    assert fetch(force=True).path.read_bytes() == content


def test_the_fit_of_a_folder_comes_from_its_config(hub: StandInHub) -> None:
    hub.add(REPOSITORY, safetensors_files())
    told = Told()
    fetch(progress=told, context=1024)
    kv = 2 * 2 * 2 * 16 * 2 * 1024
    assert f"{kv / 1e6:.1f} MB KV cache for 1,024 tokens (trained for 2,048)" in told.said[1]


def test_a_folder_is_looked_into_before_its_shards_are_fetched(hub: StandInHub) -> None:
    files = hub.add(REPOSITORY, sound_folder()).files
    told = Told()
    local = fetch(progress=told, context=256)
    assert "6.5 MB: 6.4 MB weights and 0.1 MB KV cache for 256 tokens (trained for 512); here" in told.said[1]
    assert all((local.path / name).read_bytes() == content for name, content in files.items())
    for name in ("model-00001", "model-00002"):
        assert hub.fetches(name) == ["bytes=0-1048575", "bytes=1048576-"]


def test_a_folder_of_another_kind_is_refused_before_its_shards_are_fetched(hub: StandInHub) -> None:
    hub.add(REPOSITORY, sound_folder("gpt_unknown"))
    with pytest.raises(UnsupportedError, match=r"openherd would not run it: .*gpt_unknown") as caught:
        fetch()
    assert "looked-at" not in str(caught.value)
    assert hub.fetches() == [], "config.json says it"


def test_pickled_weights_of_another_kind_are_refused_before_they_are_fetched(hub: StandInHub) -> None:
    files = {"config.json": sound_folder("bert")["config.json"], "pytorch_model.bin": noise(9_000)}
    hub.add(REPOSITORY, files)
    with pytest.raises(
        UnsupportedError, match=r"openherd would not run it: config\.json has the model_type 'bert'"
    ) as why:
        fetch()
    assert "--force" in str(why.value.hint)
    assert not hub.fetches("pytorch_model")
    assert (fetch(force=True).path / "pytorch_model.bin").read_bytes() == files["pytorch_model.bin"]


def test_a_split_model_is_looked_into_whole(hub: StandInHub) -> None:
    files = hub.add(REPOSITORY, split_gguf()).files
    told = Told()
    local = fetch(progress=told)
    assert "(trained for 128)" in told.said[1]
    assert "KV cache for 128 tokens" in told.said[1]
    assert hub.fetches()[:3] == ["bytes=0-1048575"] * 3
    assert all((local.folder / name).read_bytes() == content for name, content in files.items())
    assert not list(local.folder.glob("looked-at*"))


def test_an_adapter_is_not_a_model(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"adapter_config.json": b"{}", "adapter_model.safetensors": noise(9000)})
    with pytest.raises(UnsupportedError, match="an adapter, not a model"):
        fetch()


def test_what_cannot_be_verified_is_not_fetched(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()}, siblings=[{"rfilename": "tiny-Q4_0.gguf"}])
    with pytest.raises(Exception, match="no size or no checksum"):
        fetch()
    assert hub.fetches() == []


def test_the_record_is_plain_json(hub: StandInHub) -> None:
    hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()})
    record = json.loads((fetch().folder / "record.json").read_text())
    assert record["hub"]["files"][0]["name"] == "tiny-Q4_0.gguf"
    assert set(record["hub"]) == {
        "repository", "variant", "asked", "commit", "files", "also_asked", "also_named"
    }  # fmt: skip


def test_files_of_the_same_bytes_come_each_to_its_place(hub: StandInHub) -> None:
    same = {"LICENSE": b"x" * 3000, "LICENSE.txt": b"x" * 3000, "vocab.json": noise(9_000), "merges.txt": noise(9_000)}
    files = hub.add(REPOSITORY, safetensors_files() | same).files
    local = fetch()
    assert all((local.path / name).read_bytes() == files[name] for name in [*same, *FETCHED_OF_SAFETENSORS])
