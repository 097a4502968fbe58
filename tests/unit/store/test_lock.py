"""The lock between processes: one holder at a time, and no file left behind, however many wait."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from openherd.store.lock import exclusive


def test_one_at_a_time_and_nothing_left(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    inside, most, waited = 0, 0, 0

    def on_wait() -> None:
        nonlocal waited
        waited += 1

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with exclusive(path, on_wait=on_wait):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited, "somebody had to wait"
    assert most == 1
    assert list(tmp_path.iterdir()) == []
