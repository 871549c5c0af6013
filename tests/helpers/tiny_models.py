"""Tiny random-weight GGUF files of every architecture and variant, so that tests need no download."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from tiny_layers import H, K, N, Tensors, attention, layer_tensors, linear, vector

from minillama.gguf import open_gguf

__all__ = ["LAYERS", "VARIANTS", "VOCAB", "D", "F", "H", "K", "N", "Variant", "overwrite", "write_tiny"]

VOCAB, D, LAYERS, F = 300, 64, 2, 96

Metadata = int | float | str | bool | Sequence[int] | Sequence[bool]


@dataclass(frozen=True)
class Variant:
    """Differences of one tiny model from the simplest Llama.

    ffn_norm: the name of the norm before the feed-forward network; none in parallel layers.
    biases: of the matrices after attention, in the feed-forward network, and of an own head.
    mixer: the tensors of a layer before the feed-forward network, by variant, layer and width.
    """

    architecture: str
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    layers: int = LAYERS
    key_length: int = H
    kv_heads: int = K
    tied: bool = False
    fused: bool = False
    qkv_bias: bool = False
    biases: bool = False
    layer_norm: bool = False
    norm_bias: bool = False
    head_norms: bool = False  # of each head
    whole_norms: bool = False  # of all heads at once
    pre_norms: bool = True
    ffn_norm: str = "ffn_norm"
    post_norms: bool = False
    gated: bool = True
    experts: int = 0
    leading_dense: int = 0
    choice_bias: bool = False
    shared_expert: bool = False
    shared_gate: bool = True
    factors: str = ""
    mixer: Callable[["Variant", int, int], Tensors] = attention


_MOE = {"expert_count": 4, "expert_used_count": 2}
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
_SCALES = {"embedding_scale": 3.0, "residual_scale": 0.4, "attention.scale": 0.11, "logit_scale": 3.0}
_WINDOW = {"attention.sliding_window": 5}
VARIANTS = {
    "llama": Variant("llama"),
    "llama3": Variant("llama", {"rope.freq_base": 500000.0}, factors="rope_freqs"),
    "llama-linear": Variant("llama", _LINEAR),
    "mixtral": Variant("llama", _MOE, experts=4),
    "qwen2": Variant("qwen2", qkv_bias=True, tied=True),
    "qwen2-yarn": Variant("qwen2", _YARN, qkv_bias=True),
    "qwen2moe": Variant("qwen2moe", _MOE, qkv_bias=True, experts=4, shared_expert=True),
    "qwen3": Variant("qwen3", key_length=32, head_norms=True),
    "qwen3moe": Variant("qwen3moe", _MOE, head_norms=True, experts=4),
    "chatglm": Variant("chatglm", {"rope.dimension_count": 8}, fused=True, qkv_bias=True),
    "glm4": Variant("glm4", {"rope.dimension_count": 8}, fused=True, post_norms=True),
    "gemma2": Variant(
        "gemma2",
        {**_WINDOW, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        tied=True,
        post_norms=True,
    ),
    "gemma3": Variant(
        "gemma3",
        {**_WINDOW, "rope.freq_base": 1e6, **_LINEAR},
        layers=7,  # five local layers, a global one, and another local one
        tied=True,
        head_norms=True,
        post_norms=True,
    ),
    "phi3": Variant("phi3", fused=True),
    "phi3-longrope": Variant(
        "phi3",
        {"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.19},
        fused=True,
        factors="rope_factors_long",
    ),
    "cohere2": Variant(
        "cohere2",
        {**_WINDOW, "attention.sliding_window_pattern": 2, "logit_scale": 0.25},
        tied=True,
        layer_norm=True,
        ffn_norm="",
    ),
    "ernie4_5": Variant("ernie4_5", tied=True),
    "ernie4_5-moe": Variant(
        "ernie4_5-moe", _MOE, experts=4, leading_dense=1, choice_bias=True, shared_expert=True, shared_gate=False
    ),
    "exaone4": Variant(
        "exaone4", tied=True, pre_norms=False, head_norms=True, post_norms=True, factors="rope_freqs"
    ),  # of 64 layers, some would have a window
    "gemma": Variant("gemma", kv_heads=1, tied=True),
    "glm4moe": Variant(
        "glm4moe",
        {
            "expert_count": 6, "expert_used_count": 3, "expert_group_count": 3, "expert_group_used_count": 2,
            "expert_gating_func": 2, "expert_weights_norm": True, "expert_weights_scale": 2.5,
            "rope.dimension_count": 8, "nextn_predict_layers": 1,
        },
        layers=3,  # a dense one, one of experts, and one that is skipped
        qkv_bias=True,
        head_norms=True,
        ffn_norm="post_attention_norm",
        experts=6,
        leading_dense=1,
        choice_bias=True,
        shared_expert=True,
        shared_gate=False,
    ),
    "granite": Variant("granite", _SCALES, tied=True),
    "granite-without-rope": Variant("granite", {**_SCALES, "rope.scaling.finetuned": False}, tied=True),
    "granitemoe": Variant("granitemoe", {**_MOE, **_SCALES}, experts=4, shared_expert=True, shared_gate=False),
    "hunyuan-dense": Variant(
        "hunyuan-dense", {"rope.scaling.type": "none", "rope.scaling.alpha": 1000.0}, tied=True, head_norms=True
    ),
    "minicpm": Variant("minicpm"),
    "minimax-m2": Variant(
        "minimax-m2",
        {**_MOE, "expert_gating_func": 2, "rope.dimension_count": 8},
        whole_norms=True,
        experts=4,
        choice_bias=True,
    ),
    "mistral3": Variant(
        "mistral3",
        {
            **_YARN, "rope.scaling.original_context_length": 16, "rope.freq_base": 100.0,
            "rope.scaling.yarn_beta_fast": 4.0, "rope.scaling.yarn_beta_slow": 0.25,
            "rope.scaling.yarn_log_multiplier": 0.5, "attention.temperature_scale": 0.3,
        },
        key_length=32,
    ),
    "olmo2": Variant("olmo2", pre_norms=False, whole_norms=True, post_norms=True),
    "olmo3": Variant(
        "olmo2",
        {**_YARN, **_WINDOW, "attention.sliding_window_pattern": [True, False], "rope.scaling.attn_factor": 1.2},
        pre_norms=False,
        whole_norms=True,
        post_norms=True,
    ),
    "phi2": Variant(
        "phi2",
        {"rope.dimension_count": 8},
        kv_heads=N,
        qkv_bias=True,
        biases=True,
        layer_norm=True,
        norm_bias=True,
        ffn_norm="",
        gated=False,
    ),
    "qwen2vl": Variant("qwen2vl", {"rope.dimension_sections": [2, 3, 3, 0]}, qkv_bias=True),
    "qwen3vl": Variant("qwen3vl", {"rope.dimension_sections": [6, 5, 5, 0]}, key_length=32, tied=True, head_norms=True),
    "qwen3vlmoe": Variant(
        "qwen3vlmoe", {**_MOE, "rope.dimension_sections": [3, 3, 2, 0]}, head_norms=True, experts=4
    ),
    "seed_oss": Variant("seed_oss", qkv_bias=True, ffn_norm="post_attention_norm"),
    "smollm3": Variant("smollm3", layers=4, tied=True),  # the fourth does not rotate
    "starcoder2": Variant(
        "starcoder2", tied=True, qkv_bias=True, biases=True, layer_norm=True, norm_bias=True, gated=False
    ),
}  # fmt: skip
_RANGES = {  # of weights that are vectors; others lie between 0.5 and 1.5
    "rope_freqs": (1.0, 4.0),
    "rope_factors_long": (1.0, 4.0),
    "ffn_gate_inp_shexp": (-1.0, 1.0),
}


def write_tiny(
    path: Path,
    name: str,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    seed: int = 0,
    *,
    feed: int | None = None,
    vocab: int = VOCAB,
    rows: int | None = None,
) -> Path:
    """Write one variant; matrices as `kind`, everything else as F32.

    feed: feed-forward width, a usual one if None. vocab: tokens. rows: of the embedding and the head, None for `vocab`.
    """
    variant, rng = VARIANTS[name], np.random.default_rng(seed)
    width, usual = (D, F) if kind is GGMLQuantizationType.F32 else (256, 256)
    feed = usual if feed is None else feed
    writer = GGUFWriter(path, variant.architecture)
    _write_metadata(writer, variant, width, feed, vocab)
    for tensor, shape in _tensors(variant, width, feed, vocab if rows is None else rows).items():
        values = numbers(tensor, shape, rng)
        if len(shape) < 2 or kind is GGMLQuantizationType.F32 or tensor.endswith(".bias"):
            writer.add_tensor(tensor, values)
        else:
            writer.add_tensor(tensor, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(variant: Variant, width: int, feed: int, rows: int) -> Tensors:
    """All tensors of a file, in its order."""
    found = linear("token_embd", rows, width) | vector("output_norm", width, bias=variant.norm_bias)
    if not variant.tied:
        found |= linear("output", rows, width, bias=variant.biases)
    if variant.factors:
        found |= vector(variant.factors, variant.key_length // 2)
    for layer in range(variant.layers):
        tensors = layer_tensors(variant, layer, width, feed)
        found |= {f"blk.{layer}.{name}": shape for name, shape in tensors.items()}
    return found


def numbers(tensor: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random numbers of a tensor: small biases, vectors around 1, and matrices that keep the size of their input."""
    if tensor.endswith(".bias"):
        return 0.1 * rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        low, high = _RANGES.get(tensor.split(".")[-2], (0.5, 1.5))
        return rng.uniform(low, high, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) / np.sqrt(shape[-1], dtype=np.float32)


def overwrite(path: Path, tensor: str, value: float, row: int | None = None) -> Path:
    """Set an F32 tensor, or one row of it, to a value in the file."""
    found = open_gguf(path).tensors[tensor]
    size = found.nbytes // (found.shape[0] if row is not None else 1)
    with path.open("r+b") as file:
        file.seek(found.offset + (row or 0) * size)
        file.write(np.full(size // 4, value, np.float32).tobytes())
    return path


def _write_metadata(writer: GGUFWriter, variant: Variant, width: int, feed: int, vocab: int) -> None:
    values: dict[str, Metadata] = {
        "context_length": 512, "embedding_length": width, "block_count": variant.layers, "feed_forward_length": feed,
        "attention.head_count": N, "attention.head_count_kv": variant.kv_heads,
        "attention.key_length": variant.key_length, "attention.value_length": variant.key_length,
        f"attention.layer_norm_{'' if variant.layer_norm else 'rms_'}epsilon": 1e-5,
        "rope.dimension_count": variant.key_length, "rope.freq_base": 10000.0, **variant.metadata,
    }  # fmt: skip
    for key, value in values.items():
        _write_value(writer, f"{variant.architecture}.{key}", value)
    words = ["▁", "e", "t", "a", "o", "n", "i", "h", "s", "r", "▁t", "he", "▁the", "▁a", "in", "on", "er", "nd"]
    words += [f"word{i}" for i in range(vocab - 259 - len(words))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(words))])
    writer.add_token_types([*kinds, *[TokenType.BYTE] * 256, *[TokenType.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _write_value(writer: GGUFWriter, name: str, value: Metadata) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
