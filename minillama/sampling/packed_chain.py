"""A chain as one vector of numbers.

Each argument of a program costs every call microseconds.
The chains of several texts are the rows of a matrix, if they have one structure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef

from minillama.array_types import Bool, Float32
from minillama.sampling.chain import Chain
from minillama.sampling.pytree import STATIC, pytree


@dataclass(frozen=True)
class ChainLayout:
    """The structure of a chain, and shape and type of each value.

    A table has none.
    """

    structure: PyTreeDef
    values: tuple[tuple[tuple[int, ...], np.dtype] | None, ...]
    window: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: every call of a program needs it."""
        return hash((self.structure, self.values))


@pytree
@dataclass(frozen=True)
class PackedChain:
    """The numbers of a chain, or with a first axis those of several.

    Whole numbers are below 2**24. tables: arrays as long as the vocabulary.
    """

    numbers: Float32[Array | np.ndarray, "*B n"]
    tables: tuple[Bool[Array | np.ndarray, "*B V"], ...]
    layout: ChainLayout = field(metadata=STATIC)

    @property
    def structure(self) -> ChainLayout:
        """The part that a program is compiled for: chains of one structure can be stacked."""
        return self.layout

    @property
    def window(self) -> int:
        """Number of past tokens that the sampler's state holds."""
        return self.layout.window

    def unpack(self) -> Chain:
        """The chain; called inside of a program, so that slices cost nothing."""
        sizes = [0 if value is None else int(np.prod(value[0])) for value in self.layout.values]
        ends, tables = accumulate(sizes), iter(self.tables)
        leaves = []
        for value, size, end in zip(self.layout.values, sizes, ends, strict=True):
            if value is None:
                leaves.append(next(tables))
                continue
            shape, dtype = value
            part = self.numbers[..., end - size : end]
            leaves.append(jnp.reshape(part, (*self.numbers.shape[:-1], *shape)).astype(dtype))
        return jax.tree.unflatten(self.layout.structure, leaves)


def pack_chain(chain: Chain) -> PackedChain:
    """Pack a chain, on the host."""
    leaves, structure = jax.tree.flatten(chain)
    is_table = [leaf.dtype == np.bool_ for leaf in leaves]
    values = tuple(
        None if table else (leaf.shape, np.dtype(leaf.dtype)) for leaf, table in zip(leaves, is_table, strict=True)
    )
    numbers = [np.ravel(leaf) for leaf, table in zip(leaves, is_table, strict=True) if not table]
    tables = tuple(np.asarray(leaf) for leaf, table in zip(leaves, is_table, strict=True) if table)
    packed = np.concatenate([np.zeros(0), *numbers]).astype(np.float32)
    return PackedChain(packed, tables, ChainLayout(structure, values, chain.window))


def stack_chains(chains: Sequence[PackedChain]) -> PackedChain:
    """Stack the chains of several texts; they have one structure."""
    return jax.tree.map(lambda *rows: np.stack(rows), *chains)
