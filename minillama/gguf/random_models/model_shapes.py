"""The shape of a model: all that determines speed and memory, without the weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from minillama.gguf.random_models.vocabulary_specs import VocabularySpec

Tensors = Iterator[tuple[str, tuple[int, ...]]]  # names and numpy shapes


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
    file_type: str = "Q4_0"  # of a file where none is asked for

    def tensors(self) -> Tensors:
        """Names and numpy shapes in the order of a converted file."""
        if self.rope_factors is not None:
            yield "rope_freqs.weight", (self.head_size // 2,)
        yield "token_embd.weight", (self.vocabulary.size, self.embedding)
        for layer in range(self.layers):
            for name, shape in self.layer_tensors(layer):
                yield f"blk.{layer}.{name}", shape
        yield "output_norm.weight", (self.embedding,)
        if not self.tied:
            yield "output.weight", (self.vocabulary.size, self.embedding)

    def layer_tensors(self, layer: int) -> Tensors:
        """Those of a layer; other kinds of layers replace this."""
        yield "attn_norm.weight", (self.embedding,)
        yield from self.attention_tensors()
        yield "ffn_norm.weight", (self.embedding,)
        yield from self.feed_forward_tensors()

    def attention_tensors(self) -> Tensors:
        """Grouped-query attention."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        for part, rows in {"q": queries, "k": keys, "v": keys}.items():
            yield f"attn_{part}.weight", (rows, self.embedding)
            if self.qkv_bias:
                yield f"attn_{part}.bias", (rows,)
        yield "attn_output.weight", (self.embedding, queries)

    def feed_forward_tensors(self) -> Tensors:
        """A gated feed-forward network."""
        yield "ffn_gate.weight", (self.feed_forward, self.embedding)
        yield "ffn_up.weight", (self.feed_forward, self.embedding)
        yield "ffn_down.weight", (self.embedding, self.feed_forward)

    def metadata(self) -> dict[str, int | float | str | list[int]]:
        """Hyperparameters by their keys, without the architecture before them."""
        return {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.embedding,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            "attention.layer_norm_rms_epsilon": self.rms_epsilon,
            "rope.dimension_count": self.head_size,
            "rope.freq_base": self.rope_base,
            "vocab_size": self.vocabulary.size,
        }

    def vector(self, name: str, size: int, rng: np.random.Generator) -> np.ndarray:
        """A tensor of one axis, float32: norm weights around 1, small biases, or RoPE factors."""
        if name == "rope_freqs.weight" and self.rope_factors is not None:
            return self.rope_factors.values(self.head_size, self.rope_base)
        centre = 0.0 if name.endswith(".bias") else 1.0
        return rng.normal(centre, 0.1, size).astype(np.float32)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.tensors())
