"""A weight times a number, the tensor `NAME.scale` next to `NAME.weight`: NVFP4 files have them."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax import Array, lax

from minillama.array_types import Float, Int
from minillama.kernels.grouped_products import RowGroups
from minillama.kernels.weight import Weight


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScaledWeight(Weight):
    """A matrix times a number, or a stack of experts with a number each.

    Products are scaled, not the weights.
    """

    weight: Weight
    scale: Float[Array, "numbers"]  # of a matrix: one

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        return self._scaled(self.weight.product(x))

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        return self._scaled(self.weight.rows(ids))

    def expert(self, index: Int[Array, ""]) -> Weight:
        return ScaledWeight(self.weight.expert(index), lax.dynamic_slice_in_dim(self.scale, index, 1))

    def device_shard(self, index: Int[Array, ""], devices: int) -> Weight:
        return ScaledWeight(self.weight.device_shard(index, devices), self.scale)

    def products(
        self, x: Float[Array, "T K"], others: Sequence[Weight], n_valid: Int[Array, ""] | None = None
    ) -> list[Float[Array, "T N"]]:
        weights = [self, *others]
        plain = [weight.weight if isinstance(weight, ScaledWeight) else weight for weight in weights]
        found = zip(weights, plain[0].products(x, plain[1:], n_valid), strict=True)
        return [weight._scaled(y) if isinstance(weight, ScaledWeight) else y for weight, y in found]

    def grouped_products(
        self, x: Float[Array, "R K"], others: Sequence[Weight], groups: RowGroups
    ) -> list[Float[Array, "R N"]]:
        stacks = [self, *others]
        plain = [stack.weight if isinstance(stack, ScaledWeight) else stack for stack in stacks]
        found = zip(stacks, plain[0].grouped_products(x, plain[1:], groups), strict=True)
        numbers = groups.matrices_of(x.shape[0])
        return [y * stack.scale[numbers][:, None] if isinstance(stack, ScaledWeight) else y for stack, y in found]

    def _scaled(self, y: Float[Array, "T N"]) -> Float[Array, "T N"]:
        return y * self.scale.reshape(1, 1)
