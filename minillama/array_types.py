"""Arrays with shapes in annotations, as jaxtyping spells them: `Float[Array, "B T"]`.

Tests import jaxtyping, whose checks then run. Elsewhere `Float[Array, "B T"]` is `Array`: to import jaxtyping and build
its types would take 60 ms of the start of every command.
"""

import sys
from typing import TYPE_CHECKING

__all__ = ["Bool", "Float", "Float32", "Int", "Int8", "Int32", "Integer", "Num", "Shaped", "UInt8", "UInt16", "UInt32"]

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Int, Int8, Int32, Integer, Num, Shaped, UInt8, UInt16, UInt32
else:

    class _Unchecked:
        def __class_getitem__(cls, array_and_shape: tuple[object, str]) -> object:
            return array_and_shape[0]

    Bool = Float = Float32 = Int = Int8 = Int32 = Integer = Num = Shaped = UInt8 = UInt16 = UInt32 = _Unchecked
