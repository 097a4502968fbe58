"""The training loop: one for all objectives, on one process or many.

A step is one update of the weights. Its loss is divided by the whole step's weight (learnt tokens, pairs or answers)
before the first backward pass, so that gradients do not depend on how the step is cut into micro-batches and ranks.
Everything that a step does is a function of the weights, the moments and the step's number: the data (`order`), the
learning rate (`schedule`), and PyTorch's random numbers, seeded anew each time. So a run that was killed anywhere goes
on from its last checkpoint to the very bits that it would have reached.

Not covered: bit-equality across machines, thread counts or world sizes, whose sums round differently.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from openherd.errors import HerdError
from openherd.train.checkpoint import (
    FOLDER,
    MODEL,
    OPTIMIZER,
    locked,
    name_of,
    on_main,
    read_saved,
    remove,
    remove_temporary,
    require_sound,
    save,
    steps_of,
)
from openherd.train.determinism import deterministic, seed_torch
from openherd.train.interrupts import Interrupts, exit_status
from openherd.train.optimizer import AdamW
from openherd.train.run_state import RunState, SavedState, identity_of, require_same, written
from openherd.train.schedule import learning_rate

if TYPE_CHECKING:
    from openherd.train.evaluation import Sample
    from openherd.train.model.decoder import Decoder
    from openherd.train.objectives.objective import Objective
    from openherd.train.parallel.world import World
    from openherd.train.recipe import Recipe
    from openherd.train.run_log import RunLog


class Measure(Protocol):
    """Means over held-out data, `loss` among them; the same on every process. `stop`: end early, for a signal."""

    def __call__(self, model: Decoder, stop: Callable[[], bool]) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a step's backward passes have left in the parameters' `.grad`, in numbers: equal on every process."""

    loss: float
    norm: float
    weight: float  # what the loss was divided by
    tokens: int  # read, padding not counted
    metrics: dict[str, float]  # means


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    state: RunState
    checkpoint: Path
    received: int | None = None  # the signal that ended it before its time

    @property
    def exit_status(self) -> int:
        return 0 if self.received is None else exit_status(self.received)


class Trainer:
    """Trains `model`, which is on its devices and sharded if it will be, into the recipe's folder, or goes on there."""

    def __init__(
        self,
        model: Decoder,
        objective: Objective,
        recipe: Recipe,
        world: World,
        log: RunLog,
        *,
        evaluation: Measure | None = None,
        samples: Callable[[Decoder], Sequence[Sample]] | None = None,
        progress: Callable[[int, Mapping[str, float]], None] | None = None,
        interrupts: Interrupts | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """`recipe` is resolved. `samples` and `evaluation` are called on every process, `progress` on the main one.
        `facts` (hashes of the tokenizer, of the first weights) must be the same when the run goes on."""
        self.model, self.objective, self.recipe, self.world, self.log = model, objective, recipe, world, log
        self.evaluation, self.samples, self.progress = evaluation, samples, progress
        self.interrupts = interrupts or Interrupts()
        self.identity = identity_of(recipe, objective.fingerprint, facts or {})
        self.adamw = AdamW(model, recipe.optimizer)
        self.state = RunState()
        self._saved: Path | None = None
        self._saved_step, self._saved_state = -1, b""

    def run(self) -> Outcome:
        """Train to the recipe's last step, or until a signal; a checkpoint of where it ended is there in either case.

        Raises InputError when the folder holds another run, FormatError for a checkpoint that has changed,
        OutputError when one cannot be written, HerdError when training does not recover from bad steps.
        """
        with ExitStack() as held:
            held.enter_context(self.interrupts)
            held.enter_context(self.interrupts.deferred())
            held.enter_context(deterministic())
            on_main(self.world, lambda: held.enter_context(locked(self.recipe.run.out)))
            self._resume()
            while not self._is_over():
                self._step()
        assert self._saved is not None
        return Outcome(self.state, self._saved, None if self._is_finished() else self.interrupts.received)

    def gradients(self, step: int) -> Gradients:
        """Add the gradients of a step's loss to the parameters' `.grad`."""
        seed_torch(self.recipe.run.seed, step, self.world.rank)
        batches = self.objective.micro_batches(step, self.world.rank, self.world.size, self.recipe.run.micro_rows)
        weight = self.world.sum(sum(map(self.objective.weight, batches)))
        if not weight:
            raise HerdError(f"there is nothing to learn in step {step}", hint="look at it with: herd train preview")
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=self.world.device))
        for batch in batches:
            part = self.objective.loss(self.model, batch.to(self.world.device), weight)
            part.loss.backward()
            for name, value in {"loss": part.loss.detach(), **part.metrics}.items():
                sums[name] += value
        numbers = self.world.sum(torch.stack(list(sums.values())))
        means = dict(zip(sums, numbers.tolist(), strict=True))
        return Gradients(
            loss=means.pop("loss"),
            norm=self.world.gradient_norm(self.adamw.parameters.values()),
            weight=weight,
            tokens=int(self.world.sum(float(sum(batch.num_tokens for batch in batches)))),
            metrics={name: value / weight for name, value in means.items()},
        )

    def _step(self) -> None:
        """One update, or none when there is something wrong with it."""
        state, run, started = self.state, self.recipe.run, time.perf_counter()
        found = self.gradients(state.step)
        rate = learning_rate(self.recipe.optimizer, state.step, run.steps)
        fault = state.guard.fault(found.loss, found.norm, run.spike_factor)
        is_bad = self.world.any(fault is not None)
        if not is_bad:
            self.adamw.update(rate, found.norm)
            state.updates += 1
            state.guard.accept(found.loss)
        self.adamw.forget_gradients()
        state.step += 1
        self._report(found, rate, time.perf_counter() - started)
        if is_bad:
            self._skip(fault or "another process found a fault")

    def _skip(self, fault: str) -> None:
        """Nothing has been updated; after several in a row, weights and moments of a checkpoint come back."""
        self.log.event("skip", self.state.step, reason=fault)
        if not self.state.guard.skip():
            return
        steps = steps_of(self.recipe.run.out)
        folder = self.recipe.run.out / FOLDER / name_of(steps[max(-1 - self.state.guard.rollbacks, -len(steps))])
        saved = self._load(folder)
        self.state.updates = saved.state.updates
        self.log.event("rollback", self.state.step, path=str(folder), to=saved.state.step)
        if not self.state.guard.rolled_back(saved.state.guard.losses):
            raise HerdError(
                f"training does not recover: up to step {self.state.step} {fault}, also after going back to {folder}",
                hint="lower optimizer.learning_rate, or raise optimizer.warmup_steps, and train into another folder",
            )

    def _report(self, found: Gradients, rate: float, seconds: float) -> None:
        step = self.state.step
        metrics = {
            "loss": found.loss,
            "learning_rate": rate,
            "grad_norm": found.norm,
            "learnt": found.weight,
            "tokens": found.tokens,
            "tokens_per_s": found.tokens / seconds,
            "seconds": seconds,
            **found.metrics,
        }
        if step % self.recipe.run.log_every == 0 or step == self.recipe.run.steps:
            self.log.step(step, metrics)
        if self.progress is not None and self.world.is_main:
            self.progress(step, metrics)

    def _is_over(self) -> bool:
        """Between two steps: do what is due and save; whether the run ends here."""
        state, run = self.state, self.recipe.run
        is_best = not self._is_asked_to_end() and self._evaluate_if_due()
        if not self._is_asked_to_end():
            self._sample_if_due()
        ends = self._is_asked_to_end() or state.step >= run.steps
        if ends or is_best or self._is_checkpoint_due():
            self._save()
        return ends

    def _is_checkpoint_due(self) -> bool:
        """A multiple of `checkpoint_every` has passed since the last one. Bad steps put it off, so that no checkpoint
        with their fault takes the place of one without."""
        every = self.recipe.run.checkpoint_every
        return self.state.guard.trusts_weights and self.state.step // every > self._saved_step // every

    def _is_asked_to_end(self) -> bool:
        return self.world.any(self.interrupts.received is not None)

    def _is_finished(self) -> bool:
        """Every step is made, and the last evaluation too."""
        state, steps = self.state, self.recipe.run.steps
        return state.step >= steps and (self.evaluation is None or state.evaluated >= steps)

    def _is_due(self, every: int, last: int) -> bool:
        step = self.state.step
        return (step % every == 0 or step == self.recipe.run.steps) and last < step

    def _evaluate_if_due(self) -> bool:
        """Whether there was an evaluation, and its loss is the lowest so far. One that a signal cuts short is none."""
        state = self.state
        if self.evaluation is None or not self._is_due(self.recipe.run.eval_every, state.evaluated):
            return False
        means = self.evaluation(self.model, lambda: self.interrupts.received is not None)
        if self._is_asked_to_end():
            return False
        self.log.event("evaluation", state.step, **means)
        state.evaluated = state.step
        if not math.isfinite(means["loss"]) or (state.best_loss is not None and means["loss"] >= state.best_loss):
            return False
        state.best_step, state.best_loss = state.step, means["loss"]
        return True

    def _sample_if_due(self) -> None:
        if self.samples is not None and self._is_due(self.recipe.run.sample_every, self.state.sampled):
            for sample in self.samples(self.model):
                self.log.event("sample", self.state.step, prompt=sample.prompt, text=sample.text)
            self.state.sampled = self.state.step

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is any."""
        out = self.recipe.run.out
        on_main(self.world, lambda: self._tidy(remove_temporary(out)))
        steps = steps_of(out)
        if steps:
            self._saved = out / FOLDER / name_of(steps[-1])
            saved = self._load(self._saved)
            self.state, self._saved_step, self._saved_state = saved.state, steps[-1], written(saved)
            self.log.event("resume", self.state.step, path=str(self._saved))

    def _tidy(self, names: list[str]) -> None:
        for name in names:
            self.log.event("removed", self.state.step, path=name, reason="a run that was killed left it unfinished")

    def _load(self, folder: Path) -> SavedState:
        """Weights and moments of a checkpoint of this run, and its state, which the caller takes what it needs from."""
        on_main(self.world, lambda: require_sound(folder))
        saved = read_saved(folder)
        require_same(saved.identity, self.identity, str(folder))
        self.world.load_tensors(folder / MODEL, self._weights())
        self.world.load_tensors(folder / OPTIMIZER, self.adamw.moments())
        self.adamw.set_updates(saved.state.updates)
        return saved

    def _save(self) -> None:
        """A checkpoint of this state, unless there is one; then remove those that are neither new nor best.

        A step is saved again when it has been evaluated since: a signal can cut the last evaluation short."""
        state, out = self.state, self.recipe.run.out
        saved = SavedState(state, self.identity)
        if written(saved) == self._saved_state:
            return
        tensors = {MODEL: self._weights(), OPTIMIZER: self.adamw.moments()}
        self._saved = save(out, saved, tensors, self.world)
        self._saved_step, self._saved_state = state.step, written(saved)
        self.log.event("checkpoint", state.step, path=str(self._saved))
        keep = {*steps_of(out)[-self.recipe.run.keep :], state.best_step}
        on_main(self.world, lambda: remove(out, [step for step in steps_of(out) if step not in keep]))

    def _weights(self) -> dict[str, Tensor]:
        """What is trained; where the model is sharded, the shards."""
        return {name: value for name, value in self.model.state_dict().items() if name in self.adamw.parameters}
