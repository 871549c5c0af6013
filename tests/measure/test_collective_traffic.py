"""Collectives of compiled programs: kinds, bytes, counts; formulas agree with XLA's programs."""

import json
import subprocess
import sys

import pytest

from minillama.measure.limits.collective_traffic import (
    Collective,
    CollectiveArray,
    CollectiveKind,
    layer_parallel_bytes,
    list_collectives,
    rpc_bytes,
    sent_bytes,
    tensor_parallel_bytes,
)

# The suite's own JAX has one device; these programs want eight, and are compiled in a process of their own.
PROGRAMS = """
import json, sys
import minillama
from minillama import env
env.prepare(cpu_devices=8, platform="cpu")
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P

def text(function, specs, out, *shapes, devices=8):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("tensor",))
    sharded = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    return jax.jit(sharded).lower(*shapes).compile().as_text()

def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)

def layers(count, devices):
    def run(x, up, down):
        def layer(x, weights):
            x = x + jax.lax.psum((x @ weights[0]) @ weights[1], "tensor")
            return x + jax.lax.psum((x @ weights[0]) @ weights[1], "tensor"), None
        return jax.lax.scan(layer, x, (up, down))[0]
    specs = P(), P(None, None, "tensor"), P(None, "tensor", None)
    return text(run, specs, P(), array(3, 64), array(count, 64, 128), array(count, 128, 64), devices=devices)

def every(x):
    a = jax.lax.all_gather(x, "tensor", tiled=True)
    b = jax.lax.psum_scatter(a, "tensor", tiled=True)
    c = jax.lax.ppermute(b, "tensor", [(i, (i + 1) % 8) for i in range(8)])
    d = jax.lax.all_to_all(c.reshape(8, 2), "tensor", 0, 0)
    return jax.lax.psum(d, "tensor")

def pairs(x):
    return jax.lax.psum(x, "tensor", axis_index_groups=[[0, 1], [2, 3], [4, 5], [6, 7]])

def unknown(x, n):
    return jax.lax.fori_loop(0, n, lambda _, a: jax.lax.psum(a, "tensor") * 0.1, x)

def branch(x, n):
    return jax.lax.cond(n > 0, lambda a: jax.lax.psum(a, "tensor"), lambda a: a, x)

def nested(x):
    def inner(a, _):
        return jax.lax.psum(a, "tensor") * 0.1, None
    def outer(a, _):
        return jax.lax.scan(inner, a, None, length=4)[0], None
    return jax.lax.scan(outer, x, None, length=3)[0]

one = array(128), array(dtype=jnp.int32)
json.dump({
    "2 devices": layers(5, 2), "8 devices": layers(5, 8),
    "every": text(every, P("tensor"), P(), array(128)),
    "pairs": text(pairs, P(), P("tensor"), array(16)),
    "unknown": text(unknown, (P("tensor"), P()), P("tensor"), *one),
    "branch": text(branch, (P("tensor"), P()), P("tensor"), *one),
    "nested": text(nested, P("tensor"), P("tensor"), array(128)),
    "half": text(lambda x: jax.lax.all_gather(x, "tensor"), P("tensor"), P(), array(64, dtype=jnp.bfloat16)),
    "none": text(lambda x: x * 2, P("tensor"), P("tensor"), array(64)),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAMS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("devices", [2, 8])
def test_formula_agrees_with_the_compiled_program(programs: dict[str, str], devices: int) -> None:
    """Five layers of two all-reduces in a scan, three tokens of 64 numbers."""
    (found,) = list_collectives(programs[f"{devices} devices"])
    assert found == Collective(CollectiveKind.ALL_REDUCE, (CollectiveArray("f32", (3, 64)),), devices, 10)
    assert found.bytes == 3 * 64 * 4
    assert sent_bytes((found,)) == tensor_parallel_bytes(5, 64, 3, devices)


def test_a_ring_sends_what_the_formula_says() -> None:
    """Simulate a ring: 2 (n - 1) rounds, in which every device sends one piece."""
    for n in (2, 3, 8):
        held = [[float(7 * device + piece) for piece in range(n)] for device in range(n)]
        want = [sum(row[piece] for row in held) for piece in range(n)]
        sent = 0
        for turn in range(2 * (n - 1)):
            pieces = [(device - turn) % n for device in range(n)]
            carried = [held[device][piece] for device, piece in enumerate(pieces)]
            for device, piece in enumerate(pieces):
                other = (device + 1) % n
                held[other][piece] = carried[device] + (held[other][piece] if turn < n - 1 else 0.0)
            sent += 1
        assert all(row == want for row in held)
        reduced = Collective(CollectiveKind.ALL_REDUCE, (CollectiveArray("f32", (n,)),), n, 1)
        assert reduced.sent == pytest.approx(sent * 4)


def test_every_kind_is_read(programs: dict[str, str]) -> None:
    found = {entry.kind: entry for entry in list_collectives(programs["every"])}
    assert set(found) == set(CollectiveKind)
    assert all(
        entry.count == 1 and (entry.devices == 8 or entry.kind is CollectiveKind.PERMUTE) for entry in found.values()
    )
    assert found[CollectiveKind.ALL_GATHER].parts == (CollectiveArray("f32", (128,)),)
    assert found[CollectiveKind.ALL_GATHER].sent == 7 * 16 * 4
    assert found[CollectiveKind.REDUCE_SCATTER].parts == (CollectiveArray("f32", (128,)),), (
        "what is scattered, not what is left of it"
    )
    assert found[CollectiveKind.REDUCE_SCATTER].sent == 7 * 16 * 4
    assert found[CollectiveKind.PERMUTE].sent == 16 * 4
    assert found[CollectiveKind.ALL_TO_ALL].bytes == 16 * 4 and found[CollectiveKind.ALL_TO_ALL].sent == 7 * 2 * 4
    assert found[CollectiveKind.ALL_REDUCE].sent == 2 * 7 / 8 * 16 * 4


def test_groups_types_and_none_at_all(programs: dict[str, str]) -> None:
    (paired,) = list_collectives(programs["pairs"])
    assert paired.devices == 2 and paired.sent == 16 * 4
    (half,) = list_collectives(programs["half"])
    assert half.kind is CollectiveKind.ALL_GATHER and half.bytes in (64 * 2, 64 * 4), (
        "XLA on a processor may widen bfloat16"
    )
    assert list_collectives(programs["none"]) == () and list_collectives("") == ()


def test_loops_count_and_unknown_ones_say_so(programs: dict[str, str]) -> None:
    assert [entry.count for entry in list_collectives(programs["nested"])] == [12]
    assert [entry.count for entry in list_collectives(programs["unknown"])] == [None]
    assert [entry.count for entry in list_collectives(programs["branch"])] == [None]
    assert sent_bytes(list_collectives(programs["unknown"])) == 2 * 7 / 8 * 16 * 4


ASYNCHRONOUS = """HloModule jit_f, is_scheduled=true, replica_count=1, num_partitions=4

%async_computation (p: f32[32]) -> f32[8] {
  %p = f32[32]{0} parameter(0)
  ROOT %rs = f32[8]{0} reduce-scatter(%p), channel_id=4, replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
}

%main.1 (a: f32[8,2]) -> f32[8,2] {
  %a = f32[8,2]{1,0} parameter(0)
  %s = f32[8,2]{1,0:S(1)} all-reduce-start(%a), channel_id=1, replica_groups={}, to_apply=%add
  %d = f32[8,2]{1,0} all-reduce-done(%s)
  %g = (f32[8,2]{1,0}, f32[16,2]{1,0}) all-gather-start(%d), replica_groups=[2,2]<=[4], dimensions={0}
  %h = f32[16,2]{1,0} all-gather-done(%g)
  %c = (bf16[8]{0}, bf16[8]{0}, u32[], u32[]) collective-permute-start(%h), source_target_pairs={{0,1},{1,0}}
  %e = bf16[8]{0} collective-permute-done(%c)
  %r = ((f32[32]{0}), f32[8]{0}, s32[]) async-start(%e), calls=%async_computation
  ROOT %q = f32[8]{0} async-done(%r), calls=%async_computation
}

ENTRY %main.2 (a: f32[8,2]) -> f32[8,2] {
  %a = f32[8,2]{1,0} parameter(0)
  ROOT %r = f32[8,2]{1,0} call(%a), to_apply=%main.1
}
"""


def test_what_gpus_start_and_finish_counts_once() -> None:
    """Asynchronous forms of GPU programs count once; the text follows XLA's grammar."""
    found = {entry.kind: entry for entry in list_collectives(ASYNCHRONOUS)}
    assert found[CollectiveKind.ALL_REDUCE] == Collective(
        CollectiveKind.ALL_REDUCE, (CollectiveArray("f32", (8, 2)),), 4, 1
    )
    assert found[CollectiveKind.ALL_GATHER] == Collective(
        CollectiveKind.ALL_GATHER, (CollectiveArray("f32", (16, 2)),), 2, 1
    )
    assert (
        found[CollectiveKind.PERMUTE].parts == (CollectiveArray("bf16", (8,)),)
        and found[CollectiveKind.PERMUTE].bytes == 16
    )
    assert found[CollectiveKind.REDUCE_SCATTER] == Collective(
        CollectiveKind.REDUCE_SCATTER, (CollectiveArray("f32", (32,)),), 4, 1
    )
    assert len(found) == len(list_collectives(ASYNCHRONOUS))


def test_bytes_of_types() -> None:
    sizes = {"pred": 3, "s4": 2, "f8e4m3fn": 3, "bf16": 6, "f32": 12, "c64": 24}
    assert {dtype: CollectiveArray(dtype, (3,)).bytes for dtype in sizes} == sizes
    assert CollectiveArray("f32", ()).bytes == 4 and str(CollectiveArray("f32", (2, 3))) == "f32[2,3]"


def test_formulas_of_other_ways() -> None:
    assert tensor_parallel_bytes(16, 2048, 1, 1) == 0
    assert tensor_parallel_bytes(1, 8, 1, 4, offered=40) == 2 * 1.5 * 32 + 3 * 40 * 4
    assert tensor_parallel_bytes(1, 8, 1, 4, by_exchange=True) == 2 * 3 * 32
    assert tensor_parallel_bytes(9, 8, 7, 2, by_exchange=True) == tensor_parallel_bytes(9, 8, 7, 2)
    assert layer_parallel_bytes(2048, 3, 4) == 3 * 8192 and layer_parallel_bytes(2048, 3, 1) == 0
    assert rpc_bytes(2048, 1, 2) == 4 * 8192
