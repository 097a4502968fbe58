"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import new_file
from openherd.checkpoints.new_file import Piece, write_new_file
from openherd.errors import InputError, OutputError, UnsupportedError


def piece(name: str, offset: int, data: bytes, made: list[str] | None = None) -> Piece:
    def chunks() -> Iterator[np.ndarray]:
        if made is not None:
            made.append(name)
        yield np.frombuffer(data, np.uint8)

    return Piece(name, offset, len(data), chunks)


def broken(name: str, offset: int, error: BaseException) -> Piece:
    def chunks() -> Iterator[np.ndarray]:
        yield np.zeros(4, np.uint8)
        raise error

    return Piece(name, offset, 8, chunks)


def test_head_pieces_and_zeros_between(tmp_path: Path) -> None:
    seen = []
    pieces = [piece("a", 4, b"aa"), piece("b", 8, b"bbb")]
    assert write_new_file(tmp_path / "x", b"hd", pieces, size=16, on_progress=seen.append) == 0
    assert (tmp_path / "x").read_bytes() == b"hd\0\0aa\0\0bbb" + bytes(5)
    assert [(p.name, p.done, p.total) for p in seen] == [("a", 6, 16), ("b", 11, 16)]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), MemoryError()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(type(error)):
        write_new_file(tmp_path / "x", b"head", [broken("a", 4, error)], size=12)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_that_replaces_another_keeps_its_permissions(tmp_path: Path) -> None:
    """Also while it is written."""
    (tmp_path / "x").touch(0o640)
    os.chmod(tmp_path / "x", 0o640)
    modes: list[int] = []

    def chunks() -> Iterator[np.ndarray]:
        modes.extend(p.stat().st_mode & 0o777 for p in tmp_path.glob(".x.*.new"))
        yield np.frombuffer(b"aaaa", np.uint8)

    write_new_file(tmp_path / "x", b"head", [Piece("a", 4, 4, chunks)], size=8)
    assert modes == [0o640]
    assert (tmp_path / "x").read_bytes() == b"headaaaa"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("data", [b"123", b"12345"])
def test_a_piece_of_another_size_than_planned_is_a_defect(tmp_path: Path, data: bytes) -> None:
    wrong = Piece("a", 0, 4, lambda: [np.frombuffer(data, np.uint8)])
    with pytest.raises(ValueError, match="planned with 4 bytes"):
        write_new_file(tmp_path / "x", b"", [wrong], size=4)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"disk is full.*needs .* MB more"):
        write_new_file(tmp_path / "x", b"", [Piece("a", 0, 1 << 60, lambda: [])], size=1 << 60)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_is_explained_and_left_clean(tmp_path: Path) -> None:
    """The limit on the size of files gives the error of a full disk (EFBIG), in a process of its own."""
    script = """
    import resource, signal, sys, numpy as np
    from pathlib import Path
    from openherd.checkpoints.new_file import Piece, write_new_file
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    write_new_file(Path(sys.argv[1]), b"", [Piece("a", 0, 2 << 20, lambda: [np.ones(2 << 20, np.uint8)])], size=2 << 20)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x")], capture_output=True, text=True
    )
    assert "OutputError: the disk is full" in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def failing_sync(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What is put into the list says which calls of fsync, from 1, find the disk full.

    Each piece of four bytes is sent by itself, and has arrived before the next is made.
    """
    failing: list[int] = []
    calls = itertools.count(1)
    submit = ThreadPoolExecutor.submit

    def fsync(_: int) -> None:
        if next(calls) in failing:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def submit_and_wait(self: ThreadPoolExecutor, *work: Any) -> Any:
        future = submit(self, *work)
        future.exception()
        return future

    monkeypatch.setattr(new_file, "_FLUSHED", 4)
    monkeypatch.setattr(new_file.os, "fsync", fsync)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_and_wait)
    yield failing
    if failing:
        assert next(calls) > max(failing), "no call failed"


@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_the_disk_says_late_is_not_lost(tmp_path: Path, failing_sync: list[int], call: int) -> None:
    """Bytes are sent to the disk while more are made, here after each piece, and once more at the end."""
    failing_sync.append(call)
    with pytest.raises(OutputError, match="the disk is full"):
        write_new_file(tmp_path / "x", b"", [piece("a", 0, b"aaaa"), piece("b", 4, b"bbbb")], size=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("call", "error"), [(2, KeyboardInterrupt), (2, OutputError), (4, OutputError)])
def test_what_the_disk_refused_is_not_taken_over(
    tmp_path: Path, failing_sync: list[int], call: int, error: type[BaseException]
) -> None:
    """The system tells of an error once: a further run may read the bytes, which are in memory alone. The first call is
    the journal's."""

    def interrupted() -> Iterator[np.ndarray]:
        raise KeyboardInterrupt
        yield

    failing_sync.append(call)
    last = piece("b", 4, b"bbbb") if error is OutputError else Piece("b", 4, 4, interrupted)
    with pytest.raises(error):
        write_new_file(tmp_path / "x", b"", [piece("a", 0, b"aaaa"), last], size=8, resume_key="k")
    assert not (tmp_path / "x").exists()
    pieces = [piece("a", 0, b"aaaa"), piece("b", 4, b"bbbb")]
    assert write_new_file(tmp_path / "x", b"", pieces, size=8, resume_key="k") == 0
    assert (tmp_path / "x").read_bytes() == b"aaaabbbb"


def test_without_a_thread_beside_all_is_sent_at_the_end(
    tmp_path: Path, failing_sync: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", no_thread)
    write_new_file(tmp_path / "x", b"", [piece("a", 0, b"aaaa"), piece("b", 4, b"bbbb")], size=8)
    assert (tmp_path / "x").read_bytes() == b"aaaabbbb"
    failing_sync.append(3)  # the file's own end, its folder, and now the end of the next
    with pytest.raises(OutputError, match="the disk is full"):
        write_new_file(tmp_path / "y", b"", [piece("a", 0, b"aaaa")], size=4)


def test_no_permission_and_no_folder_are_explained(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_new_file(tmp_path / "missing" / "x", b"h", [], size=1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_new_file(tmp_path / "folder", b"h", [], size=1)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    made: list[str] = []
    first = [piece("a", 4, b"aaaa", made), piece("b", 8, b"bbbb", made)]
    with pytest.raises(KeyboardInterrupt):
        write_new_file(tmp_path / "x", b"head", [*first, broken("c", 12, KeyboardInterrupt())], size=20, resume_key="k")
    assert not (tmp_path / "x").exists()
    good = [*first, piece("c", 12, b"cccccccc", made)]
    made.clear()
    assert write_new_file(tmp_path / "x", b"head", good, size=20, resume_key="k") == 2
    assert made == ["c"]
    assert (tmp_path / "x").read_bytes() == b"headaaaabbbbcccccccc"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_the_source_is_at_fault_for_is_not_kept(tmp_path: Path) -> None:
    pieces = [piece("a", 4, b"aaaa"), broken("b", 8, UnsupportedError("no"))]
    with pytest.raises(UnsupportedError):
        write_new_file(tmp_path / "x", b"head", pieces, size=16, resume_key="k")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["piece", "journal", "key", "head", "short"])
def test_what_is_not_right_any_more_is_made_again(tmp_path: Path, damage: str) -> None:
    made: list[str] = []
    first = [piece("a", 4, b"aaaa", made), piece("b", 8, b"bbbb", made)]
    with pytest.raises(RuntimeError):
        write_new_file(tmp_path / "x", b"head", [*first, broken("c", 12, RuntimeError())], size=20, resume_key="k")
    partial, journal = tmp_path / ".x.partial", tmp_path / ".x.partial.journal"
    if damage == "piece":
        partial.write_bytes(partial.read_bytes().replace(b"bbbb", b"bbXb"))
    elif damage == "short":
        partial.write_bytes(partial.read_bytes()[:10])
    elif damage == "journal":
        journal.write_bytes(journal.read_bytes()[:-20])  # the kill fell inside its last line
    made.clear()
    head, key = (b"HEAD" if damage == "head" else b"head"), ("other" if damage == "key" else "k")
    kept = write_new_file(tmp_path / "x", head, [*first, piece("c", 12, bytes(8), made)], size=20, resume_key=key)
    assert kept == (0 if damage in ("key", "head") else 1)
    assert made == ["a", "b", "c"][kept:]
    assert (tmp_path / "x").read_bytes() == head + b"aaaabbbb" + bytes(8)


@pytest.mark.parametrize("planted", [".x.partial", ".x.partial.journal"])
def test_nothing_is_written_through_a_link(tmp_path: Path, planted: str) -> None:
    (tmp_path / "mine").write_text("kept")
    (tmp_path / planted).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=rf"{re.escape(planted)}, .* is no file of openherd's"):
        write_new_file(tmp_path / "x", b"head", [piece("a", 4, b"aaaa")], size=8, resume_key="k")
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize(
    "mine",
    [
        {".x.partial": "my thesis"},
        {".x.partial.journal": "my diary"},
        {".x.partial": "my thesis", ".x.partial.journal": "my diary"},
        {".x.partial": "my thesis", ".x.partial.journal": ""},
        {".x.partial": "my thesis", ".x.partial.journal": '"my diary"\n"of today"\n'},
    ],
)
def test_a_file_of_the_users_own_under_the_partial_name_is_left_alone(tmp_path: Path, mine: dict[str, str]) -> None:
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(InputError, match=r"is no file of openherd's\nmove it away, or name another place"):
        write_new_file(tmp_path / "x", b"head", [piece("a", 4, b"aaaa")], size=8, resume_key="k")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == mine
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_what_a_run_left_that_was_killed_early_is_taken_up(tmp_path: Path) -> None:
    """Before it had written anything."""
    (tmp_path / ".x.partial").write_text("")
    assert write_new_file(tmp_path / "x", b"head", [piece("a", 4, b"aaaa")], size=8, resume_key="k") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_kill_at_random_points_then_resume(tmp_path: Path) -> None:
    """SIGKILL after 0 to 5 finished pieces, and inside one: the resumed file is that of an undisturbed run."""
    script = """
    import os, signal, sys, numpy as np
    from pathlib import Path
    from openherd.checkpoints.new_file import Piece, write_new_file
    stop = int(sys.argv[2])
    def chunks(i):
        yield np.full(1000, i, np.uint8)
        if i == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        yield np.full(500, i + 1, np.uint8)
    pieces = [Piece(str(i), 8 + 2000 * i, 1500, lambda i=i: chunks(i)) for i in range(6)]
    print(write_new_file(Path(sys.argv[1]), b"headhead", pieces, size=12008, resume_key="k"))
    """

    def run(name: str, stop: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / name), str(stop)]
        return subprocess.run(command, capture_output=True, text=True)

    assert run("whole", -1).stdout == "0\n"
    for stop in (0, 3):
        (tmp_path / "x").unlink(missing_ok=True)
        assert run("x", stop).returncode == -signal.SIGKILL
        assert not (tmp_path / "x").exists()
        assert run("x", -1).stdout == f"{stop}\n"
        assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_new_file_takes_the_place_of_none(
    key: str | None, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one appears while it is written, and on disks that have no hard links."""

    def appears() -> list[np.ndarray]:
        (tmp_path / "x").write_text("mine")
        return [np.frombuffer(b"aaaa", np.uint8)]

    def no_links(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(new_file.os, "link", no_links)
    with pytest.raises(OutputError, match="x exists already"):
        write_new_file(tmp_path / "x", b"head", [Piece("a", 4, 4, appears)], size=8, resume_key=key, new=True)
    assert (tmp_path / "x").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == (1 if key is None else 3), "the work is kept where it can be taken up"
    (tmp_path / "x").unlink()
    kept = write_new_file(tmp_path / "x", b"head", [piece("a", 4, b"aaaa")], size=8, resume_key=key, new=True)
    assert kept == (0 if key is None else 1)
    assert (tmp_path / "x").read_bytes() == b"headaaaa"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_two_writers_of_one_resumable_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[np.ndarray]:
        with pytest.raises(OutputError, match="another process is writing"):
            write_new_file(tmp_path / "x", b"", [piece("a", 0, b"1")], size=1, resume_key="k")
        yield np.zeros(1, np.uint8)

    write_new_file(tmp_path / "x", b"", [Piece("a", 0, 1, chunks)], size=1, resume_key="k")
    assert (tmp_path / "x").read_bytes() == b"\0"


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """64 MiB in chunks of 1 MiB add less than 16 MiB to the peak."""
    chunk = np.zeros(1 << 20, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_new_file(tmp_path / "x", b"", [Piece("a", 0, 64 << 20, lambda: (chunk for _ in range(64)))], size=64 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
    assert os.path.getsize(tmp_path / "x") == 64 << 20
    assert new_file._CHUNK <= 8 << 20
