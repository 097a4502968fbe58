"""GRPO against its closed form; rollouts are the engine's on the present weights and repeat exactly; it learns."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean, pstdev

import pytest
import torch

from openherd.errors import OptionError
from openherd.options import SamplingParams
from openherd.train.batch import Batch
from openherd.train.generation import Generated, Generation
from openherd.train.loop import Trainer
from openherd.train.loss import token_logprobs
from openherd.train.model.decoder import Decoder
from openherd.train.model.present_weights import PresentWeights
from openherd.train.objectives.grpo import (
    Grpo,
    GrpoSettings,
    Rollout,
    RolloutBatch,
    clipped_gains,
    group_advantages,
    k3,
)
from openherd.train.objectives.prompts import CheckedPrompt, Prompts
from openherd.train.objectives.reference import Reference
from openherd.train.objectives.rewards import regex
from openherd.train.parallel.world import World
from openherd.train.recipe import OptimizerRecipe, Recipe, RunRecipe
from openherd.train.run_log import RunLog
from tests.train.objectives.models import place, tiny_model
from tests.train.objectives.steps import losses
from tests.train.objectives.tiny_tokenizer import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def grpo(model: Decoder, reference: Reference | None = None, **settings: float) -> Grpo:
    """Rewarded: an answer that begins with a digit."""
    asked = {"answers_per_step": 16, "seed": 1, "group": 8, "max_new_tokens": 4, "threads": 1} | settings
    check = regex("[0-9].*")
    items = tuple(CheckedPrompt(tuple(TOKENIZER.encode(text)), check, text) for text in ("abc", "de", "x", "yy"))
    return Grpo(model, Prompts(items, "four prompts"), TOKENIZER, GrpoSettings(**asked), reference)  # type: ignore[arg-type]


def test_grpo_raises_a_toy_reward() -> None:
    model = tiny_model()
    rewards = [metrics["reward"] for _, metrics in losses(model, grpo(model), 2e-2, steps=30, micro_rows=16)]
    assert mean(rewards[:2]) < 0.4  # 10 of 62 characters are digits
    assert mean(rewards[-5:]) > 0.85


def test_the_engine_draws_from_the_trainers_weights() -> None:
    """Its log-probabilities are the trainer's, so that the ratio of the two is 1 before an update."""
    for model in (tiny_model(), tiny_model(lora=True)):
        list(losses(model, grpo(model), 1e-2, steps=2))  # so that an adapter is not 0
        (batch,) = grpo(model).micro_batches(7, 0, 1, 16)
        assert isinstance(batch, RolloutBatch)
        ours = token_logprobs(model, model(batch), batch)
        assert batch.num_learnt > 16
        assert float((ours - batch.old_logprobs).abs().max().detach()) < 1e-4
        step = grpo(model).loss(model, batch, 16.0)
        assert float(step.metrics["clipped"]) == 0
        assert float(step.metrics["reward"]) == float(batch.rewards.sum())


def test_rollouts_are_a_function_of_weights_seed_and_step_not_of_ranks() -> None:
    def answers(objective: Grpo, step: int, world: int = 1) -> list[list[int]]:
        batches = [batch for rank in range(world) for batch in objective.micro_batches(step, rank, world, 4)]
        return [
            [int(t) for t in row[keep > 0]] for b in batches for row, keep in zip(b.targets, b.weights, strict=True)
        ]

    model = tiny_model()
    first = answers(grpo(model), 3)
    assert first == answers(grpo(tiny_model()), 3)
    assert first == answers(grpo(model), 3, world=2)
    assert first != answers(grpo(model), 4)
    assert first != answers(grpo(model, seed=2), 3)
    with torch.no_grad():
        model.head.weight.neg_()
    assert first != answers(grpo(model), 3)


def test_a_run_that_is_cut_off_goes_on_with_the_answers_it_would_have_drawn(tmp_path: Path) -> None:
    class CutOffError(Exception):
        pass

    def run(out: Path, cut_at: int | None = None) -> Decoder:
        def progress(step: int, metrics: object) -> None:
            if step == cut_at:
                raise CutOffError

        model = tiny_model()
        recipe = Recipe(
            optimizer=OptimizerRecipe(learning_rate=1e-2, warmup_steps=1),
            run=RunRecipe(out=out, steps=6, micro_rows=8, eval_every=9, sample_every=9, checkpoint_every=3),
        )
        with RunLog(None) as log:
            Trainer(model, grpo(model), recipe, World.single(), log, progress=progress).run()
        return model

    whole = run(tmp_path / "whole").state_dict()
    with pytest.raises(CutOffError):
        run(tmp_path / "cut", cut_at=5)
    assert all(torch.equal(value, whole[name]) for name, value in run(tmp_path / "cut").state_dict().items())
    assert not torch.equal(whole["lm_head.weight"], tiny_model().state_dict()["lm_head.weight"])


def test_every_prompt_comes_once_an_epoch() -> None:
    objective = grpo(tiny_model())
    epochs = [[number for step in (2 * e, 2 * e + 1) for number in objective._prompt_numbers(step)] for e in range(6)]
    assert all(sorted(numbers) == [0, 1, 2, 3] for numbers in epochs)
    assert len(set(map(tuple, epochs))) > 1


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_loss_is_equation_3_of_shao(kl: float) -> None:
    model, start = tiny_model(), tiny_model()
    objective = grpo(model, Reference.of(start), clip=0.2, kl=kl)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.05
    rollouts = [
        Rollout((5, 6, 7), Generated((8, 9, 1), (-4.0, -4.4, -3.9), True), 1.0, 1.5),
        Rollout((5, 6), Generated((12, 13, 14, 15, 16), (-4.6, -3.2, -4.1, -4.3, -9.0), False), 0.0, -0.75),
    ]
    batch = RolloutBatch.of(rollouts)
    step = objective.loss(model, batch, 2.0)
    expected, clipped, divergence = 0.0, 0.0, 0.0
    new, old = (token_logprobs(m, m(batch), batch).detach()[batch.weights > 0].tolist() for m in (model, start))
    at = 0
    for rollout in rollouts:
        gains, advantage = [], rollout.advantage
        for drawn in rollout.answer.logprobs:
            ratio = math.exp(new[at] - drawn)
            gain = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
            token = math.exp(old[at] - new[at]) - (old[at] - new[at]) - 1
            clipped += (gain != ratio * advantage) / len(rollout.answer.logprobs)
            divergence += token / len(rollout.answer.logprobs)
            gains.append(gain - kl * token)
            at += 1
        expected -= mean(gains) / 2
    assert at == len(new) == batch.num_learnt
    assert clipped > 0
    assert divergence > 1e-6
    assert float(step.loss.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(step.metrics["clipped"]) == pytest.approx(clipped)
    assert float(step.metrics["answer_tokens"]) == 8
    assert float(step.metrics.get("kl", 0.0)) == pytest.approx(divergence if kl else 0.0, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_at_a_temperature_the_gradient_is_that_of_the_policy_that_draws(temperature: float) -> None:
    model = tiny_model()
    objective = grpo(model, temperature=temperature)
    (batch,) = objective.micro_batches(0, 0, 1, 16)
    assert isinstance(batch, RolloutBatch)
    assert batch.advantages.any()
    lengths = batch.weights.sum(1)
    logprobs = torch.log_softmax(model.logits(model(batch)) / temperature, -1)
    chosen = logprobs.gather(2, batch.targets.long()[..., None]).squeeze(2) * batch.weights
    plain = -(chosen.sum(1) / lengths * batch.advantages).sum() / 16  # REINFORCE: rho is 1
    (expected,) = torch.autograd.grad(plain, [model.head.weight])
    (got,) = torch.autograd.grad(objective.loss(model, batch, 16.0).loss, [model.head.weight])
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_gradients_of_gains_and_divergence_agree_with_finite_differences() -> None:
    log_ratio = torch.tensor([[-0.5, -0.1, 0.1, 0.5]] * 2, dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: clipped_gains(x, advantages, 0.2)[0], log_ratio)
    reference = torch.zeros(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: k3(x, reference), log_ratio)
    assert bool((k3(log_ratio.detach(), reference) > 0).all())
    clipped_gains(log_ratio, advantages, 0.2)[0].sum().backward()
    held = log_ratio.grad == 0  # a better answer is not made likelier beyond the clip, a worse one not less likely
    assert held.tolist() == [[False, False, False, True], [True, False, False, False]]


def test_advantages_are_relative_to_the_group() -> None:
    found = group_advantages([1.0, 0.0, 0.0, 1.0, 1.0])
    assert mean(found) == pytest.approx(0)
    assert pstdev(found) == pytest.approx(1)
    assert group_advantages([1.0] * 4) == group_advantages([0.0] * 4) == [0.0] * 4


def test_rows_of_answers_learn_the_answer_only() -> None:
    answers = [Generated((8, 9, 1), (-1.0, -2.0, -3.0), True), Generated((4,), (-5.0,), False)]
    batch = RolloutBatch.of([Rollout((5, 6), answers[0], 1.0, 0.5), Rollout((7,), answers[1], 0.0, -0.5)])
    assert batch.token_ids.tolist() == [[5, 6, 8, 9], [7, 0, 0, 0]]
    assert batch.targets.tolist() == [[0, 8, 9, 1], [4, 0, 0, 0]]
    assert batch.weights.tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.old_logprobs.tolist() == [[0, -1, -2, -3], [-5, 0, 0, 0]]
    assert batch.layout.one_document
    moved = batch.to("cpu")
    assert isinstance(moved, RolloutBatch)
    assert moved.advantages.tolist() == [0.5, -0.5]


def test_greedy_answers_are_the_trainers_own_likeliest_tokens() -> None:
    model = tiny_model()
    ids = [5, 6, 7]
    with Generation(model.config, PresentWeights(model), context=24, threads=1) as generation:
        ((answer,),) = generation.answers([ids], [SamplingParams(temperature=0.0, max_tokens=12, logprobs=0)])
    with torch.no_grad():
        for token, logprob in zip(answer.token_ids, answer.logprobs, strict=True):
            batch = Batch.from_arrays(place([([*ids, 0], 1)]))
            table = torch.log_softmax(model.logits(model(batch))[0, -1], -1)
            assert int(table.argmax()) == token
            assert float(table[token]) == pytest.approx(logprob, abs=1e-4)
            ids.append(token)
    assert len(answer.token_ids) == 12


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"group": 1}, "grpo.group must be at least 2"),
        ({"answers_per_step": 12}, "12 answers a step cannot be cut into groups of 8"),
        ({"temperature": 0.0}, "grpo.temperature"),
        ({"clip": math.nan}, "grpo.clip"),
        ({"kl": -1.0}, "grpo.kl"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, float], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        grpo(tiny_model(), **settings)
