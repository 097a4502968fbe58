"""FlexAttention, which a GPU uses, means what the CPU's masks mean: by its uncompiled form, which runs anywhere.

Not covered without a GPU: its compiled form, and its gradient, which PyTorch does not have on a CPU.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openherd.config import ModelConfig
from openherd.train.model.attention import Attention
from openherd.train.model.flex import FlexAttention
from tests.train.model.tiny_models import TINY, random_documents, rows_of

CASES = {
    "documents": TINY,
    "window": replace(TINY, sliding_window=5),
    "alibi": replace(TINY, alibi_max_bias=8.0, n_kv_heads=4),
    "capped": replace(TINY, attention_softcap=2.0, attention_scale=0.7),
}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", CASES)
def test_both_see_the_same_keys(name: str) -> None:
    config: ModelConfig = CASES[name]
    batch = rows_of([random_documents([9, 14]), random_documents([30], seed=6)], 32)
    generator = torch.Generator().manual_seed(2)
    heads = (config.n_heads, config.n_kv_heads, config.n_kv_heads)
    q, k, v = (torch.randn(2, n, 32, config.head_dim, generator=generator) for n in heads)
    masked = Attention(config, batch, torch.float32)(0, q, k, v)
    flexible = FlexAttention(config, batch, config.window(0))(q, k, v)
    torch.testing.assert_close(masked, flexible, rtol=0, atol=2e-6)
