"""Shapes of real models: all that determines speed and memory, without the weights.

Numbers: the config.json of each model's repository.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from minillama.errors import OptionError
from minillama.gguf.random_models.chat_templates import CHATML_QWEN, LLAMA_2, LLAMA_3, ZEPHYR


@dataclass(frozen=True)
class RopeFactors:
    """Llama 3's RoPE scaling of low frequencies to a longer context."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int

    def values(self, head_size: int, base: float) -> np.ndarray:
        """Divisors of the RoPE frequencies, float32 [head_size / 2]."""
        wavelengths = 2 * math.pi * base ** (np.arange(0, head_size, 2) / head_size)
        rotations = self.original_context / wavelengths
        smooth = (rotations - self.low_frequency_factor) / (self.high_frequency_factor - self.low_frequency_factor)
        between = 1 / ((1 - smooth) / self.factor + smooth)
        stretched = np.where(rotations < self.low_frequency_factor, self.factor, between)
        return np.where(rotations > self.high_frequency_factor, 1.0, stretched).astype(np.float32)


@dataclass(frozen=True)
class VocabularySpec:
    """Specification of a synthetic vocabulary.

    pre: pre-tokenizer of a byte-level BPE vocabulary; None for SentencePiece. special: (id, text, type) with
    llama.cpp's token types: 3 control, 4 user-defined, 5 unused.
    """

    size: int
    pre: str | None
    special: tuple[tuple[int, str, int], ...]
    bos: int | None
    eos: int
    padding: int | None
    add_bos: bool
    chat_template: str


@dataclass(frozen=True)
class ModelShape:
    """Hyperparameters of a model; `family` is the GGUF architecture."""

    name: str
    title: str
    size_label: str
    family: str
    layers: int
    embedding: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    context: int
    rms_epsilon: float
    rope_base: float
    tied: bool
    vocabulary: VocabularySpec = field(repr=False)
    qkv_bias: bool = False
    rope_factors: RopeFactors | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and numpy shapes in the order of a converted file."""
        model, feed = self.embedding, self.feed_forward
        if self.rope_factors is not None:
            yield "rope_freqs.weight", (self.head_size // 2,)
        yield "token_embd.weight", (self.vocabulary.size, model)
        for layer in range(self.layers):
            sizes = {
                "q": self.heads * self.head_size,
                "k": self.kv_heads * self.head_size,
                "v": self.kv_heads * self.head_size,
            }
            yield f"blk.{layer}.attn_norm.weight", (model,)
            for part, rows in sizes.items():
                yield f"blk.{layer}.attn_{part}.weight", (rows, model)
                if self.qkv_bias:
                    yield f"blk.{layer}.attn_{part}.bias", (rows,)
            yield f"blk.{layer}.attn_output.weight", (model, sizes["q"])
            yield f"blk.{layer}.ffn_norm.weight", (model,)
            yield f"blk.{layer}.ffn_gate.weight", (feed, model)
            yield f"blk.{layer}.ffn_up.weight", (feed, model)
            yield f"blk.{layer}.ffn_down.weight", (model, feed)
        yield "output_norm.weight", (model,)
        if not self.tied:
            yield "output.weight", (self.vocabulary.size, model)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.tensors())


def shape_named(name: str) -> ModelShape:
    """Find a shape by name; OptionError for an unknown name."""
    if name not in SHAPES:
        raise OptionError(f"unknown model shape {name}; known: {', '.join(SHAPES)}")
    return SHAPES[name]


def _sentencepiece(size: int, chat_template: str) -> VocabularySpec:
    special = ((0, "<unk>", 2), (1, "<s>", 3), (2, "</s>", 3))
    return VocabularySpec(size, None, special, 1, 2, None, True, chat_template)


def _llama_3() -> VocabularySpec:
    named = {
        0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>", 6: "<|start_header_id|>",
        7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>",
    }  # fmt: skip
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(256))
    special = tuple((128000 + place, named.get(place) or next(reserved), 3) for place in range(256))
    return VocabularySpec(128256, "llama-bpe", special, 128000, 128009, 128004, True, LLAMA_3)


def _qwen_2() -> VocabularySpec:
    control = (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
        "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>",
    )  # fmt: skip
    defined = (
        "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
        "<|repo_name|>", "<|file_sep|>",
    )  # fmt: skip
    texts = [(text, 3) for text in control] + [(text, 4) for text in defined]
    texts += [(f"[PAD{number}]", 5) for number in range(151643 + len(texts), 151936)]
    special = tuple((151643 + place, text, kind) for place, (text, kind) in enumerate(texts))
    return VocabularySpec(151936, "qwen2", special, 151643, 151645, 151643, False, CHATML_QWEN)


SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            "tinyllama-1.1b", "TinyLlama 1.1B Chat", "1.1B", "llama",
            layers=22, embedding=2048, heads=32, kv_heads=4, head_size=64, feed_forward=5632, context=2048,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=_sentencepiece(32000, ZEPHYR),
        ),
        ModelShape(
            "llama-3.2-1b", "Llama 3.2 1B Instruct", "1B", "llama",
            layers=16, embedding=2048, heads=32, kv_heads=8, head_size=64, feed_forward=8192, context=131072,
            rms_epsilon=1e-5, rope_base=5e5, tied=True, vocabulary=_llama_3(),
            rope_factors=RopeFactors(32.0, 1.0, 4.0, 8192),
        ),
        ModelShape(
            "qwen2.5-0.5b", "Qwen2.5 0.5B Instruct", "0.5B", "qwen2",
            layers=24, embedding=896, heads=14, kv_heads=2, head_size=64, feed_forward=4864, context=32768,
            rms_epsilon=1e-6, rope_base=1e6, tied=True, vocabulary=_qwen_2(), qkv_bias=True,
        ),
        ModelShape(
            "llama-2-7b", "Llama 2 7B Chat", "7B", "llama",
            layers=32, embedding=4096, heads=32, kv_heads=32, head_size=128, feed_forward=11008, context=4096,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=_sentencepiece(32000, LLAMA_2),
        ),
        ModelShape(
            "tiny", "Tiny", "1.4M", "llama",
            layers=2, embedding=256, heads=4, kv_heads=2, head_size=64, feed_forward=512, context=512,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=_sentencepiece(512, ZEPHYR),
        ),
    )
}  # fmt: skip
