"""What the processes of the kill tests do. Each returns its exit status."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from openherd.train.interrupts import Interrupts
from openherd.train.loop import Trainer
from openherd.train.prepare import WeightedPath, prepare
from tests.train.loop.small_run import digests, recipe_of, trainer
from tests.unit.train.chat_model import tokenizer

ENDED_TOO_EARLY = 99  # a fault that was asked for did not come


def train(out: str, data: str, slowly: float = 0.0, **run: Any) -> int:
    """A run to its end, or on to it, with what it ended in written to OUT/digests.json; `slowly`: seconds a step."""
    made = trainer(recipe_of(Path(out), Path(data), **run))
    if slowly:
        made.progress = lambda step, metrics: time.sleep(slowly)
    return _finish(made)


def train_until_save_dies(out: str, data: str, at: int, step: int) -> int:
    """SIGKILL just before call number `at` to anything built in (write, fsync, rename, ...) while `step` is saved."""
    made = trainer(recipe_of(Path(out), Path(data)))
    _count_calls_of_save(made, step, at)
    made.run()
    return ENDED_TOO_EARLY


def count_calls_of_save(out: str, data: str, step: int) -> int:
    """How many there are, in OUT/calls.json."""
    made = trainer(recipe_of(Path(out), Path(data)))
    calls = _count_calls_of_save(made, step, None)
    made.run()
    (Path(out) / "calls.json").write_text(json.dumps(calls))
    return 0


def _count_calls_of_save(made: Trainer, step: int, kill_at: int | None) -> list[str]:
    calls: list[str] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            calls.append(argument.__qualname__)

    original = made._save

    def save() -> None:
        if made.state.step != step:
            return original()
        sys.setprofile(profile)
        try:
            original()
        finally:
            sys.setprofile(None)

    made._save = save  # type: ignore[method-assign]
    return calls


def train_with_signal(out: str, data: str, where: str, number: int, again: float = 0.0) -> int:
    """A signal to itself: in the "first" step, in "step" 5, in the "evaluation" of step 4, or while "preparing" data.

    `again`: the same signal once more after so many seconds, during all of which nothing else happens.
    """

    def send() -> None:
        os.kill(os.getpid(), number)
        if again:
            time.sleep(again)
            os.kill(os.getpid(), number)
            time.sleep(60)

    signal.signal(
        number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    )  # nohup ignores one
    with Interrupts() as interrupts:
        if where == "preparing":
            source = Path(out) / "d.jsonl"
            source.write_text('{"text": "hello"}\n')
            prepare([WeightedPath(source)], Path(out) / "tokens", tokenizer(), None, progress=lambda line: send())
            return ENDED_TOO_EARLY
        made = trainer(recipe_of(Path(out), Path(data)), interrupts=interrupts)
        if where == "evaluation":
            measure = made.evaluation

            def evaluation(model: Any, stop: Any) -> Any:
                means = measure(model, stop)  # type: ignore[misc]
                if made.state.step == 4:
                    send()
                    assert stop()
                return means

            made.evaluation = evaluation
        else:
            at, loss = {"first": 0, "step": 5}[where], made.objective.loss

            def losing(*arguments: Any) -> Any:
                if made.state.step == at and interrupts.received is None:
                    send()
                return loss(*arguments)

            made.objective.loss = losing  # type: ignore[method-assign]
        return _finish(made)


def train_with_little_room(out: str, data: str, limit: int) -> int:
    """No file may grow beyond `limit` bytes: the kernel refuses the write that would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return train(out, data)


def resume_without_pickle(out: str, data: str) -> int:
    """Counts what unpickles in OUT/unpickled.json: PyTorch's loader, the standard library's, and any name looked up."""
    seen: list[str] = []
    sys.addaudithook(lambda event, arguments: seen.append(event) if event == "pickle.find_class" else None)

    def counting(name: str, original: Any) -> Any:
        def called(*arguments: Any, **more: Any) -> Any:
            seen.append(name)
            return original(*arguments, **more)

        return called

    class Unpickler(pickle.Unpickler):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            seen.append("pickle.Unpickler")
            super().__init__(*arguments, **more)

    pickle.Unpickler = Unpickler  # type: ignore[misc]
    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        setattr(module, name, counting(f"{module.__name__}.{name}", getattr(module, name)))
    pickle.loads(pickle.dumps(Path))
    pickle.Unpickler(io.BytesIO(pickle.dumps(1)))
    (Path(out) / "control.json").write_text(json.dumps(seen))
    seen.clear()
    status = train(out, data)
    (Path(out) / "unpickled.json").write_text(json.dumps(seen))
    return status


def _finish(made: Trainer) -> int:
    outcome = made.run()
    (made.recipe.run.out / "digests.json").write_text(json.dumps(digests(made)))
    return outcome.exit_status
