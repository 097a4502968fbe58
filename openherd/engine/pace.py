"""How many prompt rows may ride along with decode steps, so that a long prompt does not stall running answers."""

from __future__ import annotations

# A step with prompt rows may take this many times a step without: running answers keep under three times their idle
# latency (a margin for jitter), and the prompt gets 1 - 1/2.5 = 60 % of the time, so it waits at most 1.7 times longer.
STRETCH = 2.5
# Fewer rows would read all weights for little work; and a first guess, before anything is measured.
MIN_ROWS = 16
FIRST_ROWS = 64
# Weight of the newest measurement: half of the memory is the last three steps.
NEWEST = 0.2


class PrefillPace:
    """Learns the time of a decode step and of a prompt row from the steps themselves."""

    def __init__(self) -> None:
        self._decode_s: float | None = None  # a step of decodes alone
        self._row_s: float | None = None  # one more prompt row

    def prefill_rows(self, num_decodes: int, room: int) -> int:
        """Prompt rows for a step with `num_decodes` decodes and `room` rows left; all of them when nobody waits."""
        if num_decodes == 0:
            return room
        if self._decode_s is None or self._row_s is None:
            return min(room, FIRST_ROWS)
        rows = int((STRETCH - 1) * self._decode_s / self._row_s)
        return min(room, max(MIN_ROWS, rows))

    def observe(self, seconds: float, num_decodes: int, num_prefill_rows: int) -> None:
        """A step of this make-up took `seconds`."""
        if num_prefill_rows == 0:
            self._decode_s = _blend(self._decode_s, seconds)
        elif num_prefill_rows < MIN_ROWS:
            return  # its time is that of reading the weights
        elif num_decodes == 0:
            self._row_s = _blend(self._row_s, seconds / num_prefill_rows)
        elif self._decode_s is not None and seconds > self._decode_s:
            self._row_s = _blend(self._row_s, (seconds - self._decode_s) / num_prefill_rows)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + NEWEST * (new - old)
