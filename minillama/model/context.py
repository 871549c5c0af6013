"""Values that all layers of one forward pass share: positions, rotation angles, valid tokens, tracing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int, Shaped
from minillama.model.collectives import all_reduce
from minillama.model.config import Config
from minillama.model.norm import layer_norm, rms_norm
from minillama.model.rope import CosSin, rope_cos_sin

See = Callable[[str, Array], Array]


def unseen(name: str, value: Array) -> Array:
    """The default of `see`: return the activation unchanged."""
    return value


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PassContext:
    """The values that T tokens of B texts share on their way through the layers.

    valid: tokens of each text that count, where prompts are padded; None for all. n_valid: the same of a single text,
    whose products skip the others.
    output_index: the only token of each text that is wanted after this layer; None for all.
    per_layer: embeddings of each token for all layers, in a layer its own; None in models without.
    slots: the row of the cache of each text; None where text b has row b.
    see: called with the name and value of every activation, under llama.cpp's names; it may replace the value.
    """

    positions: Int[Array, "B T"]
    ropes: tuple[CosSin, ...]  # of each of `Config.ropes`
    valid: Int[Array, "B"] | None
    n_valid: Int[Array, ""] | None
    output_index: Int[Array, "B"] | None
    config: Config = field(metadata={"static": True})
    see: See = field(metadata={"static": True})
    per_layer: Float[Array, "B T *layers P"] | None = None
    slots: Int[Array, "B"] | None = None

    @property
    def is_traced(self) -> bool:
        """Whether the caller looks at activations."""
        return self.see is not unseen

    @property
    def counted(self) -> Bool[Array, "B T"] | None:
        """The tokens that count, where prompts are padded; None for all."""
        if self.valid is None:
            return None
        return jnp.arange(self.positions.shape[1], dtype=jnp.int32)[None] < self.valid[:, None]

    def norm(
        self,
        name: str,
        x: Float[Array, "*batch D"],
        weight: Float[Array, "D"] | None,
        bias: Float[Array, "D"] | None = None,
    ) -> Float[Array, "*batch D"]:
        """The family's norm, seen as `name`; x itself where the model has none."""
        return x if weight is None else self.see(name, normed(self.config, x, weight, bias))

    def add(self, x: Float[Array, "B T D"], branch: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The residual connection, with Granite's factor on the branch."""
        scale = self.config.residual_scale
        return x + (branch if scale == 1 else scale * branch)

    def all_reduce(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        """Sum over the devices that share the layer; x itself on one device."""
        return all_reduce(x, self.config.axis)

    def output_rows(self, a: Shaped[Array, "B T *axes"]) -> Shaped[Array, "B _ *axes"]:
        """The wanted token of each text, [B, 1, ...]; all tokens if `output_index` is None."""
        if self.output_index is None:
            return a
        if a.shape[0] == 1:
            return lax.dynamic_slice_in_dim(a, self.output_index[0], 1, axis=1)
        index = self.output_index.reshape(-1, 1, *(1 for _ in a.shape[2:]))
        return jnp.take_along_axis(a, index, axis=1)

    def of_layer(self, number: int) -> "PassContext":
        """The context in one layer."""
        return self if self.per_layer is None else replace(self, per_layer=self.per_layer[:, :, number])

    def keep_output(self, *values: Float[Array, "B T D"]) -> tuple[list[Float[Array, "B _ D"]], "PassContext"]:
        """Keep only the wanted tokens of values, and the context of these."""
        return [self.output_rows(x) for x in values], self.of_output()

    def of_output(self) -> "PassContext":
        """The context of the wanted tokens alone; the same if all are wanted."""
        if self.output_index is None:
            return self
        return replace(
            self,
            positions=self.output_rows(self.positions),
            ropes=tuple((self.output_rows(cos), self.output_rows(sin)) for cos, sin in self.ropes),
            per_layer=None if self.per_layer is None else self.output_rows(self.per_layer),
            valid=None,
            n_valid=None,
            output_index=None,
        )


def pass_context(
    config: Config,
    rope_factors: Float[Array, "pairs"] | None,
    length: Int[Array, "B"],
    tokens: int,
    *,
    per_layer: Float[Array, "B T L P"] | None = None,
    valid: Int[Array, "B"] | None = None,
    slots: Int[Array, "B"] | None = None,
    see: See = unseen,
) -> PassContext:
    """The context of `tokens` new tokens that follow the first `length` of each text."""
    positions = length[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None]
    ropes = tuple(rope_cos_sin(rope, rope_factors if rope.has_factors else None, positions) for rope in config.ropes)
    one = None if valid is None or length.shape[0] > 1 else valid[0]  # kernels skip padding of one text only
    return PassContext(positions, ropes, valid, one, None, config, see, per_layer, slots)


def normed(
    config: Config, x: Float[Array, "*batch D"], weight: Float[Array, "D"], bias: Float[Array, "D"] | None = None
) -> Float[Array, "*batch D"]:
    """The family's norm: RMSNorm or LayerNorm."""
    epsilon = config.layer_norm_rms_epsilon
    return layer_norm(x, weight, bias, epsilon) if config.family.layer_norm else rms_norm(x, weight, epsilon)
