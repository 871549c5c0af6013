"""llama.cpp's mixes: the type of each tensor in a quantised file.

A Q4_K_M file is not all Q4_K: the tensors that are most sensitive to rounding get more bits.
Rules: llama-quantize of llama.cpp (October 2026).
"""

import math
from dataclasses import dataclass

from minillama.errors import OptionError
from minillama.gguf.types import BLOCKS, FileType, TensorType


@dataclass(frozen=True)
class Mix:
    """A file type: its name in llama-quantize, its number, and the type of most tensors."""

    name: str
    file_type: FileType
    base: TensorType

    @classmethod
    def named(cls, name: str) -> "Mix":
        """Find a mix by name, such as `q4_k_m`; OptionError if unknown."""
        known_name = ALIASES.get(name.upper(), name.upper())
        if known_name not in _BASES:
            raise OptionError(f"unknown file type {name}; known: {', '.join(ALL_MIX_NAMES)}")
        base = _BASES[known_name]
        return cls(known_name, FileType.ALL_F32 if known_name == "F32" else FileType[f"MOSTLY_{known_name}"], base)


# As in llama-quantize, a k-quant without a size is the medium one.
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_WRITTEN_BASES: dict[str, TensorType] = {
    "F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16, "Q8_0": TensorType.Q8_0,
    "Q4_0": TensorType.Q4_0, "Q4_1": TensorType.Q4_1, "Q5_0": TensorType.Q5_0, "Q5_1": TensorType.Q5_1,
    "Q2_K": TensorType.Q2_K, "Q3_K_S": TensorType.Q3_K, "Q3_K_M": TensorType.Q3_K, "Q3_K_L": TensorType.Q3_K,
    "Q4_K_S": TensorType.Q4_K, "Q4_K_M": TensorType.Q4_K, "Q5_K_S": TensorType.Q5_K, "Q5_K_M": TensorType.Q5_K,
    "Q6_K": TensorType.Q6_K, "IQ4_NL": TensorType.IQ4_NL, "IQ4_XS": TensorType.IQ4_XS,
}  # fmt: skip

# Mixes of files that others quantise: their types are read, not written.
_READ_BASES: dict[str, TensorType] = {
    "IQ1_S": TensorType.IQ1_S, "IQ1_M": TensorType.IQ1_M, "IQ2_XXS": TensorType.IQ2_XXS, "IQ2_XS": TensorType.IQ2_XS,
    "IQ2_S": TensorType.IQ2_XS, "IQ2_M": TensorType.IQ2_S, "IQ3_XXS": TensorType.IQ3_XXS, "IQ3_XS": TensorType.IQ3_S,
    "IQ3_S": TensorType.IQ3_S, "IQ3_M": TensorType.IQ3_S, "TQ1_0": TensorType.TQ1_0, "TQ2_0": TensorType.TQ2_0,
    "NVFP4": TensorType.NVFP4, "MXFP4_MOE": TensorType.MXFP4,
}  # fmt: skip
_BASES = _WRITTEN_BASES | _READ_BASES

MIX_NAMES: tuple[str, ...] = tuple(_WRITTEN_BASES)
ALL_MIX_NAMES: tuple[str, ...] = tuple(_BASES)

# Types for tensors whose row length is not a multiple of 256.
_FALLBACK_TYPES: dict[TensorType, TensorType] = {
    TensorType.Q2_K: TensorType.Q4_0,
    TensorType.Q3_K: TensorType.Q4_0,
    TensorType.Q4_K: TensorType.Q5_0,
    TensorType.Q5_K: TensorType.Q5_1,
    TensorType.Q6_K: TensorType.Q8_0,
    TensorType.IQ4_XS: TensorType.IQ4_NL,
    **{kind: TensorType.IQ4_NL for kind in TensorType if kind.name.startswith(("IQ1_", "IQ2_", "IQ3_"))},
    TensorType.TQ1_0: TensorType.Q4_0,
    TensorType.TQ2_0: TensorType.Q4_0,
}
FLOAT_TYPES = (TensorType.F32, TensorType.F16, TensorType.BF16)


# Parts of the names of small or sensitive matrices, which llama.cpp does not quantise.
_UNQUANTISED_PARTS = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "attn_rel_b.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos",
    ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_UNQUANTISED_NAMES = ("position_embd.weight", "token_types.weight")


def quantisable(name: str, shape: tuple[int, ...]) -> bool:
    """True if llama-quantize rounds this tensor: weight matrices except norms, routers and similar."""
    matrix = len(shape) > 1 and math.prod(shape[:-1]) > 1
    excluded = name in _UNQUANTISED_NAMES or any(part in name for part in _UNQUANTISED_PARTS)
    return matrix and name.endswith("weight") and not excluded


@dataclass(frozen=True)
class ModelTraits:
    """Properties of a model that the rules of a mix depend on.

    tied: the output head is the token embedding. size: size class, such as `70B`. important: an importance matrix is
    used.
    """

    layers: int
    heads: int
    kv_heads: int
    tied: bool
    experts: int = 0
    size: str = ""
    important: bool = False

    @property
    def group(self) -> int:
        """Number of query heads per key head."""
        return self.heads // self.kv_heads if self.kv_heads else 0


def tensor_type(mix: Mix, name: str, shape: tuple[int, ...], traits: ModelTraits) -> TensorType:
    """Type of one tensor in a mix; F32 for tensors that are not quantised.

    shape: in numpy's order. If the row length is not a multiple of the block size, the type is a compatible one.
    """
    return compatible_type(preferred_type(mix, name, shape, traits), shape[-1])


def preferred_type(mix: Mix, name: str, shape: tuple[int, ...], traits: ModelTraits) -> TensorType:
    """Type of one tensor in a mix, without regard to its row length."""
    if not quantisable(name, shape):
        return TensorType.F32
    if mix.base in FLOAT_TYPES:
        return mix.base
    stem = name.removesuffix(".weight")
    if mix.name == "NVFP4" and stem in ("output", "token_embd"):
        return TensorType.BF16  # llama-quantize does not write NVFP4; converters leave these tensors as they are
    if mix.name == "MXFP4_MOE":
        return TensorType.MXFP4 if len(shape) > 2 and stem != "output" else TensorType.Q8_0
    if stem == "output" or (stem == "token_embd" and traits.tied):
        plain = mix.base is TensorType.Q8_0 or shape[-1] % BLOCKS[mix.base][0]
        small = TensorType.Q5_K if mix.name in (*_TWO_BITS, "IQ3_XXS") else TensorType.Q6_K
        return TensorType.Q8_0 if plain else small
    if stem == "token_embd":
        return _TOKEN_EMBEDDING.get(mix.name, mix.base)
    return _layer_type(mix, stem, traits)


def compatible_type(preferred: TensorType, row: int) -> TensorType:
    """The type itself if rows are whole blocks, otherwise a fallback or F16."""
    if row % BLOCKS[preferred][0]:
        preferred = _FALLBACK_TYPES.get(preferred, TensorType.F16)
    return TensorType.F16 if row % BLOCKS[preferred][0] else preferred


def _layer_type(mix: Mix, stem: str, traits: ModelTraits) -> TensorType:
    """Type of a tensor inside a layer."""
    _, _, rest = stem.partition("blk.")
    number, _, part = rest.partition(".")
    layer = int(number) if number.isdecimal() else 0
    value = part in ("attn_v", "attn_qkv", "attn_kv_b")
    down = part.startswith("ffn_down")
    if mix.name in _TWO_BITS:
        return _two_bits_type(mix, part, layer, value, down, traits)
    if traits.experts == 8:  # Mixtral, in which attention is small compared with the experts
        if value or part == "attn_k":
            return TensorType.Q8_0
        if part == "attn_output":
            return TensorType.Q5_K if mix.name in _EIGHT_EXPERTS else mix.base
    chosen = _layer_exception(mix, part, layer, value, down, traits)
    if traits.size == "70B" and value and chosen in (TensorType.Q3_K, TensorType.Q4_K):
        return TensorType.Q5_K
    return chosen


_EIGHT_EXPERTS = (
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M",
)  # fmt: skip
_TWO_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_TOKEN_EMBEDDING = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"), TensorType.Q2_K),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), TensorType.IQ3_S),
    **dict.fromkeys(("TQ1_0", "TQ2_0"), TensorType.Q4_K),
}


def _two_bits_type(mix: Mix, part: str, layer: int, value: bool, down: bool, traits: ModelTraits) -> TensorType:
    """Type of a tensor inside a layer of an IQ1 or IQ2 mix."""
    larger = TensorType.IQ3_S if mix.name in ("IQ2_S", "IQ2_M") else TensorType.Q2_K
    if value:
        return TensorType.Q4_K if traits.group >= 4 or traits.experts >= 4 else larger
    if part == "attn_k" and traits.experts == 8:
        return TensorType.Q4_K
    if down and layer < traits.layers // 8:
        return larger
    if part == "attn_output":
        if traits.experts == 8:
            return TensorType.Q5_K
        by_mix = {"IQ1_S": TensorType.IQ2_XXS, "IQ1_M": TensorType.IQ2_XXS}
        return by_mix.get(mix.name, larger if larger is TensorType.IQ3_S else mix.base)
    return mix.base


def _layer_exception(mix: Mix, part: str, layer: int, value: bool, down: bool, traits: ModelTraits) -> TensorType:
    layers = traits.layers
    first_eighth = layer < layers // 8
    often = first_eighth or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    match mix.name:
        case "Q4_K_M" | "Q5_K_M" if (value or down) and often:
            return TensorType.Q6_K
        case "Q4_K_S" if (value and layer < 4) or (down and first_eighth):
            return TensorType.Q5_K
        case "Q3_K_M" if value:
            return TensorType.Q5_K if layer < 2 else TensorType.Q4_K
        case "Q3_K_M" if down:
            return TensorType.Q5_K if layer < layers // 16 else TensorType.Q4_K
        case "Q3_K_M" if part == "attn_output":
            return TensorType.Q4_K
        case "Q3_K_L" if value or down or part == "attn_output":
            return TensorType.Q5_K
        case "Q2_K" if value:
            return TensorType.Q4_K if traits.group >= 4 else TensorType.Q3_K
        case "Q2_K" if down or part == "attn_output":
            return TensorType.Q3_K
        case "IQ4_XS" | "IQ4_NL" if (value and traits.group >= 4) or (down and first_eighth and not traits.important):
            return TensorType.Q5_K
        case "IQ3_XXS" if value:
            small = TensorType.IQ3_XXS if traits.important else TensorType.IQ3_S
            return TensorType.Q4_K if traits.group >= 4 else small
        case "IQ3_XXS" if down and not traits.important:
            return TensorType.Q4_K if first_eighth else TensorType.Q3_K
        case "IQ3_XXS" if part in ("attn_k", "attn_q"):
            return TensorType.IQ2_S
        case "IQ3_XXS" if part == "attn_output":
            return TensorType.IQ3_S
        case "IQ3_XS" | "IQ3_S" if value and traits.group >= 4:
            return TensorType.Q4_K
        case "IQ3_XS" if part in ("attn_k", "attn_q"):
            return TensorType.IQ3_XXS
        case "IQ3_XS" if part.startswith(("ffn_gate", "ffn_up")) and layers // 8 <= layer < 7 * layers // 8:
            return TensorType.IQ3_XXS
        case "IQ3_M" if value or part == "attn_output" or (down and first_eighth):
            return TensorType.Q4_K
        case "IQ3_M" if down and traits.experts == 8 and often:
            return TensorType.Q4_K
        case "Q4_0" if down and first_eighth and traits.important:
            return TensorType.Q4_1
        case "Q5_0" if down and first_eighth and traits.important:
            return TensorType.Q5_1
    return mix.base
