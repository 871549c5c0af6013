"""FP8 weights with scales (`quant_method` fp8): the product is the weight."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight

_UNUSED = (".activation_scale", "_activation_scale")


def unscaled(weights: list[LazyWeight], config: FolderConfig) -> Iterator[LazyWeight]:
    """Weights multiplied by their scales, without the tensors of scales."""
    settings = config.values.get("quantization_config") or {}
    if settings.get("quant_method") != "fp8":
        yield from weights
        return
    scales = {
        weight.name.removesuffix("_scale_inv"): weight for weight in weights if weight.name.endswith("_scale_inv")
    }
    for weight in weights:
        if weight.name.endswith(("_scale_inv", *_UNUSED)):
            continue
        scale = scales.get(weight.name)
        yield weight if scale is None else _multiplied(weight, scale, settings.get("weight_block_size"))


def _multiplied(weight: LazyWeight, scale: LazyWeight, block: Sequence[int] | None) -> LazyWeight:
    """The product of a weight and its scales.

    block: rows and columns that share a scale; None: a scale for each first axis, or one for all.
    """

    def pieces() -> Iterator[np.ndarray]:
        factors = _expanded(scale.whole().astype(np.float32), weight.shape, block)
        first = 0
        for values in weight.pieces():
            part = factors[first : first + len(values)] if factors.ndim and factors.shape[0] > 1 else factors
            yield values.astype(np.float32) * part
            first += len(values)

    return replace(weight, pieces=pieces)


def _expanded(scale: np.ndarray, shape: tuple[int, ...], block: Sequence[int] | None) -> np.ndarray:
    if block is not None:
        for axis, size in enumerate(block, scale.ndim - len(block)):
            scale = scale.repeat(min(size, shape[axis]), axis)
        scale = scale[tuple(slice(0, size) for size in shape)]
    return scale.reshape(*scale.shape, *[1] * (len(shape) - scale.ndim))
