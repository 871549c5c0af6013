"""Take apart the tensor `attn_kv_b`: the maps of latent attention in files of 2024.

Its rows are, head by head, those of keys and then those of values. The absorbed form multiplies by the maps of keys
from the other side, so these are decoded and transposed; the rows of values are copied as they are.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from gguf import GGMLQuantizationType as Type

from minillama.gguf import Tensor, dequantize
from minillama.kernels import Weight, check_supported, place_weight
from minillama.model.layer_kinds import LatentAttention


def split_kv_b(
    tensor: Tensor, layer: LatentAttention, heads: Sequence[int], device: jax.Device
) -> tuple[Weight, Weight]:
    """`attn_k_b` [heads, rank, nope] in float32 and `attn_v_b` [heads, H_v, rank] of some heads.

    Raises UnsupportedError for the tensor's type.
    """
    check_supported(tensor)
    rows = layer.nope_length + layer.value_length
    raw = tensor.data.reshape(-1, rows, tensor.data.shape[-1])[heads[0] : heads[-1] + 1]
    shape = len(heads), layer.nope_length, layer.kv_lora_rank
    keys = dequantize(replace(tensor, data=np.ascontiguousarray(raw[:, : layer.nope_length]), shape=shape))
    k_b = np.ascontiguousarray(keys.swapaxes(1, 2)).view(np.uint8)
    return place_weight(k_b, Type.F32, device), place_weight(raw[:, layer.nope_length :], tensor.type, device)
