"""What steps take, learned from the steps themselves: how many prompt rows may ride along with decodes, so that a long
prompt does not stall running answers, and what rows beside a decode cost."""

from __future__ import annotations

from collections import deque
from statistics import median

# A step with prompt rows may take this many times the median of steps without. Where memory is shared running answers
# wait for one in a hundred of those twice to 2.7 times as long (Xeon, Zen 5), and keep under three times that, with a
# margin for jitter. The prompt gets about 65 % of the time, so it waits 1.6 times longer, and longer by what small
# steps cost beside large ones (up to 1.5 times deep in a long prompt).
STRETCH = 3.9
# Nor may it take more than so many times the fourth longest of them, where a quiet machine makes them all alike.
WORST_STRETCH = 2.7
# Where answers have grown so long since then that this is less than so many decode steps of today, it is these.
LEAST_STRETCH = 2.0
# A step of prompt rows alone takes no longer, where it has more than FIRST_ROWS: who arrives meanwhile waits for its
# end, and so does whoever leaves. On slow machines and with large models that is less than a full batch. (Half of it
# made prompts of 3,000 tokens 7 % slower where a full batch takes 1.1 to 3 s.)
LONGEST_STEP_S = 2.0
# Fewer would read all weights for little work. It binds deep in a long prompt, where a row costs half a decode step of
# four answers: behind 7,900 tokens eight rows let p99 of the answers grow to 4.7 times idle (the prompt waited 1.7
# times longer than alone), four to 3.3 times (2.2).
MIN_ROWS = 3
# A first guess, before anything is measured.
FIRST_ROWS = 64
# So many prompts, and so many for each running answer, are a crowd: its users wait for a first word, and few answers
# must not hold many up. Without that a closed loop of 16 users settled where ten waited for six, whose short steps left
# room for 15 rows, and in so few a row costs half as much again (SmolLM2-135M on two cores: 298 tok/s together, first
# token after 2.3 s; with it 390 to 450 and 0.6 s, 32 users 298 -> 430 to 500).
CROWD = 3
CROWD_TO_ANSWERS = 0.3
# What a crowd as large as the answers gets: where a row costs least, kernels take 64 together and threads share them.
# An answer waits no longer for it than this, where its own share is not more.
CROWD_ROWS = 128
CROWD_STEP_S = 0.1
# Of so many steps of decodes alone the median is taken. Such short steps scatter (Zen 5: half under 3.9 ms, a tenth
# over 6.7): by a mean of the last few each prompt was paced by chance, and one of 7,900 tokens waited 1.9 to 3.4 times
# longer than alone; the fourth longest of 128 differed by 12 % from one to the next, and by half where the machine's
# other tenants were busy. Steps among those with prompt rows do not belong to them: answers grow meanwhile, and the
# prompt's steps would grow with them.
DECODE_STEPS = 128
# One step in so many goes without while a prompt rides along, so that what a decode step takes stays known: answers
# grow meanwhile, and what they add to each step would pass for the price of a prompt's row. (Four answers beside a
# prompt of 7,900 tokens, Xeon with AMX: their step went from 7.5 to 14 ms, a row passed for 8 ms of 2.5, and the prompt
# got 3 rows a step and waited 3.7 times longer than alone.)
STEPS_WITH = 12
# What such a step takes nowadays is the median of so many.
LATEST_STEPS = 5
# Weight of the newest measurement: half of the memory is the last three steps.
NEWEST = 0.2
# A step that takes longer than this times what was expected was disturbed; it counts as if it had taken as much.
DISTURBED = 1.5


class PrefillPace:
    """Learns the time of a decode step and of a prompt row from the steps themselves."""

    def __init__(self) -> None:
        self._decodes_s: deque[float] = deque(maxlen=DECODE_STEPS)  # the last steps of decodes alone
        self._latest_s: deque[float] = deque(maxlen=LATEST_STEPS)  # those among steps with prompt rows as well
        self._rode = False  # prompt rows, in the last step
        self._steps_with = 0  # prompt rows beside decodes, since the last such step
        self._row_s: float | None = None  # one more prompt row
        self._left_over = 0.0  # of the last step's share; of three or four rows much is lost by rounding

    def prefill_rows(self, num_decodes: int, num_prompts: int, room: int) -> int:
        """Prompt rows for a step with `num_decodes` decodes, `room` rows left and so many prompts that could go on.
        Where no decode waits, all that a step of bounded time computes; 0 now and then, never twice in a row."""
        if num_decodes == 0:
            return room if self._row_s is None else min(room, max(FIRST_ROWS, int(LONGEST_STEP_S / self._row_s)))
        crowded = num_prompts >= CROWD and num_prompts > CROWD_TO_ANSWERS * num_decodes
        if self._steps_with >= STEPS_WITH and not crowded:
            self._steps_with = 0
            return 0
        decode_s = self._decode_s
        if decode_s is None or self._row_s is None:
            return min(room, FIRST_ROWS)
        share = (self._step_s(decode_s) - decode_s) / self._row_s + self._left_over
        rows = max(MIN_ROWS, int(share))
        self._left_over = max(0.0, share - rows)
        if crowded:
            crowd_rows = CROWD_ROWS * min(num_prompts, num_decodes) // num_decodes
            rows = max(rows, min(crowd_rows, int(CROWD_STEP_S / self._row_s)))
        return min(room, rows)

    def observe(self, seconds: float, num_decodes: int, num_prefill_rows: int) -> None:
        """A step of this make-up took `seconds`."""
        rode, self._rode = self._rode, num_prefill_rows > 0
        self._steps_with = self._steps_with + 1 if num_prefill_rows and num_decodes else 0
        if num_prefill_rows == 0:
            if not rode or not self._decodes_s:
                self._decodes_s.append(seconds)
            self._latest_s.append(seconds)
        elif num_prefill_rows < MIN_ROWS:
            return  # its time is that of reading the weights
        elif num_decodes == 0:
            self._row_s = _blend(self._row_s, _undisturbed(seconds / num_prefill_rows, self._row_s))
        elif (decode_s := self._decode_s) is not None and seconds > decode_s:
            self._row_s = _blend(self._row_s, (seconds - decode_s) / num_prefill_rows)

    def _step_s(self, decode_s: float) -> float:
        """What a step with prompt rows may take, where one of decodes alone takes `decode_s` nowadays. Those before the
        prompt may be of answers that have ended since, or few and disturbed."""
        usual, longest = median(self._decodes_s), sorted(self._decodes_s)[-4:][0]
        step_s = min(STRETCH * min(usual, DISTURBED * decode_s), WORST_STRETCH * longest)
        return max(step_s, LEAST_STRETCH * decode_s)

    @property
    def _decode_s(self) -> float | None:
        """A step of decodes alone, nowadays; None before there was one."""
        return median(self._latest_s) if self._latest_s else None


# What each further row of a step costs, as a part of a step of one row, until steps of several rows were seen. Measured
# with SmolLM2-135M Q4_1 on two cores, up to 8 rows: 0.11 on Zen 4, 0.45 on Emerald Rapids, where memory is fast beside
# arithmetic. In between, so that a second row is tried on both and the slope learned from it.
FIRST_SLOPE = 0.25
# How far each step draws what is known of other numbers of rows towards what it and the slope suggest, and a step of
# one row the slope towards the first: numbers that a few disturbed steps made look dear would otherwise not be tried
# again. Half of it is forgotten after 35 steps.
FORGOTTEN = 0.02


class RowTimes:
    """Learns the time of a step of decodes and drafts by its number of rows.

    A number of rows that was not seen yet lies on a straight line through one that was, whose slope is learned too.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._slope = FIRST_SLOPE

    def seconds(self, rows: int) -> float:
        """Expected time of a step of so many rows; relative to one of one row while nothing was observed."""
        known = self._seconds.get(rows)
        if known is not None or not self._seconds:
            return known or self._ratio(rows)
        nearest = min(self._seconds, key=lambda other: abs(other - rows))
        return self._seconds[nearest] * self._ratio(rows) / self._ratio(nearest)

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many rows took `seconds`."""
        if self._seconds:
            seconds = _undisturbed(seconds, self.seconds(rows))
        learned = _blend(self._seconds.get(rows), seconds)
        if rows == 1:
            self._slope += FORGOTTEN * (FIRST_SLOPE - self._slope)
        elif (one := self._seconds.get(1)) is not None:
            self._slope = _blend(self._slope, max(0.0, (seconds / one - 1) / (rows - 1)))
        for other, known in self._seconds.items():
            suggested = learned * self._ratio(other) / self._ratio(rows)
            relaxed = known + FORGOTTEN * (suggested - known)
            # Fewer rows never take longer: that was a disturbed step.
            self._seconds[other] = min(relaxed, learned) if other < rows else relaxed
        self._seconds[rows] = learned

    def _ratio(self, rows: int) -> float:
        return 1 + self._slope * (rows - 1)


def _undisturbed(seconds: float, expected: float | None) -> float:
    return seconds if expected is None else min(seconds, DISTURBED * expected)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + NEWEST * (new - old)
