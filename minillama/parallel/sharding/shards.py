"""The pieces of a tensor that devices hold, and the arrays over all devices that they make up together.

Native kernels read rows where they lie in the mapped file, so that a device touches only its own pages of it. Columns,
and rows that do not divide evenly, are copied, padded with zeros, which add nothing to any sum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from minillama.gguf import Tensor
from minillama.gguf.types import row_bytes
from minillama.kernels import Files, Weight, load_vector, map_rows, place_weight, reads_in_place
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, ROWS

READ_BYTES = 1 << 24  # of a tensor that are in memory at a time while columns are cut out

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class RowRange:
    """Rows of a tensor that make up a matrix of their own, [rows, K]; of stacks of experts always all rows."""

    tensor: Tensor
    first: int
    rows: int


def local_mesh_devices(mesh: Mesh) -> list[tuple[int, jax.Device]]:
    """This process's devices in a mesh of one axis, and their places there."""
    here = jax.process_index()
    return [(place, device) for place, device in enumerate(mesh.devices.flat) if device.process_index == here]


def load_sharded_matrix(
    part: RowRange, files: Files, spec: PartitionSpec, mesh: Mesh, size: int, shares: int
) -> Weight:
    """A matrix cut as `spec` says, as one weight over all devices.

    size: rows or columns of a piece, together not fewer than the matrix has; what
    goes beyond it is zeros. shares: different pieces; fewer than devices where several hold the same one.
    """
    kind, devices = part.tensor.type, mesh.devices.size

    def cut_rows(place: int, device: jax.Device) -> Weight:
        return place_weight(_rows(part, first_row_of_shard(place, devices, shares, size), size), kind, device)

    def cut_columns(place: int, device: jax.Device) -> Weight:
        return place_weight(_columns(part, place * size, size), kind, device)

    def whole(place: int, device: jax.Device) -> Weight:
        return place_weight(_rows(part, 0, part.rows), kind, device)

    stays = all(reads_in_place(device, kind) for _, device in local_mesh_devices(mesh))
    if stays and (spec not in (ROWS, COLUMNS) or (spec == ROWS and size * shares == part.rows)):
        memory = make_sharded(mesh, PartitionSpec(), lambda place, device: files.on(device, part.tensor.file))
        return map_rows(part.tensor, part.first, part.rows, memory, shares if spec == ROWS else 1)
    if spec == ROWS:
        return make_sharded(mesh, PartitionSpec(AXIS), cut_rows)
    if spec == COLUMNS:
        return make_sharded(mesh, PartitionSpec(AXIS), cut_columns)
    return make_sharded(mesh, PartitionSpec(), whole)


def first_row_of_shard(place: int, devices: int, shares: int, size: int) -> int:
    """The first row of a device's piece, where `shares` pieces of `size` rows fall to the devices in their order."""
    return place * shares // devices * size


def load_sharded_vector(
    tensor: Tensor, mesh: Mesh, cut: Callable[[UInt8[np.ndarray, "bytes"], int], UInt8[np.ndarray, "piece"]] | None
) -> Array:
    """A vector in float32, whole on every device or, of its bytes, what `cut` makes of them for each place."""
    raw = tensor.data.reshape(-1)
    return make_sharded(
        mesh,
        PartitionSpec() if cut is None else PartitionSpec(AXIS),
        lambda place, device: load_vector(raw if cut is None else cut(raw, place), tensor.type, tensor.name, device),
    )


def make_sharded(mesh: Mesh, spec: PartitionSpec, make: Callable[[int, jax.Device], Tree]) -> Tree:
    """Trees of arrays, one made for each device, as a tree of arrays over all devices.

    spec: cut along an axis, on which a device's arrays are its pieces, or nothing where all have the same.
    """
    sharding = NamedSharding(mesh, spec)
    trees = [make(place, device) for place, device in local_mesh_devices(mesh)]

    def join(*pieces: Array) -> Array:
        shape = list(pieces[0].shape)
        for axis, name in enumerate(spec):
            if name is not None:
                shape[axis] *= mesh.devices.size
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, list(pieces))

    return jax.tree.map(join, *trees)


def _rows(part: RowRange, first: int, count: int) -> UInt8[np.ndarray, "*experts N row_bytes"]:
    """Some rows of a part, of every expert, as bytes in memory of their own."""
    return pad_rows(part.tensor.data[..., part.first : part.first + part.rows, :], first, count)


def pad_rows(
    data: UInt8[np.ndarray, "*experts N row_bytes"], first: int, count: int
) -> UInt8[np.ndarray, "*experts count row_bytes"]:
    """`count` rows from `first` on as a copy; zeros where there are none any more."""
    found = np.zeros((*data.shape[:-2], count, data.shape[-1]), np.uint8)
    rows = data[..., first : first + count, :]
    found[..., : rows.shape[-2], :] = rows
    return found


def _columns(part: RowRange, first: int, count: int) -> UInt8[np.ndarray, "*experts N row_bytes"]:
    """Some columns of all rows, as bytes; read past the map, whose pages would count as this process's memory."""
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
