"""A model for the reference implementation: its metadata, its tensors in float64, and the facts of its family.

The facts are written down here once more, by llama.cpp's graphs and not by the table under test.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
ThroughCache = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def unchanged(k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values as an exact cache gives them back."""
    return k, v


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def all_layers(layer: int) -> bool:
    return True


def no_layer(layer: int) -> bool:
    return False


def of_three(layer: int) -> bool:
    """Three layers with a window, then one without."""
    return layer % 4 < 3


@dataclass(frozen=True)
class Facts:
    """What the files of a family do not say; the defaults are those of Qwen2.

    pairs: neighbours rotate together, not the halves of a head. clamped: gates and values of networks are limited.
    of_chosen: softmax comes after the choice of experts. by_groups: value heads share key heads in runs.
    is_local: the layers with a window where the file has no pattern. local_rope: keys of the rope of these layers that
    are not as in the others. rotates: the layers that have rope, or None for those with a window.
    keys: values where the file has none.
    """

    pairs: bool = False
    activation: Function = silu
    layer_norm: bool = False
    parallel: bool = False
    ffn_norm: str = "ffn_norm"
    norm_after_rope: bool = False
    embeds_by_width: bool = False
    divides_logits: bool = False
    clamped: bool = False
    by_groups: bool = False
    of_chosen: bool = False
    gating: Function = softmax
    normalises: bool = True
    is_local: Callable[[int], bool] = no_layer
    local_rope: Mapping[str, object] = field(default_factory=dict)
    rotates: Callable[[int], bool] | None = all_layers
    keys: Callable[[int, int], Mapping[str, float]] = lambda layers, width: {}

    def glu(self, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        """The product of an opened gate and a value."""
        if not self.clamped:
            return self.activation(gate) * up
        gate = np.minimum(gate, 7)
        return gate * sigmoid(1.702 * gate) * (np.clip(up, -7, 7) + 1)


PLAIN = {"rope.scaling.type": "none", "factors": False}  # rope without scaling
SCALED = {"divides_logits": True, "pairs": True}
FACTS: Mapping[str, Facts] = {
    "llama": Facts(pairs=True),
    "chatglm": Facts(pairs=True),
    "glm4": Facts(pairs=True),
    "qwen2moe": Facts(normalises=False),
    "gemma": Facts(activation=gelu, embeds_by_width=True),
    "gemma2": Facts(activation=gelu, embeds_by_width=True, is_local=lambda layer: layer % 2 == 0),
    "gemma3": Facts(
        activation=gelu,
        embeds_by_width=True,
        is_local=lambda layer: layer % 6 < 5,
        local_rope={**PLAIN, "rope.freq_base": 10000.0},
    ),
    "mistral3": Facts(pairs=True),
    "smollm3": Facts(pairs=True, rotates=of_three),
    "glm4moe": Facts(ffn_norm="post_attention_norm", gating=sigmoid, normalises=False),
    "phi2": Facts(layer_norm=True, parallel=True, activation=gelu),
    "granite": Facts(**SCALED),
    "granitemoe": Facts(**SCALED),
    "minicpm": Facts(
        **SCALED,
        keys=lambda layers, width: {
            "embedding_scale": 12.0, "residual_scale": 1.4 / math.sqrt(layers), "logit_scale": 256 / width
        },
    ),
    "ernie4_5": Facts(pairs=True),
    "ernie4_5-moe": Facts(pairs=True),
    "olmo2": Facts(is_local=of_three, local_rope={**PLAIN, "rope.scaling.attn_factor": 1.0}),
    "gemma4": Facts(activation=gelu, embeds_by_width=True),
    "granitehybrid": Facts(**SCALED),
    "nemotron_h": Facts(activation=lambda x: np.maximum(x, 0) ** 2, rotates=no_layer),
    "lfm2moe": Facts(gating=sigmoid),
    "hunyuan-dense": Facts(norm_after_rope=True),
    "seed_oss": Facts(ffn_norm="post_attention_norm"),
    "cohere2": Facts(pairs=True, layer_norm=True, parallel=True, is_local=of_three, rotates=None),
    "starcoder2": Facts(layer_norm=True, activation=gelu),
    "minimax-m2": Facts(gating=sigmoid),
    "deepseek2": Facts(pairs=True, normalises=False),
    "gpt-oss": Facts(
        clamped=True,
        of_chosen=True,
        ffn_norm="post_attention_norm",
        normalises=False,
        is_local=lambda layer: layer % 2 == 0,
    ),
    "qwen35": Facts(ffn_norm="post_attention_norm"),
    "qwen35moe": Facts(ffn_norm="post_attention_norm"),
    "qwen3next": Facts(ffn_norm="post_attention_norm", by_groups=True),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A whole file; through_cache: keys and values [T, K, H] as the cache gives them back."""

    metadata: Mapping[str, object]
    tensors: Mapping[str, np.ndarray]
    ctx_size: int
    through_cache: ThroughCache = unchanged

    @cached_property
    def facts(self) -> Facts:
        return FACTS.get(str(self.metadata["general.architecture"]), Facts())

    def key(self, name: str, default: object = None) -> object:
        """The value of a key, or the family's default, or this one."""
        found = self.metadata.get(f"{self.metadata['general.architecture']}.{name}")
        return self._defaults.get(name, default) if found is None else found

    @cached_property
    def _defaults(self) -> Mapping[str, float]:
        prefix = self.metadata["general.architecture"]
        sizes = (self.metadata[f"{prefix}.{name}"] for name in ("block_count", "embedding_length"))
        return self.facts.keys(*sizes)

    @cached_property
    def epsilon(self) -> float:
        return self.key(f"attention.layer_norm_{'' if self.facts.layer_norm else 'rms_'}epsilon")

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """The family's norm; x itself where the file has none of this name."""
        if f"{name}.weight" not in self.tensors:
            return x
        x = x - x.mean(-1, keepdims=True) if self.facts.layer_norm else x
        return rms_norm(x, self.tensors[f"{name}.weight"], self.epsilon) + self.tensors.get(f"{name}.bias", 0.0)


@dataclass(frozen=True)
class Layer:
    """One layer of a model."""

    model: Model
    number: int

    @property
    def is_local(self) -> bool:
        """Whether the layer has the sliding window."""
        if not self.model.key("attention.sliding_window", 0):
            return False
        pattern = self.model.key("attention.sliding_window_pattern")
        if pattern is None:
            return self.model.facts.is_local(self.number)
        return bool(pattern[self.number]) if np.ndim(pattern) else self.number % pattern < pattern - 1

    @property
    def rotates(self) -> bool:
        rotates = self.model.facts.rotates
        allowed = self.model.key("rope.scaling.finetuned", True)
        return allowed and (self.is_local if rotates is None else rotates(self.number))

    def rope_key(self, name: str, default: object = None) -> object:
        """A key of the rope of this layer."""
        local = self.model.facts.local_rope if self.is_local else {}
        return local.get(name, self.model.key(name, default))

    @property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """The tensors of this layer alone, without its prefix."""
        prefix = f"blk.{self.number}."
        return {name.removeprefix(prefix): x for name, x in self.model.tensors.items() if name.startswith(prefix)}

    def key(self, name: str, default: object = None) -> object:
        found = self.model.key(name, default)
        return found[self.number] if name.endswith("head_count_kv") and np.ndim(found) else found

    def has(self, name: str) -> bool:
        return f"blk.{self.number}.{name}.weight" in self.model.tensors

    def weight(self, name: str) -> np.ndarray:
        return self.model.tensors[f"blk.{self.number}.{name}.weight"]

    def bias(self, name: str) -> np.ndarray | float:
        return self.model.tensors.get(f"blk.{self.number}.{name}.bias", 0.0)

    def linear(self, h: np.ndarray, name: str) -> np.ndarray:
        return h @ self.weight(name).T + self.bias(name)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.model.norm(f"blk.{self.number}.{name}", x)
