"""PyTorch's names of the float types that files have."""

from __future__ import annotations

import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
