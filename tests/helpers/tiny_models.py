"""Tiny random-weight GGUF files of every architecture and variant, so that tests need no download."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize

from minillama.gguf import open_gguf

VOCAB, D, LAYERS, N, K, H, F = 300, 64, 2, 4, 2, 16, 96


@dataclass(frozen=True)
class Variant:
    """Differences of one tiny model from the simplest Llama."""

    architecture: str
    metadata: dict[str, int | float | str] = field(default_factory=dict)
    layers: int = LAYERS
    key_length: int = H
    tied: bool = False
    fused: bool = False
    qkv_bias: bool = False
    head_norms: bool = False
    post_norms: bool = False
    experts: int = 0
    shared_expert: bool = False
    factors: str = ""


_MOE = {"expert_count": 4, "expert_used_count": 2}
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
_LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
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
        {"attention.sliding_window": 5, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        tied=True,
        post_norms=True,
    ),
    "gemma3": Variant(
        "gemma3",
        {"attention.sliding_window": 5, "rope.freq_base": 1e6, **_LINEAR},
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
}  # fmt: skip


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

    def matrix(tensor: str, *shape: int, bias: bool = False) -> None:
        values = rng.standard_normal(shape, np.float32) / np.sqrt(shape[-1], dtype=np.float32)
        if kind is GGMLQuantizationType.F32:
            writer.add_tensor(f"{tensor}.weight", values)
        else:
            writer.add_tensor(f"{tensor}.weight", quantize(values, kind), raw_dtype=kind)
        if bias:
            writer.add_tensor(f"{tensor}.bias", 0.1 * rng.standard_normal(shape[-2], np.float32))

    def vector(tensor: str, size: int, low: float = 0.5, high: float = 1.5) -> None:
        writer.add_tensor(f"{tensor}.weight", rng.uniform(low, high, size).astype(np.float32))

    rows = vocab if rows is None else rows
    matrix("token_embd", rows, width)
    vector("output_norm", width)
    if not variant.tied:
        matrix("output", rows, width)
    if variant.factors:
        vector(variant.factors, variant.key_length // 2, 1.0, 4.0)
    heads = variant.key_length
    for layer in range(variant.layers):
        blk = f"blk.{layer}."
        vector(blk + "attn_norm", width)
        vector(blk + "ffn_norm", width)
        if variant.fused:
            matrix(blk + "attn_qkv", (N + 2 * K) * heads, width, bias=variant.qkv_bias)
        else:
            matrix(blk + "attn_q", N * heads, width, bias=variant.qkv_bias)
            matrix(blk + "attn_k", K * heads, width, bias=variant.qkv_bias)
            matrix(blk + "attn_v", K * heads, width, bias=variant.qkv_bias)
        matrix(blk + "attn_output", width, N * heads)
        if variant.head_norms:
            vector(blk + "attn_q_norm", heads)
            vector(blk + "attn_k_norm", heads)
        if variant.post_norms:
            vector(blk + "post_attention_norm", width)
            vector(blk + "post_ffw_norm", width)
        if variant.experts:
            matrix(blk + "ffn_gate_inp", variant.experts, width)
            matrix(blk + "ffn_gate_exps", variant.experts, feed, width)
            matrix(blk + "ffn_up_exps", variant.experts, feed, width)
            matrix(blk + "ffn_down_exps", variant.experts, width, feed)
            if variant.shared_expert:
                vector(blk + "ffn_gate_inp_shexp", width, -1, 1)
                matrix(blk + "ffn_gate_shexp", feed, width)
                matrix(blk + "ffn_up_shexp", feed, width)
                matrix(blk + "ffn_down_shexp", width, feed)
        elif variant.fused or variant.architecture == "glm4":
            matrix(blk + "ffn_up", 2 * feed, width)
            matrix(blk + "ffn_down", width, feed)
        else:
            matrix(blk + "ffn_gate", feed, width)
            matrix(blk + "ffn_up", feed, width)
            matrix(blk + "ffn_down", width, feed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def overwrite(path: Path, tensor: str, value: float, row: int | None = None) -> Path:
    """Set an F32 tensor, or one row of it, to a value in the file."""
    found = open_gguf(path).tensors[tensor]
    size = found.nbytes // (found.shape[0] if row is not None else 1)
    with path.open("r+b") as file:
        file.seek(found.offset + (row or 0) * size)
        file.write(np.full(size // 4, value, np.float32).tobytes())
    return path


def _write_metadata(writer: GGUFWriter, variant: Variant, width: int, feed: int, vocab: int) -> None:
    numbers: dict[str, int | float | str] = {
        "context_length": 512, "embedding_length": width, "block_count": variant.layers, "feed_forward_length": feed,
        "attention.head_count": N, "attention.head_count_kv": K, "attention.key_length": variant.key_length,
        "attention.value_length": variant.key_length, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": variant.key_length, "rope.freq_base": 10000.0, **variant.metadata,
    }  # fmt: skip
    for key, value in numbers.items():
        name = f"{variant.architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    tokens, scores, kinds = (
        ["<unk>", "<s>", "</s>"],
        [0.0] * 3,
        [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL],
    )
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    kinds += [TokenType.BYTE] * 256
    scores += [0.0] * 256
    words = ["▁", "e", "t", "a", "o", "n", "i", "h", "s", "r", "▁t", "he", "▁the", "▁a", "in", "on", "er", "nd"]
    words += [f"word{i}" for i in range(vocab - len(tokens) - len(words))]
    tokens += words
    scores += [-float(i) for i in range(len(words))]
    kinds += [TokenType.NORMAL] * len(words)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
