"""What a network, a mirror, a disk and another process can do to a pull from a hub: nothing corrupt is ever kept."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from openherd.errors import DownloadError, FormatError, HerdError
from openherd.store.home import fetching_folder
from openherd.store.hub_files import local_name
from openherd.store.local import local_models
from tests.unit.store import stand_in_hub
from tests.unit.store.hub_models import REPOSITORY, noise, safetensors_files, tiny_gguf
from tests.unit.store.stand_in_hub import StandInHub, in_seconds
from tests.unit.store.test_hub_pull import fetch, kept
from tests.unit.store.told import Told

ROOT = Path(__file__).parents[3]
BAD_NAMES = [
    f"{name}-Q4_0.gguf"
    for name in ("-rf", ".hidden", "a\\..\\x", "c:x", "a\nb", "\x1b[2J", "x" * 250, "a\0b", "\u202egnp", "\ud800")
]


@pytest.fixture
def content(hub: StandInHub) -> bytes:
    return hub.add(REPOSITORY, {"tiny-Q4_0.gguf": tiny_gguf()}).files["tiny-Q4_0.gguf"]


def models() -> list[str]:
    return [name for name in kept() if not name.startswith(".fetching/")]


def test_connections_cut_at_random_bytes(hub: StandInHub, content: bytes) -> None:
    random = Random(7)
    for _ in range(5):
        hub.faults.cut_after = random.randrange(100_000, 700_000)
        hub.requests.clear()
        local = fetch()
        assert len(hub.fetches()) > len(content) // hub.faults.cut_after, "it was cut"
        assert local.path.read_bytes() == content
        _remove(local.record.name)


def test_connections_cut_within_the_header(hub: StandInHub, content: bytes) -> None:
    hub.faults.cut_after = 150_000
    told = Told()
    assert fetch(progress=told).path.read_bytes() == content
    assert hub.fetches()[:2] == ["bytes=0-1048575", "bytes=150000-1048575"]
    assert "KV cache for" in told.said[1]


def test_an_interrupted_pull_leaves_no_model_and_is_resumed(hub: StandInHub, content: bytes) -> None:
    content = hub.repositories[REPOSITORY].files["tiny-Q4_0.gguf"] = tiny_gguf(4 << 20)
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1_200_000))
    assert local_models() == []
    assert models() == []
    had = _partial().stat().st_size
    assert had > 1 << 20
    told = Told()
    assert fetch(progress=told).path.read_bytes() == content
    assert hub.fetches()[-1] == f"bytes={had}-"
    assert f"  resuming: {had / 1e6:.1f} MB are here" in told.said


def test_progress_counts_what_was_there(hub: StandInHub) -> None:
    """Also of a file that is whole already, of which nothing is left to come, and of one whose turn comes last."""
    hub.add(REPOSITORY, safetensors_files())
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1))
    had = sum(path.stat().st_size for path in next(fetching_folder().glob("hf--*[!k]")).iterdir())
    told = Told()
    local = fetch(progress=told)
    assert told.steps[0][0] > had > 0
    assert told.steps[-1] == (local.record.size, local.record.size)
    assert told.steps == sorted(told.steps)


def test_files_of_the_same_bytes_are_resumed_each_by_itself(hub: StandInHub) -> None:
    hub.add(REPOSITORY, safetensors_files() | {"LICENSE": b"x" * 3000, "LICENSE.txt": b"x" * 3000})
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1))
    folder = next(fetching_folder().glob("hf--*[!k]"))
    (folder / "LICENSE").unlink(missing_ok=True)
    (folder / "LICENSE.txt").unlink(missing_ok=True)
    for path in folder.glob("*.partial"):
        path.unlink()
    digest = stand_in_hub.git_name(b"x" * 3000)[:24]
    (folder / f"{digest}.partial").write_bytes(b"x" * 2000)
    had = sum(path.stat().st_size for path in folder.iterdir())
    told = Told()
    local = fetch(progress=told)
    assert f"  resuming: {had / 1e6:.1f} MB are here" in told.said
    assert [(local.path / name).read_bytes() for name in ("LICENSE", "LICENSE.txt")] == [b"x" * 3000] * 2


def test_killed_in_the_middle_then_resumed(hub: StandInHub, content: bytes) -> None:
    hub.faults.hold_after = 100_000
    child = _pulling()
    _wait_until(lambda: _has_partial() and _partial().stat().st_size >= 100_000)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    assert local_models() == []
    had = _partial().stat().st_size
    hub.faults.hold_after = None
    hub.faults.go.set()
    hub.requests.clear()
    assert fetch().path.read_bytes() == content
    assert str(hub.fetches()[0]).startswith(f"bytes={had}-")


def test_a_partial_that_a_crash_left_wrong_is_fetched_again(hub: StandInHub, content: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1_060_000))
    _partial().write_bytes(b"\0" * 5000)
    told = Told()
    assert fetch(progress=told).path.read_bytes() == content
    assert any("wrong checksum" in line for line in told.said)


@pytest.mark.parametrize("at", [0, 700_000, -1])
def test_a_flipped_bit_is_refused_and_nothing_is_kept(hub: StandInHub, content: bytes, at: int) -> None:
    hub.faults.flip = at
    with pytest.raises(HerdError):
        fetch(force=True)
    assert kept() == []


def test_one_wrong_shard_keeps_the_others_for_the_next_attempt(hub: StandInHub) -> None:
    hub.add(REPOSITORY, safetensors_files())
    hub.faults.flip = 33
    with pytest.raises(DownloadError, match="wrong checksum"):
        fetch()
    assert models() == []
    hub.faults.flip = None
    assert fetch().path.is_dir()
    assert not [name for name in kept() if name.startswith(".fetching")]


def test_a_file_that_is_longer_than_said_is_refused(hub: StandInHub, content: bytes) -> None:
    hub.faults.extra = b"x" * 600_000
    with pytest.raises(DownloadError, match="more than the"):
        fetch()
    assert kept() == []


def test_a_file_that_is_shorter_than_said_is_refused(hub: StandInHub, content: bytes) -> None:
    stored = hub.repositories[REPOSITORY]
    longer = stand_in_hub.sibling("tiny-Q4_0.gguf", content)
    longer["lfs"]["size"] += 10
    stored.siblings = [longer]
    with pytest.raises(DownloadError):
        fetch(force=True)
    assert models() == []


def test_a_storage_that_cannot_resume_starts_over(hub: StandInHub, content: bytes) -> None:
    hub.faults.ignore_range = True
    assert fetch().path.read_bytes() == content


@pytest.mark.parametrize("where", ["statuses", "storage_statuses"])
def test_errors_that_pass_are_waited_for(hub: StandInHub, content: bytes, where: str) -> None:
    setattr(hub.faults, where, [503, 500, 429])
    hub.faults.retry_after = "7"
    pauses: list[float] = []
    assert fetch(pause=pauses.append).path.read_bytes() == content
    assert pauses == [7.0, 2.0, 7.0]


def test_a_hub_that_stays_down_is_given_up(hub: StandInHub, content: bytes) -> None:
    hub.faults.statuses = [502] * 10
    with pytest.raises(DownloadError, match=r"cannot reach the hub .*HTTP 502"):
        fetch()
    assert len(hub.faults.statuses) == 6
    hub.faults.statuses = [429] * 10
    with pytest.raises(DownloadError, match="fewer requests"):
        fetch()


@pytest.mark.parametrize("asked", ["86400", "date", "limit"])
def test_a_wait_of_hours_is_left_to_the_person(hub: StandInHub, content: bytes, asked: str) -> None:
    hub.faults.statuses = [429]
    hub.faults.retry_after = {"date": in_seconds(5000), "limit": None}.get(asked, asked)
    hub.faults.rate_limit = '"api";r=0;t=4000' if asked == "limit" else None
    with pytest.raises(DownloadError, match=r"asks to wait \d+ s"):
        fetch()


def test_a_storage_that_drips_is_not_waited_for_for_ever(
    hub: StandInHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openherd.store import web

    monkeypatch.setattr(web, "SLOWEST_S", 0.05)
    hub.faults.drip_s = 0.01
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in"):
        fetch()
    hub.faults.drip_s = None
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1_060_000))
    hub.faults.drip_s = 0.01
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in"):
        fetch()
    assert models() == []
    hub.faults.drip_s = None
    assert fetch().path.read_bytes() == content


@pytest.mark.parametrize("where", ["hub", "storage"])
def test_interim_answers_without_end_are_not_waited_for(hub: StandInHub, content: bytes, where: str) -> None:
    hub.faults.interim = where
    begun = time.monotonic()
    with pytest.raises(DownloadError, match="more than 8 interim answers"):
        fetch()
    assert time.monotonic() - begun < 30
    assert kept() == []
    hub.faults.interim = None
    assert fetch().path.read_bytes() == content


def test_an_empty_file_is_no_model(hub: StandInHub) -> None:
    hub.add("o/empty", {"x-Q4_0.gguf": b""})
    with pytest.raises(HerdError, match="is empty: it holds no model"):
        fetch("hf:o/empty")
    assert hub.fetches() == []
    assert models() == []


def test_nothing_is_left_behind(hub: StandInHub, content: bytes) -> None:
    """No lock, no folder: after a whole model, and after an attempt that brought nothing."""
    fetch()
    assert list(fetching_folder().iterdir()) == []
    hub.add("o/other", {"x-Q4_0.gguf": tiny_gguf(seed="x")})
    hub.faults.storage_statuses = [404]
    with pytest.raises(HerdError):
        fetch("hf:o/other")
    assert list(fetching_folder().iterdir()) == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "data:,x", "//"])
def test_a_redirect_to_anything_else_is_refused(hub: StandInHub, content: bytes, target: str) -> None:
    hub.faults.redirect_to = target
    with pytest.raises(HerdError):
        fetch()
    assert models() == []


def test_a_circle_of_redirects_ends(hub: StandInHub, content: bytes) -> None:
    hub.renamed = {"a/b": "b/a", "b/a": "a/b"}
    with pytest.raises(HerdError):
        fetch("hf:a/b")
    assert len(hub.requests) < 12


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"id": "a/b", "sha": "x", "siblings": []}',
     b'{"id": "../..", "sha": "' + b"0" * 40 + b'", "siblings": []}'],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_an_answer_that_is_not_the_hubs_is_a_typed_error(hub: StandInHub, content: bytes, body: bytes) -> None:
    hub.faults.body = body
    with pytest.raises(HerdError, match="the hub's answer about"):
        fetch()


@pytest.mark.parametrize("path", ["../../x-Q4_0.gguf", "/etc/x-Q4_0.gguf", "a/../../x-Q4_0.gguf", *BAD_NAMES])
def test_names_of_strangers_never_leave_the_folder(hub: StandInHub, content: bytes, path: str, tmp_path: Path) -> None:
    before = {p for p in tmp_path.rglob("*") if "home" not in p.parts}
    hub.repositories[REPOSITORY].siblings = [stand_in_hub.sibling(path, content)]
    hub.repositories[REPOSITORY].files = {path: content}
    with contextlib.suppress(HerdError):
        fetch()
    for model in local_models():
        assert model.path.parent.parent == tmp_path / "home" / "models"
        assert model.path.name == path.rsplit("/", 1)[-1]
    assert {p for p in tmp_path.rglob("*") if "home" not in p.parts} == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="cannot be used here") as caught:
        local_name(name)
    assert "\x1b" not in str(caught.value)


def test_two_files_of_one_name_are_refused(hub: StandInHub) -> None:
    part = noise(5000)
    hub.add(REPOSITORY, {"a/x-Q4_0-00001-of-00002.gguf": part, "a/X-Q4_0-00002-of-00002.gguf": part})
    with pytest.raises(HerdError):
        fetch()


def test_two_at_once_fetch_once(hub: StandInHub, content: bytes) -> None:
    hub.faults.hold_after = 100_000
    children = [_pulling(), _pulling()]
    _wait_until(lambda: len(hub.fetches()) == 1)
    _wait_until(lambda: sum("revision" in one.path for one in hub.requests) == 2)
    time.sleep(0.5)  # time for the second to reach the lock; it must not get past it
    assert len(hub.fetches()) == 1
    hub.faults.go.set()
    hub.faults.hold_after = None
    outputs = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert any("another process is fetching" in said for _, said in outputs)
    assert len(hub.fetches()) == 2, "the header and the rest"


def test_a_full_disk_is_one_error_and_gives_back_what_it_took(hub: StandInHub, content: bytes) -> None:
    limit = 1_200_000
    child = _pulling(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, said = child.communicate(timeout=60)
    assert child.returncode != 0
    assert f"DownloadError: the disk became full while fetching hf:{REPOSITORY}:Q4_0" in said
    assert kept() == []


def test_too_little_space_is_found_before_fetching(
    hub: StandInHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(DownloadError, match="the disk is full"):
        fetch()
    assert hub.fetches() == []


def test_what_an_interrupted_pull_left_can_be_removed(hub: StandInHub, content: bytes) -> None:
    from openherd.store.removal import unfinished

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupting_at(1_060_000))
    assert [one.size for one in unfinished()] == [_partial().stat().st_size]
    _remove(f"hf:{REPOSITORY}")
    assert kept() == []
    assert unfinished() == []


def interrupting_at(bytes_: int) -> Told:
    class Interrupting(Told):
        def advance(self, done: int, total: int) -> None:
            if done >= bytes_:
                raise KeyboardInterrupt

    return Interrupting()


def _remove(name: str) -> None:
    from openherd.store.removal import remove

    remove(name)


def _has_partial() -> bool:
    return bool(list(fetching_folder().glob("*/*.partial")))


def _partial() -> Path:
    (partial,) = fetching_folder().glob("*/*.partial")
    return partial


def _pulling(preexec_fn: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", stand_in_hub.__name__, f"hf:{REPOSITORY}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=pipe, stderr=pipe, text=True, preexec_fn=preexec_fn
    )


def _wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition never came"
        time.sleep(0.02)
