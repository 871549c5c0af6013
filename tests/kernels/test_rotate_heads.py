"""The rotation of heads against the Hadamard matrix, on every instruction set of this processor."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guard_pages import guarded
from reference_blocks import hadamard_matrix
from test_simd import ISAS

from minillama import env
from minillama.kernels.cpu.attention.rotate_heads import RotationArgs, define_rotation, rotate_heads, task_rows
from minillama.kernels.cpu.runtime.machine_code import callable_at, compile_kernels
from minillama.kernels.cpu.simd import Isa


@cache
def kernel(size: int, isa: Isa):  # type: ignore[no-untyped-def]
    find = compile_kernels(
        f"test-rotation-{size}", isa, lambda module: define_rotation(module, "rotate", size), env.kernel_cache_dir()
    )
    return callable_at(find("rotate"), 2)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
@pytest.mark.parametrize("size", [16, 64, 512])
def test_the_matrix(isa: Isa, size: int) -> None:
    """In two tasks; the second one is not full."""
    rows = task_rows(size) + 3
    x = guarded(np.random.default_rng(0).standard_normal((rows, size), np.float32))
    out = guarded(np.full(x.shape, np.nan, np.float32))
    args = RotationArgs.pack(x=x.ctypes.data, out=out.ctypes.data, rows=rows)
    for task in range(2):
        kernel(size, isa)(args.ctypes.data, task)
    np.testing.assert_allclose(out, x @ hadamard_matrix(size), atol=3e-6)


def test_in_a_program() -> None:
    """A token gives the same bits in any batch."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40, 3, 128), np.float32))
    rotate = jax.jit(rotate_heads, static_argnums=1)
    found = np.asarray(rotate(x, 64))
    np.testing.assert_allclose(found.reshape(-1, 64), np.asarray(x).reshape(-1, 64) @ hadamard_matrix(64), atol=2e-6)
    np.testing.assert_array_equal(np.asarray(rotate(x[1:, 7:8], 64)), found[1:, 7:8])
