"""The delta rule's kernel against the formula, on every instruction set of this processor.

The tests call the tasks of a kernel as its handler does, so that all instruction sets are tested.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_calls import InThisProcess
from numpy_delta_net import delta_rule as slow_rule
from test_simd import ISAS

from minillama import env
from minillama.kernels.cpu.delta_rule.delta_rule_kernel import ROWS, DeltaRuleArgs, DeltaRuleSpec, define_delta_rule
from minillama.kernels.cpu.delta_rule.delta_rule_op import delta_rule, fits
from minillama.kernels.cpu.runtime.machine_code import compile_kernels
from minillama.kernels.cpu.simd import Isa
from minillama.model.layer_kinds import DeltaNet
from minillama.model.layers.recurrent import delta_rule as forms

BATCH, KEY_HEADS, HEADS = 2, 2, 6
EPSILON = 1e-3
by_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)


def inputs(size: int, time: int, seed: int = 0) -> list[np.ndarray]:
    """q, k, v, log_decay, beta, memory; the last value head forgets everything."""
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, BATCH, time, KEY_HEADS, size)) * 0.1
    v, memory = rng.standard_normal((BATCH, time, HEADS, size)), rng.standard_normal((BATCH, HEADS, size, size))
    log_decay, beta = -rng.exponential(size=(BATCH, time, HEADS)), rng.uniform(size=(BATCH, time, HEADS))
    log_decay[:, :, -1] = -1e4
    return [x.astype(np.float32) for x in (q, k, v, log_decay, beta, memory)]


def expected(parts: list[np.ndarray], grouped: bool) -> list[np.ndarray]:
    of_head = np.arange(HEADS) // (HEADS // KEY_HEADS) if grouped else np.arange(HEADS) % KEY_HEADS
    q, k, *rest = parts
    q, k = (x / np.sqrt((x.astype(np.float64) ** 2).sum(-1, keepdims=True) + EPSILON) for x in (q, k))
    q = q / np.sqrt(q.shape[-1])
    rows = [slow_rule(q[b][:, of_head], k[b][:, of_head], *(x[b] for x in rest)) for b in range(BATCH)]
    return [np.stack(found) for found in zip(*rows, strict=True)]


@cache
def kernel(size: int, isa: Isa):  # type: ignore[no-untyped-def]
    return compile_kernels(
        f"test-delta-rule-{size}", isa, lambda module: define_delta_rule(module, "panel", DeltaRuleSpec(size)),
        env.kernel_cache_dir(),
    )  # fmt: skip


def run(
    isa: Isa, parts: list[np.ndarray], grouped: bool, on: InThisProcess | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Results and the memory after the tokens.

    on: where the kernel runs, None for this process.
    """
    on = InThisProcess(kernel(parts[2].shape[-1], isa)) if on is None else on
    guarded = on.guarded
    qkv, log_decay, beta, memory = (guarded(np.array(x)) for x in (side_by_side(parts), *parts[3:]))
    v, width = parts[2], 4 * KEY_HEADS * parts[2].shape[-1]
    decay, out = guarded(np.exp(log_decay)), guarded(np.full(v.shape, np.nan, np.float32))
    epsilon, scale = (int(bits) for bits in np.array([EPSILON, v.shape[-1] ** -0.5], np.float32).view(np.int32))
    args = DeltaRuleArgs.pack(
        time=v.shape[1], key_heads=KEY_HEADS, value_heads=HEADS, grouped=int(grouped), epsilon=epsilon, scale=scale,
        channels=qkv.shape[-1], q=qkv.ctypes.data, k=qkv.ctypes.data + width, v=qkv.ctypes.data + 2 * width,
        decay=decay.ctypes.data, beta=beta.ctypes.data, memory=memory.ctypes.data, out=out.ctypes.data,
    )  # fmt: skip
    for task in range(BATCH * HEADS * (v.shape[-1] // ROWS)):
        on.call("panel", args, task)
    return out, memory


def side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    """Queries, keys and values, [B, T, C]."""
    return np.concatenate([x.reshape(*x.shape[:2], -1) for x in parts[:3]], axis=-1)


@by_isa
class TestKernel:
    @pytest.mark.parametrize("size", [ROWS, 96])
    def test_the_formula(self, isa: Isa, size: int) -> None:
        for time, grouped in ((1, True), (1, False), (2, False), (23, True)):
            parts = inputs(size, time)
            for got, right in zip(run(isa, parts, grouped), expected(parts, grouped), strict=True):
                np.testing.assert_allclose(got, right, atol=1e-5)

    def test_any_split_gives_the_same_bits(self, isa: Isa) -> None:
        parts = inputs(ROWS, 9)
        out, memory = run(isa, parts, grouped=True)
        *tokens, after = parts
        found = []
        for start, stop in ((0, 1), (1, 6), (6, 9)):
            piece, after = run(isa, [*(x[:, start:stop] for x in tokens), after], grouped=True)
            found.append(piece)
        np.testing.assert_array_equal(np.concatenate(found, axis=1), out)
        np.testing.assert_array_equal(after, memory)


def test_sizes() -> None:
    assert [fits(size) for size in (ROWS, 128, 8, 48)] == [True, True, False, False]


def test_in_a_program() -> None:
    """Through JAX; the memory of an argument that is not donated stays as it was."""
    parts = inputs(ROWS, 5)
    log_decay, beta, memory = (jnp.asarray(x) for x in parts[3:])
    call = partial(delta_rule, key_heads=KEY_HEADS, epsilon=EPSILON, grouped=False)
    found = jax.jit(call)(jnp.asarray(side_by_side(parts)), jnp.exp(log_decay), beta, memory)
    np.testing.assert_array_equal(np.asarray(memory), parts[-1])
    for got, right in zip(found, expected(parts, grouped=False), strict=True):
        np.testing.assert_allclose(np.asarray(got), right, atol=1e-5)


def test_padded_tokens_change_nothing() -> None:
    """The model gives them a beta and a logarithm of the decay of 0."""
    parts = inputs(ROWS, 5)
    for zeros in parts[3:5]:
        zeros[:, 2:] = 0
    layer = DeltaNet(KEY_HEADS, HEADS, ROWS, 4, grouped=True)
    arrays = (jnp.asarray(x) for x in (side_by_side(parts), *parts[3:]))
    _, memory = forms.delta_rule(*arrays, layer, EPSILON)
    cut = [*(x[:, :2] for x in parts[:5]), parts[5]]
    np.testing.assert_allclose(np.asarray(memory), run(ISAS[0], cut, grouped=True)[1], atol=1e-6)
