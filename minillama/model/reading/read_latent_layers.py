"""Read the layers of a model with latent attention from GGUF metadata."""

import math

from minillama.errors import FormatError
from minillama.model.config import Rope, Scaling
from minillama.model.layer_kinds import LatentAttention
from minillama.model.reading.metadata_keys import MetadataKeys

LARGEST_MAGNITUDE = 1e15  # its square is a float32


def read_latent_layers(keys: MetadataKeys, blocks: int, rope: Rope) -> tuple[LatentAttention, ...]:
    """The kinds of `blocks` layers, alike but for their heads.

    Files of 2024 have the lengths of a head in key_length and value_length, later ones in keys with _mla.
    Raises FormatError where no channel of a key is left for the latent.
    """
    key_length = keys.integer("attention.key_length_mla", 0) or keys.integer("attention.key_length")
    value_length = keys.integer("attention.value_length_mla", 0) or keys.integer("attention.value_length")
    rotating = rope.dimension_count
    if rotating >= key_length:
        raise FormatError(
            f"metadata key {keys.prefix}.rope.dimension_count is {rotating}; expected less than the {key_length} "
            "channels of a key"
        )
    rank, scale = keys.integer("attention.kv_lora_rank"), _read_scale(keys, key_length, rope)
    heads = keys.integers("attention.head_count", blocks)
    return tuple(LatentAttention(count, rank, rotating, key_length, value_length, scale) for count in heads)


def _read_scale(keys: MetadataKeys, key_length: int, rope: Rope) -> float:
    """The factor on scores: YaRN's magnitude acts here, squared, and not on the rotation.

    The key holds 0.1 times the multiplier of DeepSeek's formula, and llama.cpp divides it again.
    """
    stretch = 0.0 if rope.scaling is Scaling.NONE else math.log(max(rope.factor, 1.0))
    multiplier = keys.number("rope.scaling.yarn_log_multiplier", 0.0)
    magnitude = rope.attn_factor * (1 + multiplier * stretch)
    if rope.scaling is not Scaling.YARN or not multiplier:
        magnitude *= 1 + 0.1 * stretch
    if not abs(magnitude) < LARGEST_MAGNITUDE:
        raise FormatError(
            f"metadata keys {keys.prefix}.rope.scaling.*: a magnitude of {magnitude:g}, which is too large"
        )
    return magnitude**2 / math.sqrt(key_length)
