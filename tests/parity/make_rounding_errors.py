"""What rounding to each block type changes, as a share of the weights' root mean square: by ggml's own quantisers.

Run in an environment with llama_cpp, from the repository's root:
    PYTHONPATH=. python tests/parity/make_rounding_errors.py
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import numpy as np

from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES

EXPECTED = Path(__file__).with_name("rounding_errors.json")
ROWS, LENGTH = 512, 1024


def samples() -> dict[str, np.ndarray]:
    """Normal weights, and weights with the outliers of Student's t with five degrees of freedom."""
    rng = np.random.default_rng(20261126)
    return {
        "normal": rng.standard_normal((ROWS, LENGTH)).astype(np.float32),
        "outliers": rng.standard_t(5, (ROWS, LENGTH)).astype(np.float32),
    }


def ggml() -> ctypes.CDLL:
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def main() -> None:
    library, errors = ggml(), {}
    for name, block_type in BLOCK_TYPES.items():
        if name == "F32":
            continue
        worst = 0.0
        for values in samples().values():
            out = np.zeros((ROWS, block_type.row_bytes(LENGTH)), np.uint8)
            library.ggml_quantize_chunk(block_type.ggml_id, values.ctypes.data, out.ctypes.data, 0, ROWS, LENGTH, None)
            difference = dequantize(out, block_type) - values
            worst = max(worst, float(np.sqrt(np.square(difference).mean() / np.square(values).mean())))
        errors[name] = float(f"{worst:.3g}")
    EXPECTED.write_text(json.dumps(errors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
