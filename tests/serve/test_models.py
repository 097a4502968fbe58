"""Several models: routing, states, loading on demand, a budget of memory, cancelled loads, busy and broken models."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openherd.cli.served_models import model_specs
from openherd.errors import OptionError
from openherd.llm.memory import fit_share
from openherd.options import EngineOptions
from openherd.serve.configuration import Configuration
from openherd.serve.keys import add_key
from openherd.serve.options import ModelOptions, ServeOptions
from tests.serve.client import JSON
from tests.serve.conftest import FULL, Server, serving
from tests.serve.test_lifecycle import herd_serve
from tests.serve.test_overload import wait_until
from tests.unit.llm.tiny_file import write_model

NAMES = ("alpha", "beta", "gamma")
ENGINE = EngineOptions(context=448, max_batch_tokens=16)
COMPLETE = "/v1/completions"
BODY = {"prompt": "a b", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
LONG = {**BODY, "max_tokens": 440}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        write_model(folder / f"{name}.gguf")
    return folder


def configuration(folder: Path, *, load_wait: float = 60, top: str = "", room_for: float = 2) -> Path:
    """Three models of which `room_for` fit the budget; the first is loaded at the start."""
    need = fit_share(folder / "alpha.gguf", ENGINE, 0).num_bytes
    models = "\n".join(
        f'[[models]]\nmodel = "{name}.gguf"\nload = "{"start" if name == "alpha" else "demand"}"\n' for name in NAMES
    )
    file = folder / "herd.toml"
    engine = f"context = {ENGINE.context}\nmax-batch-tokens = {ENGINE.max_batch_tokens}\n"
    file.write_text(f"{engine}memory = {int(need * room_for)}\nload-wait = {load_wait}\n{top}\n{models}")
    return file


@contextmanager
def herd_of_three(folder: Path, **options: Any) -> Iterator[Server]:
    with serving("--config", str(configuration(folder, **options))) as server:
        yield server


def states(server: Server, **headers: str) -> dict[str, str]:
    answer = server.get("/v1/models", headers=headers or None)
    return {model["id"]: model["status"]["value"] for model in answer.json["data"]}


def ask(server: Server, model: str, **params: Any) -> Any:
    return server.post(COMPLETE, {**BODY, "model": model, **params})


def children(server: Server) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def busy(server: Server, *models: str) -> Iterator[list[Any]]:
    """A request that stands still on each model: its worker is stopped before, and goes on afterwards."""
    stopped: list[int] = []

    def read(model: str) -> bytes:
        with server.streaming(COMPLETE, {**LONG, "model": model}) as response:
            return response.read()

    with ThreadPoolExecutor(len(models)) as pool:
        for model in models:
            wait_until(lambda model=model: ask(server, model).status == 200)  # type: ignore[misc]
        for pid in children(server):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        try:
            streams = [pool.submit(read, model) for model in models]
            wait_until(lambda: server.metrics()["openherd_requests"] == len(models))
            yield streams
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def test_models_are_loaded_when_asked_for_and_the_longest_unused_makes_room(folder: Path) -> None:
    with herd_of_three(folder) as server:
        assert server.get("/ready").status == 200
        assert states(server) == {"alpha": "loaded", "beta": "unloaded", "gamma": "unloaded"}
        first = ask(server, "alpha")
        assert (first.status, first.json["model"]) == (200, "alpha")
        assert ask(server, "beta").json["choices"][0]["text"] == first.json["choices"][0]["text"], "one file, twice"
        assert states(server) == {"alpha": "loaded", "beta": "loaded", "gamma": "unloaded"}
        assert ask(server, "gamma").status == 200
        assert states(server) == {"alpha": "unloaded", "beta": "loaded", "gamma": "loaded"}
        assert len(children(server)) == 2
        again = server.post(COMPLETE, BODY)
        assert (again.json["model"], again.text) == ("alpha", first.text), "no name means the first model"
        assert states(server) == {"alpha": "loaded", "beta": "unloaded", "gamma": "loaded"}
        unloaded = [news for news in (server.news() for _ in range(5)) if news["event"] == "model_unloaded"]
        assert [news["model"] for news in unloaded] == ["alpha", "beta"]
        assert server.get("/ready").status == 200
        assert ask(server, "delta").error["code"] == "model_not_found"
        metrics = server.metrics()
        assert metrics['openherd_worker_up{model="beta"}'] == 0
        assert metrics['openherd_model_completion_tokens_total{model="alpha"}'] == 16
        assert metrics['openherd_model_completion_tokens_total{model="gamma"}'] == 8
        assert metrics["openherd_completion_tokens_total"] == 32
        assert server.stop() == 0


def test_a_model_that_was_just_loaded_is_not_the_longest_unused(folder: Path) -> None:
    with herd_of_three(folder) as server:
        assert ask(server, "alpha").status == 200
        assert server.post("/models/load", {"model": "beta"}).status == 200  # and nobody has asked it yet
        assert server.post("/models/load", {"model": "gamma"}).status == 200
        assert states(server) == {"alpha": "unloaded", "beta": "loaded", "gamma": "loaded"}


def test_a_busy_model_stays_and_a_request_that_waits_too_long_is_told_so(folder: Path) -> None:
    with herd_of_three(folder, load_wait=2) as server:
        with busy(server, "alpha", "beta") as streams:
            late = ask(server, "gamma")
            assert (late.status, late.error["code"]) == (503, "unavailable")
            assert int(late.headers["retry-after"]) >= 1
            # A model that was about to give way goes on, since what it made room for gave up.
            wait_until(lambda: states(server)["alpha"] == states(server)["beta"] == "loaded")
            in_use = server.post("/models/unload", {"model": "beta"})
            assert (in_use.status, in_use.error["code"]) == (409, "model_in_use")
            assert server.get("/health").seconds < 1
        assert all(stream.result().endswith(b"[DONE]\n\n") for stream in streams)
        wait_until(lambda: ask(server, "gamma").status == 200)


def test_a_load_can_be_cancelled_and_force_ends_what_runs(folder: Path) -> None:
    with herd_of_three(folder) as server, ThreadPoolExecutor(1) as pool:
        with busy(server, "alpha", "beta") as streams:
            waiting = pool.submit(ask, server, "gamma")
            wait_until(lambda: states(server)["gamma"] == "loading")
            assert server.post("/models/unload", {"model": "gamma"}).json["status"]["value"] == "unloaded"
            assert waiting.result().status == 503
            assert "cancelled" in waiting.result().error["message"]
            assert server.post("/models/unload", {"model": "beta", "force": True}).status == 200
            assert b"was unloaded" in streams[1].result()
            wait_until(lambda: len(children(server)) == 1)
        assert states(server) == {"alpha": "loaded", "beta": "unloaded", "gamma": "unloaded"}
        assert server.post("/models/load", {"model": "gamma"}).json["status"]["value"] == "loaded"
        assert server.post("/models/load", {"model": "nobody"}).status == 404
        for path in ("/models/load", "/models/unload"):
            assert server.post(path, {}).error["param"] == "model"
            assert (
                server.post(path, {"model": "gamma", "parameter_of_nobody": 1}).error["param"] == "parameter_of_nobody"
            )
        assert server.post("/models/unload", {"model": "gamma", "force": 1}).error["param"] == "force"
        assert server.get("/models").json == server.get("/v1/models").json
        told = [server.news()["event"] for _ in range(4)]
        assert told == ["model_loaded", "model_load_cancelled", "model_unloaded", "model_loaded"]


def test_a_model_that_cannot_be_loaded_says_so_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.gguf").write_bytes((folder / f"{name}.gguf").read_bytes())
    whole = (tmp_path / "beta.gguf").read_bytes()
    with herd_of_three(tmp_path) as server:
        (tmp_path / "beta.gguf").write_bytes(whole[:1000])
        failed = ask(server, "beta")
        assert (failed.status, failed.error["code"]) == (503, "model_load_failed")
        assert str(tmp_path) not in failed.error["message"]
        assert failed.headers["retry-after"] == "1"
        assert server.get("/v1/models/beta").json["status"] == {"value": "unloaded", "failed": True}
        assert ask(server, "alpha").status == 200
        (tmp_path / "beta.gguf").write_bytes(whole)
        wait_until(lambda: ask(server, "beta").status == 200)
        assert server.get("/v1/models/beta").json["status"] == {"value": "loaded"}
        os.kill(server.worker_pid, signal.SIGSTOP)  # dead, and not back at once: a killed one is replaced in a blink
        os.kill(server.worker_pid, signal.SIGKILL)
        wait_until(lambda: server.news()["event"] == "worker_died")
        ready, is_down = server.get("/ready").status, states(server)["alpha"] == "restarting"
        assert (ready, is_down) == (200, True), "beta goes on, and so does the server"
        assert ask(server, "beta").status == 200, "another model's death"
        wait_until(lambda: ask(server, "alpha").status == 200)


@pytest.mark.skipif(not FULL, reason="takes a minute: OPENHERD_FULL_TESTS=1")
def test_many_clients_of_more_models_than_fit_are_all_answered(folder: Path) -> None:
    """Models come and go under them; nobody is cut off, and the answers stay the same."""
    with herd_of_three(folder) as server, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: ask(server, NAMES[number // 12 % 3]), range(144)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        assert sum(server.news()["event"] == "model_unloaded" for _ in range(16)) >= 7
        assert len(children(server)) == 2


def test_models_that_do_not_fit_together_are_refused_at_the_start(folder: Path) -> None:
    file = configuration(folder, room_for=0.5)
    done = herd_serve("--config", str(file))
    assert done.returncode == 1
    assert "--memory gives" in done.stderr
    file.write_text(configuration(folder, room_for=1.5).read_text().replace("demand", "start"))
    done = herd_serve("--config", str(file))
    assert done.returncode == 1
    assert "beta needs" in done.stderr


def test_a_model_larger_than_the_budget_is_refused_when_it_is_asked_for(folder: Path) -> None:
    file = configuration(folder, room_for=0.5)
    file.write_text(file.read_text().replace('"start"', '"demand"'))
    with serving("--config", str(file)) as server:
        assert server.get("/ready").status == 200
        refused = ask(server, "alpha")
        assert (refused.status, refused.error["code"]) == (503, "insufficient_memory")
        assert "retry-after" not in refused.headers
        assert server.get("/v1/models/alpha").json["status"] == {"value": "unloaded", "failed": True}
        assert children(server) == []


def test_only_an_admins_key_loads_and_unloads(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    keys = {name: add_key(str(file), name) for name in ("user", "boss")}
    lines = file.read_text().splitlines()
    file.write_text(f"{lines[0]}\n{lines[1]} admin\n")
    with serving("--config", str(configuration(folder)), "--keys", str(file)) as server:
        for name, status in (("user", 403), ("boss", 200)):
            headers = {**JSON, "Authorization": f"Bearer {keys[name]}"}
            assert server.post("/models/unload", {"model": "alpha"}, headers=headers).status == status
            assert server.post("/models/load", {"model": "alpha"}, headers=headers).status == status


def engines(total: int | None, *own: int | None) -> list[int | None]:
    models = tuple((ModelOptions(model=name), EngineOptions(threads=n)) for name, n in zip(NAMES, own, strict=False))
    return [
        s.engine.threads for s in model_specs(Configuration(ServeOptions(), EngineOptions(threads=total), models, True))
    ]


def test_models_divide_the_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openherd.cli.served_models.resolve", lambda ref, offline: folder / f"{ref}.gguf")
    assert engines(None, None) == [None]
    assert engines(3, None) == [3]
    assert engines(8, None, None, None) == [3, 3, 2]
    assert engines(8, 1, None, None) == [1, 4, 3]
    assert engines(2, None, None, None) == [1, 1, 1]
    twice = tuple((ModelOptions(model=name, name="same"), EngineOptions()) for name in NAMES)
    with pytest.raises(OptionError, match="'same'"):
        model_specs(Configuration(ServeOptions(), EngineOptions(), twice, True))


def test_requests_that_wait_for_one_model_leave_the_others_their_places(folder: Path) -> None:
    """beta's load stands still, and all of its places are taken; alpha answers, and beta's next is told to wait."""
    with herd_of_three(folder, top="queue = 1\nmax-seqs = 1") as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, server, "beta")]
        wait_until(lambda: len(children(server)) == 2)
        (loading,) = set(children(server)) - {server.worker_pid}
        # Until it runs a program of its own the server waits for it (vfork), and would stand still too.
        wait_until(lambda: b"openherd.serve.worker" in Path(f"/proc/{loading}/cmdline").read_bytes())
        os.kill(loading, signal.SIGSTOP)
        waiting.append(pool.submit(ask, server, "beta"))
        wait_until(lambda: server.metrics()["openherd_requests"] == 2)
        for _ in range(3):
            assert ask(server, "alpha").status == 200
            refused = ask(server, "beta")
            assert (refused.status, refused.error["code"]) == (429, "queue_full")
            assert "beta" in refused.error["message"]
            assert int(refused.headers["retry-after"]) >= 1
        assert states(server)["beta"] == "loading", "it was loaded meanwhile"
        os.kill(loading, signal.SIGCONT)
        assert [answer.result().status for answer in waiting] == [200, 200]


def test_only_this_servers_own_page_loads_and_unloads_where_there_are_no_keys(folder: Path) -> None:
    """A page that --cors-origin names may use the models, and not administer them."""
    origin = "https://app.example"
    with herd_of_three(folder, top=f'cors-origin = ["{origin}"]') as server:
        own = f"http://{server.host}:{server.port}"
        named = {**JSON, "Origin": origin}
        assert server.post(COMPLETE, {**BODY, "model": "alpha"}, headers=named).status == 200
        for path in ("/models/load", "/models/unload"):
            for headers in (named, {**JSON, "Sec-Fetch-Site": "cross-site"}, {**JSON, "Origin": "null"}):
                refused = server.post(path, {"model": "alpha"}, headers=headers)
                assert (refused.status, refused.error["code"]) == (403, "cross_site")
            assert states(server)["alpha"] == "loaded"
        for headers in (JSON, {**JSON, "Origin": own}, {**JSON, "Sec-Fetch-Site": "same-origin"}):
            assert server.post("/models/load", {"model": "alpha"}, headers=headers).status == 200
