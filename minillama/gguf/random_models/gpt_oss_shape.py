"""The shape of gpt-oss: attention with sinks and biases, windows, and experts."""

from dataclasses import dataclass

from minillama.gguf.random_models.model_shapes import ModelShape, Tensors


@dataclass(frozen=True)
class GptOssShape(ModelShape):
    """A model of the family gpt-oss; every second layer attends to a sliding window.

    feed_forward: of each expert. original_context: from which YaRN stretches by `rope_factor`.
    """

    experts: int = 32
    experts_used: int = 4
    window: int = 128
    rope_factor: float = 32.0
    original_context: int = 4096

    def layer_tensors(self, layer: int) -> Tensors:
        yield "attn_norm.weight", (self.embedding,)
        yield from self.attention_tensors()
        yield "attn_output.bias", (self.embedding,)
        yield "attn_sinks.weight", (self.heads,)
        yield "post_attention_norm.weight", (self.embedding,)
        yield "ffn_gate_inp.weight", (self.experts, self.embedding)
        yield "ffn_gate_inp.bias", (self.experts,)
        rows, columns = (self.feed_forward, self.embedding), (self.embedding, self.feed_forward)
        for name, shape in {"ffn_gate": rows, "ffn_up": rows, "ffn_down": columns}.items():
            yield f"{name}_exps.weight", (self.experts, *shape)
            yield f"{name}_exps.bias", (self.experts, shape[0])

    def metadata(self) -> dict[str, int | float | str | list[int]]:
        return super().metadata() | {
            "attention.sliding_window": self.window,
            "expert_count": self.experts,
            "expert_used_count": self.experts_used,
            "expert_feed_forward_length": self.feed_forward,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": self.rope_factor,
            "rope.scaling.original_context_length": self.original_context,
        }
