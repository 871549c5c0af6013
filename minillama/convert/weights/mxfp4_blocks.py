"""MXFP4 experts of gpt-oss: 4-bit values and scales as GGUF's blocks.

No value changes.

A block has 32 values. The checkpoint has 16 bytes of neighbouring pairs, low nibble first. GGUF has one byte of scale,
then 16 bytes: byte j holds value j in its low nibble and value j + 16 in its high one.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError
from minillama.gguf.types import TensorType

BLOCK = 32


def mxfp4_blocks(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Blocks of GGUF, uint8 [..., rows, n * 17].

    blocks: uint8 [..., rows, n, 16]. scales: uint8 [..., rows, n].
    """
    values = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], BLOCK)
    packed = values[..., :16] | values[..., 16:] << 4
    raw = np.concatenate([scales[..., np.newaxis], packed], axis=-1)
    return raw.reshape(*raw.shape[:-2], -1)


def mxfp4_weight(name: str, blocks: LazyWeight, scales: LazyWeight, start: int = 0, step: int = 1) -> LazyWeight:
    """Experts [experts, rows, columns] of a tensor of blocks and one of scales.

    It has the rows `start`, `start + step`, and so on.
    """
    if len(blocks.shape) != 4 or blocks.shape[-1] != 16 or blocks.shape[:3] != scales.shape:
        raise FormatError(
            f"{blocks.name} has the shape {list(blocks.shape)}, its scales {list(scales.shape)}; expected blocks of "
            "16 bytes and a scale each"
        )
    experts, rows, count, _ = blocks.shape

    def pieces() -> Iterator[np.ndarray]:
        for some, theirs in zip(blocks.pieces(), _scales_of(blocks, scales), strict=True):
            yield mxfp4_blocks(some[:, start::step], theirs[:, start::step])

    shape = (experts, len(range(start, rows, step)), count * BLOCK)
    return LazyWeight(name, shape, pieces, TensorType.MXFP4)


def _scales_of(blocks: LazyWeight, scales: LazyWeight) -> Iterator[np.ndarray]:
    """The scales in parts of as many experts as the parts of the blocks."""
    whole, first = scales.whole(), 0
    for some in blocks.pieces():
        yield whole[first : first + len(some)]
        first += len(some)


def packed_experts(weights: Iterable[LazyWeight]) -> Iterator[LazyWeight]:
    """Weights with the experts' blocks and scales as one tensor each, at the front.

    Gate and up are alternating rows of one tensor.
    """
    blocks: dict[str, LazyWeight] = {}
    ready, others = [], []
    for weight in weights:
        if weight.name.endswith("_blocks"):
            blocks[weight.name.removesuffix("_blocks")] = weight
        elif weight.name.endswith("_scales") and (path := weight.name.removesuffix("_scales")) in blocks:
            ready += _packed(path, blocks.pop(path), weight)
        else:
            others.append(weight)
    for path in blocks:
        raise FormatError(f"{path}_blocks has no {path}_scales; download the folder again")
    return iter([*ready, *others])


def _packed(path: str, blocks: LazyWeight, scales: LazyWeight) -> list[LazyWeight]:
    if not path.endswith("gate_up_proj"):
        return [mxfp4_weight(f"{path}.weight", blocks, scales)]
    layer = path.removesuffix("gate_up_proj")
    return [
        mxfp4_weight(f"{layer}{name}.weight", blocks, scales, start, 2)
        for start, name in enumerate(("gate_proj", "up_proj"))
    ]
