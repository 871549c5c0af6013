"""Blocks of a quantised KV cache in numpy: ggml's bytes, and a head's way through the cache."""

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from minillama.gguf.block_layouts import IQ4_VALUES


def block_bytes(x: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Rows of float32 as ggml's bytes: by the gguf package, which does not write IQ4_NL."""
    return iq4_nl_bytes(x) if kind is GGMLQuantizationType.IQ4_NL else quantize(x, kind)


def iq4_nl_bytes(x: np.ndarray) -> np.ndarray:
    """ggml's `quantize_row_iq4_nl_ref`, one block after the other."""
    blocks, values = [], IQ4_VALUES.astype(np.float32)
    for block in x.reshape(-1, 32):
        largest = block[np.abs(block).argmax()]
        scaled = block * (np.float32(1) / (largest / values[0])) if largest else block
        codes = np.array([15 - np.abs(values[::-1] - number).argmin() for number in scaled], np.uint8)  # ties go up
        dot, square = (block**2 * values[codes] * block).sum(), (block**2 * values[codes] ** 2).sum()
        scale = np.float16(dot / square if largest else 0)
        blocks.append(np.concatenate([scale[None].view(np.uint8), codes[:16] | codes[16:] << 4]))
    return np.concatenate(blocks).reshape(*x.shape[:-1], -1)


def hadamard_matrix(size: int) -> np.ndarray:
    """W / sqrt(size); the sign of [i, j] is the parity of the bits that i and j share."""
    shared = np.arange(size)[:, None] & np.arange(size)
    return (-1.0) ** np.bitwise_count(shared) / np.sqrt(size)


def through_cache(
    k: np.ndarray, v: np.ndarray, kinds: tuple[GGMLQuantizationType, GGMLQuantizationType]
) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values [..., H] as attention sees them; H is a multiple of 64.

    Keys are rotated by the largest power of two that divides H, values by 64, as in llama.cpp.
    """
    size = k.shape[-1]
    return rotated_and_rounded(k, kinds[0], size & -size), rotated_and_rounded(v, kinds[1], 64)


def rotated_and_rounded(x: np.ndarray, kind: GGMLQuantizationType, rotation: int) -> np.ndarray:
    """Heads [..., H], rotated, quantised, and rotated back."""
    groups, matrix = (*x.shape[:-1], -1, rotation), hadamard_matrix(rotation)
    rotated = (x.reshape(groups) @ matrix).reshape(x.shape).astype(np.float32)
    kept = dequantize(block_bytes(rotated, kind), kind).astype(np.float64)
    return (kept.reshape(groups) @ matrix).reshape(x.shape)
