"""The shape of a model: all that determines speed and memory, without the weights.

A shape is metadata. The names and sizes of its tensors follow from it, by the same tables as when a file is read.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from minillama.model import Config, read_config
from minillama.model.architectures import family
from minillama.random_models.frequency_divisors import RopeFactors
from minillama.random_models.layer_tensors import FILES, layer_tensors
from minillama.random_models.vocabularies.vocabulary_specs import VocabularySpec

Value = int | float | str | bool | list[int] | list[bool]


@dataclass(frozen=True)
class ModelShape:
    """Hyperparameters of a model.

    keys: further metadata, without the architecture before it. file_type: that of a file where none is asked for.
    """

    name: str
    title: str
    size_label: str
    architecture: str
    layers: int
    embedding: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    context: int
    epsilon: float
    rope_base: float
    tied: bool
    vocabulary: VocabularySpec = field(repr=False)
    keys: Mapping[str, Value] = field(default_factory=dict)
    rope_factors: RopeFactors | None = None
    file_type: str = "Q4_0"

    @property
    def metadata(self) -> dict[str, Value]:
        """All hyperparameters by their keys, without the architecture before them."""
        norm = (
            "attention.layer_norm_epsilon"
            if family(self.architecture).layer_norm
            else "attention.layer_norm_rms_epsilon"
        )
        return {
            "block_count": self.layers,
            "context_length": self.context,
            "embedding_length": self.embedding,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            norm: self.epsilon,
            "rope.dimension_count": self.head_size,
            "rope.freq_base": self.rope_base,
            "vocab_size": self.vocabulary.size,
            **self.keys,
        }

    @cached_property
    def config(self) -> Config:
        """The configuration that a reader of the file finds."""
        named = {f"{self.architecture}.{key}": _as_read(value) for key, value in self.metadata.items()}
        return read_config({"general.architecture": self.architecture, **named}, self.vocabulary.size)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and numpy shapes in the order of a converted file."""
        config, files, tokens = self.config, FILES[self.architecture], self.vocabulary.size
        if self.rope_factors is not None:
            yield "rope_freqs.weight", (config.rope.dimension_count // 2,)
        yield "token_embd.weight", (tokens, self.embedding)
        if config.per_layer_length:
            width = self.layers * config.per_layer_length
            yield "per_layer_token_embd.weight", (tokens, width)
            yield "per_layer_model_proj.weight", (width, self.embedding)
            yield "per_layer_proj_norm.weight", (config.per_layer_length,)
        for layer in range(self.layers):
            yield from layer_tensors(config, self.metadata, layer)
        yield f"{config.family.output_norm}.weight", (self.embedding,)
        if "output_norm" in files.biases:
            yield "output_norm.bias", (self.embedding,)
        if not self.tied:
            yield "output.weight", (tokens, self.embedding)
            if "output" in files.biases:
                yield "output.bias", (tokens,)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.tensors())


def _as_read(value: Value) -> object:
    """A value as a file returns it: lists as arrays, numbers of 32 bits."""
    if isinstance(value, list):
        return np.array(value)
    return float(np.float32(value)) if isinstance(value, float) else value
