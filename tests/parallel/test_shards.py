"""Assembled shards equal the original matrix, for every type and every spec."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_processes import Check
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from minillama.gguf import Tensor
from minillama.gguf.types import BLOCKS, row_bytes
from minillama.kernels import Files, Weight, place_weight
from minillama.kernels.load_weights import SUPPORTED
from minillama.parallel.sharding import shards
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, REPLICATED, ROWS
from minillama.parallel.sharding.shards import RowRange, load_sharded_matrix, load_sharded_vector

HEADER = 96  # bytes of the file before the tensor


def write_tensor(path: Path, kind: Type, shape: tuple[int, ...]) -> tuple[Tensor, np.ndarray]:
    """Write a tensor of random bytes; return it with the memory map of its file."""
    rng = np.random.default_rng(0)
    size = math.prod(shape[:-1]) * row_bytes(shape[-1], kind)
    raw = rng.integers(0, 256, HEADER + size, np.uint8)
    if kind in (Type.F32, Type.F16, Type.BF16):  # no NaN: a copy may change its payload
        width = size // math.prod(shape)
        raw[HEADER + width - 1 :: width] &= 0x3F
    raw.tofile(path)
    memory = np.memmap(path, np.uint8, "r")
    data = np.asarray(memory[HEADER:]).reshape(*shape[:-1], row_bytes(shape[-1], kind))
    return Tensor("t", shape, kind, data, HEADER, path), np.asarray(memory)


def read_whole(weight: Weight, experts: tuple[int, ...]) -> Array:
    """Values of a matrix, or of a stack of experts."""
    if experts:
        return jnp.stack([read_whole(weight.expert(jnp.int32(number)), ()) for number in range(*experts)])
    return weight.rows(jnp.arange(weight.shape[-2], dtype=jnp.int32))


def read_shards(weight: Weight, experts: tuple[int, ...], mesh: Mesh) -> np.ndarray:
    """Each device's shard of a matrix: [devices, ...]."""
    leaves, structure = jax.tree.flatten(weight)

    def on_device(leaves: list[Array]) -> Array:
        own = jax.tree.unflatten(structure, leaves).device_shard(lax.axis_index(AXIS), mesh.devices.size)
        return read_whole(own, experts)[None]

    specs = [leaf.sharding.spec for leaf in leaves]
    read = jax.shard_map(on_device, mesh=mesh, in_specs=(specs,), out_specs=PartitionSpec(AXIS), check_vma=False)
    return np.asarray(jax.jit(read)(leaves))


def check_shards(folder: Path, kind: Type, experts: tuple[int, ...], counts: tuple[int, ...] = (4,)) -> None:
    """Even and uneven rows, a range of rows, columns, and replicated shards."""
    block = BLOCKS[kind][0]
    rows, width = 24, 4 * block
    shape = (*experts, rows, width)
    tensor, memory = write_tensor(folder / f"{kind.name}-{len(experts)}", kind, shape)
    whole = np.asarray(read_whole(place_weight(np.array(tensor.data), kind, jax.devices()[0]), experts))
    for devices in counts:
        mesh = Mesh(np.array(jax.devices()[:devices]), (AXIS,))

        def cut(spec: PartitionSpec, size: int, n_shards: int, part: RowRange, mesh: Mesh = mesh) -> np.ndarray:
            files = Files({part.tensor.file: memory})
            return read_shards(load_sharded_matrix(part, files, spec, mesh, size, n_shards), experts, mesh)

        everything, some = RowRange(tensor, 0, rows), RowRange(tensor, 8, 12)
        for size, n_shards in (
            (rows // devices, devices),
            (rows // 2, 2),
            (rows, 1),
            (7 if devices > 2 else 13, devices),
        ):
            found = cut(ROWS, size, n_shards, everything)
            for place in range(devices):
                start = place * n_shards // devices * size
                np.testing.assert_array_equal(found[place], padded(whole[..., start : start + size, :], size, -2))
        for size in (width // devices, 3 * block):
            found = cut(COLUMNS, size, devices, everything)
            for place in range(devices):
                shard = padded(whole[..., place * size : (place + 1) * size], size, -1)
                np.testing.assert_array_equal(found[place], shard)
        for place in range(devices):
            np.testing.assert_array_equal(cut(REPLICATED, rows, 1, everything)[place], whole)
        if not experts:
            for size in (12 // devices, 7):
                joined = cut(ROWS, size, devices, some).reshape(-1, width)
                np.testing.assert_array_equal(joined[:12], whole[8:20])
                assert not joined[12:].any()


def padded(shard: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Pad a shard with zeros at its end."""
    extra = [(0, 0)] * shard.ndim
    extra[axis] = (0, size - shard.shape[axis])
    return np.pad(shard, extra)


QUICK = (Type.F32, Type.Q4_K)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.slow, id=kind.name) for kind in SUPPORTED],
)
def test_types(apart: Check, tmp_path: Path, kind: Type) -> None:
    apart(check_shards, tmp_path, kind, ())


@pytest.mark.parametrize("kind", [Type.Q8_0, pytest.param(Type.F32, marks=pytest.mark.slow)])
def test_experts(apart: Check, tmp_path: Path, kind: Type) -> None:
    apart(check_shards, tmp_path, kind, (3,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUPPORTED, ids=lambda kind: kind.name)
def test_types_without_kernels(without_kernels: Check, tmp_path: Path, kind: Type) -> None:
    without_kernels(check_shards, tmp_path, kind, ())


@pytest.mark.slow
def test_two_devices(apart: Check, without_kernels: Check, tmp_path: Path) -> None:
    for run in (apart, without_kernels):
        run(check_shards, tmp_path, Type.Q8_0, (), (2,))
        run(check_shards, tmp_path, Type.F16, (3,), (2,))


@pytest.mark.slow
def test_experts_without_kernels(without_kernels: Check, tmp_path: Path) -> None:
    without_kernels(check_shards, tmp_path, Type.Q8_0, (3,))


@given(
    kind=st.sampled_from([Type.F32, Type.F16, Type.Q8_0, Type.Q6_K, Type.Q4_0]),
    experts=st.sampled_from([(), (1,), (3,)]),
    rows=st.integers(1, 9),
    blocks=st.integers(1, 9),
    devices=st.integers(1, 8),
    extra=st.integers(0, 2),
    read_bytes=st.sampled_from([1, 300, 1 << 20]),
    data=st.data(),
)
def test_any_shape(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Type,
    experts: tuple[int, ...],
    rows: int,
    blocks: int,
    devices: int,
    extra: int,
    read_bytes: int,
    data: st.DataObject,
) -> None:
    """Concatenated shards are the bytes of the tensor, followed by zeros."""
    block, size = BLOCKS[kind]
    path = tmp_path_factory.mktemp("tensor") / "t"
    tensor, _ = write_tensor(path, kind, (*experts, rows, blocks * block))
    first = 0 if experts else data.draw(st.integers(0, rows - 1))
    count = rows if experts else data.draw(st.integers(1, rows - first))
    part = RowRange(tensor, first, count)
    share = -(-count // devices) + extra
    found = np.concatenate([shards._rows(part, place * share, share) for place in range(devices)], axis=-2)
    np.testing.assert_array_equal(found[..., :count, :], tensor.data[..., first : first + count, :])
    assert not found[..., count:, :].any()
    columns = (-(-blocks // devices) + extra) * block
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "READ_BYTES", read_bytes)
        cuts = [shards._columns(RowRange(tensor, 0, rows), place * columns, columns) for place in range(devices)]
    joined = np.concatenate(cuts, axis=-1)
    np.testing.assert_array_equal(joined[..., : blocks * size], tensor.data)
    assert not joined[..., blocks * size :].any()


def check_vectors(path: Path) -> None:
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    values = np.arange(8, dtype=np.float32)
    for kind, dtype in ((Type.F32, np.float32), (Type.F16, np.float16)):
        raw = values.astype(dtype).view(np.uint8)
        tensor = Tensor("v", (8,), kind, raw, 0, path)
        whole = load_sharded_vector(tensor, mesh, None)
        assert whole.sharding.is_fully_replicated
        np.testing.assert_array_equal(whole, values)

        def cut(raw: np.ndarray, place: int, size: int) -> np.ndarray:
            return raw[place * size : (place + 1) * size]

        sharded = load_sharded_vector(tensor, mesh, partial(cut, size=2 * np.dtype(dtype).itemsize))
        assert not sharded.sharding.is_fully_replicated
        np.testing.assert_array_equal(sharded, values)


def test_vectors(apart: Check, tmp_path: Path) -> None:
    apart(check_vectors, tmp_path)
