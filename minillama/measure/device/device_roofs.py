"""Limits of JAX's first device: memory, products, and the time of calls, kernels and loops."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float
from minillama.measure.device.report_rows import Sizes, Value
from minillama.measure.limits.bandwidth import array_bytes, best_seconds, device_bandwidth

ARRAYS = 450  # arguments of a step of a 7B model
FEW, MANY = 64, 256  # links of a chain; the difference leaves out the call
SIDE = 64  # rows and columns of a small product


def device_roofs(sizes: Sizes) -> Iterator[Value]:
    """All limits, the quickest last."""
    yield Value("read", device_bandwidth(size=sizes.read_bytes, passes=sizes.passes) / 1e9, "GB/s")
    yield Value("copy", _copy_bandwidth(array_bytes(sizes.read_bytes), sizes.passes) / 1e9, "GB/s")
    yield from _products(sizes)
    yield from _calls(20 * sizes.passes)
    yield from _chains(sizes.passes)


def _copy_bandwidth(size: int, passes: int) -> float:
    """Bytes per second read and written while every number of an array changes."""
    whole = jnp.ones(size // 4, jnp.float32)
    change = jax.jit(lambda x: x + 1)
    return 2 * whole.nbytes / best_seconds(lambda: jax.block_until_ready(change(whole)), passes)


def _products(sizes: Sizes) -> Iterator[Value]:
    """Speeds of square products, and the error of float32 at default precision."""
    a, b = jax.random.normal(jax.random.key(0), (2, sizes.matrix, sizes.matrix), jnp.float32)
    operations, found = 2 * sizes.matrix**3, {}
    for name, dtype, precision in (
        ("bfloat16", jnp.bfloat16, lax.Precision.DEFAULT),
        ("float32", jnp.float32, lax.Precision.DEFAULT),
        ("float32, highest precision", jnp.float32, lax.Precision.HIGHEST),
    ):
        product = jax.jit(partial(jnp.matmul, precision=precision))
        x, y = a.astype(dtype), b.astype(dtype)
        found[name] = product(x, y)
        seconds = best_seconds(partial(_finished, product, x, y), sizes.passes)
        yield Value(f"product, {name}", operations / seconds / 1e12, "TFLOP/s")
    exact = found["float32, highest precision"]
    error = jnp.max(jnp.abs(found["float32"] - exact)) / jnp.std(exact)
    yield Value("error of float32", float(error), "std")


def _calls(passes: int) -> Iterator[Value]:
    """Microseconds of a call that does next to nothing, with few arguments and with many."""
    few = [jnp.zeros(8, jnp.float32)]
    many = [jnp.zeros(8, jnp.float32) for _ in range(ARRAYS)]
    first = jax.jit(lambda arrays: arrays[0] + 1, keep_unused=True)
    yield Value("call", 1e6 * best_seconds(partial(_finished, first, few), passes), "us")

    def dispatched() -> None:
        jax.block_until_ready([first(few) for _ in range(100)])

    yield Value("call, 100 without a wait", 1e4 * best_seconds(dispatched, max(1, passes // 20)), "us")
    yield Value(f"call with {ARRAYS} arrays", 1e6 * best_seconds(partial(_finished, first, many), passes), "us")


def _chains(passes: int) -> Iterator[Value]:
    """Microseconds of a small product in a program, and of a loop's turn.

    Only the device has the end of the loop.
    """
    x = jnp.full((SIDE, SIDE), 1 / SIDE, jnp.float32)
    chains = (jax.jit(partial(chain, links)) for links in (FEW, MANY))
    few, many = (best_seconds(partial(_finished, one, x), passes) for one in chains)
    yield Value("small product in a program", 1e6 * (many - few) / (MANY - FEW), "us")
    loop = jax.jit(turns)
    few, many = (
        best_seconds(partial(_finished, loop, x, jnp.int32(count)), passes) for count in (FEW, MANY)
    )  # one program: the count is an argument
    yield Value("turn of a loop", 1e6 * (many - few) / (MANY - FEW), "us")


def chain(links: int, x: Float[Array, "S S"]) -> Float[Array, "S S"]:
    """A chain of small products; XLA cannot fuse one with the next."""
    for _ in range(links):
        x = jnp.matmul(x, x)
    return x


def turns(x: Float[Array, "S S"], count: Array) -> Float[Array, "S S"]:
    """As many turns of a loop as an argument says, each with one small product."""
    return lax.fori_loop(0, count, lambda _, y: jnp.matmul(y, y), x)


def _finished(call: Callable[..., Any], *args: Any) -> None:
    jax.block_until_ready(call(*args))
