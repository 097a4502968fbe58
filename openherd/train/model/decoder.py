"""The decoder as PyTorch modules: weights under their canonical names, the forward pass of `engine/model.py`.

Legend: B rows, T positions, D width of the residual stream, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openherd.checkpoints.required_tensors import required_tensors
from openherd.config import ModelConfig
from openherd.engine.model import block, norm
from openherd.train.batch import Batch
from openherd.train.model.leaves import Embedding, Linear, Norm
from openherd.train.model.torch_ops import Rows, TorchOps

Device = torch.device | str | None


class Decoder(nn.Module):
    """A model to train. `state_dict()` has the canonical names; `lm_head` is absent where embeddings are tied.

    `dtype` is that of the weights, `compute_dtype` that of activations and products (see `leaves.py`); it is as
    `dtype` unless set. Weights are not set here: `initial.initialise` or `loading.load_weights` does.
    """

    def __init__(self, config: ModelConfig, *, dtype: torch.dtype = torch.float32, device: Device = None) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, dtype
        self.activation_checkpointing = False
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.n_layers))
        shapes = dict(required_tensors(config))
        for name in shapes:
            path = name.rpartition(".")[0]
            if name.endswith(".weight"):
                add_leaf(self, path, make_leaf(config, path, shapes, dtype, device))

    @property
    def layers(self) -> list[Layer]:
        return [cast(Layer, layer) for layer in cast(nn.ModuleList, self.model.layers)]

    def forward(self, batch: Batch) -> Tensor:
        """Final hidden states behind the last norm, [B, T, D]."""
        rows = Rows(self.config, batch, self.compute_dtype)
        ops = TorchOps(self.config, partial(find_leaf, self), rows)
        x = ops.embed("model.embed_tokens")  # [B, T, D]
        if self.config.embedding_scale != 1.0:
            x = ops.scale(x, self.config.embedding_scale)
        for layer in self.layers:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, rows, use_reentrant=False)
            else:
                x = layer(x, rows)
        return cast(Tensor, norm(ops, self.config, x, "model.norm"))

    @property
    def head(self) -> nn.Module:
        """The leaf whose weight, [V, D], makes logits of hidden states."""
        return self.get_submodule("model.embed_tokens" if self.config.tied_embeddings else "lm_head")

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V] float32, scaled and capped as the config says. For a loss see `train/loss.py`."""
        weight = cast(Tensor, self.head.weight)
        logits = nn.functional.linear(hidden, weight.to(hidden.dtype)).float()
        if self.config.logit_scale != 1.0:
            logits = logits * self.config.logit_scale
        cap = self.config.logit_softcap
        return torch.tanh(logits / cap) * cap if cap else logits

    def compile_layers(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile each layer in place (names stay). Layers that compute alike share one graph, so the first step of
        a deep model waits as long as that of a shallow one. Not for mixtures of experts, whose row counts vary."""
        for layer in self.layers:
            layer.compile(backend=backend)


class Layer(nn.Module):
    """One layer: the unit of sharding, of activation checkpointing and of compilation."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self._config = config
        self._prefix = f"model.layers.{_alike(config, layer)}."
        self._alike = _alike(config, layer)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return cast(Tensor, block(TorchOps(self._config, self._leaf, rows), self._config, x, self._alike))

    def _leaf(self, name: str) -> nn.Module:
        return find_leaf(self, name.removeprefix(self._prefix))


def _alike(config: ModelConfig, layer: int) -> int:
    """The first layer that computes as this one does: it runs under that number, so that the compiler sees one code."""

    def kind(number: int) -> tuple[int, bool, bool]:
        return config.window(number), config.rotates(number), config.is_local(number)

    return next(number for number in range(layer + 1) if kind(number) == kind(layer))


def make_leaf(
    config: ModelConfig, path: str, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: Device
) -> nn.Module:
    """The module that holds `path`.weight (and `path`.bias)."""
    shape, bias = shapes[f"{path}.weight"], f"{path}.bias" in shapes
    if len(shape) == 1:
        return Norm(shape[0], config.norm_eps, bias=bias, dtype=dtype, device=device)
    if path == "model.embed_tokens":
        return Embedding(shape[0], shape[1], dtype=dtype, device=device)
    return Linear(shape[1], shape[0], bias=bias, dtype=dtype, device=device)


def find_leaf(root: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path; several times as fast as `get_submodule`, which a small model's step notices."""
    for name in path.split("."):
        root = cast(nn.Module, root._modules[name])
    return root


def add_leaf(root: nn.Module, path: str, leaf: nn.Module) -> None:
    """Put `leaf` at a dotted path, in the place of what is there, making the modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, leaf)
