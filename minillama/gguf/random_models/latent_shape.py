"""The shape of models with latent attention and experts: DeepSeek 2 and 3, GLM-4.7-Flash."""

from dataclasses import dataclass

from minillama.gguf.random_models.model_shapes import ModelShape, Tensors


@dataclass(frozen=True)
class LatentShape(ModelShape):
    """A model with latent attention, whose first layer is dense and whose others have experts.

    head_size: of a query; its last `rotating` channels rotate. query_rank, kv_rank: lengths of the latents.
    """

    query_rank: int = 768
    kv_rank: int = 512
    rotating: int = 64
    value_size: int = 256
    experts: int = 64
    experts_used: int = 4
    expert_size: int = 1536  # of an expert's feed-forward network, and of the shared expert's
    experts_scale: float = 1.8

    def layer_tensors(self, layer: int) -> Tensors:
        yield "attn_norm.weight", (self.embedding,)
        yield from self.attention_tensors()
        yield "ffn_norm.weight", (self.embedding,)
        yield from self.expert_tensors() if layer else self.feed_forward_tensors()

    def attention_tensors(self) -> Tensors:
        """Latent attention, with a latent of queries too."""
        yield "attn_q_a.weight", (self.query_rank, self.embedding)
        yield "attn_q_a_norm.weight", (self.query_rank,)
        yield "attn_q_b.weight", (self.heads * self.head_size, self.query_rank)
        yield "attn_kv_a_mqa.weight", (self.kv_rank + self.rotating, self.embedding)
        yield "attn_kv_a_norm.weight", (self.kv_rank,)
        yield "attn_k_b.weight", (self.heads, self.kv_rank, self.head_size - self.rotating)
        yield "attn_v_b.weight", (self.heads, self.value_size, self.kv_rank)
        yield "attn_output.weight", (self.embedding, self.heads * self.value_size)

    def expert_tensors(self) -> Tensors:
        """The router, its experts, and one shared expert."""
        rows, columns = (self.expert_size, self.embedding), (self.embedding, self.expert_size)
        yield "ffn_gate_inp.weight", (self.experts, self.embedding)
        yield "exp_probs_b.bias", (self.experts,)
        for name, shape in {"ffn_gate": rows, "ffn_up": rows, "ffn_down": columns}.items():
            yield f"{name}_exps.weight", (self.experts, *shape)
            yield f"{name}_shexp.weight", shape

    def metadata(self) -> dict[str, int | float | str | list[int]]:
        return super().metadata() | {
            "attention.head_count_kv": 1,
            "attention.key_length": self.kv_rank + self.rotating,
            "attention.value_length": self.kv_rank,
            "attention.key_length_mla": self.head_size,
            "attention.value_length_mla": self.value_size,
            "attention.q_lora_rank": self.query_rank,
            "attention.kv_lora_rank": self.kv_rank,
            "rope.dimension_count": self.rotating,
            "leading_dense_block_count": 1,
            "expert_count": self.experts,
            "expert_used_count": self.experts_used,
            "expert_group_count": 1,
            "expert_group_used_count": 1,
            "expert_feed_forward_length": self.expert_size,
            "expert_shared_count": 1,
            "expert_gating_func": 2,  # sigmoid
            "expert_weights_norm": True,
            "expert_weights_scale": self.experts_scale,
        }
