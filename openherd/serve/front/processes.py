"""Starting a worker's process, with a socket to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from asyncio.subprocess import Process

from openherd.errors import EngineError


async def start_process() -> tuple[Process, asyncio.StreamReader, asyncio.StreamWriter]:
    """The process, and both directions of its socket. Raises `EngineError` where the system gives none.

    Cancelled or failed, it leaves no process and no open socket.
    """
    with contextlib.ExitStack() as unused:
        try:
            ours, theirs = socket.socketpair()
            unused.callback(ours.close)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # the folder that the server was started in holds no code of ours
                    "-m",
                    "openherd.serve.worker",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    # the front's own output may be JSON lines
                    stdout=sys.stderr.fileno(),
                )
            unused.callback(_kill, process)
            reader, writer = await asyncio.open_connection(sock=ours, limit=2**20)
        except OSError as error:
            raise EngineError(
                f"no worker process could be started: {error.strerror or error}",
                hint="look at the limits on processes and open files (ulimit -u, ulimit -n) and at the free memory",
            ) from None
        unused.pop_all()
    return process, reader, writer


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
