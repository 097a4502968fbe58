"""The model as it was before training, which preference and reward objectives keep close to."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openherd.train.loss import token_logprobs
from openherd.train.model.lora import lora_parameters, without_lora

if TYPE_CHECKING:
    from openherd.train.batch import Batch
    from openherd.train.model.decoder import Decoder


class Reference:
    """With LoRA it is the model itself with its adapters switched off, at no cost in memory; else a frozen copy."""

    def __init__(self, frozen: Decoder | None) -> None:
        self._frozen = frozen

    @classmethod
    def of(cls, model: Decoder) -> Reference:
        """Of a model with its first weights: call it before a checkpoint of the run is loaded into `model`."""
        if any(True for _ in lora_parameters(model)):
            return cls(None)
        return cls(deepcopy(model).requires_grad_(False))

    @torch.no_grad()
    def token_logprobs(self, model: Decoder, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """[B, T] float32: log-probabilities of the targets, 0 where nothing is learnt; no gradient."""
        if self._frozen is not None:
            return token_logprobs(self._frozen, self._frozen(batch), batch, temperature=temperature)
        with without_lora(model):
            return token_logprobs(model, model(batch), batch, temperature=temperature)
