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
from minillama.gguf.header_cursor import shortened
from minillama.gguf.header_parser import Header, MetadataValue, TensorInfo, parse_header
from minillama.gguf.memory_pages import OpenedFile, advise_huge_pages
from minillama.gguf.types import BLOCKS, TensorType, row_bytes

T = TypeVar("T")
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
    _opened: dict[Path, OpenedFile]  # the files whose weights are not copies
    _own: tuple[dict, ...]  # the dictionaries that `close` empties: of `tensors`, `mapped` and `_opened`

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

    def check_unchanged(self) -> None:
        """Raise ResourceError if a mapped file is shorter or was written to."""
        for file in self._opened.values():
            file.check()

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
    parts = [_open_one(path, use_mmap)]
    count = _split_count(path, parts[0].header)
    if count > 1:
        parts = _open_shards(parts[0], count, use_mmap)
    first = parts[0].header
    tensors: dict[str, Tensor] = {}
    for file, header, whole in ((part.path, part.header, part.whole) for part in parts):
        for info in header.tensors:
            if info.name in tensors:
                raise FormatError(
                    f"{file}: tensor {shortened(info.name)} is also in {tensors[info.name].file}; "
                    "download the model again"
                )
            tensors[info.name] = _view(info, file, whole)
    promised = first.metadata.get("split.tensors.count", len(tensors))
    if count > 1 and (type(promised) is not int or promised != len(tensors)):
        raise FormatError(
            f"{path}: the split model has {len(tensors)} tensors, not {shortened(promised)}; download it again"
        )
    mapped = {part.path: part.whole for part in parts}
    opened = {part.path: part.opened for part in parts if part.opened is not None}
    return GGUF(
        path,
        first.version,
        MappingProxyType(first.metadata),
        MappingProxyType(first.kinds),
        MappingProxyType(tensors),
        MappingProxyType(mapped),
        opened,
        (tensors, mapped, opened),
    )


def dequantize(tensor: Tensor) -> np.ndarray:
    """Dequantise a tensor to float32 of `tensor.shape`; UnsupportedError for an unknown type.

    F32 is returned as a read-only view. The formulas are those of gguf.quants, with the same numbers as llama.cpp.
    """
    try:
        # scales may be infinite in a hostile file; what is computed from them is harmless
        with np.errstate(all="ignore"):
            if tensor.type in PLAIN_TYPES:
                return tensor.data.view(PLAIN_TYPES[tensor.type]).astype(np.float32)
            return quants.dequantize(tensor.data, tensor.type)
    except NotImplementedError as error:
        raise UnsupportedError(
            f"unsupported tensor type {tensor.type.name} in {tensor.name}: no formula to dequantise it"
        ) from error


@dataclass(frozen=True, eq=False)
class _Part:
    """One open file; `opened` is None where `whole` is a copy in memory."""

    path: Path
    header: Header
    whole: np.ndarray
    opened: OpenedFile | None


def _open_one(path: Path, use_mmap: bool) -> _Part:
    if "\0" in str(path):
        raise ResourceError(f"{str(path)!r} cannot be a file name")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ResourceError(f"{path} is a folder; name the .gguf file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ResourceError(f"{path} is not an ordinary file; name a .gguf file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise FormatError(f"{path} is empty; download it again")
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header = parse_header(mapping, str(path))
            if use_mmap:
                advise_huge_pages(mapping)
                opened = OpenedFile(path, mapping, status)
                return _Part(path, header, np.frombuffer(mapping, np.uint8), opened)
            whole = _page_aligned(len(mapping))
            if file.readinto(memoryview(whole)) != len(whole):
                raise FormatError(f"{path} became shorter while it was read; read it again")
    except FileNotFoundError as error:
        raise ResourceError(f"no file {path}; check the name") from error
    except (OSError, MemoryError) as error:
        raise ResourceError(f"cannot read {path}: {error}") from error
    whole.flags.writeable = False
    return _Part(path, header, whole, None)


def _page_aligned(size: int) -> np.ndarray:
    """Uninitialised bytes that start on a page boundary, as a mapped file does."""
    room = np.empty(size + mmap.PAGESIZE, np.uint8)
    start = -room.ctypes.data % mmap.PAGESIZE
    return room[start : start + size]


def _view(info: TensorInfo, file: Path, whole: np.ndarray) -> Tensor:
    shape = (*info.shape[:-1], row_bytes(info.shape[-1], info.type))
    data = whole[info.offset : info.offset + info.nbytes].reshape(shape)
    return Tensor(info.name, info.shape, info.type, data, info.offset, file)


def _split_count(path: Path, header: Header) -> int:
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= 99_999:
        raise FormatError(f"{path}: split.count is {shortened(count)}, not a number of files; the file is malformed")
    return count


def _open_shards(opened: _Part, count: int, use_mmap: bool) -> list[_Part]:
    """Open all files of a split model, in order; `opened` is open already."""
    path = opened.path
    _check_not_joined(opened)
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
            part = _open_one(file, use_mmap)
        else:
            raise ResourceError(
                f"{path} is one of {count} files of a split model and {file.name} is missing; "
                "put all in the same folder"
            )
        _check_not_joined(part)
        found = part.header.metadata.get("split.no", "not numbered")
        if type(found) is not int or found != number or _split_count(file, part.header) != count:
            raise FormatError(
                f"{file} has the number {shortened(found)} in its metadata, not {number} of {count}; download it again"
            )
        parts.append(part)
    return parts


def _check_not_joined(part: _Part) -> None:
    """Raise FormatError if another GGUF file follows the last tensor."""
    end, alignment = part.header.end, part.header.alignment
    for start in (end, -(-end // alignment) * alignment):
        if part.whole[start : start + 4].tobytes() == b"GGUF":
            raise FormatError(
                f"{part.path} holds more than its header describes: the next file of the split model follows at byte "
                f"{start}; keep the files separate and name the first, or join them with llama-gguf-split --merge"
            )
