"""Products of rows with the matrices of their groups, one of a stack each.

`Weight.grouped_products` has a kernel for it on the CPU. `products_in_tiles` is the form for XLA: it visits only
matrices with rows, and multiplies each with its own rows, a tile at a time (as in MegaBlocks, Gale et al. 2022).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int

MAX_TILE_ROWS = 64  # a matrix is decoded for each tile


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowGroups:
    """Rows starts[g] to ends[g] - 1 take matrix number matrices[g].

    Groups may be empty and have gaps between them, but their rows are in order.
    """

    matrices: Int[Array, "G"]
    starts: Int[Array, "G"]
    ends: Int[Array, "G"]

    @property
    def count(self) -> int:
        """G."""
        return self.matrices.shape[0]

    def matrices_of(self, rows: int) -> Int[Array, "R"]:
        """The number of the matrix of each row; any number in rows without a group."""
        group = jnp.searchsorted(self.ends, jnp.arange(rows, dtype=jnp.int32), side="right")
        return self.matrices[jnp.minimum(group, self.count - 1)]


Multiply = Callable[[Float[Array, "n K"], Int[Array, ""]], Sequence[Float[Array, "n _"]]]


def products_in_tiles(
    x: Float[Array, "R K"], widths: Sequence[int], groups: RowGroups, multiply: Multiply
) -> list[Float[Array, "R _"]]:
    """Products of every row, zeros in rows without a group.

    multiply: the products of some rows with one matrix each of several stacks; widths: of these products.
    """
    rows = x.shape[0]
    tile = tile_rows(rows, groups.count)
    counts = groups.ends - groups.starts
    last_tiles = jnp.cumsum((counts + (tile - 1)) // tile)  # tiles of each group and of those before it

    def visit(number: Int[Array, ""], found: list[Float[Array, "R _"]]) -> list[Float[Array, "R _"]]:
        group = jnp.searchsorted(last_tiles, number, side="right")
        first = groups.ends[group] - jnp.minimum(counts[group], (last_tiles[group] - number) * tile)
        start = jnp.minimum(first, rows - tile)
        place = start + jnp.arange(tile, dtype=jnp.int32)
        is_mine = ((place >= first) & (place < groups.ends[group]))[:, None]
        products = multiply(lax.dynamic_slice_in_dim(x, start, tile), groups.matrices[group])
        return [
            lax.dynamic_update_slice_in_dim(
                y, jnp.where(is_mine, new, lax.dynamic_slice_in_dim(y, start, tile)), start, 0
            )
            for y, new in zip(found, products, strict=True)
        ]

    return lax.fori_loop(0, last_tiles[-1], visit, [jnp.zeros((rows, width), jnp.float32) for width in widths])


def tile_rows(rows: int, groups: int) -> int:
    """Rows of a tile: about as many as a group has, a power of two."""
    mean = -(-rows // groups)
    return min(1 << (mean - 1).bit_length(), MAX_TILE_ROWS, rows)
