"""Names, sizes and mixes under llama.cpp's names; its own tools gave the expected values."""

from pathlib import Path

import gguf_bytes
import pytest
from gguf_bytes import pair

from minillama.errors import OptionError
from minillama.gguf import FileType, TensorType, open_gguf
from minillama.gguf.display_names import (
    FILE_TYPE_NAMES,
    file_type_name,
    format_bytes,
    format_parameters,
    model_type,
    size_class,
)
from minillama.gguf.quantisation_mixes import ALL_MIX_NAMES, Mix, ModelTraits, tensor_type

# llama-quantize's name -> llama-bench's name
WORDS = {
    "F32": "all F32", "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0",
    "Q5_1": "Q5_1", "Q2_K": "Q2_K - Medium", "Q3_K_S": "Q3_K - Small", "Q3_K_M": "Q3_K - Medium",
    "Q3_K_L": "Q3_K - Large", "Q4_K_S": "Q4_K - Small", "Q4_K_M": "Q4_K - Medium", "Q5_K_S": "Q5_K - Small",
    "Q5_K_M": "Q5_K - Medium", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL - 4.5 bpw", "IQ4_XS": "IQ4_XS - 4.25 bpw",
    "IQ1_S": "IQ1_S - 1.5625 bpw", "IQ1_M": "IQ1_M - 1.75 bpw", "IQ2_XXS": "IQ2_XXS - 2.0625 bpw",
    "IQ2_XS": "IQ2_XS - 2.3125 bpw", "IQ2_S": "IQ2_S - 2.5 bpw", "IQ2_M": "IQ2_M - 2.7 bpw",
    "IQ3_XXS": "IQ3_XXS - 3.0625 bpw", "IQ3_XS": "IQ3_XS - 3.3 bpw", "IQ3_S": "IQ3_S - 3.4375 bpw",
    "IQ3_M": "IQ3_S mix - 3.66 bpw", "TQ1_0": "TQ1_0 - 1.69 bpw ternary", "TQ2_0": "TQ2_0 - 2.06 bpw ternary",
    "NVFP4": "NVFP4", "MXFP4_MOE": "MXFP4 MoE",
}  # fmt: skip


def write(folder: Path, family: str, *pairs: bytes, types: tuple[int, ...] = ()) -> Path:
    tensors = [gguf_bytes.tensor(f"t{at}", [1], kind, 32 * at) for at, kind in enumerate(types)]
    path = folder / "named.gguf"
    content = gguf_bytes.build([pair("general.architecture", 8, family), *pairs], tensors, bytes(32 * len(types)))
    path.write_bytes(content)
    return path


def test_sizes() -> None:
    assert format_bytes(0) == "0.00 MiB"
    assert format_bytes(2**30 - 2**20) == "1023.00 MiB"
    assert format_bytes(2**30) == "1.00 GiB"
    assert format_bytes(int(4.58 * 2**30)) == "4.58 GiB"
    assert format_parameters(494_032_768) == "494.03 M"
    assert format_parameters(1_235_814_432) == "1.24 B"


@pytest.mark.parametrize(
    ("family", "layers", "facts", "expected"),
    [
        ("llama", 16, {}, "1B"),
        ("llama", 22, {}, "1B"),
        ("llama", 32, {"vocab_size": 32000}, "7B"),
        ("llama", 32, {"vocab_size": 128256}, "8B"),
        ("llama", 32, {"vocab_size": 49152}, "3B"),
        ("llama", 32, {"expert_count": 8}, "8x7B"),
        ("llama", 80, {"attention.head_count": 64, "attention.head_count_kv": 8}, "70B"),
        ("llama", 80, {"attention.head_count": 64}, "65B"),
        ("llama", 5, {}, "?B"),
        ("qwen2", 24, {"embedding_length": 896}, "1B"),
        ("qwen2", 24, {"embedding_length": 1024}, "0.5B"),
        ("qwen2", 28, {"embedding_length": 1536}, "1.5B"),
        ("qwen2", 28, {"embedding_length": 3584}, "7B"),
        ("qwen3", 28, {"embedding_length": 1024}, "0.6B"),
        ("qwen3", 36, {"embedding_length": 4096}, "8B"),
        ("qwen3moe", 48, {}, "30B.A3B"),
        ("qwen2moe", 24, {}, "A2.7B"),
        ("gemma2", 26, {}, "2B"),
        ("gemma3", 18, {}, "270M"),
        ("gemma3", 34, {}, "4B"),
        ("phi3", 32, {}, "3B"),
        ("chatglm", 28, {"attention.head_count": 32}, "6B"),
        ("glm4", 40, {}, "9B"),
        ("mamba", 24, {}, "?B"),
    ],
)
def test_size_classes(tmp_path: Path, family: str, layers: int, facts: dict[str, int], expected: str) -> None:
    pairs = [pair(f"{family}.{key}", 4, number) for key, number in {"block_count": layers, **facts}.items()]
    assert size_class(open_gguf(write(tmp_path, family, *pairs))) == expected


def test_dimensions_may_differ_by_layer(tmp_path: Path) -> None:
    pairs = [pair("chatglm.block_count", 4, 40), pair("chatglm.attention.head_count", 9, (5, [24] * 40))]
    assert size_class(open_gguf(write(tmp_path, "chatglm", *pairs))) == "4B"


def test_the_file_type_is_stated_or_guessed(tmp_path: Path) -> None:
    def name(*pairs: bytes, types: tuple[int, ...] = (0,)) -> str:
        return file_type_name(open_gguf(write(tmp_path, "llama", *pairs, types=types)))

    assert name(pair("general.file_type", 4, 15)) == "Q4_K - Medium"
    assert name(pair("general.file_type", 4, 1024 + 7)) == "(guessed) Q8_0"
    assert name(pair("general.file_type", 4, 555)) == "unknown, may not work"
    assert name(types=(0, 1, 1)) == "(guessed) F16"
    assert name(types=(0, 0, 30)) == "(guessed) all F32"
    assert name(types=()) == "all F32"


def test_reference_files_have_the_types_that_llama_quantize_gave(reference: Path) -> None:
    """Each quantised file of the reference was written by llama-quantize from one F32 model."""
    paths = sorted((reference / "quant").glob("wide-*.gguf"))
    assert len(paths) >= 14
    for path in paths:
        name = path.stem.removeprefix("wide-")
        file, mix = open_gguf(path), Mix.named(name)
        assert file.metadata["general.file_type"] == mix.file_type
        assert model_type(file) == f"llama ?B {WORDS[name]}"
        facts = {"layers": 2, "heads": 0, "kv_heads": 0}
        for fact, key in (
            ("layers", "block_count"),
            ("heads", "attention.head_count"),
            ("kv_heads", "attention.head_count_kv"),
        ):
            facts[fact] = file.require(f"llama.{key}", int)
        traits = ModelTraits(**facts, tied="output.weight" not in file.tensors)
        for tensor in file.tensors.values():
            assert tensor_type(mix, tensor.name, tensor.shape, traits) is tensor.type, (path, tensor.name)


def test_mix_names() -> None:
    assert set(ALL_MIX_NAMES) == set(WORDS)
    assert all(FILE_TYPE_NAMES[Mix.named(name).file_type] == word for name, word in WORDS.items())
    assert Mix.named("q4_k_m") == Mix.named("Q4_K") == Mix("Q4_K_M", FileType.MOSTLY_Q4_K_M, TensorType.Q4_K)
    assert Mix.named("f32").file_type == 0
    with pytest.raises(OptionError, match="unknown file type Q9_9; known: F32, F16"):
        Mix.named("Q9_9")


# From `llama-quantize --dry-run` on a model of 22 layers, 8 heads, 1 key head: layers with another type than the base.
@pytest.mark.parametrize(
    ("name", "part", "other", "layers"),
    [
        ("Q4_K_M", "ffn_down", TensorType.Q6_K, {0, 1, 4, 7, 10, 13, 16, 19, 20, 21}),
        ("Q5_K_M", "attn_v", TensorType.Q6_K, {0, 1, 4, 7, 10, 13, 16, 19, 20, 21}),
        ("Q4_K_S", "attn_v", TensorType.Q5_K, {0, 1, 2, 3}),
        ("Q4_K_S", "ffn_down", TensorType.Q5_K, {0, 1}),
        ("Q3_K_L", "attn_output", TensorType.Q5_K, set(range(22))),
        ("Q2_K", "attn_v", TensorType.Q4_K, set(range(22))),
        ("IQ4_XS", "ffn_down", TensorType.Q5_K, {0, 1}),
        ("Q6_K", "ffn_down", TensorType.Q6_K, set(range(22))),
    ],
)
def test_layers_with_more_bits(name: str, part: str, other: TensorType, layers: set[int]) -> None:
    mix = Mix.named(name)
    for layer in range(22):
        found = tensor_type(
            mix, f"blk.{layer}.{part}.weight", (256, 512), ModelTraits(22, heads=8, kv_heads=1, tied=False)
        )
        assert found is (other if layer in layers else mix.base)


# By the rules of llama-quant.cpp, with an importance matrix, for 4 query heads per key head and for one.
LOW_BIT_MIXES = {
    # mix: token_embd output attn_v(4) attn_v(1) attn_k attn_output ffn_down(first, middle) ffn_up(first, middle)
    "IQ1_S": "Q2_K Q5_K Q4_K Q2_K IQ1_S IQ2_XXS Q2_K IQ1_S IQ1_S IQ1_S",
    "IQ1_M": "Q2_K Q5_K Q4_K Q2_K IQ1_M IQ2_XXS Q2_K IQ1_M IQ1_M IQ1_M",
    "IQ2_XXS": "Q2_K Q5_K Q4_K Q2_K IQ2_XXS IQ2_XXS Q2_K IQ2_XXS IQ2_XXS IQ2_XXS",
    "IQ2_XS": "Q2_K Q5_K Q4_K Q2_K IQ2_XS IQ2_XS Q2_K IQ2_XS IQ2_XS IQ2_XS",
    "IQ2_S": "IQ3_S Q5_K Q4_K IQ3_S IQ2_XS IQ3_S IQ3_S IQ2_XS IQ2_XS IQ2_XS",
    "IQ2_M": "IQ3_S Q5_K Q4_K IQ3_S IQ2_S IQ3_S IQ3_S IQ2_S IQ2_S IQ2_S",
    "IQ3_XXS": "IQ3_S Q5_K Q4_K IQ3_XXS IQ2_S IQ3_S IQ3_XXS IQ3_XXS IQ3_XXS IQ3_XXS",
    "IQ3_XS": "IQ3_S Q6_K Q4_K IQ3_S IQ3_XXS IQ3_S IQ3_S IQ3_S IQ3_S IQ3_XXS",
    "IQ3_S": "IQ3_S Q6_K Q4_K IQ3_S IQ3_S IQ3_S IQ3_S IQ3_S IQ3_S IQ3_S",
    "IQ3_M": "IQ3_S Q6_K Q4_K Q4_K IQ3_S Q4_K Q4_K IQ3_S IQ3_S IQ3_S",
    "TQ1_0": "Q4_K Q6_K TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0 TQ1_0",
    "TQ2_0": "Q4_K Q6_K TQ2_0 TQ2_0 TQ2_0 TQ2_0 TQ2_0 TQ2_0 TQ2_0 TQ2_0",
    "NVFP4": "BF16 BF16 NVFP4 NVFP4 NVFP4 NVFP4 NVFP4 NVFP4 NVFP4 NVFP4",
}


@pytest.mark.parametrize("name", LOW_BIT_MIXES)
def test_low_bit_mixes(name: str) -> None:
    def found(tensor: str, heads: int = 4) -> str:
        traits = ModelTraits(16, heads=heads, kv_heads=1, tied=False, important=True)
        return tensor_type(Mix.named(name), f"{tensor}.weight", (512, 256), traits).name

    tensors = ("blk.3.attn_k", "blk.3.attn_output", "blk.1.ffn_down", "blk.8.ffn_down", "blk.1.ffn_up", "blk.8.ffn_up")
    ends = [found("token_embd"), found("output"), found("blk.3.attn_v"), found("blk.3.attn_v", heads=1)]
    assert [*ends, *map(found, tensors)] == LOW_BIT_MIXES[name].split()


def test_low_bit_mixes_of_other_models() -> None:
    """Eight experts, and no importance matrix."""

    def found(name: str, tensor: str, experts: int = 8) -> str:
        traits = ModelTraits(16, heads=4, kv_heads=1, tied=True, experts=experts)
        return tensor_type(Mix.named(name), f"{tensor}.weight", (512, 256), traits).name

    parts = ("token_embd", "blk.3.attn_v", "blk.3.attn_k", "blk.3.attn_output", "blk.4.ffn_down_exps")
    assert [found("IQ2_XXS", part) for part in parts] == ["Q5_K", "Q4_K", "Q4_K", "Q5_K", "IQ2_XXS"]
    assert [found("IQ3_M", part) for part in parts] == ["Q6_K", "Q8_0", "Q8_0", "Q5_K", "Q4_K"]
    assert [found("TQ1_0", part) for part in parts] == ["Q6_K", "Q8_0", "Q8_0", "TQ1_0", "TQ1_0"]
    assert [found("IQ3_XXS", f"blk.{layer}.ffn_down", experts=0) for layer in (1, 8)] == ["Q4_K", "Q3_K"]


def test_narrow_rows_fall_back() -> None:
    def found(name: str, row: int) -> TensorType:
        mix = Mix.named(name)
        return tensor_type(mix, "blk.3.attn_q.weight", (8, row), ModelTraits(24, heads=14, kv_heads=2, tied=True))

    assert found("IQ2_XXS", 896) is found("IQ1_M", 896) is TensorType.IQ4_NL
    assert found("TQ1_0", 896) is TensorType.Q4_0
    assert (found("NVFP4", 896), found("NVFP4", 96)) == (TensorType.NVFP4, TensorType.F16)
    assert found("Q4_K_M", 896) is TensorType.Q5_0
    assert found("Q2_K", 896) is TensorType.Q4_0
    assert found("Q6_K", 896) is TensorType.Q8_0
    assert found("Q4_K_M", 40) is TensorType.F16
    assert found("Q4_0", 40) is TensorType.F16
