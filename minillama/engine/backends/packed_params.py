"""Parameters packed into few arrays: each argument of a program costs every call microseconds.

The weights of a mapped file are one array already (`kernels.cpu.mapped_weight`). The dozens of norms and biases of a
model become one more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import jax
import numpy as np
from jax import Array, lax
from jax.tree_util import PyTreeDef

from minillama.model import Params


@dataclass(frozen=True)
class PackedSlice:
    """The place of a parameter: a packed array and, of a vector, its range."""

    array: int
    start: int = 0
    size: int | None = None  # None for all of it


@dataclass(frozen=True)
class Layout:
    """The places of all parameters in the packed arrays."""

    structure: PyTreeDef
    pieces: tuple[PackedSlice, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: every call of a program needs it, and there are hundreds of arrays."""
        return hash((self.structure, self.pieces))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedParams:
    """The parameters of a model in the form that programs take."""

    arrays: tuple[Array, ...]
    layout: Layout = field(metadata={"static": True})

    def unpack(self) -> Params:
        """The parameters; called inside of a program, so that slices cost nothing."""
        return jax.tree.unflatten(self.layout.structure, [self._unpack(piece) for piece in self.layout.pieces])

    def _unpack(self, piece: PackedSlice) -> Array:
        whole = self.arrays[piece.array]
        return whole if piece.size is None else lax.slice(whole, (piece.start,), (piece.start + piece.size,))


def join_on_host(vectors: Sequence[Array]) -> Array:
    """Vectors one after another, on the device of the first."""
    return jax.device_put(np.concatenate([np.asarray(vector) for vector in vectors]), *vectors[0].devices())


def pack(params: Params, join: Callable[[Sequence[Array]], Array] = join_on_host) -> PackedParams:
    """Every array once, and the vectors of one type concatenated into one array."""
    leaves, structure = jax.tree.flatten(params)
    vectors: dict[np.dtype, list[Array]] = {}
    for leaf in leaves:
        if leaf.ndim == 1 and leaf.dtype.kind == "f":
            vectors.setdefault(leaf.dtype, []).append(leaf)
    arrays: list[Array] = []
    found: dict[int, PackedSlice] = {}
    for joined in vectors.values():
        ends = accumulate(leaf.size for leaf in joined)
        for leaf, end in zip(joined, ends, strict=True):
            found[id(leaf)] = PackedSlice(len(arrays), end - leaf.size, leaf.size)
        arrays.append(join(joined))
    for leaf in leaves:
        if id(leaf) not in found:
            found[id(leaf)] = PackedSlice(len(arrays))
            arrays.append(leaf)
    return PackedParams(tuple(arrays), Layout(structure, tuple(found[id(leaf)] for leaf in leaves)))
