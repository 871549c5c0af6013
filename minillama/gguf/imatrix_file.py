"""Importance matrices: mean squares of the activations at each column of a weight matrix.

llama-imatrix writes them as GGUF files, or in an older format of its own. This module reads both.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from minillama.atomic_file import atomic_write
from minillama.errors import FormatError, OptionError, ResourceError
from minillama.gguf.header_cursor import shortened
from minillama.gguf.header_writer import TensorSpec, header_bytes, padded_size
from minillama.gguf.reader import GGUF, open_gguf
from minillama.gguf.types import TensorType

SUMS, COUNTS = ".in_sum2", ".counts"
KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")


@dataclass(frozen=True, eq=False)
class ImportanceMatrix:
    """Mean squares of activations, and their origin.

    entries: tensor name -> float32 [experts * columns].
    """

    entries: Mapping[str, np.ndarray]
    file: str
    datasets: tuple[str, ...] = ()
    chunks: int = 0

    def filtered(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> "ImportanceMatrix":
        """Keep the entries with one of `include` in their names, or with none of `exclude`."""
        if include and exclude:
            raise OptionError("--include-weights and --exclude-weights cannot be used together; remove one")
        kept = {
            name: values
            for name, values in self.entries.items()
            if not any(part in name for part in exclude) and (not include or any(part in name for part in include))
        }
        return replace(self, entries=MappingProxyType(kept))


def read_imatrix(path: str | Path) -> ImportanceMatrix:
    """Read a file of llama-imatrix in either format.

    Raises ResourceError (missing, not readable) and FormatError (malformed, or values that are not finite).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            raw = b"" if start == b"GGUF" else start + file.read()
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    matrix = _from_gguf(open_gguf(path), str(path)) if start == b"GGUF" else _from_legacy(raw, str(path))
    for name, values in matrix.entries.items():
        if not np.isfinite(values).all():
            raise FormatError(
                f"{path}: the importances of {shortened(name)} are not all finite; compute the matrix again"
            )
    return matrix


def write_imatrix(
    path: str | Path, sums: Mapping[str, np.ndarray], tokens: int, *, dataset: str, chunks: int, chunk_size: int
) -> Path:
    """Write the sums of squares of each matrix's inputs over `tokens` tokens.

    llama-quantize reads this format. An existing file is replaced at the end. Raises ResourceError (not writable).
    """
    path = Path(path)
    metadata = {"general.type": "imatrix", KEYS[0]: (dataset,), KEYS[1]: chunks, KEYS[2]: chunk_size}
    kinds = {"general.type": "string", KEYS[0]: "string[1]", KEYS[1]: "u32", KEYS[2]: "u32"}
    arrays = {}
    for name in sorted(sums):
        arrays[name + SUMS] = sums[name].astype("<f4")
        arrays[name + COUNTS] = np.array([tokens], "<f4")
    planned = [TensorSpec(name, values.shape, TensorType.F32) for name, values in arrays.items()]
    with atomic_write(path) as file:
        file.write(header_bytes(metadata, kinds, planned))
        for tensor in planned:
            file.write(arrays[tensor.name].tobytes().ljust(padded_size(tensor.nbytes), b"\0"))
    return path


def _from_gguf(file: GGUF, label: str) -> ImportanceMatrix:
    missing = [key for key in KEYS if key not in file.metadata]
    if missing:
        raise FormatError(f"{label} is not an importance matrix: metadata key {missing[0]} is missing")
    names = [name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS)]
    counted = [name.removesuffix(COUNTS) for name in file.tensors if name.endswith(COUNTS)]
    for name in sorted(set(names) ^ set(counted)):
        raise FormatError(
            f"{label}: {shortened(name)} has sums without counts or counts without sums; compute the matrix again"
        )
    entries = {}
    for name in names:
        pair = file.tensors[name + SUMS], file.tensors[name + COUNTS]
        if any(tensor.type is not TensorType.F32 for tensor in pair):
            raise FormatError(f"{label}: sums and counts of {shortened(name)} are not F32; compute the matrix again")
        sums, counts = (tensor.data.view("<f4").reshape(-1) for tensor in pair)
        if sums.size % counts.size:
            raise FormatError(
                f"{label}: {shortened(name)} has {sums.size} sums for {counts.size} counts; compute the matrix again"
            )
        entries[name] = _means(sums.reshape(counts.size, -1), np.rint(counts))
    if not entries:
        raise FormatError(f"{label} has no importances; compute the matrix again")
    datasets = file.require(KEYS[0], tuple)
    return ImportanceMatrix(MappingProxyType(entries), label, datasets, file.require(KEYS[1], int))


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divide sums by counts; an expert without tokens gets ones."""
    counts = counts.astype(np.float32)[:, None]
    with np.errstate(all="ignore"):  # values that are not finite are refused later
        means = np.divide(sums, counts, out=np.ones(sums.shape, np.float32), where=counts > 0)
    return means.reshape(-1)


def _from_legacy(raw: bytes, label: str) -> ImportanceMatrix:
    """Parse the older format: an int32 count, then name, calls and values of each entry.

    The length of each text and array precedes it.
    """
    position = 0

    def read_bytes(size: int, what: str) -> bytes:
        nonlocal position
        if not 0 <= size <= len(raw) - position:
            raise FormatError(f"{label} is not an importance matrix, or is truncated: {what} ends after the file")
        position += size
        return raw[position - size : position]

    def read_int(what: str) -> int:
        return struct.unpack("<i", read_bytes(4, what))[0]

    entries: dict[str, np.ndarray] = {}
    count = read_int("the number of entries")
    if count < 1:
        raise FormatError(f"{label} is not an importance matrix: it has {count} entries")
    for index in range(count):
        name = read_bytes(read_int(f"name {index}"), f"name {index}").decode("utf-8", "replace")
        shown = shortened(name)
        calls, size = read_int(f"the calls of {shown}"), read_int(f"the size of {shown}")
        if size < 1:
            raise FormatError(f"{label}: {shown} has {size} importances; compute the matrix again")
        values = np.frombuffer(read_bytes(4 * size, f"the values of {shown}"), "<f4")
        with np.errstate(all="ignore"):  # values that are not finite are refused later
            entries[name] = values / np.float32(calls) if calls > 0 else values.copy()
    chunks, datasets = 0, ()
    if len(raw) - position >= 8:  # older files end here
        chunks = read_int("the number of chunks")
        size = read_int("the name of the text")
        datasets = (read_bytes(size, "the name of the text").decode("utf-8", "replace"),) if size > 0 else ()
    return ImportanceMatrix(MappingProxyType(entries), label, datasets, chunks)
