"""Weights in the mapped file, multiplied in place by the CPU kernels.

All weights of a file share one array, the file itself, as each array argument costs every call of a program some
microseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array
from jaxtyping import Float, Int, UInt8

from minillama import env
from minillama.gguf.types import row_bytes
from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.matmul import activations_amx, gemm, gemm_amx
from minillama.kernels.cpu.matmul.activations import PANEL_TOKENS, PanelLayout, RowLayout
from minillama.kernels.cpu.runtime.ffi_handlers import MAX_MATRICES, MAX_STACK, PAGE, SCRATCH_UNIT, MatmulPlan
from minillama.kernels.cpu.runtime.registry import (
    GEMV_ROLES,
    GEMV_TOKENS,
    Role,
    activation_terms,
    chosen_isa,
    kernel_number,
    load_kernels,
)
from minillama.kernels.weight import Weight

_DECODE_TASK_BYTES = 1 << 18  # weights of a task when decoding
_MIN_TASKS = 16  # of a matrix, so that all threads finish at about the same time
_TASKS_PER_THREAD = 4  # in a GEMM with AMX tiles, where larger tasks read the activations less often


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MappedWeight(Weight):
    """A matrix or a stack of experts in a file, `offset` bytes from its start.

    If several devices share it, the rows of each device are a matrix of the stack: `shares` for each matrix.
    """

    memory: UInt8[Array, "bytes"]  # of the whole file
    kind: Type = field(metadata={"static": True})
    sizes: tuple[int, ...] = field(metadata={"static": True})
    offset: int = field(metadata={"static": True})
    shares: int = field(default=1, metadata={"static": True})
    index: Int[Array, ""] | None = None  # of the expert, or of the device's share

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes if self.index is None else self.sizes[1:]

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return row_bytes(self.sizes[-1], self.kind)

    def expert(self, index: Int[Array, ""]) -> "MappedWeight":
        return replace(self, index=self.place(index.astype(jnp.int32)))

    def place(self, number: Int[Array, "*axes"]) -> Int[Array, "*axes"]:
        """The places of matrices in the stack: of this device's share of each."""
        return number * self.shares + (0 if self.index is None else self.index)

    def device_shard(self, index: Int[Array, ""], devices: int) -> "MappedWeight":
        return self if self.shares == 1 else replace(self, index=index * self.shares // devices)

    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        return multiply(x, [self])[0]

    def products(
        self, x: Float[Array, "T K"], others: Sequence[Weight], n_valid: Int[Array, ""] | None = None
    ) -> list[Float[Array, "T N"]]:
        if all(isinstance(weight, MappedWeight) for weight in others) and len(others) < MAX_MATRICES:
            return multiply(x, [self, *others], n_valid)
        return super().products(x, others, n_valid)

    def batched_product(
        self, x: Float[Array, "P T K"], first: Int[Array, ""] | int = 0, n_valid: Int[Array, ""] | None = None
    ) -> Float[Array, "P T N"]:
        starts = range(0, x.shape[0], MAX_STACK)
        return jnp.concatenate([multiply_stack(x[i : i + MAX_STACK], self, first + i, n_valid) for i in starts])

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        count, width = self.sizes[-2:]
        plan = self.plan(Role.EMBED, ids.shape[0], rows=math.prod(self.sizes[:-1]))
        out = jax.ShapeDtypeStruct((ids.shape[0], width), jnp.float32)
        ids = jnp.clip(ids.astype(jnp.int32), 0, count - 1)
        if self.index is not None:
            ids = ids + self.index.astype(jnp.int32) * count
        return jax.ffi.ffi_call("minillama_rows", out)(_table([plan]), ids, self.memory)

    def plan(self, role: Role, tokens: int, *, rows: int | None = None, **tasks: int) -> MatmulPlan:
        """The plan of a call of one of its kernels."""
        return MatmulPlan(
            kernel=kernel_number(self.kind, role),
            rows=self.sizes[-2] if rows is None else rows,
            width=self.sizes[-1],
            row_bytes=self.row_bytes,
            page=self.offset // PAGE,
            page_offset=self.offset % PAGE,
            tokens=tokens,
            matrices=self.sizes[0] if len(self.sizes) > 2 else 1,
            **tasks,
        )


def map_weight(
    memory: UInt8[Array, "bytes"], offset: int, kind: Type, shape: tuple[int, ...], shares: int = 1
) -> MappedWeight:
    """A tensor of a mapped file as a weight, without a copy.

    shares: number of devices among which the rows of each matrix are divided.
    """
    load_kernels(kind)
    if shares > 1:
        shape = (math.prod(shape[:-2]) * shares, shape[-2] // shares, shape[-1])
    return MappedWeight(memory, kind, shape, offset, shares)


def multiply(
    x: Float[Array, "T K"], weights: Sequence[MappedWeight], n_valid: Int[Array, ""] | None = None
) -> list[Float[Array, "T N"]]:
    """x Wᵀ for several matrices in one call, without a barrier between them.

    n_valid: number of valid tokens. With more than max(GEMV_TOKENS) tokens, the results of others are zeros.
    """
    tokens, width = x.shape
    padded = _padded(tokens)
    if padded > tokens:
        x = jnp.pad(x, ((0, padded - tokens), (0, 0)))
    plans, scratch = _plans(weights, padded, width)
    count = _count(padded, n_valid)
    experts = [jnp.int32(0) if weight.index is None else weight.index.astype(jnp.int32) for weight in weights]
    results = [jax.ShapeDtypeStruct((padded, weight.sizes[-2]), jnp.float32) for weight in weights]
    results.append(jax.ShapeDtypeStruct((scratch,), jnp.uint8))
    *products, _ = jax.ffi.ffi_call("minillama_product", results)(
        _table(plans), x, jnp.stack([*experts, count]), *(weight.memory for weight in weights)
    )
    return [y[:tokens] for y in products]


def multiply_stack(
    x: Float[Array, "P T K"], stack: MappedWeight, first: Int[Array, ""] | int, n_valid: Int[Array, ""] | None = None
) -> Float[Array, "P T N"]:
    """x[p] W[first + p]ᵀ for P matrices of a stack in one call; see `multiply`."""
    parts, tokens, width = x.shape
    padded = _padded(tokens)
    x = jnp.pad(x, ((0, 0), (0, padded - tokens), (0, 0)))
    chosen = _strategy(stack, padded, width, parts)
    units = chosen.scratch_bytes // SCRATCH_UNIT + 2 if chosen.scratch_bytes else 0
    prepare = kernel_number(stack.kind, chosen.prepare) if units else -1
    plan = stack.plan(
        chosen.role,
        padded,
        task_rows=chosen.task_rows,
        prepare=prepare,
        unit=chosen.unit,
        scratch=units or -1,
        is_prompt=int(padded not in GEMV_TOKENS),
    )
    numbers = stack.place(first + jnp.arange(parts, dtype=jnp.int32))
    result = jax.ShapeDtypeStruct((parts, padded, stack.sizes[-2]), jnp.float32)
    scratch = jax.ShapeDtypeStruct((max(1, parts * units) * SCRATCH_UNIT,), jnp.uint8)
    y, _ = jax.ffi.ffi_call("minillama_stack", (result, scratch))(
        _table([plan]), x, jnp.concatenate([numbers, _count(padded, n_valid)[None]]), stack.memory
    )
    return y[:, :tokens]


def _padded(tokens: int) -> int:
    """The number of tokens that a kernel is compiled for."""
    return next((count for count in GEMV_TOKENS if count >= tokens), tokens)


def _count(padded: int, n_valid: Int[Array, ""] | None) -> Int[Array, ""]:
    """The number of tokens to multiply."""
    return jnp.int32(padded) if padded in GEMV_TOKENS or n_valid is None else n_valid.astype(jnp.int32)


class _Strategy(NamedTuple):
    """The kernels, the layout of the activations and the task size of a product."""

    role: Role
    prepare: Role
    unit: int  # tokens that a preparation task converts
    scratch_bytes: int  # of the converted activations; 0 if the kernel uses them as they are
    layout: object  # equal for matrices that can share converted activations
    task_rows: int


def _gemv_strategy(weight: MappedWeight, tokens: int, width: int, parts: int) -> _Strategy:
    form, rows = FORMATS.get(weight.kind), weight.sizes[-2]
    size = 0 if form is None else tokens * RowLayout(width, form.group).size
    task_rows = max(8, min(_DECODE_TASK_BYTES // weight.row_bytes, rows, rows * parts // _MIN_TASKS))
    layout = None if form is None else (form.group, form.permutation)
    return _Strategy(GEMV_ROLES[tokens], Role.PREPARE_GEMV, 1, size, layout, task_rows)


def _amx_strategy(weight: MappedWeight, tokens: int, width: int, terms: int) -> _Strategy:
    unit = activations_amx.PANEL_TOKENS
    size = -(-tokens // unit) * activations_amx.TileLayout(width, terms).size
    share = weight.sizes[-2] // (_TASKS_PER_THREAD * env.thread_limits()[1])
    step = gemm_amx.MICROTILE_ROWS
    task_rows = min(gemm_amx.MAX_UNPACKED_ROWS, max(step, share // step * step))
    return _Strategy(Role.GEMM, Role.PREPARE_GEMM, unit, size, terms, task_rows)


def _gemm_strategy(weight: MappedWeight, tokens: int, width: int) -> _Strategy:
    form, unit = FORMATS.get(weight.kind), PANEL_TOKENS
    size = -(-tokens // unit) * (4 * width * unit if form is None else PanelLayout(width, form.group).size)
    task_rows = min(gemm.MAX_UNPACKED_ROWS, max(8, weight.sizes[-2] // 32 // 8 * 8))
    layout = None if form is None else (form.group, form.zero_point)
    return _Strategy(Role.GEMM, Role.PREPARE_GEMM, unit, size, layout, task_rows)


def _strategy(weight: MappedWeight, tokens: int, width: int, parts: int = 1) -> _Strategy:
    """The strategy of a product; parts: matrices like this one in the same call."""
    if tokens in GEMV_TOKENS:
        return _gemv_strategy(weight, tokens, width, parts)
    terms = activation_terms(weight.kind, chosen_isa())
    return _gemm_strategy(weight, tokens, width) if terms is None else _amx_strategy(weight, tokens, width, terms)


def _plans(weights: Sequence[MappedWeight], tokens: int, width: int) -> tuple[list[MatmulPlan], int]:
    """The plans of a product and the bytes of its scratch memory.

    Matrices share converted activations if these have one layout.
    """
    if len(weights) > MAX_MATRICES:
        raise ValueError(f"{len(weights)} matrices in one product; at most {MAX_MATRICES}")
    plans, places, end = [], {}, 0
    for weight in weights:
        chosen = _strategy(weight, tokens, width)
        is_new = chosen.layout not in places and chosen.scratch_bytes > 0
        if is_new:
            places[chosen.layout], end = end, end + chosen.scratch_bytes // SCRATCH_UNIT + 2
        plans.append(
            weight.plan(
                chosen.role,
                tokens,
                task_rows=chosen.task_rows,
                prepare=kernel_number(weight.kind, chosen.prepare) if is_new else -1,
                unit=chosen.unit,
                scratch=places[chosen.layout] if chosen.scratch_bytes else -1,
                is_prompt=int(tokens not in GEMV_TOKENS),
            )
        )
    return plans, max(1, end) * SCRATCH_UNIT


def _table(plans: Sequence[MatmulPlan]) -> Array:
    return jnp.asarray(np.array([plan.row() for plan in plans], np.int32))
