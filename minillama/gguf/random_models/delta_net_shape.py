"""The shape of Qwen 3.5: Gated DeltaNet layers, and some of attention with a gate."""

from dataclasses import dataclass

import numpy as np

from minillama.gguf.random_models.model_shapes import ModelShape, Tensors


@dataclass(frozen=True)
class DeltaNetShape(ModelShape):
    """A model whose layers are Gated DeltaNet, but for each `attention_interval`-th.

    rotating: channels of a head of attention that rotate. taps: of the convolution.
    """

    rotating: int = 64
    attention_interval: int = 4
    linear_key_heads: int = 16
    linear_value_heads: int = 16
    linear_head_size: int = 128
    taps: int = 4

    def layer_tensors(self, layer: int) -> Tensors:
        is_attention = (layer + 1) % self.attention_interval == 0
        yield "attn_norm.weight", (self.embedding,)
        yield from self.attention_tensors() if is_attention else self.delta_net_tensors()
        yield "post_attention_norm.weight", (self.embedding,)
        yield from self.feed_forward_tensors()

    def attention_tensors(self) -> Tensors:
        """Attention whose queries come with a gate of the output, and norms of heads."""
        for name, shape in super().attention_tensors():
            yield name, (2 * shape[0], *shape[1:]) if name.startswith("attn_q.") else shape
        yield "attn_q_norm.weight", (self.head_size,)
        yield "attn_k_norm.weight", (self.head_size,)

    def delta_net_tensors(self) -> Tensors:
        """Gated DeltaNet."""
        heads, values = self.linear_value_heads, self.linear_value_heads * self.linear_head_size
        channels = 2 * self.linear_key_heads * self.linear_head_size + values
        yield "attn_qkv.weight", (channels, self.embedding)
        yield "attn_gate.weight", (values, self.embedding)
        yield "ssm_conv1d.weight", (channels, self.taps)
        yield "ssm_dt.bias", (heads,)
        yield "ssm_a", (heads,)
        yield "ssm_beta.weight", (heads, self.embedding)
        yield "ssm_alpha.weight", (heads, self.embedding)
        yield "ssm_norm.weight", (self.linear_head_size,)
        yield "ssm_out.weight", (self.embedding, values)

    def metadata(self) -> dict[str, int | float | str | list[int]]:
        half = self.rotating // 2
        return super().metadata() | {
            "rope.dimension_count": self.rotating,
            "rope.dimension_sections": [half - 2 * (half // 3), half // 3, half // 3, 0],
            "full_attention_interval": self.attention_interval,
            "ssm.conv_kernel": self.taps,
            "ssm.state_size": self.linear_head_size,
            "ssm.group_count": self.linear_key_heads,
            "ssm.time_step_rank": self.linear_value_heads,
            "ssm.inner_size": self.linear_value_heads * self.linear_head_size,
        }

    def vector(self, name: str, size: int, rng: np.random.Generator) -> np.ndarray:
        if name.endswith(".ssm_a"):  # below 0: memories decay
            return -rng.uniform(0.05, 2.0, size).astype(np.float32)
        return super().vector(name, size, rng)
