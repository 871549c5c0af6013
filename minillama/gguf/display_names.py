"""Names and sizes as llama.cpp prints them, such as `llama 1B Q4_0` and `729.75 MiB`."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from minillama.gguf.reader import GGUF
from minillama.gguf.types import FileType, TensorType

GUESSED_FLAG = 1024  # llama.cpp's flag in a file type that was guessed from the tensors

FILE_TYPE_NAMES: dict[int, str] = {
    0: "all F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K - Medium",
    11: "Q3_K - Small", 12: "Q3_K - Medium", 13: "Q3_K - Large", 14: "Q4_K - Small", 15: "Q4_K - Medium",
    16: "Q5_K - Small", 17: "Q5_K - Medium", 18: "Q6_K", 19: "IQ2_XXS - 2.0625 bpw", 20: "IQ2_XS - 2.3125 bpw",
    21: "Q2_K - Small", 22: "IQ3_XS - 3.3 bpw", 23: "IQ3_XXS - 3.0625 bpw", 24: "IQ1_S - 1.5625 bpw",
    25: "IQ4_NL - 4.5 bpw", 26: "IQ3_S - 3.4375 bpw", 27: "IQ3_S mix - 3.66 bpw", 28: "IQ2_S - 2.5 bpw",
    29: "IQ2_M - 2.7 bpw", 30: "IQ4_XS - 4.25 bpw", 31: "IQ1_M - 1.75 bpw", 32: "BF16",
    36: "TQ1_0 - 1.69 bpw ternary", 37: "TQ2_0 - 2.06 bpw ternary",
    38: "MXFP4 MoE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip

_GUESSED_FILE_TYPES: dict[TensorType, int] = {
    TensorType.F32: FileType.ALL_F32,
    TensorType.Q3_K: FileType.MOSTLY_Q3_K_M,
    TensorType.Q4_K: FileType.MOSTLY_Q4_K_M,
    TensorType.Q5_K: FileType.MOSTLY_Q5_K_M,
}


class ModelDimensions(NamedTuple):
    """Dimensions from which llama.cpp derives the size class of a model."""

    layers: int
    embedding: int
    heads: int
    kv_heads: int
    vocabulary: int
    experts: int


def format_bytes(count: int) -> str:
    """Format bytes: in MiB below 1 GiB, otherwise in GiB."""
    return f"{count / 2**20:.2f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


def format_parameters(count: int) -> str:
    """Format a number of weights: in millions (M) below 10^9, otherwise in billions (B)."""
    return f"{count / 1e6:.2f} M" if count < 10**9 else f"{count / 1e9:.2f} B"


def file_type_name(file: GGUF) -> str:
    """Name of the file type; if absent, guessed from the most frequent tensor type."""
    stated = file.metadata.get("general.file_type")
    if type(stated) is int:
        text = FILE_TYPE_NAMES.get(stated & ~GUESSED_FLAG, "unknown, may not work")
        return f"(guessed) {text}" if stated & GUESSED_FLAG else text
    if not file.tensors:
        return FILE_TYPE_NAMES[0]
    return f"(guessed) {FILE_TYPE_NAMES[guess_file_type(file)]}"


def guess_file_type(file: GGUF) -> int:
    """Guess the file type from the most frequent tensor type."""
    commonest = Counter(tensor.type for tensor in file.tensors.values()).most_common(1)[0][0]
    by_name = FileType.__members__.get(f"MOSTLY_{commonest.name}", FileType.ALL_F32)
    return _GUESSED_FILE_TYPES.get(commonest, by_name)


def size_class(file: GGUF) -> str:
    """Size class from llama.cpp's table of layer counts, such as `1B`; `?B` if unknown."""
    known = model_dimensions(file)
    match file.metadata.get("general.architecture"):
        case "llama" if known.experts == 8:
            return {32: "8x7B", 56: "8x22B"}.get(known.layers, "?B")
        case "llama":
            middle = "3B" if known.vocabulary == 49152 else "7B" if known.vocabulary < 40000 else "8B"
            large = "65B" if known.heads == known.kv_heads else "70B"
            table = {
                16: "1B",
                22: "1B",
                26: "3B",
                28: "3B",
                30: "256M",
                32: middle,
                36: "8B",
                40: "13B",
                48: "34B",
                60: "30B",
                80: large,
            }
        case "qwen2":
            small, middle = "0.5B" if known.embedding == 1024 else "1B", "1.5B" if known.embedding == 1536 else "7B"
            forty = "4B" if known.heads == 20 else "13B"
            table = {24: small, 28: middle, 32: "7B", 36: "3B", 40: forty, 48: "14B", 64: "32B", 80: "70B"}
        case "qwen3":
            small, middle = "0.6B" if known.embedding == 1024 else "1.7B", "4B" if known.embedding == 2560 else "8B"
            table = {28: small, 36: middle, 40: "14B", 64: "32B"}
        case "qwen2moe":
            table = {24: "A2.7B", 28: "57B.A14B"}
        case "qwen3moe":
            table = {48: "30B.A3B", 94: "235B.A22B"}
        case "qwen3next":
            table = {48: "80B.A3B"}
        case "qwen35":
            width = known.embedding
            table = {24: "0.8B" if width == 1024 else "2B", 32: "4B" if width == 2560 else "9B", 64: "27B"}
        case "qwen35moe":
            table = {40: "35B.A3B", 48: "122B.A10B", 60: "397B.A17B"}
        case "gemma2":
            table = {26: "2B", 42: "9B", 46: "27B"}
        case "gemma3":
            table = {18: "270M", 26: "1B", 32: "8B", 34: "4B", 48: "12B", 62: "27B"}
        case "phi3":
            table = {24: "1B", 32: "3B", 40: "14B"}
        case "chatglm":
            table = {28: "1.5B" if known.heads == 16 else "6B", 40: "4B" if known.heads == 24 else "9B"}
        case "deepseek2":
            table = {27: "16B", 47: "30B.A3B", 60: "236B", 61: "671B"}
        case "glm4":
            table = {17: "1B", 40: "9B", 61: "32B"}
        case _:
            table = {}
    return table.get(known.layers, "?B")


def model_type(file: GGUF) -> str:
    """Description of a model in llama-bench, such as `llama 1B Q4_0`."""
    return f"{file.metadata.get('general.architecture', 'unknown')} {size_class(file)} {file_type_name(file)}"


def model_dimensions(file: GGUF) -> ModelDimensions:
    """Model dimensions from the metadata; 0 for missing ones."""
    family = file.metadata.get("general.architecture", "")

    def number(key: str, default: int = 0) -> int:
        """Read an integer, the first one if the file has one for each layer."""
        value = file.metadata.get(f"{family}.{key}", default)
        if isinstance(value, int):
            return value
        return int(value[0]) if isinstance(value, np.ndarray) and value.size else default

    tokens = file.metadata.get("tokenizer.ggml.tokens", ())
    heads = number("attention.head_count")
    vocabulary = number("vocab_size", len(tokens) if isinstance(tokens, tuple) else 0)
    return ModelDimensions(
        number("block_count"),
        number("embedding_length"),
        heads,
        number("attention.head_count_kv", heads),
        vocabulary,
        number("expert_count"),
    )
