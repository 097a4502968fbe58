"""Four-bit codes that index a fixed table of sixteen values: IQ4_NL and MXFP4, blocks of 32.

IQ4_NL   float16 scale; the table is denser near zero, as weights are (ggml, `kvalues_iq4nl`).
MXFP4    OCP Microscaling Formats v1.0, sections 5.3.3 and 5.4.1: FP4 (E2M1) elements, scale 2^(e - 127).
         The table holds doubled elements, so that they are whole, and the scale is halved to make up for it.

Codes are packed as in `block32`: low nibbles are values 0-15, high nibbles 16-31. Every function maps blocks [B]
of its dtype to float32 [B, 32]. Not covered: e = 255, which OCP makes NaN, is 2^127 here as in ggml.
"""

from __future__ import annotations

import numpy as np

from openherd.quant.block32 import F32, Blocks, nibbles, scale

IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])

IQ4_NL_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
MXFP4_DOUBLED_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
# 2^(e - 128) for every exponent byte; 0 and 1 give float32 denormals, whose bits are written out.
MXFP4_HALF_SCALES = np.array([0x00200000, 0x00400000, *((e - 1) << 23 for e in range(2, 256))], np.uint32).view(
    np.float32
)


def iq4_nl(blocks: Blocks) -> F32:
    values: F32 = IQ4_NL_VALUES[nibbles(blocks["qs"])]
    return scale(blocks["d"]) * values


def mxfp4(blocks: Blocks) -> F32:
    scales: F32 = MXFP4_HALF_SCALES[blocks["e"]][:, None]
    return scales * MXFP4_DOUBLED_VALUES[nibbles(blocks["qs"])]
