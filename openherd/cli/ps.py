"""herd ps: the servers that run on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openherd.cli import output
from openherd.cli.flags import JsonFlag
from openherd.visible import visible

_HEADER = ("address", "model", "state", "memory", "running", "waiting", "tokens/s", "pid")


def ps(*, json: JsonFlag = False) -> None:
    """List your running servers, with their models, memory and load."""
    from openherd.store.servers import running_servers

    servers = [_with_memory(server) for server in running_servers()]
    if json:
        output.document({"servers": servers})
    elif servers:
        print(_table([_HEADER, *(row for server in servers for row in _rows(server))]))
    else:
        print("no server is running; herd serve starts one")


def _with_memory(server: dict[str, Any]) -> dict[str, Any]:
    """The entry, and the bytes that front and workers hold in memory now; null where the system does not tell."""
    models = [{**model, "memory": _resident(model.get("worker_pid"))} for model in server.get("models", ())]
    return {**server, "memory": _resident(server["pid"]), "models": models}


def _rows(server: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for model in server["models"]:
        state = model["state"] if server["state"] == "ready" else f"{model['state']}, {server['state']}"
        memory = "-" if model["memory"] is None else f"{model['memory'] / 2**20:,.0f} MiB"
        counts = (model["running"], model["waiting"], model["tokens_per_s"], server["pid"])
        yield server["url"], model["name"], state, memory, *map(str, counts)


def _resident(pid: int | None) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
