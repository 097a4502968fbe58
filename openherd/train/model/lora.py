"""LoRA: W x + (alpha / rank) B (A x) with W frozen.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3. A begins as PEFT begins it
(Kaiming-uniform with slope sqrt(5), which is uniform in +-1/sqrt(K)), B at 0, so that training starts from the base
model. Parameters are called as in PEFT: `model.layers.0.self_attn.q_proj.lora_A.weight`. A and B are kept in float32
whatever the base's type. Not covered: dropout, rank-stabilised scaling, adapters inside experts, on embeddings
or on the output matrix.

Legend: N outputs and K inputs of a linear map, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from openherd.checkpoints.required_tensors import linear_maps, linear_shape
from openherd.errors import OptionError
from openherd.train.model.decoder import Decoder
from openherd.train.model.filling import fill, generator, whole
from openherd.train.model.leaves import Adaptable, Linear
from openherd.train.model.quantized import QuantizedLinear


def add_lora(model: Decoder, rank: int, alpha: float, targets: Sequence[str] = (), seed: int = 0) -> None:
    """Freeze the model and give the linear maps in `targets` ("q_proj", ...; none named: all of a layer's) an adapter.

    A's values are a function of the seed and the weight's name. Raises OptionError for a target that the model lacks.
    """
    if rank < 1:
        raise OptionError(f"lora.rank must be at least 1, not {rank}")
    model.requires_grad_(False)
    chosen = _chosen_maps(model, targets)
    for layer in range(model.config.n_layers):
        for linear in chosen:
            path = f"model.layers.{layer}.{linear}"
            _adapt(
                cast(Adaptable, model.get_submodule(path)),
                path,
                linear_shape(model.config, linear),
                rank,
                alpha / rank,
                seed,
            )


def _chosen_maps(model: Decoder, targets: Sequence[str]) -> list[str]:
    there = {linear.rpartition(".")[2]: linear for linear in linear_maps(model.config)}
    for target in targets:
        if target not in there:
            raise OptionError(f"lora.targets: the model has no {target!r}; it has {', '.join(there)}")
    return [there[target] for target in targets or there]


def _adapt(leaf: Adaptable, path: str, shape: tuple[int, int], rank: int, scale: float, seed: int) -> None:
    (n, k), device = shape, next(chain(leaf.parameters(), leaf.buffers())).device
    leaf.adapter_scale, leaf.adapter_on = scale, True
    leaf.lora_A = Linear(k, rank, bias=False, device=device)
    leaf.lora_B = Linear(rank, n, bias=False, device=device)
    if device.type != "meta":
        _begin(leaf, path, seed)


def _begin(leaf: Adaptable, path: str, seed: int) -> None:
    a, b = _pair(leaf)
    bound = 1 / math.sqrt(a.shape[1])
    values = torch.empty(a.shape).uniform_(-bound, bound, generator=generator(seed, f"{path}.lora_A.weight"))
    fill(a, values)
    fill(b, torch.zeros(b.shape))


def initialise_lora(model: Decoder, seed: int) -> None:
    """Set A and B as `add_lora` does, for a model that was on the device "meta" then and may be sharded now."""
    for path, leaf in adapted_leaves(model):
        _begin(leaf, path, seed)


def adapted_leaves(model: Decoder) -> Iterator[tuple[str, Adaptable]]:
    """Paths and leaves that have an adapter."""
    for path, module in model.named_modules():
        if isinstance(module, Adaptable) and module.has_adapter:
            yield path, module


def lora_parameters(model: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of the adapters: all that is trained."""
    return ((name, parameter) for name, parameter in model.named_parameters() if ".lora_" in name)


@contextmanager
def without_lora(model: Decoder) -> Iterator[None]:
    """The base model, as long as the context lasts."""
    leaves = [leaf for _, leaf in adapted_leaves(model)]
    before = [leaf.adapter_on for leaf in leaves]
    try:
        for leaf in leaves:
            leaf.adapter_on = False
        yield
    finally:
        for leaf, on in zip(leaves, before, strict=True):
            leaf.adapter_on = on


def merged_weight(leaf: nn.Module) -> Tensor:
    """The whole weight of any leaf, [N, K]: in its own type, or with its adapter added, in float32. A sum rounded
    to the base's bfloat16 would lose most of a young adapter, whose values are below the base's last bits."""
    weight = leaf.values() if isinstance(leaf, QuantizedLinear) else whole(cast(Tensor, leaf.weight))
    if not isinstance(leaf, Adaptable) or not leaf.has_adapter:
        return weight
    a, b = (whole(half) for half in _pair(leaf))
    return torch.addmm(weight.float(), b.float(), a.float(), alpha=leaf.adapter_scale)


@torch.no_grad()
def merge(model: Decoder) -> None:
    """Add every adapter to its weight and remove it; everything can be trained again. Not for a base kept in blocks."""
    for path, leaf in list(adapted_leaves(model)):
        if isinstance(leaf, QuantizedLinear):
            raise OptionError(
                f"{path} is kept in blocks of {leaf.block_type.name}: an adapter is merged on export only"
            )
        fill(cast(Tensor, leaf.weight), merged_weight(leaf))
        del leaf.lora_A, leaf.lora_B
    model.requires_grad_(True)


def _pair(leaf: Adaptable) -> tuple[Tensor, Tensor]:
    """A [r, K] and B [N, r]."""
    return leaf.lora_A.weight, leaf.lora_B.weight
