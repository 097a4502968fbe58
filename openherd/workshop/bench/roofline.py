"""What a step of a model costs at least, and the speed that a machine's limits therefore allow.

A step reads every weight once, whatever the number of its rows, multiplies each row with all of them, and reads the
keys and values of each sequence: its time is at least bytes / read rate and at least products / multiply rate
(Williams, Waterman and Patterson 2009, "Roofline"). Weights count with their bytes in the file, so a layout that
needs more is not excused. Not counted: attention's own arithmetic, norms, the embedding's row, activations.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import prod

from openherd.checkpoints.source import Checkpoint
from openherd.quant.types import PLAIN_TYPES

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
KV_BYTES = 2  # of a value in the cache, f16
_TAIL = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True)
class Rates:
    """The machine's limits at their best number of threads."""

    read: float  # bytes a second
    multiply: float  # products of 4-bit codes and int8 a second


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Of one model, from its header."""

    layer_bytes: int  # weights of all layers, read in every step
    layer_products: int  # for each row
    tail_products: int  # of these behind the last attention, for rows whose logits are wanted only
    head_bytes: int  # read where logits are wanted
    head_products: int
    kv_bytes: int  # of one position, all layers
    is_integer: bool  # no linear map is float, so the int8 rate bounds it

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> ModelCost:
        tensors = {name: checkpoint.tensors[name] for name in checkpoint.tensors}
        head = tensors.get(HEAD) or tensors[EMBEDDING]
        layers = [tensor for name, tensor in tensors.items() if name not in (EMBEDDING, HEAD)]
        matrices = [tensor for tensor in layers if len(tensor.shape) == 2]
        c = checkpoint.config
        return cls(
            layer_bytes=sum(tensor.nbytes for tensor in layers),
            layer_products=sum(prod(tensor.shape) for tensor in matrices),
            tail_products=sum(prod(tensors[name].shape) for name in _behind_the_last_attention(tensors, c.n_layers)),
            head_bytes=head.nbytes,
            head_products=prod(head.shape),
            kv_bytes=2 * c.n_layers * c.kv_dim * KV_BYTES,
            is_integer=not any(tensor.type.name in PLAIN_TYPES for tensor in (*matrices, head)),
        )

    @property
    def weight_bytes(self) -> int:
        """Read for every token that is decoded."""
        return self.layer_bytes + self.head_bytes

    def decode_bytes(self, batch: int, position: float) -> float:
        """A step that decodes one token for each of `batch` sequences, of `position` tokens before it."""
        return self.weight_bytes + batch * position * self.kv_bytes

    def decode_limit(self, rates: Rates, batch: int, position: float) -> float:
        """Tokens a second, all sequences together."""
        seconds = self.decode_bytes(batch, position) / rates.read
        if self.is_integer:
            seconds = max(seconds, batch * (self.layer_products + self.head_products) / rates.multiply)
        return batch / seconds

    def prefill_limit(self, rates: Rates, num_tokens: int, rows_at_once: int) -> float | None:
        """Prompt tokens a second, in steps of `rows_at_once`; None for float weights, whose limit is another."""
        if not self.is_integer:
            return None
        steps = -(-num_tokens // rows_at_once)
        # The logits of the last token are wanted, and what only they need is computed for it alone.
        products = num_tokens * (self.layer_products - self.tail_products) + self.tail_products + self.head_products
        return num_tokens / max(products / rates.multiply, (steps * self.layer_bytes + self.head_bytes) / rates.read)


def _behind_the_last_attention(names: Container[str], n_layers: int) -> list[str]:
    """The matrices that see the wanted rows only. (Experts see all.)"""
    tail = (f"model.layers.{n_layers - 1}.{part}.weight" for part in _TAIL)
    return [name for name in tail if name in names]
