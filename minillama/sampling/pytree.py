"""Frozen dataclasses as JAX pytrees: fields marked static are structure, all others are leaves.

Unlike jax.tree_util.register_dataclass, unflattening does not call `__init__`. JAX's transformations put placeholders
in place of arrays (axes of vmap, shapes), which would fail the checks of types and shapes.
"""

from collections.abc import Hashable, Iterable
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from jax import Array
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from minillama.array_types import Float, Int

Class = TypeVar("Class")

Number = Float[Array | np.ndarray, ""]  # an option of a stage, on the host until a program runs
Whole = Int[Array | np.ndarray, ""]

STATIC = {"static": True}  # metadata of a static field: another value causes another compilation


def pytree(cls: type[Class]) -> type[Class]:
    """Register a frozen dataclass as a pytree."""
    leaves = tuple(entry.name for entry in fields(cls) if "static" not in entry.metadata)  # type: ignore[arg-type]
    structure = tuple(entry.name for entry in fields(cls) if "static" in entry.metadata)  # type: ignore[arg-type]

    def flatten(value: Class) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        return tuple(getattr(value, name) for name in leaves), tuple(getattr(value, name) for name in structure)

    def flatten_with_keys(value: Class) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        children, aux = flatten(value)
        return tuple(zip(map(GetAttrKey, leaves), children, strict=True)), aux

    def unflatten(aux: Iterable[Hashable], children: Iterable[Any]) -> Class:
        value = object.__new__(cls)
        for name, part in (*zip(structure, aux, strict=True), *zip(leaves, children, strict=True)):
            object.__setattr__(value, name, part)
        return value

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
