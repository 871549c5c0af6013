"""A tensor of the output file that is computed while it is written."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minillama.errors import FormatError
from minillama.gguf.types import TensorType

Pieces = Callable[[], Iterator[np.ndarray]]
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class LazyWeight:
    """Name, shape, and the values in parts along the first axis.

    blocks: the type of the file, if the parts are bytes of its blocks; the shape counts weights.
    """

    name: str
    shape: tuple[int, ...]
    pieces: Pieces
    blocks: TensorType | None = None

    def renamed(self, name: str) -> "LazyWeight":
        return replace(self, name=name)

    def whole(self) -> np.ndarray:
        """All values as one array."""
        parts = list(self.pieces())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def changed(self, change: Change, shape: Sequence[int] | None = None) -> "LazyWeight":
        """The weight after a change of the whole array.

        shape: the new shape, if it differs.
        """
        shape = self.shape if shape is None else tuple(shape)

        def pieces() -> Iterator[np.ndarray]:
            yield change(self.whole())

        return replace(self, shape=shape, pieces=pieces)

    def each(self, change: Change, shape: Sequence[int] | None = None) -> "LazyWeight":
        """The weight after a change of each part.

        The change acts on the axes after the first, or on single values.
        """
        shape = self.shape if shape is None else tuple(shape)
        return replace(self, shape=shape, pieces=lambda: map(change, self.pieces()))

    def rows(self, start: int, end: int) -> "LazyWeight":
        """Rows of the first axis."""
        return self.changed(lambda values: values[start:end], (end - start, *self.shape[1:]))

    def reshaped(self, *shape: int) -> "LazyWeight":
        if math.prod(shape) != math.prod(self.shape):
            raise FormatError(f"{self.name} has the shape {list(self.shape)}; expected {math.prod(shape)} values")
        return self.changed(lambda values: values.reshape(shape), shape)

    def squeezed(self) -> "LazyWeight":
        """Without axes of size 1."""
        return self.reshaped(*(size for size in self.shape if size != 1))


def constant_weight(name: str, values: np.ndarray) -> LazyWeight:
    """A weight with known values."""
    return LazyWeight(name, values.shape, lambda: iter([values]))


def stacked(name: str, weights: Sequence[LazyWeight]) -> LazyWeight:
    """Weights of one shape as one with a new first axis."""
    odd = next((weight for weight in weights if weight.shape != weights[0].shape), None)
    if odd is not None:
        raise FormatError(f"{odd.name} has the shape {list(odd.shape)}, {weights[0].name} {list(weights[0].shape)}")

    def pieces() -> Iterator[np.ndarray]:
        return (weight.whole()[np.newaxis] for weight in weights)

    return LazyWeight(name, (len(weights), *weights[0].shape), pieces)
