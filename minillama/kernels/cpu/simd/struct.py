"""Structs of 64-bit words in memory, whose fields are loaded and stored by name."""

from typing import ClassVar

import numpy as np

from minillama.kernels.cpu.simd.builder import I64, Element
from minillama.kernels.cpu.simd.memory import load, store
from minillama.kernels.cpu.simd.value import Value


class Word:
    """A field of a `Struct`: reading it emits a load.

    A float32 is in the low half of its word.
    """

    def __init__(self, element: Element = I64) -> None:
        self.element = element

    def __set_name__(self, owner: type["Struct"], name: str) -> None:
        self.offset = 8 * len(owner.FIELDS)
        owner.FIELDS = (*owner.FIELDS, name)

    def __get__(self, struct: "Struct", owner: type["Struct"]) -> Value:
        return load(self.element, 1, struct.address + self.offset, align=8)


class Struct:
    """Words at an address; subclasses declare fields in memory order, each a `Word`."""

    FIELDS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, address: Value) -> None:
        self.address = address

    def store(self, **values: Value) -> None:
        """Store I64 values by field name."""
        for name, value in values.items():
            store(value, self.address + 8 * self.FIELDS.index(name))

    @classmethod
    def size(cls) -> int:
        """Size in bytes."""
        return 8 * len(cls.FIELDS)

    @classmethod
    def pack(cls, **values: int) -> np.ndarray:
        """Pack a struct into int64 words in Python; missing fields are 0."""
        words = np.zeros(len(cls.FIELDS), np.int64)
        for name, value in values.items():
            words[cls.FIELDS.index(name)] = value
        return words
