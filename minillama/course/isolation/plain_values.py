"""Values between the grader and a learner's process.

To the learner's process go pickles. What comes back is JSON, read strictly into numbers, texts, containers and arrays:
no class of a learner gets into the grader. Functions and objects of a check stay with the grader; the other side gets
a handle, which is a number.
"""

import base64
import io
import json
import math
import pickle
import sys
from collections.abc import Callable
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

CHECKS = "minillama.lab.checks"
PLAIN_KINDS = "biufcSU"  # of numpy's dtypes
SPECIAL = ("__call__", "__array__", "__len__", "__getitem__", "__float__")  # methods of a handle

Json = Any


class UnsendableError(Exception):
    """A value that cannot come from a learner's process; the text names its type."""


def stays(value: object) -> bool:
    """True for functions and for objects of the checks, which stay with the grader."""
    if isinstance(value, MethodType | partial):
        return True
    if isinstance(value, FunctionType):
        found: object = sys.modules.get(value.__module__)
        for name in value.__qualname__.split("."):
            found = getattr(found, name, None)
        return found is not value or value.__module__.startswith(CHECKS)
    if isinstance(value, BuiltinMethodType):  # such as a list's `append`, but not `len`
        return value.__self__ is not None and not hasattr(value.__self__, "__spec__")
    kind = type(value)
    return kind.__module__.startswith(CHECKS) or "<locals>" in kind.__qualname__


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, handle: Callable[[object], int | None]) -> None:
        super().__init__(file, protocol=5)
        self._handle = handle

    def persistent_id(self, value: object) -> int | None:
        return self._handle(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, resolve: Callable[[int], object]) -> None:
        super().__init__(io.BytesIO(data))
        self._resolve = resolve

    def persistent_load(self, number: int) -> object:
        return self._resolve(number)


def pickled(value: object, handle: Callable[[object], int | None]) -> bytes:
    """The bytes of a value.

    handle: gives the number of an object that stays, or None."""
    file = io.BytesIO()
    _Pickler(file, handle).dump(value)
    return file.getvalue()


def unpickled(data: bytes, resolve: Callable[[int], object]) -> object:
    """The value of bytes that the grader has made."""
    return _Unpickler(data, resolve).load()


def written(value: object, handle: Callable[[object], int | None]) -> bytes:
    """A learner's value as JSON; raises UnsendableError."""
    return json.dumps(_plain(value, handle)).encode()


def read(data: bytes, resolve: Callable[[int], object]) -> object:
    """The value of a learner's JSON.

    Raises ValueError, or another error, if it is malformed.
    """
    return _value(json.loads(data), resolve)


def _plain(value: object, handle: Callable[[object], int | None]) -> Json:
    """JSON of a value: an object with one key names a type that JSON lacks."""

    def each(values: object) -> list[Json]:
        return [_plain(one, handle) for one in values]  # type: ignore[attr-defined]

    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if (array := _array(value)) is not None:
        return array
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if (number := handle(value)) is not None:
        return {"handle": number}
    if "jax" in sys.modules and isinstance(value, sys.modules["jax"].sharding.PartitionSpec):
        return {"spec": each(tuple(value))}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: base64.b64encode(value).decode()}
    if isinstance(value, list):
        return each(value)
    if isinstance(value, tuple | set | frozenset | range):
        name = next(kind.__name__ for kind in (tuple, set, frozenset, range) if isinstance(value, kind))
        return {name: [value.start, value.stop, value.step] if isinstance(value, range) else each(value)}
    if isinstance(value, dict):
        return {"dict": [each(pair) for pair in value.items()]}
    raise UnsendableError(type(value).__name__[:40])


def _array(value: object) -> Json:
    """JSON of numpy's and JAX's arrays and scalars; None for other values."""
    numpy, jax = sys.modules.get("numpy"), sys.modules.get("jax")
    if numpy is None:
        return None
    if jax is not None and isinstance(value, jax.Array):
        value = numpy.asarray(value)
    if not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    array = numpy.asarray(value)
    if array.dtype.kind == "O":
        return {"objects": [list(array.shape), [_plain(one, lambda _: None) for one in array.ravel()]]}
    if array.dtype.kind not in PLAIN_KINDS:  # bfloat16 and others of JAX
        array = array.astype(numpy.float32)
    data = base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode()
    return {"scalar" if isinstance(value, numpy.generic) else "array": [array.dtype.str, list(array.shape), data]}


def _value(given: Json, resolve: Callable[[int], object]) -> object:
    if isinstance(given, list):
        return [_value(one, resolve) for one in given]
    if not isinstance(given, dict):
        return given
    ((name, content),) = given.items()
    if name == "handle":
        return resolve(int(content))
    if name in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[name](base64.b64decode(content))
    if name in ("array", "scalar", "objects"):
        return _read_array(name, content, resolve)
    if name == "complex":
        return complex(*map(float, content))
    if name == "range":
        return range(*map(int, content))
    parts = [_value(one, resolve) for one in content]
    if name == "spec":
        from jax.sharding import PartitionSpec

        return PartitionSpec(*parts)
    if name == "dict":
        return dict(parts)  # type: ignore[misc]
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[name](parts)


def _read_array(name: str, content: Json, resolve: Callable[[int], object]) -> object:
    import numpy as np

    if name == "objects":
        shape, values = content
        array = np.empty(len(values), object)
        array[:] = [_value(one, resolve) for one in values]
        return array.reshape(shape)
    kind, shape, data = content
    dtype = np.dtype(str(kind))
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize == 0 or any(size < 0 for size in shape):
        raise ValueError(f"no array of {dtype}")
    raw = base64.b64decode(data)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array of another size")
    array = np.frombuffer(raw, dtype).reshape(shape).copy()
    return array if name == "array" else array[()]
