"""Start of a worker process: a socket from the front, a model from the first frame, then the loop until either ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import Any

from openherd.errors import EngineError, HerdError
from openherd.options import EngineOptions
from openherd.serve.wire import Link
from openherd.serve.worker.loop import WorkerLoop


def main() -> int:
    # Ctrl-C and a service manager's SIGTERM reach the whole group; the front decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    start = link.receive()
    if start is None:
        return 1
    try:
        loop = _load(link, start)
    except HerdError as error:
        link.send({"failed": {"message": Exception.__str__(error), "hint": error.hint, "status": error.exit_status}})
        return 1
    if loop is None:
        return 1
    with contextlib.suppress(OSError):  # the front is gone
        loop.run()
    os._exit(0)  # the reader waits in recv, and nothing here outlives the front


def _load(link: Link, start: dict[str, Any]) -> WorkerLoop | None:
    """None when the front went away before there was room."""
    from openherd.llm.loading import load_model

    options = EngineOptions(**start["engine"])
    if start["share"] is not None:
        from openherd.llm.memory import fit_share

        need = fit_share(start["path"], options, start["share"])
        options = need.options
        try:
            link.send({"needs": need.num_bytes})
        except OSError:
            return None
        if link.receive() is None:
            return None
    model = load_model(
        start["path"],
        options=options,
        template=start["template"],
        adapters=start["adapters"],
        offline=True,  # the command has fetched what was missing
        progress=None,
    )
    if model.engine.context < 2:
        raise EngineError("the context is too short for a prompt and an answer")
    loop = WorkerLoop(model, link)
    with contextlib.suppress(OSError):  # the front is gone, and the loop will see it
        link.send({"ready": loop.facts()})
    return loop


if __name__ == "__main__":
    sys.exit(main())
