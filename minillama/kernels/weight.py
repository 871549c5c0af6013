"""Weight matrices in different storage formats with one operation, y = x Wᵀ.

`cpu.mapped_weight.MappedWeight` leaves the bytes in the file and has its own kernels. XLA multiplies the other three.
`Dense` holds float32 rows. `Half` and `Blocks` hold 16-bit and quantised weights with the rows (N) as the last axis, so
that a GEMV runs along N in full vector registers. XLA would compile a dot product over the last axis of 8- or 16-bit
weights to a scalar loop.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from gguf import GGMLQuantizationType as Type
from jax import Array, lax

from minillama.array_types import Float, Int, Int8, UInt8
from minillama.kernels.decode_blocks import NIBBLE_TYPES, decode
from minillama.kernels.grouped_products import RowGroups, products_in_tiles
from minillama.kernels.target_platform import target_platform

MAX_GEMV_ROWS = 4  # rows of x; up to here one GEMV a row is faster than decoding the matrix for a GEMM
TILE_ROWS = 1024  # rows of W that are decoded at a time: they stay in the cache until they are multiplied
MOST_DECODED = 1 << 27  # weights that an accelerator decodes at a time: 256 MB in bfloat16
PRECISE = ("high", "highest", "tensorfloat32", "float32")


class Weight(ABC):
    """A matrix [N, K], or a stack [E, N, K] of experts, see `expert`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape in file order: (N, K) or (E, N, K)."""

    @abstractmethod
    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """x Wᵀ."""

    @abstractmethod
    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        """Rows of W by number, as float32 (embedding look-up)."""

    @abstractmethod
    def expert(self, index: Int[Array, ""]) -> "Weight":
        """One matrix of a stack of experts."""

    def batched_product(
        self, x: Float[Array, "P T K"], first: Int[Array, ""] | int = 0, n_valid: Int[Array, ""] | None = None
    ) -> Float[Array, "P T N"]:
        """x[p] W[first + p]ᵀ for P matrices of a stack.

        n_valid: number of valid rows in each of x, None for all; kernels may skip the other rows.
        """
        parts = x.shape[0]
        stack = self if self.shape[0] == parts else jax.tree.map(lambda leaf: leaf[first : first + parts], self)
        return jax.vmap(lambda matrix, rows: matrix.product(rows))(stack, x)

    def device_shard(self, index: Int[Array, ""], devices: int) -> "Weight":
        """The rows of one device; the matrix itself if each device has an array."""
        return self

    def products(
        self, x: Float[Array, "T K"], others: Sequence["Weight"], n_valid: Int[Array, ""] | None = None
    ) -> list[Float[Array, "T N"]]:
        """The products with this matrix and others, in one call where that is faster.

        n_valid: number of valid rows of x, None for all; kernels may skip the other rows.
        """
        return [weight.product(x) for weight in (self, *others)]

    def grouped_products(
        self, x: Float[Array, "R K"], others: Sequence["Weight"], groups: RowGroups
    ) -> list[Float[Array, "R N"]]:
        """Products of every row with a matrix of this stack and of others; see `grouped_matmuls`."""
        stacks = [self, *others]
        widths = [stack.shape[-2] for stack in stacks]
        return products_in_tiles(
            x, widths, groups, lambda rows, e: matmuls(rows, [stack.expert(e) for stack in stacks])
        )


def matmul(x: Float[Array, "*batch K"], w: Weight, n_valid: Int[Array, ""] | None = None) -> Float[Array, "*batch N"]:
    """x Wᵀ in float32.

    n_valid: number of valid rows of x, from the first; results of the other rows are finite but meaningless.
    """
    return matmuls(x, [w], n_valid)[0]


def matmuls(
    x: Float[Array, "*batch K"], weights: Sequence[Weight], n_valid: Int[Array, ""] | None = None
) -> list[Float[Array, "*batch N"]]:
    """x Wᵀ for several matrices."""
    first, *others = weights
    found = first.products(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), others, n_valid)
    return [y.reshape(*x.shape[:-1], y.shape[-1]) for y in found]


def grouped_matmuls(x: Float[Array, "R K"], stacks: Sequence[Weight], groups: RowGroups) -> list[Float[Array, "R N"]]:
    """Products of rows with the matrices of their groups, of several stacks.

    Only matrices with rows are read. Results of rows outside of all groups have no meaning, and may be no numbers.
    """
    first, *others = stacks
    return first.grouped_products(x, others, groups)


class Portable(Weight):
    """A weight that XLA multiplies, on any device."""

    @abstractmethod
    def gemv(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        """W x, used for decoding a token."""

    @abstractmethod
    def gemm(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """x Wᵀ, used for a prompt."""

    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        if x.shape[0] > MAX_GEMV_ROWS:
            return self.gemm(x)
        return jnp.stack([self.gemv(_materialise(row)) for row in x])

    def expert(self, index: Int[Array, ""]) -> Weight:
        return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), self)


def _materialise(x: Float[Array, "K"]) -> Float[Array, "K"]:
    """x, computed once on a processor.

    There XLA fuses cheap producers into the loop of a product: those of a norm would run again for every row of W, at a
    third of the speed. An optimisation barrier has no effect. A division is too expensive to repeat.
    """
    return x / (1 + 0 * x) if target_platform() == "cpu" else x


def embed(ids: Int[Array, "*batch"], w: Weight) -> Float[Array, "*batch K"]:
    """Rows of W by number."""
    return w.rows(ids.reshape(-1)).reshape(*ids.shape, w.shape[-1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense(Portable):
    """float32 rows in file order."""

    values: Float[Array, "*experts N K"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def gemv(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        return self.values @ x

    def gemm(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        return x @ self.values.T

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        return self.values[ids]


class RowsLast(Portable):
    """Base class of the layouts with N as the last axis of every leaf."""

    @abstractmethod
    def transposed(self) -> Float[Array, "K N"]:
        """Wᵀ as float32."""

    def slice_rows(self, start: Int[Array, ""] | int, size: int) -> "RowsLast":
        """Consecutive rows of W in the same layout."""
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, axis=-1), self)

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        return jax.tree.map(lambda leaf: leaf[..., ids], self).transposed().T

    def gemm(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        if target_platform() == "cpu":
            return self.gemm_by_tiles(x)
        return lax.platform_dependent(x, cpu=self.gemm_by_tiles, default=self.gemm_by_matrices)

    def gemm_by_matrices(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """Decode W as a whole, or MOST_DECODED weights of it, and multiply once.

        Tensor cores take bfloat16, with sums in float32; jax_default_matmul_precision may ask for float32.
        """
        dtype = jnp.float32 if jax.config.values["jax_default_matmul_precision"] in PRECISE else jnp.bfloat16
        product = partial(jnp.matmul, x.astype(dtype), preferred_element_type=jnp.float32)
        width, rows = self.shape[0], max(MOST_DECODED // self.shape[1], 1)
        pieces = (self.slice_rows(start, min(rows, width - start)) for start in range(0, width, rows))
        return jnp.concatenate([product(piece.transposed().astype(dtype)) for piece in pieces], axis=1)

    def gemm_by_tiles(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """Decode and multiply TILE_ROWS rows of W at a time."""
        width = self.shape[0]
        whole, rest = divmod(width, TILE_ROWS)

        def add_tile(i: Int[Array, ""], y: Float[Array, "T N"]) -> Float[Array, "T N"]:
            tile = x @ self.slice_rows(i * TILE_ROWS, TILE_ROWS).transposed()
            return lax.dynamic_update_slice_in_dim(y, tile, i * TILE_ROWS, axis=1)

        if not whole:
            return x @ self.transposed()
        y = lax.fori_loop(0, whole, add_tile, jnp.zeros((x.shape[0], width), jnp.float32))
        if not rest:
            return y
        return lax.dynamic_update_slice_in_dim(
            y, x @ self.slice_rows(width - rest, rest).transposed(), width - rest, axis=1
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Half(RowsLast):
    """16-bit floats, rows last: values[g, i, n] is W[n, g * size + i]."""

    values: Float[Array, "*experts groups size N"]

    @property
    def shape(self) -> tuple[int, ...]:
        *experts, groups, size, width = self.values.shape
        return (*experts, width, groups * size)

    def gemv(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        groups, size, _ = self.values.shape
        partial = (self.values.astype(jnp.float32) * x.reshape(groups, size, 1)).sum(1)
        return lax.optimization_barrier(partial).sum(0)  # fused into one sum it would be a scalar loop

    def transposed(self) -> Float[Array, "K N"]:
        return lax.collapse(self.values.astype(jnp.float32), 0, 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks(RowsLast):
    """Quantised groups, rows last: int8 codes, or two codes a byte.

    Then code i is in the low nibble and code i + size/2 in the high one.
    """

    codes: Int8[Array, "*experts groups size N"] | UInt8[Array, "*experts groups half_size N"]
    scales: Float[Array, "*experts groups N"]
    minima: Float[Array, "*experts groups N"] | None
    zero_point: int = field(metadata={"static": True})

    @property
    def nibbles(self) -> bool:
        return self.codes.dtype == jnp.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        *experts, groups, size, width = self.codes.shape
        return (*experts, width, groups * size * (2 if self.nibbles else 1))

    def gemv(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        x = x.reshape(self.codes.shape[0], -1, 1)
        if self.nibbles:
            half = self.codes.shape[1]
            low, high = self.codes & jnp.uint8(15), self.codes >> jnp.uint8(4)
            dots = (low.astype(jnp.float32) * x[:, :half] + high.astype(jnp.float32) * x[:, half:]).sum(1)
        else:
            dots = (self.codes.astype(jnp.float32) * x).sum(1)
        sums = x.sum(1)
        if self.zero_point:
            dots = dots - self.zero_point * sums
        dots = dots * self.scales.astype(jnp.float32)
        if self.minima is not None:
            dots = dots - self.minima.astype(jnp.float32) * sums
        return dots.sum(0)

    def transposed(self) -> Float[Array, "K N"]:
        codes = self.codes
        if self.nibbles:
            codes = jnp.concatenate([codes & jnp.uint8(15), codes >> jnp.uint8(4)], axis=1)
        values = (codes.astype(jnp.float32) - self.zero_point) * self.scales.astype(jnp.float32)[:, None]
        if self.minima is not None:
            values = values - self.minima.astype(jnp.float32)[:, None]
        return lax.collapse(values, 0, 2)


def repack(raw: UInt8[Array, "*experts N row_bytes"], kind: Type) -> Weight:
    """Repack the bytes of a tensor into the layout that XLA multiplies fastest.

    Runs inside jit; for 16-bit and quantised types.
    """
    if kind in (Type.F16, Type.BF16):
        dtype = jnp.float16 if kind is Type.F16 else jnp.bfloat16
        values = lax.bitcast_convert_type(raw.reshape(*raw.shape[:-1], -1, 2), dtype)
        size = math.gcd(values.shape[-1], 32)
        return Half(jnp.moveaxis(values.reshape(*values.shape[:-1], -1, size), -3, -1))
    groups = decode(raw, kind)
    codes = groups.codes
    if kind in NIBBLE_TYPES:
        half = codes.shape[-1] // 2
        codes = codes[..., :half] | (codes[..., half:] << jnp.uint8(4))
    minima = None if groups.minimum is None else groups.minimum.swapaxes(-1, -2)
    return Blocks(jnp.moveaxis(codes, -3, -1), groups.scale.swapaxes(-1, -2), minima, groups.zero_point)
