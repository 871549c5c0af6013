"""XLA_FFI_CallFrame, the argument of an FFI handler, read field by field.

Offsets are those of xla/ffi/api/c_api.h, which jaxlib ships, on 64-bit machines. The header also gives what differs
between versions: the version itself and the offset of the thread pool's function.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minillama.kernels.cpu.simd import I32, I64, Module, Value, alloca, call_address, const, if_, load, store

_EXTENSION, _API, _CONTEXT, _STAGE = 8, 16, 24, 32
_ARGUMENTS, _RESULTS = 72, 112  # arrays of pointers inside XLA_FFI_Args and XLA_FFI_Rets
_DATA, _DIMENSIONS = 24, 40  # in XLA_FFI_Buffer
_FUNCTIONS = 48  # in XLA_FFI_Api, after size, extensions, version and internals
_EXECUTE = 3  # XLA_FFI_ExecutionStage_EXECUTE
_METADATA = 1  # XLA_FFI_Extension_Metadata


@dataclass(frozen=True)
class Api:
    """FFI version and offsets of a jaxlib."""

    major: int
    minor: int
    schedule: int  # offset of XLA_FFI_ThreadPool_Schedule in XLA_FFI_Api


def read_api(include: Path) -> Api:
    """Read the header in jaxlib's include folder.

    Raises ValueError if the header has an unknown form, OSError if it is missing.
    """
    header = (include / "xla" / "ffi" / "api" / "c_api.h").read_text(encoding="utf-8")
    versions = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR")]
    functions = re.findall(r"_XLA_FFI_API_STRUCT_FIELD\((\w+)\);", header)
    if None in versions or "XLA_FFI_ThreadPool_Schedule" not in functions:
        raise ValueError(f"{include}: this jaxlib's FFI header is of an unknown form")
    major, minor = (int(version[1]) for version in versions)
    return Api(major, minor, _FUNCTIONS + 8 * functions.index("XLA_FFI_ThreadPool_Schedule"))


class Frame:
    """A call frame; addresses are I64."""

    def __init__(self, address: Value, api: Api) -> None:
        self.address, self.api = address, api

    def argument(self, index: Value | int) -> Value:
        """Address of the data of an operand."""
        return self._buffer(_ARGUMENTS, index)

    def result(self, index: Value | int) -> Value:
        """Address of the data of a result."""
        return self._buffer(_RESULTS, index)

    def dimension(self, argument: int, axis: int) -> Value:
        """Size of an operand along an axis."""
        buffer = load(I64, 1, load(I64, 1, self.address + _ARGUMENTS) + argument * 8)
        return load(I64, 1, load(I64, 1, buffer + _DIMENSIONS) + axis * 8)

    def schedule(self, function: Value, data: Value) -> Value:
        """Schedule function(data) on XLA's thread pool; not 0 on failure."""
        request = alloca(40)
        context = load(I64, 1, self.address + _CONTEXT)
        for at, value in enumerate((const(40), const(0), context, function, data)):
            store(value, request + 8 * at)
        return call_address(load(I64, 1, load(I64, 1, self.address + _API) + self.api.schedule), request)

    def _buffer(self, kind: int, index: Value | int) -> Value:
        pointers = load(I64, 1, self.address + kind)
        return load(I64, 1, load(I64, 1, pointers + index * 8) + _DATA)


def define_handler(module: Module, name: str, api: Api, run: Callable[[Frame], None]) -> None:
    """`name(frame)`, a typed FFI handler: XLA queries its version, then calls it to execute."""

    def body(address: Value) -> None:
        extension = load(I64, 1, address + _EXTENSION)
        is_query = extension.equals(0) ^ 1
        with if_(is_query), if_(load(I32, 1, extension + 8).equals(_METADATA)):
            metadata = load(I64, 1, extension + 24)
            store(const(api.major, I32), metadata + 24)
            store(const(api.minor, I32), metadata + 28)
        with if_((is_query ^ 1) & load(I32, 1, address + _STAGE).equals(_EXECUTE)):
            run(Frame(address, api))

    module.define(name, 1, body)
