"""The proof that what was written of a trained model computes what the trained model computes (T14).

Held to it are config, template, token ids, every weight (rounded once, to the file's type), and the logits of another
program's forward pass over the files.

Legend: T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from openherd.checkpoints.source import Checkpoint
from openherd.errors import HerdError
from openherd.tokenizers import Tokenizer
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import fill
from openherd.train.model.loading import float_values, named_tensors
from openherd.train.model_facts import ModelFacts
from openherd.train.trained_model import TrainedModel

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Logits = Callable[[Sequence[int]], Iterable[F32]]  # of a text's positions, in blocks [T, V]

TOLERANCE = 1e-4
"""How far logits of the same float weights may lie apart, up to 10 in magnitude: some hundred float32 products summed
in another order. Larger logits have that many times the rounding."""
MAX_KL = 1.0
"""Nats a token between the trained model and its quantised copy. Two bits cost less than half of that; weights written
in another order cost several."""
_TEXTS = (
    "Once upon a time there was a girl named Alice.\n\n  def f(x):\n\treturn x ** 2  # 1234567\r\n",
    "naïve café, 日本の首都, Привет, ¿qué?, ½ + ⅓, 👩‍🚀 <|im_end|></s>[INST]<|eot_id|><|begin_of_text|>",
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close the written model is to the trained one."""

    positions: int
    largest_difference: float  # of logits
    mean_kl: float  # nats a token
    is_exact: bool  # float weights: `largest_difference` was held to the tolerance


def check_export(
    trained: TrainedModel, written: Checkpoint, logits: Logits, texts: Sequence[Sequence[int]]
) -> Agreement:
    """Hold files to the model that they were written from; `logits` are those of an engine that has loaded them.

    The trained model's weights become the written ones on the way, which are the same numbers rounded once. Raises
    HerdError that says what differs.
    """
    _require_same_facts(trained.facts, written)
    rounded = [_take(trained.model, name, values, written) for name, values in named_tensors(trained.model)]
    differences, divergences, scale, positions = [0.0], [], 10.0, 0
    for ids in texts:
        ours = np.concatenate(list(trained.logits(ids)))
        theirs = np.concatenate([np.array(block) for block in logits(ids)])
        differences.append(float(np.abs(ours - theirs).max()))
        scale = max(scale, float(np.abs(ours).max()))
        divergences.append(_kl(ours, theirs))
        positions += len(ids)
    found = Agreement(positions, max(differences), float(np.concatenate(divergences).mean()), all(rounded))
    allowed = TOLERANCE * scale / 10
    if found.is_exact and not found.largest_difference <= allowed:
        raise HerdError(
            f"the written model computes something else: logits differ by {found.largest_difference:.2g}, where"
            f" {allowed:.2g} is rounding; nothing was kept"
        )
    if not found.mean_kl <= MAX_KL:
        raise HerdError(
            f"the written model computes something else: {found.mean_kl:.2g} nats a token from the trained one;"
            " nothing was kept",
            hint="try a type of more bits, such as --type q8_0",
        )
    return found


def _require_same_facts(facts: ModelFacts, written: Checkpoint) -> None:
    if written.chat_template != facts.chat_template:
        raise HerdError("the written chat template is not the one that the model was trained with; nothing was kept")
    ours, theirs = Tokenizer(facts.tokenizer), Tokenizer(written.tokenizer)
    for text in _TEXTS:
        if ours.encode(text, special=True) != theirs.encode(text, special=True):
            raise HerdError(f"the written tokenizer gives {text!r} other ids; nothing was kept")
    if ours.stop_ids != theirs.stop_ids:
        raise HerdError("the written model ends its answers at other tokens; nothing was kept")


def _take(model: Decoder, name: str, values: torch.Tensor, written: Checkpoint) -> bool:
    """Set a weight to the written one. Raises HerdError where that is not its rounding to the file's float type; False
    for a quantised weight, which stays: of it the logits must tell."""
    tensor = written.tensors[name]
    stored = float_values(tensor)
    half_step = {"F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}.get(tensor.type.name)
    if half_step is not None:
        # Of float16, numbers below 2^-14 lie 2^-24 apart.
        allowed = half_step * values.abs() + (half_step > 0) * 2.0**-25
        if not bool(((stored - values).abs() <= allowed).all()):
            raise HerdError(f"{name} is not written as it was trained; nothing was kept")
        fill(model.get_parameter(name), stored)
    return half_step is not None


def _kl(ours: F32, theirs: F32) -> F64:
    """KL(ours || theirs) of each position, nats."""
    p, q = (x.astype(np.float64) - _logsumexp(x.astype(np.float64)) for x in (ours, theirs))
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def _logsumexp(x: F64) -> F64:
    top = x.max(axis=1, keepdims=True)
    return np.asarray(top + np.log(np.exp(x - top).sum(axis=1, keepdims=True)))
