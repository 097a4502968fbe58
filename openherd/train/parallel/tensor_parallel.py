"""Each layer's matrices divided among the processes of a tensor-parallel group (Shoeybi et al. 2019, section 3).

Queries, keys, values and the feed-forward's inner width are cut by rows of their weights, so each process has some
heads and some inner columns by itself; the two maps back to the residual stream are cut by columns, and their partial
sums are added over the group, once for attention and once for the feed-forward. Embeddings, norms and the map to the
logits are computed alike by every process, so that their gradients need no exchange.

Not covered, and refused: mixtures of experts, ALiBi and query-key norms, whose weights belong to single heads or
experts, adapters, and groups that do not divide the heads.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from openherd.config import ModelConfig
from openherd.errors import OptionError, UnsupportedError
from openherd.train.model.decoder import Decoder
from openherd.train.model.leaves import Linear

_COLUMN_WISE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_ROW_WISE = ("self_attn.o_proj", "mlp.down_proj")


def divide_layers(model: Decoder, mesh: DeviceMesh) -> None:
    """Divide every layer's maps among the processes of `mesh`. Raises OptionError or UnsupportedError, see above."""
    require_divisible(model.config, mesh.size())
    for layer in model.layers:
        leaves = {name: leaf for name, leaf in layer.named_modules() if name in (*_COLUMN_WISE, *_ROW_WISE)}
        if not all(isinstance(leaf, Linear) and not leaf.has_adapter for leaf in leaves.values()):
            raise UnsupportedError(
                "adapters and quantised weights cannot be divided among a tensor-parallel group",
                hint="leave tensor_parallel at 1: the processes divide the rows and every weight's storage",
            )
        plan: dict[str, ParallelStyle] = {
            name: ColwiseParallel() if name in _COLUMN_WISE else RowwiseParallel() for name in leaves
        }
        parallelize_module(layer, mesh, plan)


def require_divisible(config: ModelConfig, size: int) -> None:
    """Raises OptionError when `size` does not divide the model's heads, UnsupportedError for variations not covered."""
    uncovered = {
        "experts": bool(config.n_experts),
        "ALiBi": bool(config.alibi_max_bias),
        "query-key norms": config.qk_norm,
    }
    if any(uncovered.values()):
        which = " and ".join(name for name, has in uncovered.items() if has)
        raise UnsupportedError(
            f"a model with {which} cannot be divided among a tensor-parallel group",
            hint="leave tensor_parallel at 1: the processes divide the rows and every weight's storage",
        )
    for what, count in (("n_kv_heads", config.n_kv_heads), ("ffn_dim", config.ffn_dim)):
        if count % size:
            raise OptionError(f"tensor_parallel must divide {what}, {count}, and {size} does not")
