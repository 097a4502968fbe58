"""Group-relative policy optimisation (Shao et al. 2024, "DeepSeekMath", section 4.1, eq. 3 and 4).

For each prompt a group of answers is drawn from the present weights, and each is rewarded (see `rewards.py`):

    A_i = (r_i - mean r) / std r                                                 of the group; 0 where all r are equal
    L   = -mean over answers i, mean over tokens t of i, of
              min(rho A_i, clip(rho, 1 - clip, 1 + clip) A_i) - kl KL_t
    rho = pi / pi_old,   KL_t = ref/pi - log(ref/pi) - 1                         of the token, at least 0 (k3)

As in the paper each group is used for one update, so that pi_old is the engine that drew the answers: rho differs from
1 only by what the engine's arithmetic differs from the trainer's, which it corrects. All three distributions are those
at the temperature that answers are drawn at; the engine tells its log-probabilities at 1 alone, so at any other pi_old
is pi, without that correction. The draws are seeded by (seed,
step, prompt), so a resumed run draws what an uninterrupted one would.
Not covered: several updates for a group, a critic, process rewards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from openherd.errors import OptionError
from openherd.options import SamplingParams
from openherd.train.batch import Batch
from openherd.train.generation import Generated, Generation
from openherd.train.loss import token_logprobs
from openherd.train.model.present_weights import PresentWeights
from openherd.train.objectives.objective import StepLoss, share_of
from openherd.train.order import shuffled
from openherd.train.packing import PackedRows

if TYPE_CHECKING:
    from openherd.tokenizers import Tokenizer
    from openherd.train.model.decoder import Decoder
    from openherd.train.objectives.prompts import CheckedPrompt, Prompts
    from openherd.train.objectives.reference import Reference


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    answers_per_step: int
    seed: int
    group: int = 8
    max_new_tokens: int = 256
    temperature: float = 1.0
    clip: float = 0.2
    kl: float = 0.0  # beta of the paper, whose runs have 0.04
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.group < 2:
            raise OptionError(f"grpo.group must be at least 2, not {self.group}: answers are compared with each other")
        if self.answers_per_step < 1 or self.answers_per_step % self.group:
            raise OptionError(
                f"{self.answers_per_step} answers a step cannot be cut into groups of {self.group}",
                hint=f"set rows_per_step to a multiple of {self.group}, or grpo.group to one of its divisors",
            )
        for name, low, high in (("temperature", 0.01, 100.0), ("clip", 0.0, 1.0), ("kl", 0.0, 100.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise OptionError(f"grpo.{name} must be a number from {low:g} to {high:g}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer, how its prompt's check rewards it, and what that is worth beside the others of its group."""

    prompt_ids: tuple[int, ...]
    answer: Generated
    reward: float
    advantage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch(Batch):
    """Answers, one a row. The answer's tokens are learnt; nothing of the prompt is."""

    rewards: Tensor  # [B] float32
    advantages: Tensor  # [B] float32
    old_logprobs: Tensor  # [B, T] float32, of the targets under the weights that drew them; 0 where nothing is learnt

    def to(self, device: torch.device | str) -> RolloutBatch:
        tensors = {each.name: getattr(self, each.name).to(device) for each in fields(self) if each.name != "layout"}
        return RolloutBatch(**tensors, layout=self.layout)

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> RolloutBatch:
        """Rows are as long as the longest; what fills the others is padding."""
        width = max(len(r.prompt_ids) + len(r.answer.token_ids) for r in rollouts) - 1
        rows, old = PackedRows.empty(len(rollouts), width), np.zeros((len(rollouts), width), np.float32)
        for row, rollout in enumerate(rollouts):
            ids = np.array([*rollout.prompt_ids, *rollout.answer.token_ids], np.int32)
            end = rows.place(row, 0, ids, (np.arange(len(ids)) >= len(rollout.prompt_ids)).astype(np.uint8))
            old[row, len(rollout.prompt_ids) - 1 : end] = rollout.answer.logprobs
        batch = Batch.from_arrays(rows)
        return cls(
            **{each.name: getattr(batch, each.name) for each in fields(batch)},
            rewards=torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float32),
            advantages=torch.tensor([rollout.advantage for rollout in rollouts], dtype=torch.float32),
            old_logprobs=torch.from_numpy(old),
        )


class Grpo:
    name = "grpo"

    def __init__(
        self,
        model: Decoder,
        prompts: Prompts,
        tokenizer: Tokenizer,
        settings: GrpoSettings,
        reference: Reference | None = None,
    ) -> None:
        """`model` draws the answers; `reference` is needed where `settings.kl` is not 0."""
        if settings.kl and reference is None:
            raise ValueError("a KL term needs a reference")
        self._model, self._prompts, self._tokenizer = model, prompts, tokenizer
        self._settings, self._reference = settings, reference

    @property
    def fingerprint(self) -> str:
        """Threads change no answer."""
        facts = [(f.name, getattr(self._settings, f.name)) for f in fields(self._settings) if f.name != "threads"]
        return f"{self.name}:{facts!r}:{self._prompts.fingerprint}"

    def micro_batches(self, step: int, rank: int, world: int, micro_rows: int) -> list[Batch]:
        """Draws this rank's answers from the present weights; groups stay on one rank."""
        numbers = self._prompt_numbers(step)
        share = share_of(len(numbers), rank, world, of="prompts")
        rollouts = self._rollouts(step, share, [self._prompts.items[numbers[place]] for place in share])
        return [RolloutBatch.of(rollouts[at : at + micro_rows]) for at in range(0, len(rollouts), micro_rows)]

    def weight(self, batch: Batch) -> float:
        """Answers."""
        return float(len(batch.token_ids))

    def loss(self, model: Decoder, batch: Batch, total: float) -> StepLoss:
        assert isinstance(batch, RolloutBatch)
        temperature = self._settings.temperature
        logprobs = token_logprobs(model, model(batch), batch, temperature=temperature)  # [B, T]
        old = batch.old_logprobs if temperature == 1.0 else logprobs.detach()
        lengths = batch.weights.sum(1)  # [B], at least 1
        gains, clipped = clipped_gains(logprobs - old, batch.advantages[:, None], self._settings.clip)
        metrics = {"reward": batch.rewards.sum(), "answer_tokens": lengths.sum()}
        metrics["clipped"] = ((clipped * batch.weights).sum(1) / lengths).sum()
        if self._settings.kl and self._reference is not None:
            divergence = k3(logprobs, self._reference.token_logprobs(model, batch, temperature=temperature))
            gains = gains - self._settings.kl * divergence
            metrics["kl"] = ((divergence.detach() * batch.weights).sum(1) / lengths).sum()
        per_answer = (gains * batch.weights).sum(1) / lengths  # [B]
        return StepLoss(-per_answer.sum() / total, metrics)

    def _prompt_numbers(self, step: int) -> list[int]:
        """The step's prompts, each epoch a new shuffle of all of them: a function of (seed, step) alone."""
        count, each = len(self._prompts), self._settings.answers_per_step // self._settings.group
        places = [divmod(at, count) for at in range(step * each, (step + 1) * each)]
        order = {
            epoch: shuffled(count, self._settings.seed, "prompts", epoch) for epoch in {epoch for epoch, _ in places}
        }
        return [int(order[epoch][place]) for epoch, place in places]

    def _rollouts(self, step: int, places: Sequence[int], prompts: Sequence[CheckedPrompt]) -> list[Rollout]:
        settings = self._settings
        params = [
            SamplingParams(
                max_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                top_p=1.0,
                seed=_draw_seed(settings.seed, step, place),
                n=settings.group,
                logprobs=0,
            )
            for place in places
        ]
        context = max(len(prompt.ids) for prompt in prompts) + settings.max_new_tokens
        stops = sorted(self._tokenizer.stop_ids)
        weights = PresentWeights(self._model)
        with Generation(
            self._model.config, weights, context=context, stop_ids=stops, threads=settings.threads
        ) as generation:
            groups = generation.answers([prompt.ids for prompt in prompts], params)
        rewarded = (self._rewarded(prompt, group) for prompt, group in zip(prompts, groups, strict=True))
        return [rollout for group in rewarded for rollout in group]

    def _rewarded(self, prompt: CheckedPrompt, answers: Sequence[Generated]) -> list[Rollout]:
        rewards = [prompt.check(self._tokenizer.decode(answer.token_ids)) for answer in answers]
        return [
            Rollout(prompt.ids, answer, reward, advantage)
            for answer, reward, advantage in zip(answers, rewards, group_advantages(rewards), strict=True)
        ]


def group_advantages(rewards: Sequence[float]) -> list[float]:
    """(r - mean) / standard deviation (of the whole group, not of a sample); all 0 where all rewards are equal."""
    values = np.asarray(rewards, np.float64)
    spread = float(values.std())
    return [0.0] * len(values) if spread < 1e-12 else ((values - values.mean()) / spread).tolist()


def clipped_gains(log_ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """min(rho A, clip(rho) A), and 1 where the clip holds the gradient back (Schulman et al. 2017, eq. 7)."""
    ratio = log_ratio.exp()
    free, held = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.minimum(free, held), (held < free).float()


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(pi || ref) from one token that is never negative (Schulman 2020, "Approximating KL")."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def _draw_seed(seed: int, step: int, place: int) -> int:
    """64 bits that two (seed, step, place) share only by accident."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{place}".encode()).digest()[:8])
