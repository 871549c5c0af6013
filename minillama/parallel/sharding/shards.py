"""Cut tensors into per-device shards and assemble sharded `jax.Array`s.

Native CPU kernels read rows in place from the mapped file, so that a device touches only the pages of its own rows.
Columns, and rows that do not divide evenly, are copied and padded with zeros, which do not change any sum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from minillama.array_types import UInt8
from minillama.gguf import Tensor
from minillama.gguf.types import row_bytes
from minillama.kernels import Files, Weight, load_vector, map_rows, place_weight, reads_in_place
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, MATRICES, ROWS

READ_BYTES = 1 << 24  # of a tensor in memory at a time while columns are copied

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class RowRange:
    """Rows of a tensor as a matrix [rows, K]; all rows if experts are stacked."""

    tensor: Tensor
    first: int
    rows: int


def local_mesh_devices(mesh: Mesh) -> list[tuple[int, jax.Device]]:
    """This process's devices in a one-dimensional mesh, each with its index there."""
    here = jax.process_index()
    return [(index, device) for index, device in enumerate(mesh.devices.flat) if device.process_index == here]


def load_sharded_matrix(
    part: RowRange, files: Files, spec: PartitionSpec, mesh: Mesh, size: int, n_shards: int
) -> Weight:
    """Load a matrix as one weight over all devices, sharded by `spec`.

    size: rows, columns or matrices of a shard. All shards together cover the matrix; the rest is padding of zeros.
    Matrices of a stack that stays in the file are not cut: each device finds its own in it.
    n_shards: number of distinct shards; fewer than devices if some are replicated.
    """
    kind, devices = part.tensor.type, mesh.devices.size

    def cut_rows(index: int, device: jax.Device) -> Weight:
        return place_weight(_rows(part, first_row_of_shard(index, devices, n_shards, size), size), kind, device)

    def cut_columns(index: int, device: jax.Device) -> Weight:
        return place_weight(_columns(part, index * size, size), kind, device)

    def cut_matrices(index: int, device: jax.Device) -> Weight:
        return place_weight(part.tensor.data[index * size : (index + 1) * size], kind, device)

    def replicated(index: int, device: jax.Device) -> Weight:
        return place_weight(_rows(part, 0, part.rows), kind, device)

    whole = part.rows == part.tensor.shape[-2] or part.tensor.data.ndim < 3  # of stacks some rows are not adjacent
    in_place = whole and all(reads_in_place(device, kind) for _, device in local_mesh_devices(mesh))
    if in_place and (spec not in (ROWS, COLUMNS) or (spec == ROWS and size * n_shards == part.rows)):
        memory = make_sharded(mesh, PartitionSpec(), lambda index, device: files.on(device, part.tensor.file))
        return map_rows(part.tensor, part.first, part.rows, memory, n_shards if spec == ROWS else 1)
    if spec == ROWS:
        return make_sharded(mesh, PartitionSpec(AXIS), cut_rows)
    if spec == COLUMNS:
        return make_sharded(mesh, PartitionSpec(AXIS), cut_columns)
    if spec == MATRICES:
        return make_sharded(mesh, PartitionSpec(AXIS), cut_matrices)
    return make_sharded(mesh, PartitionSpec(), replicated)


def first_row_of_shard(index: int, devices: int, n_shards: int, size: int) -> int:
    """First row of a device's shard, with `n_shards` shards of `size` rows in device order."""
    return index * n_shards // devices * size


def load_sharded_vector(
    tensor: Tensor,
    mesh: Mesh,
    cut: Callable[[UInt8[np.ndarray, "bytes"], int], UInt8[np.ndarray, "shard"]] | None,
    shape: tuple[int, ...] = (-1,),
) -> Array:
    """Load a vector or a small array as float32, replicated or sharded.

    shape: of each device's array.
    cut: maps the bytes of the vector and the index of a device to the bytes of its shard; None replicates the vector.
    """
    raw = tensor.data.reshape(-1)
    return make_sharded(
        mesh,
        PartitionSpec() if cut is None else PartitionSpec(AXIS),
        lambda index, device: load_vector(
            raw if cut is None else cut(raw, index), tensor.type, tensor.name, device
        ).reshape(shape),
    )


def make_sharded(mesh: Mesh, spec: PartitionSpec, make: Callable[[int, jax.Device], Tree]) -> Tree:
    """Assemble trees of per-device arrays into one tree of sharded arrays.

    make: builds the tree of one device from its index and the device.
    spec: names the sharded axis; an empty spec means that all devices hold the same values.
    """
    sharding = NamedSharding(mesh, spec)
    trees = [make(index, device) for index, device in local_mesh_devices(mesh)]

    def assemble(*shards: Array) -> Array:
        shape = list(shards[0].shape)
        for axis, name in enumerate(spec):
            if name is not None:
                shape[axis] *= mesh.devices.size
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, list(shards))

    return jax.tree.map(assemble, *trees)


def _rows(part: RowRange, first: int, count: int) -> UInt8[np.ndarray, "*experts N row_bytes"]:
    """Copy rows of a part, of every expert, as bytes."""
    return pad_rows(part.tensor.data[..., part.first : part.first + part.rows, :], first, count)


def pad_rows(
    data: UInt8[np.ndarray, "*experts N row_bytes"], first: int, count: int
) -> UInt8[np.ndarray, "*experts count row_bytes"]:
    """Copy `count` rows from `first` on, padded with zeros past the last row."""
    found = np.zeros((*data.shape[:-2], count, data.shape[-1]), np.uint8)
    rows = data[..., first : first + count, :]
    found[..., : rows.shape[-2], :] = rows
    return found


def _columns(part: RowRange, first: int, count: int) -> UInt8[np.ndarray, "*experts N row_bytes"]:
    """Copy columns of all rows, as bytes.

    This reads the file and not its memory map, whose pages would count as memory of this process.
    """
    tensor = part.tensor
    width, size = tensor.data.shape[-1], row_bytes(count, tensor.type)
    start = row_bytes(first, tensor.type)
    stop = min(start + size, width)
    found = np.zeros((math.prod(tensor.shape[:-1]), size), np.uint8)
    step = max(1, READ_BYTES // width)
    for row in range(0, len(found), step) if start < stop else ():
        rows = min(step, len(found) - row)
        read = np.fromfile(tensor.file, np.uint8, rows * width, offset=tensor.offset + row * width)
        found[row : row + rows, : stop - start] = read.reshape(rows, width)[:, start:stop]
    return found.reshape(*tensor.shape[:-1], size)
