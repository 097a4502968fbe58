"""From ingredients to a trainer: model, objective, evaluation and samples, in the order that their weights need.

New and loaded weights are made where they will lie, shard by shard, so that no process holds a large model whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from openherd.checkpoints.source import Checkpoint
from openherd.train.evaluation import Evaluation, Sample, Samples
from openherd.train.ingredients import Ingredients
from openherd.train.interrupts import Interrupts
from openherd.train.loop import Trainer
from openherd.train.model.decoder import Decoder
from openherd.train.model.initial import initialise
from openherd.train.model.loading import load_weights
from openherd.train.model.lora import add_lora, initialise_lora
from openherd.train.model.quantized import quantize_base
from openherd.train.objectives.dpo import Dpo
from openherd.train.objectives.grpo import Grpo, GrpoSettings
from openherd.train.objectives.likelihood import Likelihood
from openherd.train.objectives.objective import Objective
from openherd.train.objectives.reference import Reference
from openherd.train.order import DataOrder, PairOrder
from openherd.train.parallel.world import World
from openherd.train.prepare import tokenizer_sha256
from openherd.train.run_log import RunLog
from openherd.words import counted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUM_SAMPLES, SAMPLE_TOKENS = 3, 64
_HASHED_BYTES = 1 << 16


def assemble(
    ingredients: Ingredients,
    world: World,
    log: RunLog,
    *,
    progress: Callable[[int, Mapping[str, float]], None] | None = None,
    interrupts: Interrupts | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Trainer:
    """Everything of a run, ready to begin or to go on. `say` gets what became of documents longer than a row."""
    model = build_model(ingredients, world)
    order = build_order(ingredients)
    objective = build_objective(ingredients, model, order, _reference(ingredients, world))
    evaluation = build_evaluation(ingredients, world, objective)
    for line in () if order is None else order_lines(order, ingredients.recipe.data.seq_len):
        say(line)
    return Trainer(
        model,
        objective,
        ingredients.recipe,
        world,
        log,
        evaluation=None if evaluation is None else evaluation.measure,
        samples=build_samples(ingredients, world),
        progress=progress,
        interrupts=interrupts,
        facts=identity_facts(ingredients),
    )


def build_model(ingredients: Ingredients, world: World) -> Decoder:
    """The model on its devices, with its first weights; LoRA and blocks as the recipe says."""
    recipe, lora = ingredients.recipe, ingredients.recipe.lora
    compute = DTYPES[recipe.run.dtype]
    # Frozen weights are never updated, so they need no more digits than products use; trained ones do.
    model = Decoder(ingredients.config, dtype=compute if lora.rank else torch.float32, device="meta")
    model.compute_dtype = compute
    model.activation_checkpointing = recipe.run.activation_checkpointing
    if lora.base_type:
        quantize_base(model, lora.base_type)
    if lora.rank:
        add_lora(model, lora.rank, lora.alpha, lora.targets, recipe.run.seed)
    model = world.wrap(model, compute_dtype=compute)
    _fill(model, ingredients.checkpoint, recipe.run.seed)
    if recipe.run.compile:
        model.compile_layers()
    return model


def build_order(ingredients: Ingredients) -> DataOrder | PairOrder | None:
    """Which rows each step learns from; None for grpo, which draws its own."""
    recipe, run = ingredients.recipe, ingredients.recipe.run
    seq_len, rows = recipe.data.seq_len, run.rows_per_step
    if recipe.objective == "grpo":
        return None
    if recipe.objective == "dpo":
        return PairOrder(ingredients.training, seq_len=seq_len, pairs_per_step=rows, seed=run.seed)
    return DataOrder(ingredients.training, seq_len=seq_len, rows_per_step=rows, seed=run.seed, pack=recipe.data.pack)


def build_objective(
    ingredients: Ingredients, model: Decoder, order: DataOrder | PairOrder | None, reference: Reference | None
) -> Objective:
    """Of a model with its first weights. `reference` is needed by dpo, and by grpo with a KL term."""
    dpo = ingredients.recipe.dpo
    if isinstance(order, PairOrder):
        assert reference is not None
        return Dpo(order, reference, beta=dpo.beta, label_smoothing=dpo.label_smoothing)
    if isinstance(order, DataOrder):
        return Likelihood(order)
    assert ingredients.prompts is not None
    return Grpo(model, ingredients.prompts, ingredients.tokenizer, _grpo_settings(ingredients), reference)


def order_lines(order: DataOrder | PairOrder, seq_len: int) -> Iterator[str]:
    """How full rows are, and what cutting documents to rows did where it did anything."""
    cuts = order.cuts
    if isinstance(order, DataOrder):
        yield f"{order.rows_per_epoch:,} rows a pass over the data, {order.efficiency:.0%} full".replace("%", " %")
    if cuts.split:
        yield f"cut into several, as longer than a row of {seq_len:,} tokens: {counted(cuts.split, 'text')}"
    if cuts.truncated:
        lost = f"{cuts.lost_tokens:,} learnt tokens"
        documents = counted(cuts.truncated, "document")
        yield f"cut off at the end, as longer than a row of {seq_len:,} tokens: {documents} ({lost})"
    if cuts.left_out:
        yield f"left out, as nothing would be learnt: {counted(cuts.left_out, 'document')}"


def _reference(ingredients: Ingredients, world: World) -> Reference | None:
    """The first weights once more, frozen; with LoRA the model itself without its adapters."""
    if not ingredients.recipe.needs_reference:
        return None
    if ingredients.recipe.lora.rank:
        return Reference(None)
    return Reference(build_model(ingredients, world).requires_grad_(False))


def build_evaluation(ingredients: Ingredients, world: World, objective: Objective) -> Evaluation | None:
    """On held-out data, where the recipe names any."""
    if not ingredients.evaluation:
        return None
    return Evaluation(
        ingredients.evaluation,
        ingredients.tokenizer,
        world,
        seq_len=ingredients.recipe.data.seq_len,
        micro_rows=ingredients.recipe.run.micro_rows,
        preferences=objective if isinstance(objective, Dpo) else None,
    )


def build_samples(ingredients: Ingredients, world: World) -> Callable[[Decoder], Sequence[Sample]] | None:
    """Going on from held-out beginnings, or from beginnings of the training data where nothing is held out."""
    folders = ingredients.evaluation or ingredients.training
    if not folders:
        return None
    samples = Samples(folders, ingredients.tokenizer, count=NUM_SAMPLES, max_tokens=SAMPLE_TOKENS)
    return partial(samples.write, world=world, threads=ingredients.recipe.run.threads)


def identity_facts(ingredients: Ingredients) -> dict[str, str]:
    """What must be the same when a run goes on, beside recipe and data."""
    facts = {"tokenizer": tokenizer_sha256(ingredients.tokenizer)}
    if ingredients.evaluation:  # on other data the best loss so far would mean nothing
        facts["evaluation"] = " ".join(folder.fingerprint for folder in ingredients.evaluation)
    if ingredients.checkpoint is not None:
        facts["first weights"] = first_weights_sha256(ingredients.checkpoint)
    return facts


def first_weights_sha256(checkpoint: Checkpoint) -> str:
    """Of every tensor's name, shape, type and first bytes: differs for any two models that were trained apart, without
    reading gigabytes at every start."""
    digest = hashlib.sha256()
    for name in sorted(checkpoint.tensors):
        tensor = checkpoint.tensors[name]
        digest.update(repr((name, tensor.shape, tensor.type.name)).encode())
        rows = tensor.rows()
        digest.update(rows[: max(1, _HASHED_BYTES // max(1, rows.shape[-1]))].tobytes()[:_HASHED_BYTES])
        tensor.give_back()
    return digest.hexdigest()


def _fill(model: Decoder, checkpoint: Checkpoint | None, seed: int) -> None:
    if checkpoint is None:
        initialise(model, seed)
        return
    load_weights(model, checkpoint)
    initialise_lora(model, seed)


def _grpo_settings(ingredients: Ingredients) -> GrpoSettings:
    grpo, run = ingredients.recipe.grpo, ingredients.recipe.run
    return GrpoSettings(
        answers_per_step=run.rows_per_step,
        seed=run.seed,
        group=grpo.group,
        max_new_tokens=grpo.max_new_tokens,
        temperature=grpo.temperature,
        clip=grpo.clip,
        kl=grpo.kl,
        threads=run.threads,
    )
