"""herd serve beside llama.cpp's server: the same load on the same file, in turn, so that a noisy minute meets both.

    python -m bench.server_peers [--model FILE] [--users 16 --users 32] [--rounds 2] [--json OUT] [--log FILE]

Two closed loops (as many users as slots, the next request at once) for tokens a second, then an open loop at the same
rate on both, 70 % of what the slower one managed before, for the time to the first token. The client is
`herd bench --server` in a process of its own; prompts, lengths and arrivals come from one seed, temperature is 0, and
answers go past the model's end, so that both write the same number of tokens. Each of llama.cpp's slots and each of
our sequences has `CONTEXT` tokens. All else is each program's own default: continuous batching and prompt caches on
both sides, and here also speculation from the text so far.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import OURS, PEERS_HOME, ROOT, say, summary
from openherd.kernels.cores import usable_cores
from openherd.store.resolve import resolve
from openherd.workshop.bench.machine import machine_facts

LLAMA_SERVER = PEERS_HOME / "llama-server" / "build" / "bin" / "llama-server"
PEER = "llama.cpp"
CONTEXT = 1024
PROMPT_WORDS, ANSWER_TOKENS = "uniform:20:120", "uniform:32:96"
REQUESTS_PER_USER = 2
OPEN_LOOP_S = 30
SHARE_OF_SLOWER = 0.7
START_S = 60.0

# The figure, whether more of it is better, and its unit.
FIGURES = {
    "output_throughput": (True, "tok/s"),
    "request_throughput": (True, "req/s"),
    "ttft_p50": (False, "ms"),
    "ttft_p99": (False, "ms"),
    "tpot_p50": (False, "ms"),
    "itl_p99": (False, "ms"),
    "e2e_p50": (False, "ms"),
    "client_cores": (False, "cores"),
}


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    name: str
    url: str


@contextmanager
def herd_serve(model: Path, slots: int, threads: int, log: Any) -> Iterator[Served]:
    flags = ["--context", CONTEXT, "--max-seqs", slots, "--threads", threads, "--port", 0, "--json", "--offline"]
    command = [str(word) for word in (sys.executable, "-m", "openherd", "serve", model, *flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        news = json.loads(process.stdout.readline() or "{}")
        if "url" not in news:
            raise RuntimeError("herd serve did not start")
        yield Served(OURS, news["url"])
    finally:
        _end(process)


@contextmanager
def llama_server(model: Path, slots: int, threads: int, log: Any) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["-c", CONTEXT * slots, "-np", slots, "-t", threads, "-tb", threads, "--host", "127.0.0.1", "--port", port]
    command = [str(word) for word in (LLAMA_SERVER, "-m", model, *flags)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"llama-server did not start; status {process.poll()}")
            time.sleep(0.1)
        yield Served(PEER, url)
    finally:
        _end(process)


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def compare(model: Path, users: list[int], rounds: int, threads: int, log: Any) -> dict[str, Any]:
    """The document that RESULTS.md is made of."""
    loads = {}
    for number in users:
        arguments = ["--users", number, "--requests", REQUESTS_PER_USER * number]
        loads[f"users_{number}"] = _load(model, number, arguments, rounds, threads, log)
    rate = SHARE_OF_SLOWER * min(
        by_name["request_throughput"]["median"] for by_name in loads[f"users_{max(users)}"]["servers"].values()
    )
    arguments = ["--rate", f"{rate:.3f}", "--duration", OPEN_LOOP_S]
    loads["open_loop"] = {"rate": rate, **_load(model, max(users), arguments, rounds, threads, log)}
    version = subprocess.run([LLAMA_SERVER, "--version"], capture_output=True, text=True, check=False)
    facts = machine_facts(threads)
    lines = (version.stdout + version.stderr).splitlines()
    return {
        "model": model.name,
        "file_bytes": model.stat().st_size,
        "machine": facts,
        "versions": {OURS: facts["openherd"], PEER: next((x for x in lines if x.startswith("version")), "unknown")},
        "prompt_words": PROMPT_WORDS,
        "answer_tokens": ANSWER_TOKENS,
        "context": CONTEXT,
        "loads": loads,
    }


def _load(model: Path, slots: int, arguments: list[Any], rounds: int, threads: int, log: Any) -> dict[str, Any]:
    """Both servers in turn. Each figure's ratio is taken round by round; more than 1 is in favour of openherd."""
    runs: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    tokens: defaultdict[str, list[Any]] = defaultdict(list)
    failed: defaultdict[str, int] = defaultdict(int)
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(model, slots, threads, log)) for serve in (herd_serve, llama_server)]
        for number in range(rounds):
            for served in servers:
                document = _bench(served.url, [*arguments, "--seed", number])
                found = {m["name"]: m["value"] for m in document["measurements"]}
                for name in FIGURES:
                    runs[served.name][name].append(found[name])
                tokens[served.name].append(document["tokens"])
                failed[served.name] += document["requests"]["failed"]
                say(f"{' '.join(map(str, arguments))}: {served.name} {found['output_throughput']:.0f} tok/s")
    by_server = {name: {f: summary(values) for f, values in figures.items()} for name, figures in runs.items()}
    ratios = {
        figure: summary([a / b if more else b / a for a, b in zip(runs[OURS][figure], runs[PEER][figure], strict=True)])
        for figure, (more, _) in FIGURES.items()
    }
    same = tokens[OURS] == tokens[PEER]
    return {"servers": by_server, "ratios": ratios, "tokens": dict(tokens), "same_tokens": same, "failed": dict(failed)}


def _bench(url: str, arguments: list[Any]) -> dict[str, Any]:
    lengths = ["--prompt-words", PROMPT_WORDS, "--answer-tokens", ANSWER_TOKENS, "--ignore-eos"]
    words = [sys.executable, "-m", "openherd", "bench", "--server", url, *lengths, *arguments, "--json"]
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    document: dict[str, Any] = json.loads(done.stdout or "{}")
    if "measurements" not in document:
        raise RuntimeError(f"herd bench --server failed: {document.get('error', {}).get('message')}")
    return document


def table(document: dict[str, Any]) -> Iterator[str]:
    """Figures of both, and the ratio, of which more than 1 is in favour of openherd."""
    for load, found in document["loads"].items():
        rate = f" of {found['rate']:.2f} requests/s" if "rate" in found else ""
        yield f"{load}{rate}; failed: {sum(found['failed'].values())}; same numbers of tokens: {found['same_tokens']}"
        for figure, (_, unit) in FIGURES.items():
            ours, peer = (found["servers"][name][figure]["median"] for name in (OURS, PEER))
            ratio = found["ratios"][figure]
            yield (
                f"  {figure:<18} {ours:>9,.1f} against {peer:>9,.1f} {unit:<6}"
                f" {ratio['median']:>6.2f}x ({ratio['low']:.2f}-{ratio['high']:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a file or a catalogue name; none: the default model")
    parser.add_argument("--users", action="append", type=int, help="of a closed loop, several times if wanted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="what the servers say")
    options = parser.parse_args()
    if not LLAMA_SERVER.exists():
        sys.exit(f"{LLAMA_SERVER} does not exist; make bench makes it")
    with options.log.open("ab") as log:
        users = options.users or [16, 32]
        document = compare(resolve(options.model), users, options.rounds, options.threads, log)
    print("\n".join(table(document)))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
