"""What a run remembers besides its tensors, as state.json in every checkpoint, and what run it is.

The step's number is the position in the data, in the schedule and in the run's random numbers, all of which are pure
functions of it, so there is no other cursor and no state of a generator to keep.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from openherd.checkpoints.strict_json import read_json_object
from openherd.errors import FormatError, InputError
from openherd.train.guard import WINDOW, Guard
from openherd.train.plain_json import as_plain, from_plain
from openherd.train.recipe import Recipe
from openherd.train.recipe_file import flat

VERSION = 1
MAX_BYTES = 1 << 20
_MOST = 1 << 53

FREE = frozenset(
    (
        "data.evaluation",
        "data.train",
        "grpo.prompts",
        "run.activation_checkpointing",
        "run.checkpoint_every",
        "run.compile",
        "run.device",
        "run.eval_every",
        "run.keep",
        "run.log_every",
        "run.micro_rows",
        "run.out",
        "run.sample_every",
        "run.spike_factor",
        "run.tensor_parallel",
        "run.threads",
    )
)
"""Keys of a recipe that may change when a run goes on: of data what the files hold counts, not where they are."""


@dataclass(slots=True)
class RunState:
    """Changes as the run goes on; equal states and equal tensors go on alike."""

    step: int = 0  # steps that are over, skipped ones included: the next one's number
    updates: int = 0  # that made the present weights
    evaluated: int = -1  # the step of the last evaluation
    sampled: int = -1  # the step of the last samples
    best_step: int = -1  # of the checkpoint with the lowest evaluation loss
    best_loss: float | None = None
    guard: Guard = field(default_factory=Guard)


@dataclass(frozen=True, slots=True)
class SavedState:
    """state.json."""

    state: RunState
    identity: Mapping[str, str]
    version: int = VERSION


def identity_of(recipe: Recipe, fingerprint: str, facts: Mapping[str, str]) -> dict[str, str]:
    """What must be the same for a run to go on: the recipe but for its `FREE` keys, the data and the objective, and
    `facts`, such as the tokenizer's hash. The schedule's end is free where nothing depends on it."""
    free = FREE | ({"run.steps"} if recipe.optimizer.schedule == "constant" else frozenset())
    values = {key: str(value) for key, value in flat(recipe) if key not in free}
    return values | {"data and objective": fingerprint, **facts}


def require_same(saved: Mapping[str, str], now: Mapping[str, str], where: str) -> None:
    """Raises InputError that names each difference."""
    lines = list(_differences(saved, now, sorted({*saved, *now})))
    if lines:
        raise InputError(
            f"{where} belongs to another run: {'; '.join(lines)}",
            hint="change it back, or train into another folder with --out",
        )


def _differences(saved: Mapping[str, str], now: Mapping[str, str], keys: Collection[str]) -> list[str]:
    pairs = ((key, saved.get(key, "nothing"), now.get(key, "nothing")) for key in keys)
    return [f"{key}: {before[:80]} before, {after[:80]} now" for key, before, after in pairs if before != after]


def written(saved: SavedState) -> bytes:
    return json.dumps(as_plain(saved), separators=(",", ":"), allow_nan=False).encode()


def read_state(raw: bytes, where: str) -> SavedState:
    """Raises FormatError, beginning with `where`, for anything that `written` does not make."""
    saved = from_plain(SavedState, read_json_object(raw, where, limit=MAX_BYTES), where)
    state, guard = saved.state, saved.state.guard
    if saved.version != VERSION:
        raise FormatError(f"{where} has version {saved.version}; this is {VERSION}")
    counts = [state.step, state.updates, state.evaluated + 1, state.sampled + 1, state.best_step + 1]
    counts += [guard.skipped_in_a_row, guard.rollbacks, guard.accepted]
    if not all(0 <= count < _MOST for count in counts):
        raise FormatError(f"{where}: a count is below 0 or beyond 2^53")
    if (
        state.updates > state.step
        or max(state.evaluated, state.sampled, state.best_step) > state.step
        or len(guard.losses) > WINDOW
    ):
        raise FormatError(f"{where}: its counts contradict each other")
    if (state.best_loss is None) != (state.best_step < 0):
        raise FormatError(f"{where}: the best step and its loss belong together")
    return saved
