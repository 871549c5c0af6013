"""Values of a safetensors file as numpy arrays: BF16 and FP8 become float32.

float16, float32 and bytes stay as they are; every other type becomes float32.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

Decoder = Callable[[np.ndarray], np.ndarray]


def _bfloat16(raw: np.ndarray) -> np.ndarray:
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _small_floats(exponent_bits: int, bias: int, *, infinite: bool) -> np.ndarray:
    """float32 [256]: the values of an 8-bit float (OCP 8-bit floating point specification).

    infinite: the largest exponent means infinity or NaN, not only its last code.
    """
    codes = np.arange(256)
    mantissa_bits = 7 - exponent_bits
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (codes & (2**mantissa_bits - 1)) / 2**mantissa_bits
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    if infinite:
        top = exponent == 2**exponent_bits - 1
        size = np.where(top, np.where(fraction == 0, np.inf, np.nan), size)
    else:
        size = np.where(codes & 127 == 127, np.nan, size)
    return np.where(codes < 128, size, -size).astype(np.float32)


_E4M3 = _small_floats(4, 7, infinite=False)
_E5M2 = _small_floats(5, 15, infinite=True)


def _as_float32(raw: np.ndarray) -> np.ndarray:
    return raw.astype(np.float32)


def _same(raw: np.ndarray) -> np.ndarray:
    return raw


# Name of a type in safetensors -> (type of the bytes in the file, function that decodes them).
STORED_TYPES: Mapping[str, tuple[np.dtype, Decoder]] = MappingProxyType(
    {
        "F32": (np.dtype("<f4"), _same),
        "F16": (np.dtype("<f2"), _same),
        "BF16": (np.dtype("<u2"), _bfloat16),
        "F64": (np.dtype("<f8"), _as_float32),
        "F8_E4M3": (np.dtype("u1"), lambda raw: _E4M3[raw]),
        "F8_E5M2": (np.dtype("u1"), lambda raw: _E5M2[raw]),
        "F8_E8M0": (np.dtype("u1"), _same),
        "U8": (np.dtype("u1"), _same),
        "I8": (np.dtype("i1"), _as_float32),
        "I16": (np.dtype("<i2"), _as_float32),
        "I32": (np.dtype("<i4"), _as_float32),
        "I64": (np.dtype("<i8"), _as_float32),
        "BOOL": (np.dtype("u1"), _as_float32),
    }
)
