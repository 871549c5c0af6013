"""A weight matrix as a pytree leaf: how its numbers are stored is its own business, y = x Wᵀ is everybody's.

`cpu.mapped.Mapped` leaves the bytes in the file and has its own kernels. Three ways of storing serve XLA's products.
`Dense` keeps float32 rows as they are. `Half` and `Blocks` lay 16-bit and quantised weights out with the rows (N) last,
so that a matrix-vector product runs along N in full vector registers: XLA turns a dot product over the last axis of 8-
or 16-bit weights into a scalar loop.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from gguf import GGMLQuantizationType as Type
from jax import Array, lax
from jaxtyping import Float, Int, Int8, UInt8

from minillama.kernels.decode_blocks import NIBBLE_TYPES, decode

FEW_ROWS = 4  # up to here, one matrix-vector product a row beats decoding the matrix for a GEMM
TILE_ROWS = 1024  # rows of W that are float32 at a time: they stay in the cache between decoding and multiplying


class Weight(ABC):
    """A matrix [N, K], or a stack of experts [E, N, K], of which `expert(e)` is a matrix."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape in file order: (N, K) or (E, N, K)."""

    @abstractmethod
    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """x Wᵀ."""

    @abstractmethod
    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        """Rows of W by number, as float32: the embedding look-up."""

    @abstractmethod
    def expert(self, index: Int[Array, ""]) -> "Weight":
        """One matrix of a stack of experts."""

    def device_shard(self, place: Int[Array, ""], devices: int) -> "Weight":
        """What one of several devices multiplies with; the matrix itself, where each device holds its own part."""
        return self

    def products(
        self, x: Float[Array, "T K"], others: Sequence["Weight"], n_valid: Int[Array, ""] | None = None
    ) -> list[Float[Array, "T N"]]:
        """The products with this matrix and some others; in one call, where that is faster.

        valid: how many rows of x count, where kernels need not multiply the others; None for all.
        """
        return [weight.product(x) for weight in (self, *others)]


def matmul(x: Float[Array, "*batch K"], w: Weight, n_valid: Int[Array, ""] | None = None) -> Float[Array, "*batch N"]:
    """x Wᵀ in float32, whatever W is made of.

    valid: how many of all rows of x count, from the first; what comes out for the others is finite, and means nothing.
    """
    return matmuls(x, [w], n_valid)[0]


def matmuls(
    x: Float[Array, "*batch K"], weights: Sequence[Weight], n_valid: Int[Array, ""] | None = None
) -> list[Float[Array, "*batch N"]]:
    """x Wᵀ for several matrices."""
    first, *others = weights
    found = first.products(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), others, n_valid)
    return [y.reshape(*x.shape[:-1], y.shape[-1]) for y in found]


class Portable(Weight):
    """What XLA multiplies, on any device."""

    @abstractmethod
    def vector(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        """W x, the product of decoding one token."""

    @abstractmethod
    def matrix(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """x Wᵀ, the product of reading a prompt."""

    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        if x.shape[0] > FEW_ROWS:
            return self.matrix(x)
        return jnp.stack([self.vector(_settled(row)) for row in x])

    def expert(self, index: Int[Array, ""]) -> Weight:
        return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, keepdims=False), self)


def _settled(x: Float[Array, "K"]) -> Float[Array, "K"]:
    """x itself, computed once.

    XLA moves cheap producers into the loop of a product: the multiplications of a norm would run anew for every row of
    W, at a third of the speed, and a barrier does not hold on the CPU. A division is too expensive for it to repeat.
    """
    return x / (1 + 0 * x)


def embed(ids: Int[Array, "*batch"], w: Weight) -> Float[Array, "*batch K"]:
    """Rows of W by number."""
    return w.rows(ids.reshape(-1)).reshape(*ids.shape, w.shape[-1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense(Portable):
    """float32 rows, as they lie in the file."""

    values: Float[Array, "*experts N K"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def vector(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        return self.values @ x

    def matrix(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        return x @ self.values.T

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        return self.values[ids]


class RowsLast(Portable):
    """What the layouts with N as the last axis of every leaf have in common."""

    @abstractmethod
    def columns(self) -> Float[Array, "K N"]:
        """Wᵀ as float32."""

    def part(self, start: Int[Array, ""] | int, size: int) -> "RowsLast":
        """Some consecutive rows of W, still as they are stored."""
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, axis=-1), self)

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        return jax.tree.map(lambda leaf: leaf[..., ids], self).columns().T

    def matrix(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        """A loop over tiles: decode some rows of W, multiply with them, forget them."""
        width = self.shape[0]
        whole, rest = divmod(width, TILE_ROWS)

        def add_tile(i: Int[Array, ""], y: Float[Array, "T N"]) -> Float[Array, "T N"]:
            tile = x @ self.part(i * TILE_ROWS, TILE_ROWS).columns()
            return lax.dynamic_update_slice_in_dim(y, tile, i * TILE_ROWS, axis=1)

        if not whole:
            return x @ self.columns()
        y = lax.fori_loop(0, whole, add_tile, jnp.zeros((x.shape[0], width), jnp.float32))
        if not rest:
            return y
        return lax.dynamic_update_slice_in_dim(y, x @ self.part(width - rest, rest).columns(), width - rest, axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Half(RowsLast):
    """16-bit floats, rows last: values[g, i, n] is W[n, g * size + i]."""

    values: Float[Array, "*experts groups size N"]

    @property
    def shape(self) -> tuple[int, ...]:
        *experts, groups, size, width = self.values.shape
        return (*experts, width, groups * size)

    def vector(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
        groups, size, _ = self.values.shape
        partial = (self.values.astype(jnp.float32) * x.reshape(groups, size, 1)).sum(1)
        return lax.optimization_barrier(partial).sum(0)  # merged into one sum it would run as a scalar loop

    def columns(self) -> Float[Array, "K N"]:
        return lax.collapse(self.values.astype(jnp.float32), 0, 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks(RowsLast):
    """Quantised groups, rows last: int8 codes, or bytes with code i in the low and i + size/2 in the high nibble."""

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

    def vector(self, x: Float[Array, "K"]) -> Float[Array, "N"]:
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

    def columns(self) -> Float[Array, "K N"]:
        codes = self.codes
        if self.nibbles:
            codes = jnp.concatenate([codes & jnp.uint8(15), codes >> jnp.uint8(4)], axis=1)
        values = (codes.astype(jnp.float32) - self.zero_point) * self.scales.astype(jnp.float32)[:, None]
        if self.minima is not None:
            values = values - self.minima.astype(jnp.float32)[:, None]
        return lax.collapse(values, 0, 2)


def arrange(raw: UInt8[Array, "*experts N row_bytes"], kind: Type) -> Weight:
    """Turn a tensor's bytes, as they lie in the file, into the weight that the portable path multiplies fastest.

    Runs inside jit, for 16-bit and quantised types.
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
