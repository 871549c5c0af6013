"""Check that a header that was read can be written again, and is the same."""

from collections.abc import Iterable

import numpy as np

from minillama.gguf.header_parser import Header, TensorInfo, parse_header
from minillama.gguf.header_writer import TensorSpec, dimensions, header_bytes, padded_size
from tests.fuzz.case_kind import Finding


def check_rewritten(content: bytes, label: str) -> None:
    """Parse, write and parse; metadata and tensors must be the same."""
    header = parse_header(content, label)
    specs = [TensorSpec(info.name, info.shape, info.type) for info in header.tensors]
    written = header_bytes(header.metadata, header.kinds, specs)
    size = sum(padded_size(spec.nbytes, header.alignment) for spec in specs)
    again = parse_header(written + bytes(size), label)
    if list(again.metadata) != list(header.metadata) or again.kinds != header.kinds:
        raise Finding("the keys or types of the metadata change when they are written")
    for key, value in header.metadata.items():
        if not _equal(value, again.metadata[key]):
            raise Finding(f"{key!r} is {value!r:.80}, but {again.metadata[key]!r:.80} when it is written")
    if _without_places(header) != _without_places(again):
        raise Finding("the tensors change when they are written")


def _without_places(header: Header) -> list[object]:
    def row(info: TensorInfo) -> object:
        return info.name, dimensions(info.shape), info.type, info.nbytes

    return [row(info) for info in header.tensors]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, Iterable) or isinstance(b, Iterable):
        return a == b
    return type(a) is type(b) and (a == b or (a != a and b != b))
