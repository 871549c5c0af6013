"""Tiny random-weight GGUF files of every architecture and variant, so that tests need no download."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from tiny_layers import H, K, N, Tensors, layer_tensors, linear, vector
from tiny_other_layers import per_layer_tables
from tiny_variants import LAYERS, VARIANTS, Metadata, Variant

from minillama.gguf import open_gguf

__all__ = ["LAYERS", "VARIANTS", "VOCAB", "D", "F", "H", "K", "N", "Variant", "all_tensors", "overwrite", "write_tiny"]

VOCAB, D, F = 300, 64, 96
_FLOATS = ("ssm_conv1d", "shortconv.conv", "ssm_norm", ".proj.", "per_layer_")  # matrices that are never quantised
_RANGES = {  # of weights that are vectors; others lie between 0.5 and 1.5
    "rope_freqs": (1.0, 4.0),
    "rope_factors_long": (1.0, 4.0),
    "ffn_gate_inp_shexp": (-1.0, 1.0),
    "ssm_a": (-1.0, -0.1),
    "layer_output_scale": (0.5, 1.0),
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
    for tensor, shape in all_tensors(variant, width, feed, vocab if rows is None else rows).items():
        values = numbers(tensor, shape, rng)
        is_float = len(shape) < 2 or not tensor.endswith(".weight") or any(name in tensor for name in _FLOATS)
        if is_float or kind is GGMLQuantizationType.F32:
            writer.add_tensor(tensor, values)
        else:
            writer.add_tensor(tensor, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def all_tensors(variant: Variant, width: int, feed: int, rows: int) -> Tensors:
    """All tensors of a file, in its order."""
    found = linear("token_embd", rows, width) | vector(variant.output_norm, width, bias=variant.norm_bias)
    if variant.per_layer:
        found |= per_layer_tables(variant.layers, width, rows)
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
    if len(shape) == 1 or not tensor.endswith(".weight") or "ssm_norm" in tensor:
        low, high = _RANGES.get(tensor.removesuffix(".weight").split(".")[-1], (0.5, 1.5))
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
