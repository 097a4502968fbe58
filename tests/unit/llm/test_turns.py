"""The lock is handed on in order of arrival, and its finaliser's path never waits."""

from __future__ import annotations

import threading
import time

from openherd.llm.turns import FifoLock


def test_order_of_arrival_even_against_a_busy_loop() -> None:
    """With `threading.Lock`, the looping thread takes the lock again before a waiting one wakes."""
    lock, order, stop = FifoLock(), [], threading.Event()

    def loop() -> None:
        while not stop.is_set():
            lock.acquire()
            order.append("loop")
            time.sleep(0.001)
            lock.release()

    looping = threading.Thread(target=loop)
    looping.start()
    while not order:
        time.sleep(0.001)
    for _ in range(20):
        before = len(order)
        lock.acquire()
        taken_meanwhile = len(order) - before
        lock.release()
        assert taken_meanwhile <= 2  # the one that held it, and one that was already in line
    stop.set()
    looping.join()


def test_nonblocking_acquire() -> None:
    lock = FifoLock()
    assert lock.acquire(blocking=False)
    assert not lock.acquire(blocking=False)
    lock.release()
    assert lock.acquire(blocking=False)


def test_mutual_exclusion() -> None:
    lock, counter = FifoLock(), [0]

    def count() -> None:
        for _ in range(500):
            lock.acquire()
            value = counter[0]
            if value % 50 == 0:
                time.sleep(0)
            counter[0] = value + 1
            lock.release()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 2000
