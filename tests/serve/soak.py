"""S10: herd serve under mixed traffic for half an hour: `make soak`, or `python -m tests.serve.soak --minutes 5`.

Of all requests 10 % are cut by their client and 5 % are invalid. Nothing may be answered with a 5xx; afterwards front
and worker have as many file descriptors and threads as before, every KV block is free, and memory did not grow by
more than 1 MiB in ten minutes. The pool of KV blocks is small, so that it is full and evicting within the warm-up.

Prints figures as one JSON document, and ends with status 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from threading import Event, Lock
from typing import Any

from tests.serve.client import PARIS
from tests.serve.conftest import Server, serving
from tests.serve.test_hostile import HOSTILE
from tests.serve.test_overload import is_empty, wait_until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
NUM_CLIENTS = 12
SHARE_CUT, SHARE_INVALID = 0.10, 0.05
KV_MEMORY = 96 * 2**20  # some 4,000 tokens
WARM_UP_SHARE, SAMPLE_EVERY_S = 0.3, 2.0
MAX_SLOPE = 1.0  # MiB in ten minutes
WORDS = Path(__file__).parents[1].joinpath("parity", "alice.txt").read_text(encoding="utf-8").split()
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 8}}, "required": ["a"]}


@dataclass(slots=True)
class Process:
    """What a process holds, from /proc."""

    pid: int

    def fds(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(slots=True)
class Traffic:
    """Clients that ask until told to stop."""

    server: Server
    invalid: list[str]  # names of the hostile requests that are refused
    over: Event = field(default_factory=Event)
    counts: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def client(self, number: int) -> None:
        rng = random.Random(number)
        while not self.over.is_set():
            kind = rng.random()
            if kind < SHARE_CUT:
                outcome = self._cut(rng)
            elif kind < SHARE_CUT + SHARE_INVALID:
                outcome = self._invalid(rng)
            else:
                outcome = self._ask(rng)
            with self.lock:
                self.counts[outcome] += 1

    def _ask(self, rng: random.Random) -> str:
        path, body = asked(rng)
        if path == CHAT and rng.random() < 0.5:
            with self.server.streaming(path, body) as response:
                whole = response.read()
            if response.status == 200 and not whole.endswith(b"data: [DONE]\n\n"):
                return "stream without an end"
            return f"asked {response.status}"
        return f"asked {self.server.post(path, body).status}"

    def _cut(self, rng: random.Random) -> str:
        body = {"messages": message(rng), "ignore_eos": True, "max_tokens": 1000, "temperature": 0}
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=60)
        try:
            data = json.dumps({**body, "stream": rng.random() < 0.7}).encode()
            connection.request("POST", CHAT, data, {"Content-Type": "application/json"})
            time.sleep(rng.random() * 0.5)
            if rng.random() < 0.5 and connection.sock is not None:
                connection.sock.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    connection.sock.recv(500)
        finally:
            connection.close()
        return "cut"

    def _invalid(self, rng: random.Random) -> str:
        path, body = HOSTILE[rng.choice(self.invalid)]
        return f"invalid {self.server.post(path, body).status}"


def message(rng: random.Random) -> list[dict[str, str]]:
    start = rng.randrange(len(WORDS) - 200)
    return [{"role": "user", "content": " ".join(WORDS[start : start + rng.randint(3, 200)])}]


def asked(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A sound request of one of several kinds."""
    base: dict[str, Any] = {
        "max_tokens": rng.randint(1, 60),
        "temperature": rng.choice([0, 1]),
        "seed": rng.getrandbits(32),
    }
    chat = {**base, "messages": message(rng)}
    match rng.randrange(8):
        case 0:
            return CHAT, {**chat, "n": 3, "temperature": 1}
        case 1:
            return CHAT, {**chat, "logprobs": True, "top_logprobs": 3}
        case 2:
            format_ = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
            return CHAT, {**chat, "response_format": format_, "max_tokens": 60}
        case 3:
            return COMPLETIONS, {**base, "prompt": ["1, 2, 3,", "Once upon a time"], "stop": ["."]}
        case 4:
            return "/tokenize", {"content": chat["messages"][0]["content"]}
        case _:
            return CHAT, chat


def soak(minutes: float) -> dict[str, Any]:
    """The figures; `failures` says what does not hold."""
    seconds = 60 * minutes
    with serving("--context", "2048", "--kv-memory", str(KV_MEMORY)) as server:
        processes = {"front": Process(server.process.pid), "worker": Process(server.worker_pid)}
        traffic = Traffic(server, _warm(server))
        before = _held(processes)
        samples: list[tuple[float, float, float]] = []
        started = time.monotonic()
        with ThreadPoolExecutor(NUM_CLIENTS) as pool:
            clients = [pool.submit(traffic.client, number) for number in range(NUM_CLIENTS)]
            try:
                while (now := time.monotonic() - started) < seconds and not any(c.done() for c in clients):
                    samples.append((now, *(p.rss_mib() for p in processes.values())))
                    time.sleep(SAMPLE_EVERY_S)
            finally:
                traffic.over.set()
        for client in clients:
            client.result()
        wait_until(lambda: is_empty(server), 60)
        after = _settled(processes, before)
        engine = {name: server.engine(name) for name in ("preemptions_total", "aborted_total", "cached_tokens_total")}
        assert server.chat().text == "The capital of France is Paris."
        status = server.stop()
    return figures(minutes, traffic.counts, before, after, samples, engine, status)


def _held(processes: dict[str, Process]) -> dict[str, tuple[int, int]]:
    return {name: (process.fds(), process.threads()) for name, process in processes.items()}


def _settled(processes: dict[str, Process], before: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """What is held in the end, once connections that were left open have been given up."""
    deadline = time.monotonic() + 45
    while (held := _held(processes)) != before and time.monotonic() < deadline:
        time.sleep(0.5)
    return held


def _warm(server: Server) -> list[str]:
    """Threads and descriptors that come with the first requests and stay. Returns which hostile ones are refused:
    some are merely odd."""
    invalid = [name for name, (path, body) in HOSTILE.items() if server.post(path, body).status in (400, 413)]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        list(pool.map(lambda _: server.chat(PARIS), range(2 * NUM_CLIENTS)))
    wait_until(lambda: is_empty(server))
    time.sleep(1)
    return invalid


def figures(
    minutes: float,
    counts: Counter[str],
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
    samples: list[tuple[float, float, float]],
    engine: dict[str, float],
    status: int,
) -> dict[str, Any]:
    """The document, with what does not hold."""
    steady = [sample for sample in samples if sample[0] >= WARM_UP_SHARE * 60 * minutes]
    slopes = {name: slope([(t, values[i]) for t, *values in steady]) for i, name in enumerate(("front", "worker"))}
    total, error = slope([(t, front + worker) for t, front, worker in steady])
    num_requests = sum(counts.values())
    num_cut = counts["cut"]
    num_invalid = sum(number for kind, number in counts.items() if kind.startswith("invalid"))
    failures = [f"{number} x {kind}" for kind, number in counts.items() if " 5" in kind or "without" in kind]
    failures += [f"{n} x {kind}" for kind, n in counts.items() if kind.startswith("invalid") and " 4" not in kind]
    for name in before:
        if after[name][0] > before[name][0] or after[name][1] > before[name][1]:
            failures.append(f"{name}: (fds, threads) were {before[name]} and are {after[name]}")
    if total - 2 * error > MAX_SLOPE:
        failures.append(f"memory grew by {total:.2f} MiB in ten minutes (standard error {error:.2f})")
    if status != 0:
        failures.append(f"exit status {status}")
    # The faults must have happened.
    if num_cut < 0.07 * num_requests or num_invalid < 0.03 * num_requests or engine["aborted_total"] < num_cut / 3:
        failures.append("too few requests were cut or invalid for this to mean anything")
    return {
        "minutes": minutes,
        "requests": num_requests,
        "outcomes": dict(counts.most_common()),
        "engine": engine,
        "fds_threads_before": before,
        "fds_threads_after": after,
        "rss_mib": {"first": samples[0][1:], "steady": steady[0][1:], "last": samples[-1][1:]},
        "slope_mib_per_10_min": {name: value for name, (value, _) in slopes.items()} | {"total": total},
        "slope_standard_error": error,
        "failures": failures,
    }


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """MiB in ten minutes, by least squares, and its standard error."""
    times, values = zip(*points, strict=True)
    fit = linear_regression(times, values)
    mean = sum(times) / len(times)
    residual = sum((v - fit.intercept - fit.slope * t) ** 2 for t, v in points)
    spread = sum((t - mean) ** 2 for t in times)
    return 600 * fit.slope, 600 * (residual / max(1, len(points) - 2) / spread) ** 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    found = soak(parser.parse_args().minutes)
    print(json.dumps(found, indent=1))
    for failure in found["failures"]:
        print(f"soak: {failure}", file=sys.stderr)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
