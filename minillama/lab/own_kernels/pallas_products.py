"""The product of Q4_0 rows and a vector in Pallas, interpreted.

The grid goes over tiles of rows. A program of the grid sees one tile as references.
Pallas: https://docs.jax.dev/en/latest/pallas.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from minillama.errors import OptionError
from minillama.lab.language import translate
from minillama.lab.own_kernels.block_kernels import BLOCK_BYTES, BLOCK_WEIGHTS

TILE = 8  # rows of a program
PallasBody = Callable[[object, object, object, object], None]


def parts_of(weights: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Scales, float32 [rows, blocks], and quants, uint8 [rows, blocks, 16], of Q4_0 bytes."""
    blocks = weights.reshape(len(weights), -1, BLOCK_BYTES)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0].astype(np.float32)
    return jnp.asarray(scales), jnp.asarray(blocks[:, :, 2:])


def pallas_product(body: PallasBody, weights: np.ndarray, x: np.ndarray, *, tile: int = TILE) -> np.ndarray:
    """W x, float32 [rows], with `body(scales, quants, x, y)` on each tile of rows.

    The references have the shapes [tile, blocks], [tile, blocks, 16], [blocks, 32] and [tile].
    Raises OptionError if the rows are not whole tiles.
    """
    scales, quants = parts_of(weights)
    rows, blocks = scales.shape
    if rows % tile:
        raise OptionError(
            translate("{rows} rows are not whole tiles of {tile}; choose a multiple", rows=rows, tile=tile)
        )
    call = pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct((rows,), jnp.float32),
        grid=(rows // tile,),
        in_specs=[
            pl.BlockSpec((tile, blocks), lambda i: (i, 0)),
            pl.BlockSpec((tile, blocks, 16), lambda i: (i, 0, 0)),
            pl.BlockSpec((blocks, BLOCK_WEIGHTS), lambda i: (0, 0)),
        ],
        out_specs=pl.BlockSpec((tile,), lambda i: (i,)),
        interpret=True,
    )
    return np.asarray(call(scales, quants, jnp.asarray(np.asarray(x, np.float32).reshape(blocks, BLOCK_WEIGHTS))))
