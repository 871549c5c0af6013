"""Weights in the mapped file, multiplied in place by the CPU kernels.

All weights of a file share one array, the file itself, as each array argument costs every call of a program some
microseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array

from minillama.array_types import Float, Int, UInt8
from minillama.gguf.types import row_bytes
from minillama.kernels.cpu.matmul_strategies import (
    DECODE_TOKENS,
    SHORT_PROMPT,
    Strategy,
    gemm_strategy,
    gemv_strategy,
    skinny_gemm_strategy,
    strategy,
)
from minillama.kernels.cpu.runtime.ffi_handlers import MAX_MATRICES, PAGE, SCRATCH_UNIT, MatmulPlan
from minillama.kernels.cpu.runtime.grouped_handler import GROUP_BYTES, GroupedPlan
from minillama.kernels.cpu.runtime.kernel_roles import Role, kernel_number
from minillama.kernels.cpu.runtime.registry import load_kernels
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS
from minillama.kernels.grouped_products import RowGroups
from minillama.kernels.weight import Weight


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
        matrices, tokens, width = x.shape
        numbers, starts = (step * jnp.arange(matrices, dtype=jnp.int32) for step in (1, tokens))
        is_prompt = n_valid is not None
        count = jnp.clip(n_valid, 0, tokens) if is_prompt and tokens > SHORT_PROMPT else jnp.int32(tokens)
        groups = RowGroups(first + numbers, starts, starts + count.astype(jnp.int32))
        y = multiply_groups(x.reshape(-1, width), [self], groups, is_prompt)[0].reshape(matrices, tokens, -1)
        is_valid = jnp.arange(tokens, dtype=jnp.int32) < count
        return y if n_valid is None else jnp.where(is_valid[None, :, None], y, 0)

    def grouped_products(
        self, x: Float[Array, "R K"], others: Sequence[Weight], groups: RowGroups
    ) -> list[Float[Array, "R N"]]:
        stacks = [self, *others]
        if all(isinstance(stack, MappedWeight) and _layouts(stack) == _layouts(self) for stack in stacks):
            return multiply_groups(x, stacks, groups)
        return [y for stack in stacks for y in stack.grouped_products(x, [], groups)]

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

    n_valid: number of valid tokens of a prompt; None for tokens of several texts, or for a draft. The results of up to
    DECODE_TOKENS tokens without it have the same bits, however many they are. With more than SHORT_PROMPT tokens of a
    prompt, the results of others are zeros.
    """
    tokens, width = x.shape
    plans, scratch = _plans(weights, tokens, width, is_prompt=n_valid is not None)
    count = jnp.int32(tokens) if n_valid is None or tokens <= SHORT_PROMPT else n_valid.astype(jnp.int32)
    experts = [jnp.int32(0) if weight.index is None else weight.index.astype(jnp.int32) for weight in weights]
    results = [jax.ShapeDtypeStruct((tokens, weight.sizes[-2]), jnp.float32) for weight in weights]
    results.append(jax.ShapeDtypeStruct((scratch,), jnp.uint8))
    *products, _ = jax.ffi.ffi_call("minillama_product", results)(
        _table(plans), x, jnp.stack([*experts, count]), *(weight.memory for weight in weights)
    )
    return products


def multiply_groups(
    x: Float[Array, "R K"], stacks: Sequence[MappedWeight], groups: RowGroups, is_prompt: bool = False
) -> list[Float[Array, "R N"]]:
    """Products of rows with the matrices of their groups, of several stacks in one call.

    Rows outside of all groups are left as the memory was. is_prompt: whether the rows of a group are of one prompt.
    """
    rows, (first, *_) = x.shape[0], stacks
    largest = SHORT_PROMPT if is_prompt else DECODE_TOKENS
    small, middle, large = _strategies(first)
    numbers = jnp.stack([stack.place(groups.matrices.astype(jnp.int32)) for stack in stacks])
    bounds = jnp.stack([groups.starts, groups.ends]).astype(jnp.int32)
    row_size = max(choice.panel_bytes // choice.panel for choice in (small, middle, large))
    partial_tiles, partial_panels = (min(groups.count, rows // count) for count in (2, largest + 1))
    scratch = rows * row_size + partial_tiles * middle.panel_bytes + partial_panels * large.panel_bytes
    scratch += groups.count * (GROUP_BYTES + SCRATCH_UNIT)
    results = [jax.ShapeDtypeStruct((rows, stack.sizes[-2]), jnp.float32) for stack in stacks]
    results.append(jax.ShapeDtypeStruct((scratch + SCRATCH_UNIT,), jnp.uint8))
    plans = [_grouped_plan(stack, rows, groups.count, largest) for stack in stacks]
    *products, _ = jax.ffi.ffi_call("minillama_grouped_product", results)(
        _table(plans), x, numbers, bounds, *(stack.memory for stack in stacks)
    )
    return products


def _grouped_plan(stack: MappedWeight, tokens: int, groups: int, largest: int) -> GroupedPlan:
    kind, parts = stack.kind, min(tokens, groups)
    small, middle, large = _strategies(stack, parts)
    return GroupedPlan(
        gemv=kernel_number(kind, small.role),
        skinny=kernel_number(kind, middle.role),
        gemm=kernel_number(kind, large.role),
        rows=stack.sizes[-2],
        row_bytes=stack.row_bytes,
        page=stack.offset // PAGE,
        page_offset=stack.offset % PAGE,
        matrices=stack.sizes[0],
        decode_task_rows=small.task_rows,
        gemm_task_rows=large.task_rows,
        width=stack.sizes[-1],
        prepare_gemv=kernel_number(kind, small.prepare),
        prepare_skinny=kernel_number(kind, middle.prepare),
        prepare_gemm=kernel_number(kind, large.prepare),
        row_size=small.panel_bytes,
        tile_size=middle.panel_bytes,
        panel_rows=large.panel,
        panel_size=large.panel_bytes,
        skinny_rows=largest,
        is_prompt=int(tokens > TILE_TOKENS * groups),
    )


def _strategies(stack: MappedWeight, parts: int = 1) -> tuple[Strategy, Strategy, Strategy]:
    """Those of a group with one row, some and many."""
    sizes = stack.kind, *stack.sizes[-2:]
    return gemv_strategy(*sizes, parts), skinny_gemm_strategy(*sizes, parts), gemm_strategy(*sizes)


def _layouts(stack: MappedWeight) -> tuple[object, ...]:
    """Equal for stacks that can share converted activations."""
    return *(choice.layout for choice in _strategies(stack)), stack.sizes[-1]


def _plans(weights: Sequence[MappedWeight], tokens: int, width: int, is_prompt: bool) -> tuple[list[MatmulPlan], int]:
    """The plans of a product and the bytes of its scratch memory.

    Matrices share converted activations if these have one layout.
    """
    if len(weights) > MAX_MATRICES:
        raise ValueError(f"{len(weights)} matrices in one product; at most {MAX_MATRICES}")
    plans, places, end = [], {}, 0
    for weight in weights:
        chosen = strategy(weight.kind, weight.sizes[-2], width, tokens, is_prompt)
        size = chosen.scratch_bytes(tokens)
        is_new = chosen.layout not in places and size > 0
        if is_new:
            places[chosen.layout], end = end, end + size // SCRATCH_UNIT + 2
        plans.append(
            weight.plan(
                chosen.role,
                tokens,
                task_rows=chosen.task_rows,
                prepare=kernel_number(weight.kind, chosen.prepare) if is_new else -1,
                unit=chosen.unit,
                scratch=places[chosen.layout] if size else -1,
                is_prompt=int(chosen.role is Role.GEMM),
            )
        )
    return plans, max(1, end) * SCRATCH_UNIT


def _table(plans: Sequence[MatmulPlan | GroupedPlan]) -> Array:
    return jnp.asarray(np.array([plan.row() for plan in plans], np.int32))
