"""The log of a run: one JSON object a line in RUN/log.jsonl, and the same numbers for TensorBoard in RUN/tensorboard.

A line is `{"step": 120, "time": seconds since the epoch, "loss": ..., ...}` for a step, or the same with `"event"`, the
kind of what happened: evaluation, sample, checkpoint, skip, rollback, resume. Numbers that are not finite are written
as null, since JSON has none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
MAX_LINE_BYTES = 1 << 20


class RunLog:
    """Appends to the log of a run. A log for nobody (`folder` None, on all ranks but the first) writes nothing."""

    def __init__(self, folder: Path | None, *, tensorboard: bool = True) -> None:
        self._file: TextIO | None = None
        self._tensorboard: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOG_FILE).open("a", encoding="utf-8")
            self._tensorboard = _summary_writer(folder / TENSORBOARD_FOLDER) if tensorboard else None

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """The figures of one update: loss, learning_rate, grad_norm, tokens, tokens_per_s, ..."""
        self._write({"step": step, "time": time.time(), **metrics})
        self._scalars(step, "train", metrics)

    def event(self, kind: str, step: int, **facts: Any) -> None:
        """Something beside the steps; numbers among `facts` go to TensorBoard under the kind's name."""
        self._write({"event": kind, "step": step, "time": time.time(), **facts})
        self._scalars(step, kind, facts)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._file = self._tensorboard = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
            self._file.flush()

    def _scalars(self, step: int, group: str, facts: Mapping[str, Any]) -> None:
        if self._tensorboard is not None:
            for name, value in facts.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self._tensorboard.add_scalar(f"{group}/{name}", value, step)


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log, oldest first; a last line that was cut short is left out, as are lines of no object."""
    with (folder / LOG_FILE).open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield entry


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary_writer(folder: Path) -> Any:
    """TensorBoard's writer, or None where it is not installed: the JSON lines hold the same."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
