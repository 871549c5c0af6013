"""Reader of GGUF files: metadata as Python values, tensors as zero-copy views of mapped files."""

import mmap
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeVar

import numpy as np
from gguf import quants

from minillama.errors import FormatError, ResourceError, UnsupportedError
from minillama.gguf.header_cursor import printable
from minillama.gguf.header_parser import Header, MetadataValue, TensorInfo, parse_header
from minillama.gguf.memory_pages import advise_huge_pages
from minillama.gguf.types import BLOCKS, TensorType, row_bytes

T = TypeVar("T")
PAGE = 4096
SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
PLAIN_TYPES = {
    TensorType.F64: "<f8", TensorType.I8: "<i1", TensorType.I16: "<i2", TensorType.I32: "<i4", TensorType.I64: "<i8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a file; its bytes are at (`file`, `offset`).

    shape: in numpy's order, (rows, row length), with experts first. data: read-only uint8 of shape
    `shape[:-1] + (bytes of a row,)`, valid as long as a reference to it exists.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    data: np.ndarray
    offset: int
    file: Path

    @property
    def nbytes(self) -> int:
        """Size in the file in bytes."""
        return self.data.nbytes

    @property
    def size(self) -> int:
        """Number of weights."""
        block, block_bytes = BLOCKS[self.type]
        return self.data.nbytes // block_bytes * block


@dataclass(frozen=True, eq=False)
class GGUF:
    """An open model file, or all files of a split model.

    metadata: in the order of the file; numbers, booleans and texts as Python values, numeric arrays as numpy arrays,
    arrays of texts as tuples. kinds: the stored types, such as `u32` or `string[32000]`. mapped: each complete file as
    uint8 on a page boundary; kernels find weights at `mapped[tensor.file]` and `tensor.offset`.

    Closing is optional: the mapping exists until the last view is deleted. `close()`, or the end of a `with` block,
    drops this object's own views at once (to delete the file on Windows). Other views stay valid.
    """

    path: Path
    version: int
    metadata: Mapping[str, MetadataValue]
    kinds: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    mapped: Mapping[Path, np.ndarray]
    _own: tuple[dict, dict]  # the dictionaries that `tensors` and `mapped` show

    def require(self, key: str, kind: type[T] | tuple[type[T], ...]) -> T:
        """Value of a required metadata key of a given type; FormatError otherwise.

        Booleans do not count as integers: `require(key, int)` rejects them.
        """
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if key not in self.metadata:
            raise FormatError(f"{self.path}: metadata key {key} is missing; convert the model again")
        value = self.metadata[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise FormatError(
                f"{self.path}: metadata key {key} is {self.kinds[key]}, not {expected}; convert the model again"
            )
        return value

    @property
    def architecture(self) -> str:
        """Architecture of the model, such as `llama` or `qwen2`."""
        return self.require("general.architecture", str)

    @property
    def nbytes(self) -> int:
        """Total size of the weights in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Total number of weights."""
        return sum(tensor.size for tensor in self.tensors.values())

    def close(self) -> None:
        """Drop the views of this object; `tensors` and `mapped` become empty."""
        for views in self._own:
            views.clear()

    def __enter__(self) -> "GGUF":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_gguf(path: str | Path, *, use_mmap: bool = True) -> GGUF:
    """Open a GGUF file (version 2 or 3, little-endian), or all files of a split model.

    path: for a split model, any one of its files. use_mmap: map the weights, so that each page is read at its first
    use; otherwise read them into memory now. Raises ResourceError (missing, not readable), FormatError (malformed),
    UnsupportedError (valid but not supported).
    """
    path = Path(path)
    parts = [(path, *_open_one(path, use_mmap))]
    count = _split_count(path, parts[0][1])
    if count > 1:
        parts = _open_shards(path, parts[0], count, use_mmap)
    first = parts[0][1]
    tensors: dict[str, Tensor] = {}
    for file, header, whole in parts:
        for info in header.tensors:
            if info.name in tensors:
                raise FormatError(
                    f"{file}: tensor {printable(info.name)} is also in {tensors[info.name].file}; "
                    "download the model again"
                )
            tensors[info.name] = _view(info, file, whole)
    promised = first.metadata.get("split.tensors.count", len(tensors))
    if count > 1 and (type(promised) is not int or promised != len(tensors)):
        raise FormatError(
            f"{path}: the split model has {len(tensors)} tensors, not {printable(promised)}; download it again"
        )
    mapped = {file: whole for file, _, whole in parts}
    return GGUF(
        path,
        first.version,
        MappingProxyType(first.metadata),
        MappingProxyType(first.kinds),
        MappingProxyType(tensors),
        MappingProxyType(mapped),
        (tensors, mapped),
    )


def dequantize(tensor: Tensor) -> np.ndarray:
    """Dequantise a tensor to float32 of `tensor.shape`; UnsupportedError for an unknown type.

    F32 is returned as a read-only view. The formulas are those of gguf.quants, with the same numbers as llama.cpp.
    """
    if tensor.type in PLAIN_TYPES:
        return tensor.data.view(PLAIN_TYPES[tensor.type]).astype(np.float32)
    try:
        with np.errstate(
            all="ignore"
        ):  # scales may be infinite in a hostile file; what is computed from them is harmless
            return quants.dequantize(tensor.data, tensor.type)
    except NotImplementedError as error:
        raise UnsupportedError(
            f"unsupported tensor type {tensor.type.name} in {tensor.name}: no formula to dequantise it"
        ) from error


def _open_one(path: Path, use_mmap: bool) -> tuple[Header, np.ndarray]:
    if "\0" in str(path):
        raise ResourceError(f"{str(path)!r} cannot be a file name")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ResourceError(f"{path} is a folder; name the .gguf file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ResourceError(f"{path} is not an ordinary file; name a .gguf file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(f"{path} is empty; download it again")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header = parse_header(mapping, str(path))
            if use_mmap:
                advise_huge_pages(mapping)
                return header, np.frombuffer(mapping, np.uint8)
            whole = _page_aligned(len(mapping))
            if file.readinto(memoryview(whole)) != len(whole):
                raise FormatError(f"{path} became shorter while it was read; read it again")
    except FileNotFoundError as error:
        raise ResourceError(f"no file {path}; check the name") from error
    except (OSError, MemoryError) as error:
        raise ResourceError(f"cannot read {path}: {error}") from error
    whole.flags.writeable = False
    return header, whole


def _page_aligned(size: int) -> np.ndarray:
    """Uninitialised bytes that start on a page boundary, as a mapped file does."""
    room = np.empty(size + PAGE, np.uint8)
    start = -room.ctypes.data % PAGE
    return room[start : start + size]


def _view(info: TensorInfo, file: Path, whole: np.ndarray) -> Tensor:
    shape = (*info.shape[:-1], row_bytes(info.shape[-1], info.type))
    data = whole[info.offset : info.offset + info.nbytes].reshape(shape)
    return Tensor(info.name, info.shape, info.type, data, info.offset, file)


def _split_count(path: Path, header: Header) -> int:
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= 99_999:
        raise FormatError(f"{path}: split.count is {printable(count)}, not a number of files; the file is malformed")
    return count


def _open_shards(
    path: Path, opened: tuple[Path, Header, np.ndarray], count: int, use_mmap: bool
) -> list[tuple[Path, Header, np.ndarray]]:
    """Open all files of a split model, in order; `opened` is open already."""
    match = SHARD_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise FormatError(
            f"{path} is one of {count} files of a split model but not named like one; "
            f"rename it NAME-00001-of-{count:05}.gguf"
        )
    parts = []
    for number in range(count):
        file = path.with_name(f"{match['stem']}-{number + 1:05}-of-{count:05}.gguf")
        if file == path:
            part = opened
        elif file.exists():
            part = (file, *_open_one(file, use_mmap))
        else:
            raise ResourceError(
                f"{path} is one of {count} files of a split model and {file.name} is missing; "
                "put all in the same folder"
            )
        found = part[1].metadata.get("split.no", "not numbered")
        if type(found) is not int or found != number or _split_count(file, part[1]) != count:
            raise FormatError(
                f"{file} has the number {printable(found)} in its metadata, not {number} of {count}; download it again"
            )
        parts.append(part)
    return parts
