"""Parameters in few arrays, for each array that a program is given costs every call of it some microseconds.

The weights of a file are one array already (`kernels.cpu.mapped`), which stands here once; norms and biases, of which
a model has dozens, become one.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import jax
import numpy as np
from jax import Array, lax
from jax.tree_util import PyTreeDef

from minillama.model import Params


@dataclass(frozen=True)
class Piece:
    """Where an array of the parameters is now: in which of the packed arrays, and there, of a vector, from where on."""

    array: int
    start: int = 0
    size: int | None = None  # None for all of it


@dataclass(frozen=True)
class Layout:
    """How the parameters come out of the packed arrays."""

    structure: PyTreeDef
    pieces: tuple[Piece, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Asked for with every call of a program, and not quick to find for hundreds of arrays."""
        return hash((self.structure, self.pieces))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """The parameters of a model, as programs are given them."""

    arrays: tuple[Array, ...]
    layout: Layout = field(metadata={"static": True})

    def unpack(self) -> Params:
        """The parameters; inside of a program, where what was joined is to be cut apart."""
        return jax.tree.unflatten(self.layout.structure, [self._unpack(piece) for piece in self.layout.pieces])

    def _unpack(self, piece: Piece) -> Array:
        whole = self.arrays[piece.array]
        return whole if piece.size is None else lax.slice(whole, (piece.start,), (piece.start + piece.size,))


def pack(params: Params, *, join: bool) -> Packed:
    """Every array once and, where all lie on one device (`join`), the vectors of one type as one array."""
    leaves, structure = jax.tree.flatten(params)
    vectors: dict[np.dtype, list[Array]] = {}
    for leaf in leaves if join else ():
        if leaf.ndim == 1 and leaf.dtype.kind == "f":
            vectors.setdefault(leaf.dtype, []).append(leaf)
    arrays: list[Array] = []
    found: dict[int, Piece] = {}
    for joined in vectors.values():
        ends = accumulate(leaf.size for leaf in joined)
        for leaf, end in zip(joined, ends, strict=True):
            found[id(leaf)] = Piece(len(arrays), end - leaf.size, leaf.size)
        arrays.append(jax.device_put(np.concatenate([np.asarray(leaf) for leaf in joined]), *joined[0].devices()))
    for leaf in leaves:
        if id(leaf) not in found:
            found[id(leaf)] = Piece(len(arrays))
            arrays.append(leaf)
    return Packed(tuple(arrays), Layout(structure, tuple(found[id(leaf)] for leaf in leaves)))
