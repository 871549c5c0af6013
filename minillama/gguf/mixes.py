"""Which type each tensor of a quantised file has: llama.cpp's mixes, without an importance matrix.

A file called Q4_K_M is not all Q4_K: the tensors whose rounding hurts most get more bits.
Rules: llama-quantize of llama.cpp (October 2026).
"""

from dataclasses import dataclass

from minillama.errors import OptionError
from minillama.gguf.types import BLOCKS, FileType, TensorType


@dataclass(frozen=True)
class Mix:
    """A file type: `name` as llama-quantize takes it, the number in the file, and the type of most tensors."""

    name: str
    file_type: FileType
    base: TensorType

    @classmethod
    def named(cls, name: str) -> "Mix":
        """The mix of this name in upper or lower case (`q4_k_m`); OptionError for an unknown one."""
        wanted = ALIASES.get(name.upper(), name.upper())
        if wanted not in _BASES:
            raise OptionError(f"unknown file type {name}; known: {', '.join(_BASES)}")
        base = _BASES[wanted]
        return cls(wanted, FileType.ALL_F32 if wanted == "F32" else FileType[f"MOSTLY_{wanted}"], base)


# As in llama-quantize, a k-quant without a size means the medium one.
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_BASES: dict[str, TensorType] = {
    "F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16, "Q8_0": TensorType.Q8_0,
    "Q4_0": TensorType.Q4_0, "Q4_1": TensorType.Q4_1, "Q5_0": TensorType.Q5_0, "Q5_1": TensorType.Q5_1,
    "Q2_K": TensorType.Q2_K, "Q3_K_S": TensorType.Q3_K, "Q3_K_M": TensorType.Q3_K, "Q3_K_L": TensorType.Q3_K,
    "Q4_K_S": TensorType.Q4_K, "Q4_K_M": TensorType.Q4_K, "Q5_K_S": TensorType.Q5_K, "Q5_K_M": TensorType.Q5_K,
    "Q6_K": TensorType.Q6_K, "IQ4_NL": TensorType.IQ4_NL, "IQ4_XS": TensorType.IQ4_XS,
}  # fmt: skip

MIX_NAMES: tuple[str, ...] = tuple(_BASES)

# What a tensor gets whose rows are not whole blocks of 256.
_NARROW: dict[TensorType, TensorType] = {
    TensorType.Q2_K: TensorType.Q4_0,
    TensorType.Q3_K: TensorType.Q4_0,
    TensorType.Q4_K: TensorType.Q5_0,
    TensorType.Q5_K: TensorType.Q5_1,
    TensorType.Q6_K: TensorType.Q8_0,
    TensorType.IQ4_XS: TensorType.IQ4_NL,
}
_PLAIN = (TensorType.F32, TensorType.F16, TensorType.BF16)


def tensor_type(
    mix: Mix, name: str, shape: tuple[int, ...], *, layers: int, heads: int, kv_heads: int, tied: bool
) -> TensorType:
    """The type of one tensor; `shape` in numpy's order, `tied` where the head is the token embedding."""
    stem = name.removesuffix(".weight")
    if len(shape) == 1 or stem == name or stem.endswith(("_norm", "ffn_gate_inp")):
        return TensorType.F32
    if mix.base in _PLAIN:
        return mix.base
    if stem == "output" or (stem == "token_embd" and tied):
        wanted = TensorType.Q8_0 if mix.base is TensorType.Q8_0 else TensorType.Q6_K
    else:
        wanted = _in_block(mix, stem, layers, heads // kv_heads)
    if shape[-1] % BLOCKS[wanted][0]:
        wanted = _NARROW.get(wanted, TensorType.F16)
    return TensorType.F16 if shape[-1] % BLOCKS[wanted][0] else wanted


def _in_block(mix: Mix, stem: str, layers: int, group: int) -> TensorType:
    """The exceptions inside the layers; `group` query heads share a key head."""
    _, _, rest = stem.partition("blk.")
    number, _, part = rest.partition(".")
    layer = int(number) if number else 0
    value = part in ("attn_v", "attn_qkv")
    first_eighth = layer < layers // 8
    often = first_eighth or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    match mix.name:
        case "Q4_K_M" | "Q5_K_M" if (value or part == "ffn_down") and often:
            return TensorType.Q6_K
        case "Q4_K_S" if (value and layer < 4) or (part == "ffn_down" and first_eighth):
            return TensorType.Q5_K
        case "Q3_K_M" if value:
            return TensorType.Q5_K if layer < 2 else TensorType.Q4_K
        case "Q3_K_M" if part == "ffn_down":
            return TensorType.Q5_K if layer < layers // 16 else TensorType.Q4_K
        case "Q3_K_M" if part == "attn_output":
            return TensorType.Q4_K
        case "Q3_K_L" if value or part in ("ffn_down", "attn_output"):
            return TensorType.Q5_K
        case "Q2_K" if value:
            return TensorType.Q4_K if group >= 4 else TensorType.Q3_K
        case "Q2_K" if part in ("ffn_down", "attn_output"):
            return TensorType.Q3_K
        case "IQ4_XS" | "IQ4_NL" if (value and group >= 4) or (part == "ffn_down" and first_eighth):
            return TensorType.Q5_K
    return mix.base
