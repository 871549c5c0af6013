"""Values that all layers of one forward pass share: positions, rotation angles, valid tokens, tracing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from minillama.model.collectives import all_reduce
from minillama.model.config import Config, Layer
from minillama.model.norm import rms_norm
from minillama.model.rope import CosSin, rope_cos_sin

See = Callable[[str, Array], Array]


def unseen(name: str, value: Array) -> Array:
    """The default of `see`: return the activation unchanged."""
    return value


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PassContext:
    """The values that T tokens of B texts share on their way through the layers.

    n_valid: tokens that count, where a prompt is padded; products skip the others. None for all.
    output_index: the only token of each text that is wanted after this layer; None for all.
    see: called with the name and value of every activation, under llama.cpp's names; it may replace the value.
    """

    positions: Int[Array, "B T"]
    rope: CosSin
    rope_local: CosSin | None  # of sliding-window layers with a rope base of their own
    n_valid: Int[Array, ""] | None
    output_index: Int[Array, "B"] | None
    config: Config = field(metadata={"static": True})
    see: See = field(metadata={"static": True})

    @property
    def is_traced(self) -> bool:
        """Whether the caller looks at activations."""
        return self.see is not unseen

    def norm(self, name: str, x: Float[Array, "B T D"], weight: Float[Array, "D"] | None) -> Float[Array, "B T D"]:
        """RMSNorm, seen as `name`; x itself where the model has no such norm."""
        return x if weight is None else self.see(name, rms_norm(x, weight, self.config.layer_norm_rms_epsilon))

    def all_reduce(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        """Sum over the devices that share the layer; x itself on one device."""
        return all_reduce(x, self.config.axis)

    def cos_sin(self, layer: Layer) -> CosSin:
        """The rotation angles of a layer."""
        return self.rope_local if self.rope_local is not None and layer.sliding_window else self.rope

    def output_rows(self, a: Shaped[Array, "B T *axes"]) -> Shaped[Array, "B _ *axes"]:
        """The wanted token of each text, [B, 1, ...]; all tokens if `output_index` is None."""
        if self.output_index is None:
            return a
        if a.shape[0] == 1:
            return lax.dynamic_slice_in_dim(a, self.output_index[0], 1, axis=1)
        index = self.output_index.reshape(-1, 1, *(1 for _ in a.shape[2:]))
        return jnp.take_along_axis(a, index, axis=1)

    def keep_output(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B _ D"], "PassContext"]:
        """Keep only the wanted tokens of x, and the context of these."""
        if self.output_index is None:
            return x, self
        return self.output_rows(x), replace(self, n_valid=None, output_index=None)


def pass_context(
    config: Config,
    rope_factors: Float[Array, "pairs"] | None,
    length: Int[Array, "B"],
    tokens: int,
    *,
    n_valid: Int[Array, "B"] | None = None,
    see: See = unseen,
) -> PassContext:
    """The context of `tokens` new tokens that follow the first `length` of each text."""
    positions = length[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None]
    rope_local = None if config.rope_local is None else rope_cos_sin(config.rope_local, None, positions)
    one = None if n_valid is None or length.shape[0] > 1 else n_valid[0]  # kernels skip padding of one text only
    return PassContext(
        positions, rope_cos_sin(config.rope, rope_factors, positions), rope_local, one, None, config, see
    )
